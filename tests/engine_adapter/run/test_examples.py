"""The bundled workloads are what the program beside them writes."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from dlpm.workload import read
from dlpm_engine.run.compare import Setup, run_policy
from dlpm_engine.run.options import EngineOptions, PolicyChoice

EXAMPLES = Path(__file__).parents[3] / "examples"
WORKLOADS = sorted((EXAMPLES / "workloads").glob("*.jsonl"))


def test_writing_the_examples_anew_gives_the_same_bytes(tmp_path: Path) -> None:
    runpy.run_path(str(EXAMPLES / "make_workloads.py"))["write_all"](tmp_path)
    written = sorted(tmp_path.iterdir())
    assert [path.name for path in written] == [path.name for path in WORKLOADS]
    for new, bundled in zip(written, WORKLOADS, strict=True):
        assert new.read_bytes() == bundled.read_bytes(), f"run make examples: {bundled.name} differs"


@pytest.mark.parametrize("path", WORKLOADS, ids=lambda path: path.stem)
def test_every_example_runs_to_its_end(path: Path) -> None:
    result = run_policy(Setup.of(read(path), EngineOptions()), PolicyChoice("dlpm", 2000))
    assert result.summary.finished == result.summary.requests > 0
    assert result.bound_holds
