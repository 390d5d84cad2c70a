"""The bounds as rules: on logs in which one client is kept waiting, or sinks too deep.

Weights 1 and 2, a longest input of 1, M = 8 and a quantum of 1: U = 1 + 2 * 8 = 17, and 2(U+Q) = 36.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from dlpm import bounds
from dlpm.cost import CostModel
from dlpm.jsonl import JsonValue
from dlpm_engine.conformance import RULES, Report, Violation
from tests.engine_adapter.conformance.logs import Line, Log, check

HEADER: Line = {
    "schema": "dlpm.events/1",
    "engine": "unfair",
    "policy": "dlpm",
    "weights": {"extend": 1, "output": 2},
    "quantum": {"default": 1},
    "limits": {"max_input": 1, "kv_tokens": 8},
    "memory": "reserving",
    "visibility": "at_admission",
}


def arrive(name: str, client: str, step: int) -> Line:
    return {"event": "arrive", "step": step, "request": name, "client": client, "input": 1, "max_output": 1}


def served(name: str, client: str, deficit: int, step: int) -> list[Line]:
    """One request is admitted, gets its token and finishes: a service of 3."""
    return [
        {"event": "admit", "step": step, "request": name, "matched": 0, "extend": 1, "deficit": deficit - 1},
        {"event": "output", "step": step, "tokens": {name: 1}, "deficits": {client: deficit - 3}},
        {"event": "finish", "step": step, "request": name},
    ]


def unfair_log(rounds: int, *, b_stays_queued: bool, quanta: dict[str, JsonValue] | None = None) -> Log:
    """A waits, and B is served again and again, on a counter that goes down and down."""
    log = [copy.deepcopy(HEADER), arrive("a", "A", 1)]
    log[0]["quantum"] = {"default": 1, "clients": quanta or {}}
    if b_stays_queued:
        log.append(arrive("b-waits", "B", 1))
    for number in range(rounds):
        step = number + 1
        log.append(arrive(f"b{number}", "B", step))
        log += served(f"b{number}", "B", -3 * number, step)
    return log


def bounds_broken(report: Report) -> list[Violation]:
    return [violation for violation in report.violations if RULES[violation.rule].theorem]


@pytest.mark.parametrize(("b_stays_queued", "rule"), [(True, "gap-backlogged"), (False, "gap-any")])
def test_a_client_that_is_left_behind_is_found_when_the_gap_passes_the_bound(b_stays_queued: bool, rule: str) -> None:
    """Each round gives B a service of 3: 36 after twelve rounds, and more with the admission of the thirteenth."""
    log = unfair_log(13, b_stays_queued=b_stays_queued)
    gaps = [violation for violation in bounds_broken(check(log)) if violation.rule.startswith("gap")]
    assert [(violation.rule, violation.client) for violation in gaps] == [(rule, "A")]
    line = log[gaps[0].line - 1]
    assert (line["event"], line["request"]) == ("admit", "b12")
    assert gaps[0].expected.startswith("at most 2(U+Q) = 36 more service")
    assert gaps[0].found.startswith("'B' got 37 more since line ")


def test_after_a_report_the_gap_has_to_open_again() -> None:
    gaps = [v for v in bounds_broken(check(unfair_log(24, b_stays_queued=True))) if v.rule.startswith("gap")]
    assert len(gaps) == 1
    gaps = [v for v in bounds_broken(check(unfair_log(25, b_stays_queued=True))) if v.rule.startswith("gap")]
    assert len(gaps) == 2


def test_the_gap_counts_every_token_of_a_step_that_gives_several() -> None:
    """Two output tokens a step make a service of 5 a round: 36 with the eighth admission, 40 with its output."""
    log: list[Any] = unfair_log(8, b_stays_queued=True)
    for line in log:
        match line.get("event"):
            case "arrive":
                line["max_output"] = 2
            case "admit":
                line["deficit"] = -5 * int(line["request"][1:]) - 1
            case "output":
                (name,) = line["tokens"]
                line |= {"tokens": {name: 2}, "deficits": {"B": -5 * int(name[1:]) - 5}}
    (gap,) = [v for v in bounds_broken(check(log)) if v.rule.startswith("gap")]
    assert (gap.rule, log[gap.line - 1]["event"]) == ("gap-backlogged", "output")
    assert gap.found.startswith("'B' got 40 more since line ")


def test_clients_with_different_quanta_are_not_compared() -> None:
    log = unfair_log(30, b_stays_queued=True, quanta={"B": 2})
    assert not [violation for violation in bounds_broken(check(log)) if violation.rule.startswith("gap")]


def test_a_counter_that_sinks_below_a_floor_is_reported_once_for_each_floor() -> None:
    """B is at -18 after six rounds: one below the printed floor of -17, far below the proven one of 1 - U* = -14."""
    broken = [v for v in bounds_broken(check(unfair_log(9, b_stays_queued=True))) if "floor" in v.rule]
    assert [(violation.rule, violation.found) for violation in broken] == [
        ("deficit-floor-proven", "-15"),
        ("deficit-floor", "-18"),
    ]
    assert broken[0].expected == "a deficit of at least -14, the floor under reserving memory"
    assert broken[1].expected == "a deficit above -U = -17"
    assert [violation.unmet_hypothesis for violation in broken] == [None, None]


def test_a_counter_that_came_back_and_sinks_again_is_reported_again() -> None:
    log = unfair_log(7, b_stays_queued=True)
    step = 8
    log.append({"event": "refill", "step": step, "deficits": {"A": 1, "B": 0}})
    for number in range(7, 14):
        log.append(arrive(f"b{number}", "B", number + 1))
        log += served(f"b{number}", "B", -3 * (number - 7), number + 1)
    floors = [v.found for v in bounds_broken(check(log)) if v.rule == "deficit-floor"]
    assert floors == ["-18", "-18"]


@pytest.mark.parametrize(
    ("memory", "note"),
    [
        ("optimistic", "its memory is optimistic: hypothesis reserving admission of A.1 eq. 2 is not met"),
        (None, "the header does not say what memory is: hypothesis reserving admission of A.1 eq. 2 is not known"),
    ],
)
def test_a_printed_bound_that_is_broken_without_its_hypothesis_says_so(memory: str | None, note: str) -> None:
    log: list[Any] = unfair_log(13, b_stays_queued=True)
    del log[0]["memory"]
    if memory is not None:
        log[0] |= {"memory": memory, "watermark": 0}
    broken = bounds_broken(check(log))
    printed = [violation for violation in broken if violation.rule != "deficit-floor-proven"]
    assert {violation.rule for violation in printed} == {"deficit-floor", "gap-backlogged"}
    assert {violation.unmet_hypothesis for violation in printed} == {note}


def test_the_floor_of_optimistic_memory_is_that_of_all_stated_limits() -> None:
    log: list[Any] = unfair_log(40, b_stays_queued=True)
    log[0] |= {
        "memory": "optimistic",
        "watermark": 0,
        "limits": {**log[0]["limits"], "max_output": 3, "max_running": 2},
    }
    outputs = bounds.outputs_after_admission(8, max_output=3, max_running=2)
    unit = bounds.optimistic_unit(CostModel(1, 2), bounds.longest_recomputation(1, 8, 3), outputs)
    lowest = bounds.deficit_floor(unit)
    (broken,) = [v for v in bounds_broken(check(log)) if v.rule == "deficit-floor-proven"]
    assert broken.expected == f"a deficit of at least {lowest}, the floor under optimistic memory"
    assert outputs != bounds.outputs_after_admission(8, max_output=2, max_running=None), "the two limits are told apart"


def test_a_deficit_above_its_quantum_is_reported_after_the_refill_that_made_it() -> None:
    """A refill that pays a client with credit lifts it above its quantum [DLPM App. A.1 eq. 1]."""
    log: Log = [dict(HEADER), arrive("a", "A", 1), {"event": "refill", "step": 1, "deficits": {"A": 1}}]
    log.append({"event": "refill", "step": 1, "deficits": {"A": 2}})
    report = check(log)
    assert [violation.rule for violation in report.violations] == ["refill-due", "refill-credit", "deficit-ceiling"]
    broken = report.violations[2]
    assert (broken.expected, broken.found, broken.client) == ("a deficit of at most 1", "2", "A")


def test_without_a_stated_limit_the_longest_input_so_far_stands_in() -> None:
    log: list[Any] = unfair_log(7, b_stays_queued=True)
    del log[0]["limits"]["max_input"]
    log[1]["input"] = 5
    broken = [v for v in bounds_broken(check(log)) if v.rule == "deficit-floor"]
    assert [(v.expected, v.found) for v in broken] == [("a deficit above -U = -21", "-21")]
