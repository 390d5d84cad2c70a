"""Whatever a user gets wrong is one clear line on standard error, exit code 2, and no file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine_adapter.cli.command_line import SMALL, CommandLine

WRONG_COMMANDS = {
    "no such command": (["rum"], "rum"),
    "no such option": (["run", SMALL, "--polcy", "dlpm"], "--polcy"),
    "no workload": (["run"], "WORKLOAD"),
    "no log": (["check"], "LOG"),
    "no such file": (["run", "nowhere.jsonl"], "nowhere.jsonl"),
    "no such log": (["check", "nowhere.jsonl"], "nowhere.jsonl"),
    "a folder as workload": (["run", "."], "chunk-N-trace.csv"),
    "no such synthetic workload": (["run", "synthetic:nothing"], "nothing"),
    "no such format": (["run", "present.jsonl", "--format", "csv"], "csv"),
    "no such policy": (["run", SMALL, "--policy", "fair"], "'fair'"),
    "a policy twice": (["run", SMALL, "--policy", "lpm", "--policy", "lpm"], "lpm twice"),
    "a quantum of nothing": (["run", SMALL, "--quantum", "0"], "--quantum"),
    "a quantum that is no number": (["run", SMALL, "--quantum", "many"], "--quantum"),
    "a quantum beyond what logs can say": (["run", SMALL, "--quantum", str(2**70)], f"from 1 to {2**62}"),
    "a router's quantum beyond that": (
        ["run", SMALL, "--workers", "2", "--worker-quantum", str(2**62 + 1)],
        f"--worker-quantum: expected a whole number from 1 to {2**62}",
    ),
    "a memory beyond what logs can say": (["run", SMALL, "--kv-tokens", str(2**70)], "--kv-tokens: expected at most"),
    "a batch beyond that": (["run", SMALL, "--max-running", str(2**70)], "--max-running: expected at most"),
    "blocks beyond that": (["run", SMALL, "--block-size", str(2**70)], "block_size: expected a whole number from 1"),
    "a watermark beyond that": (
        ["run", SMALL, "--memory", "optimistic", "--watermark", str(2**70)],
        "--watermark: expected at most",
    ),
    "a quantum for nobody": (["run", SMALL, "--policy", "fcfs", "--quantum", "10"], "--quantum"),
    "one weight": (["run", SMALL, "--weights", "1"], "--weights"),
    "a weight of nothing": (["run", SMALL, "--weights", "1,0"], "weights.output"),
    "a negative weight": (["run", SMALL, "--weights=-1,2"], "--weights"),
    "a memory too small": (["run", SMALL, "--kv-tokens", "100"], "--kv-tokens"),
    "no memory": (["run", SMALL, "--kv-tokens", "0"], "kv_tokens"),
    "a batch of nobody": (["run", SMALL, "--max-running", "0"], "max_running"),
    "another block size than that of the hashes": (["run", "present.jsonl", "--block-size", "8"], "16"),
    "no such memory": (["run", SMALL, "--memory", "swap"], "--memory"),
    "a watermark without optimism": (["run", SMALL, "--watermark", "5"], "--watermark"),
    "a negative watermark": (["run", SMALL, "--memory", "optimistic", "--watermark", "-5"], "watermark"),
    "no such visibility": (["run", SMALL, "--visibility", "never"], "visibility"),
    "no such GPU": (["run", SMALL, "--gpu", "abacus"], "abacus"),
    "no such model": (["run", SMALL, "--model", "gpt"], "gpt"),
    "no such client rule": (["run", SMALL, "--clients", "zipf"], "zipf"),
    "a limit of nothing": (["run", SMALL, "--limit", "0"], "limit"),
    "a time scale of nothing": (["run", SMALL, "--time-scale", "0"], "scale"),
    "a time scale that is no number": (["run", SMALL, "--time-scale", "fast"], "--time-scale"),
    "a time scale over nothing": (["run", SMALL, "--time-scale", "1/0"], "--time-scale"),
    "one log for many policies": (["run", SMALL, "--events", "log.jsonl"], "{policy}"),
    "a full log of nothing": (["run", SMALL, "--full-log"], "--events"),
    "a workload as log": (["check", "present.jsonl"], "dlpm.events/1"),
    "an empty log": (["check", "empty.jsonl"], "empty"),
    "an empty workload": (["run", "empty.jsonl"], "empty.jsonl"),
    "a log into a folder that is not there": (
        ["run", SMALL, "--policy", "lpm", "--events", "no/such/folder/log.jsonl"],
        "no/such/folder",
    ),
    "results into a folder that is not there": (
        ["run", SMALL, "--policy", "lpm", "--json", "no/such/folder/out.json"],
        "no/such/folder",
    ),
    "a report on a log into a folder that is not there": (
        ["check", "present.jsonl", "--json", "no/such/folder/out.json"],
        "--json: expected a folder that exists, found 'no/such/folder'",
    ),
    "verdicts into a folder that is not there": (
        ["verify", "--json", "no/such/folder/out.json"],
        "--json: expected a folder that exists, found 'no/such/folder'",
    ),
    "a JUnit report into a folder": (["verify", "--junit", "."], "--junit: expected a file, found the folder '.'"),
    "a picture into a folder that is not there": (
        ["run", SMALL, "--policy", "lpm", "--svg", "no/such/folder/out.svg"],
        "no/such/folder",
    ),
}

PRESENT = """\
{"schema":"dlpm.workload/1","block_size":16}
{"id":"r1","client":"A","arrival":0.0,"blocks":[1,2],"input":32,"output":3,"max_output":4}
"""


@pytest.mark.parametrize("name", WRONG_COMMANDS)
def test_a_wrong_command_line_is_one_clear_line_and_leaves_no_file(
    name: str, dlpm: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, mentioned = WRONG_COMMANDS[name]
    monkeypatch.chdir(tmp_path)
    Path("present.jsonl").write_text(PRESENT, "utf-8")
    Path("empty.jsonl").touch()
    outcome = dlpm(*arguments)
    assert outcome.code == 2
    assert outcome.err.startswith("dlpm: ")
    assert outcome.err.count("\n") == 1
    assert mentioned in outcome.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.jsonl", "present.jsonl"]


def test_the_present_workload_of_the_cases_above_is_fine(dlpm: CommandLine, tmp_path: Path) -> None:
    """Else they would fail for another reason than the one they are about."""
    workload = tmp_path / "present.jsonl"
    workload.write_text(PRESENT, "utf-8")
    assert dlpm("run", workload).code == 0


@pytest.mark.parametrize("keep", [1, 40, 80])
def test_a_workload_that_lost_its_tail_names_file_and_line(keep: int, dlpm: CommandLine, tmp_path: Path) -> None:
    workload = tmp_path / "cut.jsonl"
    workload.write_text(PRESENT + PRESENT.splitlines()[1].replace("r1", "r2")[:keep], "utf-8")
    outcome = dlpm("run", workload)
    assert outcome.code == 2
    assert f"{workload}:3: " in outcome.err


def test_a_log_of_the_largest_quantum_and_weights_can_be_read(dlpm: CommandLine, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    largest = ["--quantum", str(2**62), "--weights", "999999999,999999999"]
    assert dlpm("run", SMALL, "--policy", "dlpm", *largest, "--events", log).code == 0
    assert dlpm("check", log).code == 0


def test_a_log_that_lost_its_tail_names_file_and_line(dlpm: CommandLine, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    assert dlpm("run", SMALL, "--policy", "dlpm", "--events", log).code == 0
    lines = log.read_text("utf-8").splitlines(keepends=True)
    log.write_text("".join(lines[:20]) + lines[20][:15], "utf-8")
    outcome = dlpm("check", log)
    assert outcome.code == 2
    assert f"{log}:21: " in outcome.err


def test_a_compressed_log_that_lost_its_tail_is_refused(dlpm: CommandLine, tmp_path: Path) -> None:
    for suffix in ("gz", "zst"):
        log = tmp_path / f"log.jsonl.{suffix}"
        assert dlpm("run", SMALL, "--policy", "dlpm", "--events", log).code == 0
        assert dlpm("check", log).code == 0
        log.write_bytes(log.read_bytes()[:-30])
        outcome = dlpm("check", log)
        assert outcome.code == 2
        assert "truncated" in outcome.err
