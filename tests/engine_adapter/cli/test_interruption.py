"""A run that is stopped leaves nothing half-written, and says so by its exit code."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_COMMAND = [sys.executable, "-c", "from dlpm_engine.cli.main import run; run()"]
_ENDLESS = ["run", "synthetic:multi-turn-chat:s1:programs=5000", "--policy", "fcfs"]


def started(*arguments: str) -> subprocess.Popen[str]:
    """A command that can be interrupted, even if these tests run in the background of a shell, where nothing can be."""
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    command = [sys.executable, "-c", heard + _COMMAND[2], *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_leaves_no_file(sent: signal.Signals, code: int, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl.gz"
    process = started(*_ENDLESS, "--events", str(log))
    try:
        while process.poll() is None and not any(tmp_path.iterdir()):
            time.sleep(0.05)
        assert not log.exists()
        process.send_signal(sent)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_stops_reading_gets_no_traceback() -> None:
    """As in `dlpm run ... | head -1`."""
    small = ["run", "synthetic:llm-as-a-judge:programs=1", "--policy", "lpm"]
    process = subprocess.Popen([*_COMMAND, *small], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    error = process.stderr.read()
    process.wait(timeout=60)
    assert process.returncode == 1
    assert error == ""


def test_an_interrupted_campaign_keeps_what_was_finished_and_says_how_to_go_on(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    command = ["diff", "--engine", "reference", "--seconds", "600", "--jobs", "2", "--journal", str(journal)]
    process = started(*command)
    try:
        while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < 3):
            time.sleep(0.05)
        finished = journal.read_bytes()
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 130
    assert f"{journal} has all that was finished, the same command goes on" in output
    assert "Traceback" not in error
    assert journal.read_bytes().startswith(finished)
