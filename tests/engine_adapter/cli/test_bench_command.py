"""`dlpm bench` measures what it says, and refuses what it cannot measure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.engine_adapter.cli.command_line import CommandLine


def test_step_times_are_given_for_each_engine_and_queue_and_drawn(dlpm: CommandLine, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    outcome = dlpm(
        *("bench", "--suite", "decision", "--sizes", "8,40", "--seconds", "0.05", "--block-size", "128"),
        *("--json", tmp_path / "out.json", "--svg", tmp_path / "out.svg"),
    )
    assert outcome.code == 0
    result = json.loads((tmp_path / "out.json").read_text())
    figures = [(each["engine"], each["waiting"]) for each in result["decision"]]
    engines = ("reference", "tensor", "tensor-batched")
    assert figures == [(engine, waiting) for waiting in (8, 40) for engine in engines]
    assert all(each["median_us"] > 0 and each["steps"] >= 5 for each in result["decision"])
    assert result["machine"]["python"]
    assert (tmp_path / "out.svg").read_text().lstrip().startswith("<?xml")


def test_instances_are_timed_with_as_many_threads_as_asked_for(dlpm: CommandLine) -> None:
    import torch

    before = torch.get_num_threads()
    outcome = dlpm("bench", "--suite", "batched", "--instances", "64", "--threads", "1,2", "--json", "-")
    assert outcome.code == 0
    assert [each["threads"] for each in json.loads(outcome.out)["batched"]] == [1, 2, 1]
    assert torch.get_num_threads() in {1, before}


def test_instances_are_counted_while_they_have_work(dlpm: CommandLine) -> None:
    outcome = dlpm("bench", "--suite", "batched", "--instances", "1,64", "--json", "-")
    assert outcome.code == 0
    one, together, alone = json.loads(outcome.out)["batched"]
    assert (one["instances"], together["instances"], alone["instances"]) == (1, 64, 64)
    # The same cases: one after the other, together, and by the incremental scheduler.
    assert one["instance_steps"] == together["instance_steps"] == alone["instance_steps"] > 64
    assert one["steps"] == one["instance_steps"] > together["steps"]
    assert together["state_bytes"] > one["state_bytes"] > 0
    assert one["processor_seconds"] > 0
    assert one["bandwidth_share"] is None
    assert [each["means"] for each in (one, together, alone)] == ["operations", "operations", "one by one"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--suite", "speed"), "--suite"),
        (("--engine", "vllm"), "--engine"),
        (("--suite", "decision", "--engine", "tensor-kernel"), "--device cuda"),
        (("--sizes", "many"), "--sizes"),
        (("--sizes", "0"), "--sizes"),
        (("--instances", "-1"), "--instances"),
        (("--suite", "batched", "--device", "tpu"), "--device"),
        (("--suite", "decision", "--sizes", "8", "--seconds", "0", "--sglang", "/no/such/python"), "--sglang"),
        (("--svg", "no/such/folder.svg"), "--svg"),
    ],
)
def test_wrong_input_is_one_line_and_returns_two(dlpm: CommandLine, arguments: tuple[str, ...], complaint: str) -> None:
    outcome = dlpm("bench", *arguments)
    assert outcome.code == 2
    assert complaint in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


def test_an_interpreter_without_sglang_is_refused(dlpm: CommandLine) -> None:
    import sys

    outcome = dlpm("bench", "--suite", "decision", "--sizes", "8", "--seconds", "0", "--sglang", sys.executable)
    assert outcome.code == 2
    assert "in which SGLang runs" in outcome.err
