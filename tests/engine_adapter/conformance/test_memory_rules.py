"""What running requests certainly hold: when a fault is reported again, and what one that leaves gives back."""

from __future__ import annotations

from typing import Any

import pytest

from dlpm_engine.conformance import Report
from tests.engine_adapter.conformance.logs import Line, check


def header(visibility: str, **limits: int) -> Line:
    return {
        "schema": "dlpm.events/1",
        "engine": "e",
        "policy": "fcfs",
        "weights": {"extend": 1, "output": 2},
        "limits": dict(limits),
        "memory": "reserving",
        "visibility": visibility,
    }


def arrive(name: str, tokens: int = 1) -> Line:
    return {"event": "arrive", "step": 0, "request": name, "client": "A", "input": tokens, "max_output": 1}


def admit(name: str, extend: int = 1) -> Line:
    return {"event": "admit", "step": 0, "request": name, "matched": 0, "extend": extend}


def output(*names: str) -> Line:
    return {"event": "output", "step": 0, "tokens": dict.fromkeys(names, 1)}


def leave(kind: str, name: str) -> Line:
    line: Line = {"event": kind, "step": 0, "request": name}
    return {**line, "kind": "recompute"} if kind == "preempt" else line


def found(report: Report, rule: str) -> list[tuple[int, str]]:
    return [(violation.line, violation.found) for violation in report.violations if violation.rule == rule]


def test_a_batch_that_is_too_large_is_reported_when_it_first_is_and_again_after_it_was_not() -> None:
    log: list[Any] = [header("at_admission", max_running=1), *map(arrive, "abcd")]
    log += [admit("a"), admit("b"), admit("c"), output("a", "b", "c")]
    log += [leave("finish", "a"), leave("finish", "b"), leave("finish", "c"), admit("d")]
    assert found(check(log), "max-running") == [(7, "2")]
    log += [arrive("e"), admit("e")]
    assert found(check(log), "max-running") == [(7, "2"), (len(log), "2")]


def test_overbooked_memory_is_reported_when_it_first_is() -> None:
    log: list[Any] = [header("at_admission", kv_tokens=5), *map(arrive, "abcdefg"), *map(admit, "abcdefg")]
    assert found(check(log), "memory-overbooked") == [(len(log) - 1, "at least 6")]


@pytest.mark.parametrize("extend", [1, 2, 5])
def test_who_leaves_before_the_forward_gives_its_extend_tokens_back(extend: int) -> None:
    """Two requests join, of which one leaves: what a third then holds beside the other is its own 9 and 1 of output.

    An extend of 1 may be a token that is in memory already, so it never counted.
    """
    log: list[Any] = [header("after_forward", kv_tokens=14), arrive("a", extend), arrive("b", 3), arrive("c", 9)]
    log += [admit("a", extend), admit("b", 3), leave("preempt", "a"), admit("c", 9)]
    held = 3 + 9 + 2
    assert found(check(log), "memory-overbooked") == []
    log[0] = header("after_forward", kv_tokens=held - 1)
    assert found(check(log), "memory-overbooked") == [(len(log), f"at least {held}")]


def test_a_request_that_never_arrived_is_reported_once_whatever_is_said_of_it_later() -> None:
    log: list[Any] = [header("at_admission"), arrive("a"), admit("a"), admit("ghost"), output("a", "ghost")]
    log += [leave("finish", "ghost"), leave("finish", "a")]
    assert [(v.rule, v.line) for v in check(log).violations] == [("admit-queued", 4)]
