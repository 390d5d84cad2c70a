"""What one engine did in one step, and how much of it two engines were compared on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from dlpm.events import Admit, Event, Evict, Finish, Order, Output, Preempt, Refill
from dlpm.request import RequestId
from dlpm_engine.adapter import Snapshot


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step of one engine: its events in order, and its state afterwards."""

    events: tuple[Event, ...]
    after: Snapshot

    def order(self) -> Order | None:
        """The order in which the queue was considered, if the engine says. O(events)."""
        return next((event for event in self.events if isinstance(event, Order)), None)


Key = tuple[object, ...]
"""What of an event decides whether two engines did the same: its kind first."""


def event_key(event: Event) -> Key | None:
    """The compared content of an event; ``None`` for events that are not decisions. O(its entries)."""
    match event:
        case Admit():
            return ("admit", event.request, event.matched, event.extend, event.deficit)
        case Refill():
            return ("refill", event.deficits)
        case Output():
            return ("output", event.tokens, event.deficits)
        case Finish():
            return ("finish", event.request)
        case Preempt():
            return ("preempt", event.request, event.kind, event.deficit)
        case Evict():
            return ("evict", event.tokens)
        case _:
            return None


def order_of(order: Order) -> Mapping[RequestId, int]:
    """The matched tokens of every queued request, in order. O(queue)."""
    return dict(zip(order.requests, order.matched, strict=True))


@dataclass(slots=True)
class Tally:
    """How much was compared.

    A *decision* is one thing the scheduler decided and the comparison looked at: an admission, a check-refill that
    fired, a preemption, an eviction, a finish, one forward step's charge, or, for each request that was in the
    queue and stayed there, that it was passed over in that step. `values` are not decisions: deficits after each step,
    places in the queue and the running batch, free and cached tokens, places in the order.
    """

    cases: int = 0
    steps: int = 0
    admissions: int = 0
    refills: int = 0
    preemptions: int = 0
    evictions: int = 0
    finishes: int = 0
    forwards: int = 0
    passed_over: int = 0
    values: int = 0

    def decisions(self) -> int:
        """All decisions compared."""
        return (
            self.admissions
            + self.refills
            + self.preemptions
            + self.evictions
            + self.finishes
            + self.forwards
            + self.passed_over
        )

    def add(self, other: Tally) -> None:
        """Add what another comparison looked at."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
