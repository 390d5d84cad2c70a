"""Several routers in front of the same workers, none of which sees what the others do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dlpm.dispatch.base import Decision, Router
from dlpm.request import BlockKey, Request, RequestId


class SplitRouter:
    """Each request goes to the router at which it came in; that one alone hears of its finish.

    Eviction notices reach all. Replicated front ends of a serving system are like this unless they share their state.
    """

    def __init__(self, routers: Sequence[Router], ingress: Callable[[Request], int]) -> None:
        """``ingress`` says at which of ``routers`` a request comes in."""
        self.name = f"{len(routers)} x {routers[0].name}"
        self._routers = routers
        self._ingress = ingress
        self._came_in: dict[RequestId, int] = {}

    def dispatch(self, request: Request, blocks: Sequence[BlockKey]) -> Decision:
        """As the router at which it comes in decides."""
        index = self._ingress(request)
        self._came_in[request.id] = index
        return self._routers[index].dispatch(request, blocks)

    def finished(self, request: Request, worker: int) -> None:
        """Tell the router that sent it."""
        self._routers[self._came_in.pop(request.id)].finished(request, worker)

    def evicted(self, prefix: Sequence[BlockKey], worker: int) -> None:
        """Tell every router."""
        for router in self._routers:
            router.evicted(prefix, worker)
