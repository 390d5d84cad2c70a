"""What happened in the last step of a batched scheduler, and its state, as events and snapshots."""

from __future__ import annotations

from dlpm.events import Admit, Event, Evict, Finish, Output, Preempt, Refill
from dlpm.request import ClientId, RequestId
from dlpm_engine.adapter import Snapshot
from dlpm_engine.tensor.batched import tape
from dlpm_engine.tensor.batched.scheduler import RUNNING, WAITING, BatchedScheduler


class View:
    """The last step of all instances, copied from the device once. O(instances * (slots + events * clients))."""

    def __init__(self, scheduler: BatchedScheduler) -> None:
        """Copy what the scheduler has to say."""
        self._layout = scheduler.layout
        self._counts, self._events, self._deficits_after, self._concerned = scheduler.tape.read()
        self._phase: list[list[int]] = scheduler.phase.tolist()
        self._rank: list[list[int]] = scheduler.rank.tolist()
        self._admitted: list[list[int]] = scheduler.admitted.tolist()
        self._deficits: list[list[int]] = scheduler.deficits.tolist()
        self._free: list[int] = scheduler.free_tokens().tolist()
        self._cached: list[int] = scheduler.caches.total.tolist()
        self.out_of_range: list[bool] = scheduler.out_of_range.tolist()

    def state(self, instance: int) -> Snapshot:
        """The state of one instance. O(slots + clients)."""
        return Snapshot(
            deficits=dict(zip(self._layout.clients(instance), self._deficits[instance], strict=False)),
            queue=tuple(self._names(instance, WAITING, self._rank[instance])),
            running=tuple(self._names(instance, RUNNING, self._admitted[instance])),
            free_tokens=self._free[instance],
            cached_tokens=self._cached[instance],
        )

    def _names(self, instance: int, phase: int, order: list[int]) -> list[RequestId]:
        """Requests in a phase, in an order."""
        slots = [slot for slot, its_phase in enumerate(self._phase[instance]) if its_phase == phase]
        return [self._layout.request(instance, slot).id for slot in sorted(slots, key=order.__getitem__)]

    def events(self, instance: int, step: int) -> tuple[Event, ...]:
        """What happened in one instance, in order; ``step`` is the number that the events get. O(events)."""
        clients = self._layout.clients(instance)
        count = self._counts[instance]
        rows = zip(
            self._events[instance][:count],
            self._deficits_after[instance][:count],
            self._concerned[instance][:count],
            strict=True,
        )
        return tuple(self._event(instance, step, clients, *row) for row in rows)

    def _event(
        self,
        instance: int,
        step: int,
        clients: list[ClientId],
        row: list[int],
        deficits: list[int],
        concerned: list[bool],
    ) -> Event:
        """One event."""
        kind, slot, first, second = row
        if kind == tape.EVICT:
            return Evict(step=step, tokens=first)
        if kind in {tape.REFILL, tape.OUTPUT}:
            named = {client: deficits[number] for number, client in enumerate(clients) if concerned[number]}
            if kind == tape.REFILL:
                return Refill(step=step, deficits=named)
            return Output(step=step, tokens=dict.fromkeys(self._generating(instance), 1), deficits=named)
        request = self._layout.request(instance, slot)
        deficit = deficits[clients.index(request.client)]
        if kind == tape.ADMIT:
            return Admit(step=step, request=request.id, matched=first, extend=second, deficit=deficit)
        if kind == tape.PREEMPT:
            return Preempt(step=step, request=request.id, kind="recompute", deficit=deficit)
        return Finish(step=step, request=request.id)

    def _generating(self, instance: int) -> list[RequestId]:
        """The requests that ran in this step: those that still do, and those that finished in it."""
        running = self._names(instance, RUNNING, self._admitted[instance])
        rows = self._events[instance][: self._counts[instance]]
        finished = [row[tape.SLOT] for row in rows if row[tape.KIND] == tape.FINISH]
        return running + [self._layout.request(instance, slot).id for slot in finished]
