"""The bundled log that breaks the printed floor, and what the checker says about it."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from dlpm_engine.cli.main import app
from dlpm_engine.conformance import check_path, render

NAME = "optimistic-breaks-printed-floor.jsonl"
"""Eight one-token prompts in 64 tokens of optimistic memory, weights 1 and 2, quantum 8 (examples/workloads)."""

OPTIONS = ["--policy", "dlpm", "--quantum", "8", "--weights", "1,2", "--kv-tokens", "64", "--full-log"]


def run(repository: Path, log: Path, memory: str) -> None:
    """What `make examples` does, into another file."""
    workload = str(repository / "examples" / "workloads" / NAME)
    result = CliRunner().invoke(app, ["run", workload, *OPTIONS, "--memory", memory, "--events", str(log)])
    assert result.exit_code == 0, result.output


def test_the_bundled_log_is_what_the_reference_writes(repository: Path, tmp_path: Path) -> None:
    run(repository, tmp_path / "log.jsonl", "optimistic")
    bundled = repository / "examples" / "logs" / NAME
    assert bundled.read_bytes() == (tmp_path / "log.jsonl").read_bytes()


def test_the_optimistic_run_breaks_the_printed_floor_and_the_report_says_which_hypothesis_fails(
    repository: Path,
) -> None:
    """U = 1 * 1 + 2 * 64 = 129 [DLPM App. A.1 eq. 2]."""
    report = check_path(repository / "examples" / "logs" / NAME, all_violations=True)
    assert report.exit_code == 1
    assert [violation.rule for violation in report.violations] == ["deficit-floor"]
    violation = report.violations[0]
    assert violation.expected == "a deficit above -U = -129"
    assert int(violation.found) <= -129
    assert violation.unmet_hypothesis == (
        "its memory is optimistic: hypothesis reserving admission of A.1 eq. 2 is not met"
    )
    assert f"the run breaks the printed bound, but {violation.unmet_hypothesis}" in render(report)


def test_the_same_requests_under_reserving_memory_keep_the_printed_floor(repository: Path, tmp_path: Path) -> None:
    run(repository, tmp_path / "log.jsonl", "reserving")
    assert check_path(tmp_path / "log.jsonl", all_violations=True).holds
