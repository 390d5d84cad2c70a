"""The named modes of comparison: what two engines must agree on, step by step.

Each mode is a view of a step; two engines agree if their views are equal. `lockstep` is everything. `ledger` is what
the ledger rules speak of: who is admitted and charged what, refills and counters, and not the order within a step, the
cache or the memory. `service-only` is what clients get: extend and output tokens, accumulated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dlpm.errors import InputError
from dlpm.events import Admit, Evict, Finish, Order, Output, Preempt, Refill
from dlpm.request import ClientId, RequestId
from dlpm_engine.adapter import Snapshot
from dlpm_engine.differential.record import Key, StepRecord, Tally, event_key

LOCKSTEP = "lockstep"
LEDGER = "ledger"
SERVICE_ONLY = "service-only"


@dataclass(frozen=True, slots=True)
class Difference:
    """The first thing in a step that two engines disagree on.

    Attributes:
        subject: what it is: ``event``, or a part of the state such as ``deficits``.
        place: for events, how many events of the step agreed before it.
        expected: what the reference did; ``None`` if it did nothing more.
        found: what the engine did.
    """

    subject: str
    place: int
    expected: object
    found: object


class Mode(Protocol):
    """Compares one step of two engines; one instance a case, so that it may accumulate."""

    def difference(self, expected: StepRecord, found: StepRecord) -> Difference | None:
        """The first disagreement, or ``None``. O(events + state)."""

    def count(self, expected: StepRecord, tally: Tally) -> None:
        """Add to ``tally`` what `difference` has just compared."""


def _events(record: StepRecord, excused: frozenset[str]) -> list[Key]:
    """The decisions of a step, in order, less the kinds that are excused."""
    keys = [key for event in record.events if (key := event_key(event)) is not None]
    return [key for key in keys if key[0] not in excused] if excused else keys


def _first_difference(subject: str, expected: list[Key], found: list[Key]) -> Difference | None:
    """Where two lists of events part."""
    if expected == found:
        return None
    place = 0
    while place < min(len(expected), len(found)) and expected[place] == found[place]:
        place += 1
    ours = expected[place] if place < len(expected) else None
    theirs = found[place] if place < len(found) else None
    return Difference(subject, place, ours, theirs)


CACHED_TOKENS = "cached tokens"

_STATE: Mapping[str, Callable[[Snapshot], object]] = {
    "deficits": lambda state: state.deficits,
    "queue": lambda state: state.queue,
    "running": lambda state: state.running,
    "free tokens": lambda state: state.free_tokens,
    CACHED_TOKENS: lambda state: state.cached_tokens,
}

SUBJECTS = frozenset({"order", "admit", "refill", "output", "finish", "preempt", "evict", *_STATE})
"""What `lockstep` compares, by the names that a declared difference uses."""


class Lockstep:
    """Every event in order, the order of the queue where both give it, and the whole state; less what is excused."""

    def __init__(self, excused: frozenset[str]) -> None:
        """Compare one case; ``excused`` are names of `SUBJECTS` that are not compared."""
        self._excused = excused
        self._places = 0

    def difference(self, expected: StepRecord, found: StepRecord) -> Difference | None:
        """See `Mode`."""
        self._places = 0
        ours, theirs = expected.order(), found.order()
        if ours is not None and theirs is not None and "order" not in self._excused:
            difference = _order_difference(ours, theirs)
            if difference is not None:
                return difference
            self._places = len(ours.requests)
        difference = _first_difference("event", _events(expected, self._excused), _events(found, self._excused))
        if difference is not None or expected.after == found.after:
            return difference
        for subject, part in _STATE.items():
            unsaid = subject == CACHED_TOKENS and found.after.cached_tokens is None
            if unsaid or subject in self._excused:
                continue
            if part(expected.after) != part(found.after):
                return Difference(subject, 0, part(expected.after), part(found.after))
        return None

    def count(self, expected: StepRecord, tally: Tally) -> None:
        """See `Mode`."""
        _count_events(expected, tally)
        after = expected.after
        tally.values += len(after.deficits) + len(after.queue) + len(after.running) + 2 + self._places


def _order_difference(ours: Order, theirs: Order) -> Difference | None:
    """The first place at which two orders of the queue differ."""
    if ours.requests == theirs.requests and ours.matched == theirs.matched:
        return None
    expected: list[Key] = list(zip(ours.requests, ours.matched, strict=True))
    found: list[Key] = list(zip(theirs.requests, theirs.matched, strict=True))
    return _first_difference("order", expected, found)


def _count_events(expected: StepRecord, tally: Tally) -> None:
    """Count the decisions of a step."""
    preempted = 0
    for event in expected.events:
        match event:
            case Admit():
                tally.admissions += 1
            case Refill():
                tally.refills += 1
            case Preempt():
                preempted += 1
            case Evict():
                tally.evictions += 1
            case Finish():
                tally.finishes += 1
            case Output():
                tally.forwards += 1
            case _:
                pass
    tally.preemptions += preempted
    tally.passed_over += len(expected.after.queue) - preempted
    tally.steps += 1


class LedgerOnly:
    """Refills in order, the admissions of a step with what they are charged, outputs, and the counters after it."""

    def difference(self, expected: StepRecord, found: StepRecord) -> Difference | None:
        """See `Mode`."""
        for subject, kinds in (("refills", Refill), ("outputs", Output)):
            ours = [key for event in expected.events if isinstance(event, kinds) and (key := event_key(event))]
            theirs = [key for event in found.events if isinstance(event, kinds) and (key := event_key(event))]
            difference = _first_difference(subject, ours, theirs)
            if difference is not None:
                return difference
        admitted, found_admitted = _admissions(expected), _admissions(found)
        if admitted != found_admitted:
            return Difference("admissions", 0, admitted, found_admitted)
        if expected.after.deficits != found.after.deficits:
            return Difference("deficits", 0, expected.after.deficits, found.after.deficits)
        return None

    def count(self, expected: StepRecord, tally: Tally) -> None:
        """See `Mode`. Evictions, finishes and preemptions are not compared, and who was passed over only as a set."""
        counted = Tally()
        _count_events(expected, counted)
        counted.evictions = counted.finishes = counted.preemptions = 0
        counted.values = len(expected.after.deficits)
        tally.add(counted)


def _admissions(record: StepRecord) -> dict[RequestId, int]:
    """The requests admitted in a step, with their extend tokens (summed, should one be admitted twice)."""
    admitted: dict[RequestId, int] = {}
    for event in record.events:
        if isinstance(event, Admit):
            admitted[event.request] = admitted.get(event.request, 0) + event.extend
    return admitted


@dataclass(slots=True)
class _Service:
    """Tokens that clients got so far."""

    clients: Mapping[RequestId, ClientId]
    extend: dict[ClientId, int] = field(default_factory=dict)
    output: dict[ClientId, int] = field(default_factory=dict)

    def take(self, record: StepRecord) -> None:
        """Add what a step gave."""
        for event in record.events:
            if isinstance(event, Admit):
                client = self.clients[event.request]
                self.extend[client] = self.extend.get(client, 0) + event.extend
            elif isinstance(event, Output):
                for request, tokens in event.tokens.items():
                    client = self.clients[request]
                    self.output[client] = self.output.get(client, 0) + tokens


class ServiceOnly:
    """Extend and output tokens of every client, accumulated, after every step."""

    def __init__(self, clients: Mapping[RequestId, ClientId]) -> None:
        """Compare one case whose requests belong to ``clients``."""
        self._expected = _Service(clients)
        self._found = _Service(clients)

    def difference(self, expected: StepRecord, found: StepRecord) -> Difference | None:
        """See `Mode`."""
        self._expected.take(expected)
        self._found.take(found)
        if self._expected.extend != self._found.extend:
            return Difference("extend tokens", 0, dict(self._expected.extend), dict(self._found.extend))
        if self._expected.output != self._found.output:
            return Difference("output tokens", 0, dict(self._expected.output), dict(self._found.output))
        return None

    def count(self, expected: StepRecord, tally: Tally) -> None:
        """See `Mode`. Only admissions and forward steps give service."""
        counted = Tally()
        _count_events(expected, counted)
        tally.add(Tally(steps=1, admissions=counted.admissions, forwards=counted.forwards))
        tally.values += len(self._expected.extend) + len(self._expected.output)


MODES = (LOCKSTEP, LEDGER, SERVICE_ONLY)


def make_mode(name: str, clients: Mapping[RequestId, ClientId], excused: frozenset[str] = frozenset()) -> Mode:
    """The named mode for one case, whose requests belong to ``clients``.

    ``excused`` are declared differences: they apply to `lockstep`, the other modes do not look at such detail.

    Raises:
        InputError: there is no such mode.
    """
    if name == LOCKSTEP:
        return Lockstep(excused)
    if name == LEDGER:
        return LedgerOnly()
    if name == SERVICE_ONLY:
        return ServiceOnly(clients)
    raise InputError(f"expected one of {', '.join(MODES)}, found {name!r}", field="--mode")
