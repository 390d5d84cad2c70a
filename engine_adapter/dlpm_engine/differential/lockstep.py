"""Run one case on two engines, step by step, until it is over or they differ."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Protocol

from dlpm.arrivals import Arrivals
from dlpm.errors import InputError
from dlpm.events import Admit, Event, Finish, Output, Preempt, Refill
from dlpm.request import Request
from dlpm_engine.adapter import EngineAdapter, OutOfRangeError, Snapshot
from dlpm_engine.differential.case import Case
from dlpm_engine.differential.modes import LOCKSTEP, Difference, make_mode
from dlpm_engine.differential.record import StepRecord, Tally

_INT64 = range(-(2**63), 2**63)
_EMPTY = Snapshot(deficits={}, queue=(), running=(), free_tokens=0)


class Observer(Protocol):
    """Watches what the reference does, to say which kinds of decision a case reached."""

    def arrived(self, request: Request, before: Snapshot) -> None:
        """``request`` has just been submitted; ``before`` is the state after the last step."""

    def refused(self) -> None:
        """A request was refused at submission."""

    def stepped(self, before: Snapshot, record: StepRecord) -> None:
        """A step was taken."""

    def left_int64(self) -> None:
        """A counter left the range of int64."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where two engines part.

    Attributes:
        step: number of the step, from 1.
        difference: the first disagreement in it.
        before: both states before the step, the reference's first.
        expected: what the reference did in the step.
        found: what the engine did; ``None`` if it raised an exception.
        submitted: requests submitted since the step before.
    """

    step: int
    difference: Difference
    before: tuple[Snapshot, Snapshot]
    expected: StepRecord
    found: StepRecord | None
    submitted: tuple[Request, ...] = ()


@dataclass(slots=True)
class Outcome:
    """What came of one case.

    ``out_of_range``: it ended where the algorithm itself leaves int64, and the engine said so. ``unfinished``: the
    reference took too long, and nothing is known about the rest of the case.
    """

    tally: Tally = field(default_factory=Tally)
    divergence: Divergence | None = None
    out_of_range: bool = False
    unfinished: bool = False


class CaseTimeoutError(RuntimeError):
    """A case took too long: an engine hangs."""


_AGAIN_SECONDS = 0.5


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise `CaseTimeoutError` in the block after so many seconds; no limit outside the main thread.

    And again until the block is left: Python drops what is raised in a destructor or a callback of its collector.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def expired(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise CaseTimeoutError(f"no end after {seconds} s")

    previous = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


class Comparison:
    """Drives a reference and an engine through one case, in lockstep."""

    def __init__(
        self,
        case: Case,
        reference: EngineAdapter,
        engine: EngineAdapter,
        *,
        mode: str = LOCKSTEP,
        excused: frozenset[str] = frozenset(),
        observer: Observer | None = None,
        seconds: float | None = None,
    ) -> None:
        """Compare ``engine`` with ``reference`` on ``case``, for ``seconds`` at most.

        Raises:
            InputError: there is no such mode, or the requests wait for each other for ever.
        """
        self._case = case
        self._engines = (reference, engine)
        self._mode = make_mode(mode, {request.id: request.client for request in case.requests}, excused)
        self._observer = observer
        self._seconds = seconds
        self._arrivals = Arrivals(case.requests)
        self._requests = {request.id: request for request in case.requests}
        self._outcome = Outcome()
        self._states = (_EMPTY, _EMPTY)
        self._now_us = 0
        self._number = 0
        self._submitted: tuple[Request, ...] = ()

    def run(self) -> Outcome:
        """Run the case to its end, or to the first difference. Both engines are closed afterwards.

        Raises:
            InputError: an engine refuses the parameters.
        """
        try:
            with time_limit(self._seconds):
                self.begin()
                while self._outcome.divergence is None and self.submit_due() and self.step():
                    pass
        except CaseTimeoutError:
            self.give_up()
        return self.end()

    def begin(self) -> None:
        """Configure both engines.

        Raises:
            InputError: an engine refuses the parameters.
        """
        reference, engine = self._engines
        reference.configure(self._case.config, full_log=True)
        state = reference.snapshot()
        self._states = (state, state)
        try:
            engine.configure(self._case.config, full_log=True)
            self._states = (state, engine.snapshot())
        except InputError:
            raise
        # As for a step: a finding, not an end.
        except Exception as error:
            self._raised(error, 0, StepRecord((), state), ())

    def end(self) -> Outcome:
        """Close both engines; what came of the case."""
        reference, engine = self._engines
        reference.close()
        try:
            engine.close()
        # As for a step.
        except Exception as error:
            if self._outcome.divergence is None:
                self._raised(error, self._number, StepRecord((), self._states[0]), ())
        self._outcome.tally.cases = 1
        return self._outcome

    def give_up(self) -> None:
        """The case takes too long."""
        self._outcome.unfinished = True

    def submit_due(self) -> bool:
        """Submit what is due before the next step to both; False if the case is over, or they disagree about one."""
        state = self._states[0]
        next_us = self._arrivals.next_us()
        if not state.queue and not state.running:
            if next_us is None:
                return False
            self._now_us = max(self._now_us, next_us)
        self._number += 1
        self._submitted = tuple(request for _, request in self._arrivals.take_due(self._now_us))
        return self._submit(self._number, self._submitted)

    def step(self) -> bool:
        """One step of both; False if the case is over."""
        goes_on = self._step(self._number, self._submitted, self._now_us)
        self._now_us += self._case.step_us
        return goes_on

    def _submit(self, number: int, due: tuple[Request, ...]) -> bool:
        """Submit what is due to both; False if they disagree about a request."""
        for request in due:
            refusals = [_refusal(engine, request) for engine in self._engines]
            if refusals[0] != refusals[1]:
                self._differs(
                    number, Difference("submission", 0, *refusals), StepRecord((), self._states[0]), None, due
                )
                return False
            if self._observer is not None:
                if refusals[0]:
                    self._observer.refused()
                else:
                    self._observer.arrived(request, self._states[0])
        return True

    def _step(self, number: int, submitted: tuple[Request, ...], now_us: int) -> bool:
        """One step of both; False if the case is over."""
        reference, engine = self._engines
        expected = StepRecord(reference.step(), reference.snapshot())
        found: StepRecord | None = None
        try:
            found = StepRecord(engine.step(), engine.snapshot())
            difference = self._mode.difference(expected, found)
        except OutOfRangeError as error:
            if leaves_int64(expected):
                self._outcome.out_of_range = True
                if self._observer is not None:
                    self._observer.left_int64()
                return False
            difference = Difference("range", 0, "every value is an int64", str(error))
        # Whatever a scheduler under test does wrong is a finding, not an end of the campaign.
        except Exception as error:
            self._raised(error, number, expected, submitted)
            return False
        if difference is not None:
            self._differs(number, difference, expected, found, submitted)
            return False
        self._mode.count(expected, self._outcome.tally)
        if self._observer is not None:
            self._observer.stepped(self._states[0], expected)
        assert found is not None
        self._states = (expected.after, found.after)
        for event in expected.events:
            if isinstance(event, Finish):
                self._arrivals.finished(self._requests[event.request], now_us + self._case.step_us)
        return True

    def _raised(self, error: Exception, number: int, expected: StepRecord, submitted: tuple[Request, ...]) -> None:
        """The engine under test went wrong."""
        difference = Difference("exception", 0, None, f"{type(error).__name__}: {error}")
        self._differs(number, difference, expected, None, submitted)

    def _differs(
        self,
        number: int,
        difference: Difference,
        expected: StepRecord,
        found: StepRecord | None,
        submitted: tuple[Request, ...],
    ) -> None:
        """Keep the first divergence."""
        self._outcome.divergence = Divergence(number, difference, self._states, expected, found, submitted)


def _refusal(engine: EngineAdapter, request: Request) -> str | None:
    """``refused`` if the engine does not take the request, ``None`` if it does, or what went wrong."""
    try:
        engine.submit(request)
    except InputError:
        return "refused"
    # As for a step: a finding, not an end.
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def leaves_int64(record: StepRecord) -> bool:
    """Whether a counter in this step of the reference is beyond int64. O(events + clients)."""
    values = [*record.after.deficits.values(), *(value for event in record.events for value in _counters(event))]
    return any(value not in _INT64 for value in values)


def _counters(event: Event) -> tuple[int, ...]:
    """The deficits that an event states."""
    match event:
        case Refill() | Output():
            return tuple(event.deficits.values())
        case Admit(deficit=int() as deficit) | Preempt(deficit=int() as deficit):
            return (deficit,)
        case _:
            return ()
