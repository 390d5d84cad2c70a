"""Copies of KV cache in CPU memory: which prefix of a context is valid there, and what must still be copied.

Copies are found by content, as in the prefix cache: a block of a context is known by its tokens below its whole prefix.
So the copy that one turn of a conversation left is the beginning of the next turn's, and only what is new is copied.
When a copy must give way it loses its last blocks first: what is left of it is always a valid prefix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dlpm.batch import QueuedRequest
from dlpm.extensions.swap.block_groups import BlockPool
from dlpm.prefix_cache import Node, PrefixCache
from dlpm.request import BlockKey, RequestId, sequence_blocks


class WatchedCache(PrefixCache):
    """A prefix cache that tells one listener of every block that leaves it, by eviction or otherwise."""

    def __init__(self, block_size: int, gone: Callable[[Node], None]) -> None:
        """An empty cache; ``gone`` hears of every block given up."""
        super().__init__(block_size)
        self._gone = gone

    def _remove(self, node: Node) -> int:
        """Remove as ever, and tell."""
        freed = super()._remove(node)
        self._gone(node)
        return freed


def context_keys(queued: QueuedRequest, block_size: int) -> tuple[BlockKey, ...]:
    """Keys of all blocks that hold the resident tokens of a request, the last perhaps partly filled. O(blocks).

    Blocks of which the tokens are known are named by content, so that other requests find them. Generated tokens that
    the workload does not tell are known to their request alone, by its rank: names may be used again. A partly filled
    block is known by how far it is filled, since it will be another once it is full.
    """
    full, rest = divmod(queued.resident, block_size)
    known = sequence_blocks(queued.request, block_size)[:full]
    own = tuple((queued.rank, place) for place in range(len(known), full))
    tail = ((queued.rank, full, rest),) if rest else ()
    return (*known, *own, *tail)


@dataclass(frozen=True, slots=True)
class Copy:
    """The copy of one request's context.

    Attributes:
        node: its end in the tree of copies, locked until the request has been copied back.
        valid: how many leading blocks were there already.
        new_blocks: the CPU blocks of the rest.
        partial: the last block is partly filled.
    """

    node: Node
    valid: int
    new_blocks: tuple[int, ...]
    partial: bool


class CpuCopies:
    """CPU memory of ``blocks`` blocks, reserved in groups of ``group_blocks``; 0 blocks hold nothing.

    The tree counts blocks, not tokens. What is new in a copy is valid once its copy-out is done; one link makes
    copies in the order in which they were begun, so whoever relies on a valid prefix is done after it.

    Attributes:
        blocks: how many there are.
        pool: those blocks.
        tree: the copies, one node a block.
    """

    def __init__(self, blocks: int, block_size: int, group_blocks: int) -> None:
        """No copies."""
        self.blocks = blocks
        self._block_size = block_size
        self.pool = BlockPool(max(blocks, 1), group_blocks)
        self.tree = WatchedCache(1, self._gone)
        self._block_of: dict[Node, int] = {}

    @property
    def held(self) -> int:
        """Blocks that may not give way: those of requests that have not been copied back. O(1)."""
        return self.tree.locked

    def block_of(self, node: Node) -> int:
        """The CPU block of a node of the tree. O(1)."""
        return self._block_of[node]

    def valid_blocks(self, queued: QueuedRequest) -> int:
        """How many leading blocks of the context of a request have a valid copy. O(its blocks)."""
        return self.tree.match(context_keys(queued, self._block_size), self.tree.start()).depth

    def begin(self, queued: QueuedRequest) -> Copy | None:
        """Make room for the context of a request, or find that there is none. O(its blocks), and O(log n) an eviction.

        Copies that nobody needs give way, least recently used first.
        """
        keys = context_keys(queued, self._block_size)
        match = self.tree.match(keys, self.tree.start())
        found, valid = match.node, match.depth
        new = len(keys) - valid
        self.tree.lock(found)
        if self.tree.locked + new > self.blocks:
            self.tree.unlock(found)
            return None
        excess = self.tree.total + new - self.blocks
        if excess > 0:
            self.tree.evict(excess)
        end = self.tree.insert(keys, match, len(keys))
        self.tree.lock(end)
        self.tree.unlock(found)
        partial = queued.resident % self._block_size != 0
        return Copy(end, valid, self._place(queued.id, end, new), partial)

    def blocks_from(self, copy: Copy, first: int) -> list[int]:
        """CPU blocks of the copy from place ``first`` on, in order. O(blocks of the copy)."""
        found: list[int] = []
        node = copy.node
        while node.parent is not None and node.end > first:
            found.append(self._block_of[node])
            node = node.parent
        found.reverse()
        return found

    def copied_back(self, copy: Copy) -> None:
        """The request is back in GPU memory: its copy may give way, and a partly filled block is worth nothing now."""
        self.tree.unlock(copy.node)
        if copy.partial and copy.node.parent is not None:
            self.tree.discard(copy.node, copy.node.parent)

    def _place(self, owner: RequestId, end: Node, new: int) -> tuple[int, ...]:
        """Take blocks for the last ``new`` nodes of a path, in order, from one group where that is possible."""
        nodes: list[Node] = []
        node = end
        while len(nodes) < new:
            assert node.parent is not None
            nodes.append(node)
            node = node.parent
        taken: list[int] = []
        for node in reversed(nodes):
            block = self.pool.take(owner)
            self.pool.hand_over(block, node)
            self._block_of[node] = block
            taken.append(block)
        self.pool.close(owner)
        return tuple(taken)

    def _gone(self, node: Node) -> None:
        """A copy has lost its last block."""
        self.pool.release(self._block_of.pop(node))
