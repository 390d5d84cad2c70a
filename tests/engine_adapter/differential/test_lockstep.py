"""The comparison itself: what it does with engines that differ, fail, hang, or say that they cannot."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from dlpm.errors import InputError
from dlpm.events import Event
from dlpm.request import Request
from dlpm_engine.adapter import EngineConfig, OutOfRangeError, Snapshot
from dlpm_engine.differential.case import Case
from dlpm_engine.differential.corpus import corpus
from dlpm_engine.differential.lockstep import CaseTimeoutError, Comparison, Outcome, time_limit
from dlpm_engine.differential.reference_engine import ReferenceEngine
from dlpm_engine.differential.report import report

CASE = corpus()["a refill in the middle of a pass goes on from where it fired"]
HUGE = corpus()["weights near 2^62, out of range"]


class Engine(ReferenceEngine):
    """The reference, with one step replaced."""

    name = "engine"

    def __init__(self, step: Callable[[Engine], tuple[Event, ...]]) -> None:
        super().__init__()
        self._replacement = step
        self.closed = 0

    def step(self) -> tuple[Event, ...]:
        return self._replacement(self)

    def honest(self) -> tuple[Event, ...]:
        """What the reference does."""
        return super().step()

    def close(self) -> None:
        self.closed += 1


def compare(engine: ReferenceEngine, case: Case = CASE, seconds: float | None = None) -> Outcome:
    """Compare with the reference."""
    return Comparison(case, ReferenceEngine(), engine, seconds=seconds).run()


def test_the_reference_does_not_differ_from_itself_on_any_case_of_the_corpus() -> None:
    for case in corpus().values():
        outcome = compare(ReferenceEngine(), case)
        assert outcome.divergence is None
        assert outcome.tally.decisions() > 0


def test_an_exception_is_a_difference_and_both_engines_are_closed() -> None:
    def fails(engine: Engine) -> tuple[Event, ...]:
        raise KeyError("r7")

    engine = Engine(fails)
    divergence = compare(engine).divergence
    assert divergence is not None
    assert divergence.difference.subject == "exception"
    assert "KeyError" in str(divergence.difference.found)
    assert engine.closed == 1


@pytest.mark.parametrize("method", ["configure", "snapshot", "close"])
def test_an_engine_that_cannot_be_set_up_asked_or_closed_is_a_difference(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object, **named: object) -> None:
        raise OSError("no such program")

    engine = ReferenceEngine()
    monkeypatch.setattr(engine, method, fails)
    divergence = compare(engine).divergence
    assert divergence is not None
    assert divergence.difference.subject == "exception"
    assert "no such program" in str(divergence.difference.found)
    assert (divergence.step == 0) == (method != "close")
    assert "no such program" in report(CASE, divergence, "theirs")


def test_an_engine_that_hangs_is_a_difference() -> None:
    def hangs(engine: Engine) -> tuple[Event, ...]:
        while True:
            time.sleep(0.001)

    divergence = compare(Engine(hangs), seconds=0.2).divergence
    assert divergence is not None
    assert "CaseTimeoutError" in str(divergence.difference.found)


def test_a_reference_that_takes_too_long_is_unfinished_and_no_difference() -> None:
    class Slow(ReferenceEngine):
        def step(self) -> tuple[Event, ...]:
            time.sleep(5)
            return super().step()

    outcome = Comparison(CASE, Slow(), ReferenceEngine(), seconds=0.1).run()
    assert outcome.unfinished
    assert outcome.divergence is None


def test_an_engine_may_say_that_a_counter_leaves_int64_only_where_it_does() -> None:
    def gives_up(engine: Engine) -> tuple[Event, ...]:
        raise OutOfRangeError("too much")

    divergence = compare(Engine(gives_up), CASE).divergence
    assert divergence is not None
    assert divergence.difference.subject == "range"
    honest = compare(Engine(gives_up), HUGE)
    assert honest.divergence is None
    assert honest.out_of_range


def test_a_missing_last_event_is_a_difference() -> None:
    divergence = compare(Engine(lambda engine: engine.honest()[:-1])).divergence
    assert divergence is not None
    assert divergence.difference.found is None


def test_a_wrong_state_is_a_difference_even_if_all_events_agree() -> None:
    class Leaky(ReferenceEngine):
        def snapshot(self) -> Snapshot:
            state = super().snapshot()
            return Snapshot(state.deficits, state.queue, state.running, state.free_tokens - 1, state.cached_tokens)

    divergence = compare(Leaky()).divergence
    assert divergence is not None
    assert divergence.difference.subject == "free tokens"


def test_a_request_refused_by_one_engine_alone_is_a_difference() -> None:
    class Picky(ReferenceEngine):
        def submit(self, request: Request) -> None:
            if request.id == "r3":
                raise InputError("not this one")
            super().submit(request)

    divergence = compare(Picky()).divergence
    assert divergence is not None
    assert divergence.difference.subject == "submission"


def test_parameters_that_an_engine_refuses_end_the_comparison() -> None:
    class Fixed(ReferenceEngine):
        def configure(self, config: EngineConfig, *, full_log: bool) -> None:
            raise InputError("only one configuration", field="config")

    with pytest.raises(InputError, match="only one configuration"):
        compare(Fixed())


def test_a_limit_that_was_ignored_once_is_said_again() -> None:
    reached = False
    with pytest.raises(CaseTimeoutError), time_limit(0.05):
        try:
            time.sleep(60)
        except CaseTimeoutError:
            reached = True
        time.sleep(60)
    assert reached
