"""Which requests of a workload are due: by their arrival time, or when the calls they depend on have finished."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from dlpm.request import Request, RequestId


class Arrivals:
    """Requests not yet released, by release time in microseconds; ties in the order of the file.

    A request with parents is released ``think_us`` after the last of them finished, and never before its arrival time.
    """

    def __init__(self, requests: Iterable[Request]) -> None:
        """Take in all requests. O(n log n)."""
        self._due: list[tuple[int, int, Request]] = []
        self._parents_left: dict[RequestId, int] = {}
        self._children: dict[RequestId, list[tuple[int, Request]]] = {}
        for position, request in enumerate(requests):
            if request.parents:
                self._parents_left[request.id] = len(request.parents)
                for parent in request.parents:
                    self._children.setdefault(parent, []).append((position, request))
            else:
                self._due.append((request.arrival_us, position, request))
        heapq.heapify(self._due)

    def next_us(self) -> int | None:
        """Time of the earliest release known, or ``None`` if none is. O(1)."""
        return self._due[0][0] if self._due else None

    def take_due(self, now_us: int) -> list[tuple[int, Request]]:
        """Remove and return what is due by ``now_us``, as (release time, request), in order. O(log n) each."""
        due = []
        while self._due and self._due[0][0] <= now_us:
            release_us, _, request = heapq.heappop(self._due)
            due.append((release_us, request))
        return due

    def finished(self, request: Request, now_us: int) -> None:
        """A request finished: release the calls that waited for it alone. O(its children * log n)."""
        for position, child in self._children.pop(request.id, ()):
            self._parents_left[child.id] -= 1
            if self._parents_left[child.id] == 0:
                del self._parents_left[child.id]
                release_us = max(child.arrival_us, now_us + child.think_us)
                heapq.heappush(self._due, (release_us, position, child))

    def held(self) -> tuple[RequestId, ...]:
        """Requests that still wait for a parent, in the order of the file. O(number of them)."""
        return tuple(self._parents_left)
