"""Round robin over the workers: over all requests, or for each client on its own [DLPM §6.1 baselines, App. A.3]."""

from __future__ import annotations

from collections.abc import Sequence

from dlpm.dispatch.base import Decision
from dlpm.request import BlockKey, ClientId, Request


class RoundRobin:
    """Each request to the next worker in turn; ``per_client`` keeps a turn for each client [DLPM Thm A.6]."""

    def __init__(self, workers: int, *, per_client: bool = False) -> None:
        """Start every turn at worker 0."""
        self.name = "per-client-round-robin" if per_client else "round-robin"
        self._workers = workers
        self._per_client = per_client
        self._next: dict[ClientId | None, int] = {}

    def dispatch(self, request: Request, blocks: Sequence[BlockKey]) -> Decision:
        """O(1)."""
        turn = request.client if self._per_client else None
        worker = self._next.get(turn, 0)
        self._next[turn] = (worker + 1) % self._workers
        return Decision(worker)

    def finished(self, request: Request, worker: int) -> None:
        """Nothing to keep."""

    def evicted(self, prefix: Sequence[BlockKey], worker: int) -> None:
        """Nothing to keep."""
