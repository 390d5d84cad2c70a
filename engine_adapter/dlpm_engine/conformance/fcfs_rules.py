"""The rules of first come, first served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from dlpm_engine.conformance.arrival_queue import ArrivalQueue
from dlpm_engine.conformance.considered_order import ConsideredOrder
from dlpm_engine.conformance.discipline import Discipline
from dlpm_engine.conformance.state import RequestState
from dlpm_engine.conformance.worker_state import WorkerState


class FcfsRules(Discipline):
    """The head of the queue is admitted, or nobody."""

    def __init__(self, state: WorkerState) -> None:
        """Nobody waits."""
        super().__init__(state)
        self._waiting = ArrivalQueue()
        self._order = ConsideredOrder(state)

    def not_checked(self) -> Mapping[str, str]:
        """What needs the order and free memory."""
        return self._order.not_checked()

    def arrives(self, request: RequestState) -> None:
        """It joins at the end."""
        self._waiting.join(request)

    def preempts(self, request: RequestState, deficit: int | None) -> None:
        """It goes back to its place."""
        super().preempts(request, deficit)
        self._waiting.join(request)

    def considers(self, requests: Sequence[str], matched: Sequence[int], free: int | None) -> None:
        """The order is that of arrival. O(queue)."""
        known = self._order.begin(requests, free)
        for earlier, later in pairwise(known):
            if later.rank < earlier.rank:
                self.state.violation(
                    "order-arrival",
                    expected=f"{later.id!r} before {earlier.id!r}: it arrived first",
                    found="it comes after it",
                    client=later.client,
                    request=later.id,
                )
                return

    def admits(self, request: RequestState, extend: int, deficit: int | None, free: int | None) -> None:
        """It is the head of the queue."""
        super().admits(request, extend, deficit, free)
        first = self._waiting.first()
        if first is not None and first is not request:
            self.state.violation(
                "fcfs-head",
                expected=f"{first.id!r} of {first.client.id!r}, the earliest in the queue",
                found=f"{request.id!r}",
                client=first.client,
                request=request.id,
            )
        self._order.follow(free)

    def forwards(self) -> None:
        """The head does not certainly fit."""
        first = self._waiting.first()
        if first is not None:
            self._order.check_fixpoint((first,))
