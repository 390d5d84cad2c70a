"""Run the command line inside the test, and see what a user would see."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from dlpm_engine.cli.main import execute

SMALL = "synthetic:llm-as-a-judge:s1:programs=2:rate=5"
"""A workload of a second, on which policies already differ."""


@dataclass(frozen=True)
class Outcome:
    """Exit code, standard output and standard error."""

    code: int
    out: str
    err: str


class CommandLine:
    """Runs `dlpm` with standard output and error captured."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *arguments: str | Path) -> Outcome:
        self._capture.readouterr()
        code = execute([str(argument) for argument in arguments])
        captured = self._capture.readouterr()
        return Outcome(code, captured.out, captured.err)
