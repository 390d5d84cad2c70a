"""`dlpm run --workers N`: routers and local policies side by side, as a user sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.engine_adapter.cli.command_line import SMALL, CommandLine

ROUTERS = ("d2lpm", "round-robin", "per-client-round-robin", "least-loaded", "preble", "cache-aware")
POLICIES = ("fcfs", "lpm", "vtc", "dlpm", "preble")


def test_every_policy_runs_behind_every_router_and_every_log_holds(dlpm: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    outcome = dlpm(
        *("run", SMALL, "--workers", "3", "--worker-quantum", "9000", "--notice-delay", "2", "--speeds", "1,2,1/2"),
        *[part for router in ROUTERS for part in ("--dispatch", router)],
        *[part for policy in POLICIES for part in ("--policy", policy)],
        *("--json", file, "--events", tmp_path / "{policy}.jsonl"),
    )
    assert (outcome.code, outcome.err) == (0, "")
    document: dict[str, Any] = json.loads(file.read_text("utf-8"))
    assert document["cluster"] == {"workers": 3, "speeds": ["1", "2", "1/2"], "notice_delay": 2}
    assert [(run["dispatch"], run["policy"]) for run in document["runs"]] == [
        (router, policy) for router in ROUTERS for policy in POLICIES
    ]
    for run in document["runs"]:
        assert run["finished"] == run["requests"] == document["workload"]["requests"]
        assert run["worker_quantum"] == (9000 if run["dispatch"] == "d2lpm" else None)
        assert run["bound"] is None
    logs = sorted(tmp_path.glob("*.jsonl"))
    assert len(logs) == len(ROUTERS) * len(POLICIES)
    for log in logs:
        checked = dlpm("check", log)
        assert checked.code == 0, checked.out


def test_the_results_of_a_cluster_keep_to_the_schema(dlpm: CommandLine, tmp_path: Path, repository: Path) -> None:
    file = tmp_path / "out.json"
    dlpm("run", SMALL, "--workers", "2", "--policy", "dlpm", "--json", file)
    schema = json.loads((repository / "docs" / "schemas" / "results.schema.json").read_text("utf-8"))
    jsonschema.validate(json.loads(file.read_text("utf-8")), schema)


def test_each_worker_quantum_is_a_run_of_its_own_and_the_table_names_it(dlpm: CommandLine) -> None:
    outcome = dlpm(
        *("run", SMALL, "--workers", "2", "--policy", "dlpm", "--quantum", "500"),
        *("--worker-quantum", "3000", "--worker-quantum", "4000"),
    )
    assert "d2lpm Qw=3000 + dlpm Q=500" in outcome.out
    assert "d2lpm Qw=4000 + dlpm Q=500" in outcome.out


def test_one_worker_behind_a_router_gives_the_numbers_of_one_worker(dlpm: CommandLine, tmp_path: Path) -> None:
    alone, routed = tmp_path / "alone.json", tmp_path / "routed.json"
    dlpm("run", SMALL, "--policy", "dlpm", "--json", alone)
    dlpm("run", SMALL, "--policy", "dlpm", "--workers", "1", "--dispatch", "cache-aware", "--json", routed)
    first, second = (json.loads(file.read_text("utf-8"))["runs"][0] for file in (alone, routed))
    # A bound is judged for one worker alone, and gaps at refills are looked for there.
    differing = {"dispatch", "worker_quantum", "wall_seconds", "bound", "bound_holds"}
    assert {name: value for name, value in first.items() if name not in differing} == {
        name: value for name, value in second.items() if name not in differing
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dispatch", "d2lpm"], "--dispatch: expected --workers beside it"),
        (["--worker-quantum", "5"], "--worker-quantum: expected --workers beside it"),
        (["--notice-delay", "1"], "--notice-delay: expected --workers beside it"),
        (["--speeds", "1"], "--speeds: expected --workers beside it"),
        (["--workers", "0"], "--workers: expected 1 to 1024, found 0"),
        (["--workers", "2", "--speeds", "1"], "--speeds: expected 2 numbers, found 1"),
        (["--workers", "1", "--speeds", "fast"], "--speeds: expected numbers such as 1,1,0.5, found 'fast'"),
        (["--workers", "2", "--speeds", "1,0"], "--speeds: expected numbers > 0, found 0"),
        (["--workers", "2", "--notice-delay", "-1"], "--notice-delay: expected a whole number of steps, found -1"),
        (["--workers", "2", "--dispatch", "random"], "--dispatch: expected one of d2lpm, round-robin, "),
        (["--workers", "2", "--dispatch", "preble", "--dispatch", "preble"], "--dispatch: expected once"),
        (
            ["--workers", "2", "--worker-quantum", "0"],
            "--worker-quantum: expected a whole number from 1 to 4611686018427387904, found 0",
        ),
        (["--workers", "2", "--worker-quantum", "7", "--worker-quantum", "7"], "--worker-quantum: expected once"),
        (
            ["--workers", "2", "--dispatch", "preble", "--worker-quantum", "7"],
            "--worker-quantum: expected d2lpm as --dispatch beside it",
        ),
    ],
)
def test_a_cluster_that_cannot_be_is_refused_in_one_line(dlpm: CommandLine, arguments: list[str], said: str) -> None:
    outcome = dlpm("run", SMALL, *arguments)
    assert outcome.code == 2
    assert outcome.err.startswith(f"dlpm: {said}")
    assert outcome.err.count("\n") == 1
