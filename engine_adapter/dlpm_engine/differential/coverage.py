"""Which kinds of decision a case reached, seen on the reference's side alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from dlpm.events import Admit, Evict, Finish, Order, Output, Preempt, Refill
from dlpm.request import ClientId, Request, RequestId
from dlpm_engine.adapter import EngineConfig, Snapshot
from dlpm_engine.differential.record import StepRecord, order_of


@dataclass(slots=True)
class _Phase:
    """What has happened in the step so far."""

    place: dict[RequestId, int]
    matched: dict[RequestId, int]
    waiting: set[RequestId]
    deficits: dict[ClientId, int]
    furthest: int = -1
    admitted: set[RequestId] = field(default_factory=set)
    preempted: int = 0
    last_was_refill: bool = False
    computed: bool = False


class Coverage:
    """Collects the kinds (names in `kinds.KINDS`) that one case reaches. An `Observer` of a comparison."""

    def __init__(self, config: EngineConfig, requests: tuple[Request, ...]) -> None:
        """Watch one case."""
        self.reached: set[str] = set()
        self._config = config
        self._requests = {request.id: request for request in requests}
        self._client = {request.id: request.client for request in requests}
        self._last_match: dict[RequestId, int] = {}
        self._was_preempted: set[RequestId] = set()

    def arrived(self, request: Request, before: Snapshot) -> None:
        """A request was submitted."""
        deficit = before.deficits.get(request.client)
        here = any(self._client[other] == request.client for other in (*before.queue, *before.running))
        if deficit is not None and not here:
            self.reached.add("client returns with credit" if deficit > 0 else "client returns in debt")

    def refused(self) -> None:
        """A request was refused at submission."""
        self.reached.add("request refused")

    def left_int64(self) -> None:
        """A counter left the range of int64."""
        self.reached.add("left int64")

    def stepped(self, before: Snapshot, record: StepRecord) -> None:
        """A step was taken. O(events + queue)."""
        order = record.order()
        matched = dict(order_of(order)) if order is not None else {}
        if order is not None:
            self._ordered(order, matched)
        phase = _Phase(
            place={request: place for place, request in enumerate(matched)},
            matched=matched,
            waiting=set(matched),
            deficits=dict(before.deficits),
        )
        for event in record.events:
            match event:
                case Admit():
                    self._admitted(event, phase)
                case Refill():
                    self._refilled(event, phase)
                case Evict():
                    self._evicted(before, record, phase)
                case Preempt():
                    self._preempted(event, phase)
                case Output():
                    phase.computed = True
                    if 0 in event.deficits.values():
                        self.reached.add("gate at exactly zero")
                case Finish():
                    if self._requests[event.request].output_tokens == 1:
                        self.reached.add("finish in the first step")
                case _:
                    pass
        self._batch_full(record)

    def _ordered(self, order: Order, matched: dict[RequestId, int]) -> None:
        """The queue was ordered."""
        for first, second in zip(order.requests, order.requests[1:], strict=False):
            if matched[first] == matched[second] > 0 and self._client[first] != self._client[second]:
                self.reached.add("tie on the match")
        for request, tokens in matched.items():
            last = self._last_match.get(request, tokens)
            if tokens > last:
                self.reached.add("match grew while waiting")
            elif tokens < last:
                self.reached.add("match shrank while waiting")
        self._last_match = matched

    def _admitted(self, event: Admit, phase: _Phase) -> None:
        """A request was admitted."""
        reached = self.reached
        request = self._requests[event.request]
        if event.matched == 0:
            reached.add("admitted cold")
        else:
            reached.add("admitted whole from cache" if event.extend == 1 else "admitted from cache")
        if request.input_tokens == 1:
            reached.add("one-token prompt")
        if event.request in self._was_preempted:
            reached.add("re-admission")
            if event.matched:
                reached.add("re-admission from cache")
        ordered = phase.matched.get(event.request, event.matched)
        if event.matched > ordered:
            reached.add("match grew in the step")
        elif event.matched < ordered:
            reached.add("match shrank in the step")
        place = phase.place.get(event.request, -1)
        if place < phase.furthest:
            reached.add("admitted in a later pass")
        elif not phase.last_was_refill:
            # After a refill it is not known which visit it was that refilled.
            self._passed_over(place, phase)
        phase.furthest = max(phase.furthest, place)
        phase.waiting.discard(event.request)
        phase.admitted.add(event.request)
        phase.last_was_refill = False
        if event.deficit is not None:
            phase.deficits[request.client] = event.deficit
            if event.deficit == 0:
                reached.add("gate at exactly zero")
        if event.free == 0:
            reached.add("memory exactly full")

    def _passed_over(self, place: int, phase: _Phase) -> None:
        """What stands between the admission before and the one at ``place`` was visited, and passed over."""
        for request in phase.waiting:
            if phase.furthest < phase.place[request] < place:
                has_credit = phase.deficits.get(self._client[request], 0) > 0
                self.reached.add("skipped for memory" if has_credit else "gated request passed over")

    def _refilled(self, event: Refill, phase: _Phase) -> None:
        """A check-refill fired."""
        self.reached.add("refill in mid-pass" if phase.admitted else "refill before any admission")
        if phase.last_was_refill:
            self.reached.add("refills in a row")
        phase.last_was_refill = True
        queued = {self._client[request] for request in phase.waiting}
        if phase.waiting and any(client not in queued for client in event.deficits):
            self.reached.add("refill of an absent client")
        if any(client not in event.deficits for client in phase.deficits):
            self.reached.add("absent client keeps its credit")
        phase.deficits.update(event.deficits)

    def _evicted(self, before: Snapshot, record: StepRecord, phase: _Phase) -> None:
        """Something was evicted."""
        if phase.computed:
            self.reached.add("eviction at a finish")
        elif _to_come(record, phase):
            self.reached.add("eviction at an admission")
        else:
            self.reached.add("eviction for outputs")
        if before.running or len(phase.admitted) > 1:
            self.reached.add("eviction beside locked blocks")

    def _preempted(self, event: Preempt, phase: _Phase) -> None:
        """A request was preempted."""
        self.reached.add("preemption")
        if event.request in phase.admitted:
            self.reached.add("preemption before its first forward")
        phase.preempted += 1
        if phase.preempted > 1:
            self.reached.add("several preemptions in a step")
        self._was_preempted.add(event.request)

    def _batch_full(self, record: StepRecord) -> None:
        """After the step: somebody with credit waits only for a place in the batch."""
        after = record.after
        running = {event.request for event in record.events if isinstance(event, Finish)} | set(after.running)
        credited = any(after.deficits[self._client[request]] > 0 for request in after.queue)
        if credited and len(running) == self._config.max_running:
            self.reached.add("batch full")


def _to_come(record: StepRecord, phase: _Phase) -> list[Admit]:
    """The admissions of the step that are still to come."""
    return [event for event in record.events if isinstance(event, Admit) and event.request not in phase.admitted]
