"""VTC's counters where a client comes back or two clients part: on logs made by hand.

Weights 1 and 2; every input is 1 token. B has two requests in the batch and one in the queue, A has one in the batch
when its second arrives. Before that A is at 3 and B at 6, so A is lifted to 6.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine_adapter.conformance.logs import Line, Log, check
from tests.engine_adapter.conformance.wording import assert_well_described

HEADER: Line = {
    "schema": "dlpm.events/1",
    "engine": "by hand",
    "policy": "vtc",
    "weights": {"extend": 1, "output": 2},
    "memory": "reserving",
}


def arrive(name: str, step: int = 0, tokens: int = 1) -> Line:
    client = name[0].upper()
    return {"event": "arrive", "step": step, "request": name, "client": client, "input": tokens, "max_output": 9}


def admit(name: str, deficit: int, step: int = 0, tokens: int = 1) -> Line:
    return {"event": "admit", "step": step, "request": name, "matched": 0, "extend": tokens, "deficit": deficit}


def output(step: int, tokens: dict[str, Any], deficits: dict[str, Any]) -> Line:
    return {"event": "output", "step": step, "tokens": dict(tokens), "deficits": dict(deficits)}


def preempt(deficit: int) -> Line:
    return {"event": "preempt", "step": 1, "request": "a1", "kind": "recompute", "deficit": deficit}


ONE_EACH = {"b1": 1, "a1": 1, "b2": 1}
COME_BACK: Log = [
    HEADER,
    *map(arrive, ("b1", "b2", "b3", "a1")),
    *(admit("b1", 1), admit("a1", 1), admit("b2", 2)),
    output(0, ONE_EACH, {"B": 6, "A": 3}),
    arrive("a2", step=1),
]


@pytest.mark.parametrize(
    ("right", "without", "lifted"),
    [
        (output(1, ONE_EACH, {"B": 10, "A": 8}), output(1, ONE_EACH, {"B": 10, "A": 5}), (8, 5)),
        (
            output(1, {**ONE_EACH, "a1": 2}, {"B": 10, "A": 10}),
            output(1, {**ONE_EACH, "a1": 2}, {"B": 10, "A": 7}),
            (10, 7),
        ),
        (admit("a2", 7, step=1), admit("a2", 4, step=1), (7, 4)),
        (preempt(6), preempt(3), (6, 3)),
    ],
    ids=["output", "two tokens", "admission", "preemption"],
)
def test_a_lift_that_is_left_out_shows_at_the_next_charge(right: Line, without: Line, lifted: tuple[int, int]) -> None:
    assert check([*COME_BACK, right]).violations == ()
    log = [*COME_BACK, without]
    (violation,) = check(log).violations
    assert (violation.rule, violation.line, violation.client) == ("vtc-lift", len(log), "A")
    assert violation.expected == f"{lifted[0]}: 'A' came back and is lifted to 6"
    assert violation.found == f"{lifted[1]}, as without the lift"
    assert_well_described(log, violation)


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (output(1, ONE_EACH, {"B": 10, "A": 7}), "vtc-charge-output"),
        (output(1, {**ONE_EACH, "a1": 2}, {"B": 10, "A": 5}), "vtc-charge-output"),
        (admit("a2", 6, step=1), "vtc-charge-input"),
        (preempt(4), "vtc-charge-preempt"),
    ],
)
def test_a_counter_that_no_missing_lift_explains_is_a_wrong_charge(line: Line, rule: str) -> None:
    (violation,) = check([*COME_BACK, line]).violations
    assert (violation.rule, violation.client) == (rule, "A")


def parting(rounds: int, limits: dict[str, Any], tokens: int = 1, **header: Any) -> Log:
    """A waits at 0; B is served again and again, and always has another request in the queue."""
    log: Log = [{**HEADER, "limits": limits, **header}, arrive("a1"), arrive("b0", tokens=tokens)]
    for number in range(rounds):
        log.append(arrive(f"b{number + 1}", tokens=tokens))
        log.append(admit(f"b{number}", (number + 1) * tokens, tokens=tokens))
    return log


@pytest.mark.parametrize(
    ("limits", "tokens", "bound"),
    [
        # max(w_p L_input, w_q M): of the stated longest input, or else of the longest so far.
        ({"max_input": 3, "kv_tokens": 4}, 1, 8),
        ({"max_input": 30, "kv_tokens": 4}, 1, 30),
        ({"kv_tokens": 4}, 1, 8),
        ({"kv_tokens": 4}, 10, 10),
    ],
)
def test_counters_that_part_too_far_are_reported_once(limits: dict[str, Any], tokens: int, bound: int) -> None:
    first = bound // tokens + 1
    for rounds, expected in ((first - 1, []), (first, [f"{first * tokens}"]), (first + 3, [f"{first * tokens}"])):
        apart = [v for v in check(parting(rounds, limits, tokens)).violations if v.rule == "vtc-apart"]
        assert [v.found for v in apart] == [f"{far}: 'B' at {far}, 'A' at 0" for far in expected]
        for violation in apart:
            assert violation.expected == f"counters of queued clients at most max(w_p L_input, w_q M) = {bound} apart"
            assert (violation.client, violation.unmet_hypothesis) == ("B", None)


def test_counters_that_drew_near_and_part_again_are_reported_again() -> None:
    log = parting(9, {"kv_tokens": 4})
    log += [arrive("a2", tokens=5), admit("a1", 1), admit("a2", 6, tokens=5), arrive("a3")]
    log += [arrive(f"b{number}") for number in range(10, 20)]
    log += [admit(f"b{number}", number + 1) for number in range(9, 18)]
    apart = [v for v in check(log).violations if v.rule == "vtc-apart"]
    assert [v.found for v in apart] == ["9: 'B' at 9, 'A' at 0", "9: 'B' at 18, 'A' at 9"]


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"memory": "optimistic", "watermark": 0}, "its memory is optimistic: hypothesis reserving admission of"),
        ({"memory": None}, "its memory is not stated: hypothesis reserving admission of"),
        ({"weights": {"extend": 3, "output": 2}}, "an input token weighs more than an output token: hypothesis w_p"),
    ],
)
def test_a_bound_that_is_broken_without_its_hypothesis_says_so(changes: dict[str, Any], note: str) -> None:
    weight = changes.get("weights", {}).get("extend", 1)
    log: list[Any] = parting(60, {"kv_tokens": 4, "max_input": 1}, **changes)
    for line in log[1:]:
        if line["event"] == "admit":
            line["deficit"] *= weight
    log[0] = {name: value for name, value in log[0].items() if value is not None}
    (violation,) = [v for v in check(log).violations if v.rule == "vtc-apart"]
    assert str(violation.unmet_hypothesis).startswith(note)
