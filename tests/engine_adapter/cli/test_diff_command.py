"""`dlpm diff` as a user meets it: what it prints, writes and returns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from dlpm_engine.differential.case import write_case
from dlpm_engine.differential.corpus import corpus
from tests.engine_adapter.cli.command_line import CommandLine

FAULTY = "tensor+refill-everyone"
PLAIN = '{"schema":"dlpm.workload/1","block_size":1}\n{"id":"r","client":"A","arrival":0,"prompt":[1,2],"output":3}\n'


def test_a_clean_campaign_returns_zero_and_says_what_it_compared(dlpm: CommandLine, tmp_path: Path) -> None:
    outcome = dlpm("diff", "--engine", "reference", "--cases", "50", "--json", tmp_path / "out.json")
    assert outcome.code == 0
    assert "divergences           0" in outcome.out
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["schema"] == "dlpm.diff/1"
    assert result["sound"] is True
    assert result["decisions"] > 1000
    assert result["found"] is None
    assert result["tally"]["cases"] == 50 + len(corpus())


def test_a_divergence_returns_one_and_its_file_shows_it_again(dlpm: CommandLine, tmp_path: Path) -> None:
    outcome = dlpm("diff", "--engine", FAULTY, "--cases", "50", "--save", tmp_path, "--json", "-")
    assert outcome.code == 1
    found = json.loads(outcome.out)["found"]
    assert "why: refill" in found["report"]
    again = dlpm("diff", "--engine", FAULTY, "--workload", found["file"])
    assert again.code == 1
    assert "why: refill" in again.out
    assert dlpm("diff", "--engine", "tensor", "--workload", found["file"]).code == 0


def test_a_workload_without_parameters_takes_them_from_the_command_line(dlpm: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "plain.jsonl"
    path.write_text(PLAIN)
    outcome = dlpm("diff", "--workload", path, "--quantum", "2", "--kv-tokens", "5", "--weights", "1,1", "--json", "-")
    assert outcome.code == 0
    tally = json.loads(outcome.out)["tally"]
    assert (tally["admissions"], tally["finishes"], tally["forwards"]) == (1, 1, 3)


def test_a_trace_that_diverges_is_made_small_and_saved(dlpm: CommandLine, tmp_path: Path) -> None:
    write_case(tmp_path / "long.jsonl", corpus()["quanta of four to one"])
    outcome = dlpm(
        "diff", "--engine", "tensor+one-output-a-client", "--workload", tmp_path / "long.jsonl", "--save", tmp_path
    )
    assert outcome.code == 1
    assert len(list(tmp_path.glob("*shrunk.jsonl"))) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--engine", "nothing"), "engine"),
        (("--engine", "tensor+nothing"), "expected one of"),
        (("--mode", "loose"), "mode"),
        (("--jobs", "0"), "--jobs"),
        (("--device", "tpu"), "--device"),
        (("--engine", "reference", "--device", "cuda"), "--device"),
        (("--workload", "absent.jsonl"), "absent.jsonl"),
        (("--declared", "absent.json"), "absent.json"),
        (("--json", "no/such/folder.json"), "--json"),
        (("--weights", "1", "--workload", "PLAIN"), "--weights"),
        (("--quantum", "7"), "--workload"),
        (("--step-ms", "7"), "--workload"),
        (("--memory", "endless", "--workload", "PLAIN"), "memory"),
        (("--step-ms", "0", "--workload", "PLAIN"), "--step-ms"),
        (("--cases", "-1"), "--cases"),
        (("--seconds", "nan"), "--seconds"),
        (("--seconds", "0"), "--seconds"),
        (("--case-seconds", "inf"), "--case-seconds"),
        (("--least-kinds", "35"), "--least-kinds"),
        (("--save", "no/such/folder"), "--save"),
        (("--workload", "PLAIN", "--cases", "9"), "--cases: expected no such option beside --workload"),
        (("--controls", "--seconds", "9"), "--seconds: expected no such option beside --controls"),
        (("--controls", "--engine", "reference"), "--engine"),
    ],
)
def test_wrong_input_is_one_line_and_returns_two(
    dlpm: CommandLine, tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    path = tmp_path / "plain.jsonl"
    path.write_text(PLAIN)
    outcome = dlpm("diff", *(str(path) if each == "PLAIN" else each for each in arguments))
    assert outcome.code == 2
    assert complaint in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert not outcome.out


def test_a_device_that_is_not_there_is_one_line_before_anything_is_run(dlpm: CommandLine) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    outcome = dlpm("diff", "--engine", "tensor", "--device", "cuda")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "dlpm: --device: this machine has no CUDA device that torch can use\n"


def test_a_saved_case_takes_no_parameters_from_the_command_line(dlpm: CommandLine, tmp_path: Path) -> None:
    write_case(tmp_path / "case.jsonl", corpus()["replies fill the cache"])
    outcome = dlpm("diff", "--workload", tmp_path / "case.jsonl", "--kv-tokens", "50")
    assert outcome.code == 2
    assert "--kv-tokens" in outcome.err


def test_the_controls_can_be_run_from_the_command_line(dlpm: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlpm_engine.differential import faults

    monkeypatch.setattr(faults, "FAULTS", {"one-pass": faults.FAULTS["one-pass"]})
    outcome = dlpm("diff", "--controls")
    assert outcome.code == 0
    assert "ok   planted: one-pass" in outcome.out
    assert "ok   planted in the tester: compares-nothing: caught by" in outcome.out
    assert "7 controls, 0 failed" in outcome.out
