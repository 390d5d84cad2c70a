"""The worker with the fewest unfinished requests: load balance without locality."""

from __future__ import annotations

from collections.abc import Sequence

from dlpm.dispatch.base import Decision, QueueSizes
from dlpm.request import BlockKey, Request


class LeastLoaded:
    """Shortest queue first, the lowest index among equals."""

    name = "least-loaded"

    def __init__(self, workers: int) -> None:
        """All queues empty."""
        self._queues = QueueSizes(workers)
        self._all = range(workers)

    def dispatch(self, request: Request, blocks: Sequence[BlockKey]) -> Decision:
        """O(workers)."""
        worker = self._queues.shortest(self._all)
        self._queues.dispatched(worker)
        return Decision(worker)

    def finished(self, request: Request, worker: int) -> None:
        """One request less at ``worker``."""
        self._queues.finished(worker)

    def evicted(self, prefix: Sequence[BlockKey], worker: int) -> None:
        """Nothing to keep."""
