"""Who came first among those who wait, when some leave from the middle and some come back."""

from __future__ import annotations

from heapq import heappop, heappush

from dlpm_engine.conformance.state import QUEUED, RequestState


class ArrivalQueue:
    """Waiting requests by rank of arrival. O(log queue) for each request that joins, amortized O(log queue) to look."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._heap: list[tuple[int, int, RequestState]] = []
        self._pushes = 0

    def join(self, request: RequestState) -> None:
        """``request`` is in the queue from now on."""
        self._pushes += 1
        heappush(self._heap, (request.rank, self._pushes, request))

    def first(self) -> RequestState | None:
        """The earliest that still waits."""
        heap = self._heap
        while heap and heap[0][2].status != QUEUED:
            heappop(heap)
        return heap[0][2] if heap else None
