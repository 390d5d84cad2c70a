"""SGLang's own order beside ours: runs `sglang_lpm.py` with an interpreter that has SGLang."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from dlpm.errors import InputError
from dlpm_engine.bench.decision import DecisionTime, Subject, summed_up

SGLANG = "sglang"

_PROGRAM = Path(__file__).with_name("sglang_lpm.py")
_REPETITIONS = 5
_BLOCK_SIZE = 1


def measure_sglang(python: str, lengths: Sequence[int]) -> Iterator[DecisionTime]:
    """Time SGLang's `calc_priority("lpm")` for each queue length. It orders the queue, and does nothing else of a step.

    Raises:
        InputError: there is no such interpreter, or SGLang does not run in it.
    """
    arguments = [python, "-P", str(_PROGRAM), str(_REPETITIONS), *map(str, lengths)]
    try:
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            output, complaints = process.communicate()
    except OSError as error:
        raise InputError(f"cannot be run: {error.strerror}", source=python, field="--sglang") from error
    if process.returncode:
        last = (complaints.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"expected an interpreter in which SGLang runs: {last}", source=python, field="--sglang")
    for line in output.splitlines():
        if not line.startswith("{"):
            continue
        row = json.loads(line)
        subject = Subject(f"{SGLANG} {row['sglang']}", row["waiting"], _BLOCK_SIZE)
        yield summed_up(subject, row["processor_us"], row["wall_us"])
