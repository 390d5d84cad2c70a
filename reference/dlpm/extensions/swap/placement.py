"""Which physical block holds which tokens: the block table of every request, shared prefixes included.

The plain worker counts tokens; copies need places. A block belongs to a request while its tokens are private, and to
the prefix cache from when they can be matched: it is handed over, never moved.
"""

from __future__ import annotations

from dlpm.batch import RunningRequest
from dlpm.extensions.swap.block_groups import BlockPool
from dlpm.prefix_cache import Node
from dlpm.request import RequestId


class Placement:
    """GPU memory as a pool of blocks of ``block_size`` tokens. Cached blocks are full ones."""

    def __init__(self, blocks: int, block_size: int, group_blocks: int) -> None:
        """Nothing placed."""
        self.pool = BlockPool(blocks, group_blocks)
        self._block_size = block_size
        self._cached: dict[Node, int] = {}
        self._private: dict[RequestId, list[int]] = {}
        self._begins: dict[RequestId, int] = {}

    def private_blocks(self, request: RequestId) -> list[int]:
        """Blocks of the tokens of ``request`` that are not in the prefix cache, in order. O(blocks)."""
        return list(self._private.get(request, ()))

    def grow(self, run: RunningRequest) -> None:
        """Give ``run`` blocks for all its private tokens. O(new blocks * free runs)."""
        mine = self._private.setdefault(run.queued.id, [])
        self._begins[run.queued.id] = run.node.end
        while len(mine) * self._block_size < run.private:
            mine.append(self.pool.take(run.queued.id))

    def hand_over(self, request: RequestId, node: Node) -> None:
        """What ``request`` holds of the path to ``node`` is cached now. O(blocks).

        Its block becomes the cache's; where the cache has one with the same tokens, its own is free again.
        """
        mine = self._private[request]
        for cached in _path_below(node, self._begins[request]):
            block = mine.pop(0)
            if cached in self._cached:
                self.pool.release(block)
            else:
                self._cached[cached] = block
                self.pool.hand_over(block, cached)

    def leave(self, request: RequestId) -> None:
        """``request`` gives up its private blocks, and the rest of its group. O(blocks * free runs)."""
        for block in self._private.pop(request, ()):
            self.pool.release(block)
        self._begins.pop(request, None)
        self.pool.close(request)

    def evicted(self, node: Node) -> None:
        """The prefix cache has given up a block. O(free runs)."""
        block = self._cached.pop(node, None)
        if block is not None:
            self.pool.release(block)

    def table(self, run: RunningRequest) -> list[int]:
        """The blocks of all tokens of ``run``, in order: those on its locked path, then its own. O(blocks)."""
        return [self._cached[node] for node in _path_below(run.node, 0)] + self._private[run.queued.id]


def _path_below(node: Node, end: int) -> list[Node]:
    """Nodes of the path to ``node`` that end after ``end`` tokens, from the root on. O(depth)."""
    path: list[Node] = []
    walk = node
    while walk.parent is not None and walk.end > end:
        path.append(walk)
        walk = walk.parent
    path.reverse()
    return path
