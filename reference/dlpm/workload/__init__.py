"""What is scheduled: workload files, public traces, synthetic and random workloads. Start with `load`."""

from dlpm.workload.files import read, write
from dlpm.workload.fuzz import random_workload
from dlpm.workload.load import Loaded, LoadOptions, load, load_described
from dlpm.workload.synthetic import Spec, generate, parse_spec

__all__ = [
    "LoadOptions",
    "Loaded",
    "Spec",
    "generate",
    "load",
    "load_described",
    "parse_spec",
    "random_workload",
    "read",
    "write",
]
