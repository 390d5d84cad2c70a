"""Each mode sees the differences it is for, and no others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dlpm.errors import InputError
from dlpm.events import Admit, Event, Evict, Finish, Order, Output, Preempt, Refill
from dlpm_engine.adapter import Snapshot
from dlpm_engine.differential.modes import LEDGER, LOCKSTEP, MODES, SERVICE_ONLY, SUBJECTS, make_mode
from dlpm_engine.differential.record import StepRecord, Tally

CLIENTS = {"r1": "A", "r2": "B"}
STATE = Snapshot(deficits={"A": 3, "B": -1}, queue=("r9",), running=("r1", "r2"), free_tokens=4, cached_tokens=9)
EVENTS: tuple[Event, ...] = (
    Order(step=1, requests=("r1", "r2"), matched=(4, 0)),
    Refill(step=1, deficits={"A": 5}),
    Evict(step=1, tokens=3),
    Admit(step=1, request="r1", matched=4, extend=2, deficit=3),
    Admit(step=1, request="r2", matched=0, extend=6, deficit=1),
    Preempt(step=1, request="r9", kind="recompute", deficit=0),
    Output(step=1, tokens={"r1": 1, "r2": 1}, deficits={"A": 3, "B": -1}),
    Finish(step=1, request="r1"),
)
RECORD = StepRecord(EVENTS, STATE)


def changed(place: int, **values: object) -> StepRecord:
    """The record with one event changed."""
    event = replace(EVENTS[place], **values)  # type: ignore[arg-type]
    return StepRecord((*EVENTS[:place], event, *EVENTS[place + 1 :]), STATE)


def state(**values: object) -> StepRecord:
    """The record with the state changed."""
    return StepRecord(EVENTS, replace(STATE, **values))  # type: ignore[arg-type]


SWAPPED = StepRecord((*EVENTS[:3], EVENTS[4], EVENTS[3], *EVENTS[5:]), STATE)
WITHOUT_LAST = StepRecord(EVENTS[:-1], STATE)

# What is different, and the modes that must see it.
DIFFERENCES = {
    "order of the queue": (changed(0, requests=("r2", "r1")), {LOCKSTEP}),
    "match in the order": (changed(0, matched=(4, 1)), {LOCKSTEP}),
    "refill": (changed(1, deficits={"A": 6}), {LOCKSTEP, LEDGER}),
    "eviction": (changed(2, tokens=4), {LOCKSTEP}),
    "matched tokens alone": (changed(3, matched=3), {LOCKSTEP}),
    "extend tokens": (changed(3, extend=3), set(MODES)),
    "deficit in an admission": (changed(3, deficit=2), {LOCKSTEP}),
    "order of admissions": (SWAPPED, {LOCKSTEP}),
    "preemption": (changed(5, request="r8"), {LOCKSTEP}),
    "output tokens": (changed(6, tokens={"r1": 1}), set(MODES)),
    "deficits in an output": (changed(6, deficits={"A": 3}), {LOCKSTEP, LEDGER}),
    "finish": (WITHOUT_LAST, {LOCKSTEP}),
    "deficits": (state(deficits={"A": 3, "B": 0}), {LOCKSTEP, LEDGER}),
    "queue": (state(queue=()), {LOCKSTEP}),
    "running batch": (state(running=("r2", "r1")), {LOCKSTEP}),
    "free tokens": (state(free_tokens=5), {LOCKSTEP}),
    "cached tokens": (state(cached_tokens=8), {LOCKSTEP}),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", DIFFERENCES)
def test_a_mode_sees_a_difference_if_and_only_if_it_is_for_it(mode: str, what: str) -> None:
    found, seen_by = DIFFERENCES[what]
    difference = make_mode(mode, CLIENTS).difference(RECORD, found)
    assert (difference is not None) == (mode in seen_by)


@pytest.mark.parametrize("mode", MODES)
def test_equal_steps_do_not_differ_and_are_counted(mode: str) -> None:
    tally = Tally()
    comparison = make_mode(mode, CLIENTS)
    assert comparison.difference(RECORD, StepRecord(EVENTS, replace(STATE))) is None
    comparison.count(RECORD, tally)
    assert tally.steps == 1
    expected = {
        # 7 events but the order, and one request that waits and was not just preempted: none (r9 was).
        LOCKSTEP: 7,
        # Two admissions, one refill, one forward.
        LEDGER: 4,
        # Two admissions, one forward.
        SERVICE_ONLY: 3,
    }
    assert tally.decisions() == expected[mode]


@pytest.mark.parametrize(
    ("subject", "what"), [("evict", "eviction"), ("cached tokens", "cached tokens"), ("order", "order of the queue")]
)
def test_a_declared_difference_is_not_compared_and_everything_else_is(subject: str, what: str) -> None:
    assert subject in SUBJECTS
    mode = make_mode(LOCKSTEP, CLIENTS, frozenset({subject}))
    assert mode.difference(RECORD, DIFFERENCES[what][0]) is None
    assert mode.difference(RECORD, DIFFERENCES["deficits"][0]) is not None


def test_an_engine_that_does_not_say_what_is_cached_is_not_asked() -> None:
    mode = make_mode(LOCKSTEP, CLIENTS)
    assert mode.difference(RECORD, state(cached_tokens=None)) is None
    assert mode.difference(RECORD, state(cached_tokens=None, free_tokens=0)) is not None


def test_an_order_is_compared_only_where_both_give_one() -> None:
    assert make_mode(LOCKSTEP, CLIENTS).difference(RECORD, StepRecord(EVENTS[1:], STATE)) is None


def test_service_is_compared_as_a_sum_over_the_steps() -> None:
    mode = make_mode(SERVICE_ONLY, CLIENTS)
    early = StepRecord((Admit(step=1, request="r1", matched=0, extend=2),), STATE)
    late = StepRecord((Admit(step=1, request="r1", matched=0, extend=3),), STATE)
    assert mode.difference(early, early) is None
    difference = mode.difference(early, late)
    assert difference is not None
    assert (difference.expected, difference.found) == ({"A": 4}, {"A": 5})


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(InputError, match="lockstep"):
        make_mode("loose", {})
