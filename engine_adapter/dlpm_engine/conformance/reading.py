"""Checking a log by its file name."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from dlpm.engine_profile import EngineProfile
from dlpm.files import raw_lines
from dlpm_engine.conformance.checker import check_log
from dlpm_engine.conformance.report import Report
from dlpm_engine.files import open_binary


def check_path(path: Path, *, all_violations: bool = False, profile: EngineProfile | None = None) -> Report:
    """Check the log in a plain, gzip or Zstandard file, as `check_log` does. Memory does not grow with its length.

    Raises:
        InputError: the file cannot be read, or is no event log, or has no event, or contradicts ``profile``.
    """
    with closing(raw_lines(path, open_binary)) as lines:
        return check_log(lines, source=str(path), all_violations=all_violations, profile=profile)
