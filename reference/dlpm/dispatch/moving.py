"""Algorithm 2 that keeps its books right when a queued request moves from one worker to another (E9)."""

from __future__ import annotations

from collections.abc import Sequence

from dlpm.dispatch.d2lpm import D2LPM
from dlpm.request import BlockKey, Request


class MovingD2LPM(D2LPM):
    """D2LPM, told of moves."""

    name = "d2lpm-moving"

    def moved(self, request: Request, blocks: Sequence[BlockKey], source: int, target: int) -> None:
        """``request`` waits at ``target`` now: its charge, its place in a queue and its prefix move too. O(blocks)."""
        charge = self.cost.extend(request.input_tokens)
        credit = self.credit[request.client]
        credit[source] += charge
        credit[target] -= charge
        self.queues.finished(source)
        self.queues.dispatched(target)
        self.directory.insert(blocks, target)
