"""What a router is asked, what it is told, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dlpm.request import BlockKey, Request


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a request goes.

    ``matched_workers`` are the workers believed to hold its longest cached prefix, ``matched`` its length in
    blocks; ``counter`` is the client's credit at the chosen worker after the charge (``None`` for routers without
    credit).
    """

    worker: int
    matched_workers: tuple[int, ...] = ()
    matched: int = 0
    counter: int | None = None


class Router(Protocol):
    """Chooses a worker for each arriving request; learns of finished requests and evicted prefixes."""

    @property
    def name(self) -> str:
        """Name in event logs and on the command line."""
        ...

    def dispatch(self, request: Request, blocks: Sequence[BlockKey]) -> Decision:
        """Choose the worker for ``request``, whose cacheable prompt blocks are ``blocks``, and book it there."""
        ...

    def finished(self, request: Request, worker: int) -> None:
        """``request`` has finished at ``worker`` with all its output."""
        ...

    def evicted(self, prefix: Sequence[BlockKey], worker: int) -> None:
        """``worker`` no longer caches the block that ends ``prefix``, nor anything below it."""
        ...


class QueueSizes:
    """``s_w``: requests dispatched to each worker and not finished [DLPM Alg. 2 ll. 1, 17, 23]."""

    def __init__(self, workers: int) -> None:
        """All queues empty."""
        self.sizes = [0] * workers

    def shortest(self, workers: Sequence[int]) -> int:
        """``arg min s_w`` over ``workers`` (not empty), the lowest index among equals. O(workers)."""
        return min(workers, key=lambda worker: (self.sizes[worker], worker))

    def dispatched(self, worker: int) -> None:
        """One request more [DLPM Alg. 2 l. 17]."""
        self.sizes[worker] += 1

    def finished(self, worker: int) -> None:
        """One request less [DLPM Alg. 2 l. 23]."""
        self.sizes[worker] -= 1
