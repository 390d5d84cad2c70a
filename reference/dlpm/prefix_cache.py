"""The prefix (radix) cache of one worker: longest prefix match, locks, least-recently-used eviction.

One node a block. With block size 1 this is the token-granular radix tree of RadixAttention; larger blocks
are paged engines. A block is found only below its whole prefix, so equal paths mean equal tokens.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

from dlpm.request import BlockKey


class Node:
    """One cached block: its key below its parent, its tokens, and the tokens from the root to its end."""

    __slots__ = ("alive", "children", "end", "key", "last_use", "locks", "parent", "tokens")

    def __init__(self, key: BlockKey, parent: Node | None, tokens: int) -> None:
        """A fresh, unlocked block below ``parent``."""
        self.key = key
        self.parent = parent
        self.tokens = tokens
        self.end: int = tokens + (parent.end if parent is not None else 0)
        self.children: dict[BlockKey, Node] = {}
        self.locks = 0
        self.last_use = 0
        self.alive = True


def prefix_of(node: Node) -> tuple[BlockKey, ...]:
    """Block keys from the root to ``node``, which may have been evicted. O(depth)."""
    keys: list[BlockKey] = []
    while node.parent is not None:
        keys.append(node.key)
        node = node.parent
    return tuple(reversed(keys))


class Match:
    """Where the longest match of one sequence ended: ``node``, ``depth`` blocks below the root.

    Kept with a waiting request, so that matching it again touches only what changed since.
    """

    __slots__ = ("depth", "node")

    def __init__(self, node: Node, depth: int) -> None:
        """Remember the deepest matched node."""
        self.node = node
        self.depth = depth


class PrefixCache:
    """A radix tree over blocks, with lock counts and least-recently-used eviction of unlocked leaves.

    All counts are in tokens. ``total`` tokens are cached; ``locked`` of them lie on the path of a running request.
    Locks are ancestor-closed: a locked block's whole prefix is locked.
    """

    def __init__(self, block_size: int) -> None:
        """An empty cache of blocks of ``block_size`` tokens; set ``on_evict`` to hear of every block given up."""
        self.block_size = block_size
        self.root = Node(None, None, 0)
        self.total = 0
        self.locked = 0
        self._clock = 0
        self._serial = 0
        self._evictable: list[tuple[int, int, Node]] = []
        self.on_evict: Callable[[Node], None] | None = None

    def start(self) -> Match:
        """The empty match."""
        return Match(self.root, 0)

    def match(self, blocks: Sequence[BlockKey], last: Match) -> Match:
        """Longest cached prefix of ``blocks``, resuming from where the last match of the same sequence ended.

        Updates and returns ``last``. A pure probe: neither locks nor recency change. O(1) if nothing below it changed,
        else O(blocks gained or lost): over a request's life O(its blocks) plus one a call.
        """
        node, depth = last.node, last.depth
        while not node.alive:
            assert node.parent is not None
            node, depth = node.parent, depth - 1
        while depth < len(blocks):
            child = node.children.get(blocks[depth])
            if child is None:
                break
            node, depth = child, depth + 1
        last.node, last.depth = node, depth
        return last

    def unlocked_above(self, node: Node) -> int:
        """Tokens on the path from the root to ``node`` that no running request locks. O(such blocks)."""
        tokens = 0
        while node.locks == 0 and node.parent is not None:
            tokens += node.tokens
            node = node.parent
        return tokens

    def lock(self, node: Node) -> None:
        """Lock the path to ``node`` for one running request, and mark it used now. O(depth)."""
        self._clock += 1
        walk: Node | None = node
        while walk is not None and walk.parent is not None:
            if walk.locks == 0:
                self.locked += walk.tokens
            walk.locks += 1
            walk.last_use = self._clock
            walk = walk.parent

    def unlock(self, node: Node) -> None:
        """Undo one `lock` of the path to ``node``. O(depth), and O(log n) for blocks that became evictable."""
        walk: Node | None = node
        while walk is not None and walk.parent is not None:
            walk.locks -= 1
            if walk.locks == 0:
                self.locked -= walk.tokens
                self._offer(walk)
            walk = walk.parent

    def insert(self, blocks: Sequence[BlockKey], below: Match, tokens: int) -> Node:
        """Cache ``blocks[below.depth:]`` under ``below``, reusing what is there; returns the last node.

        ``tokens`` is the length of the whole sequence: the last block is partial if it ends there. New blocks are
        unlocked and count as used when the path is next locked or touched. O(new blocks).
        """
        node = below.node
        for depth in range(below.depth, len(blocks)):
            key = blocks[depth]
            child = node.children.get(key)
            if child is None:
                child = Node(key, node, min(self.block_size, tokens - depth * self.block_size))
                node.children[key] = child
                self.total += child.tokens
            node = child
        return node

    def touch(self, node: Node) -> None:
        """Mark the path to ``node`` used now. O(depth)."""
        self._clock += 1
        walk = node
        while walk.parent is not None:
            walk.last_use = self._clock
            self._offer(walk)
            walk = walk.parent

    def evict(self, tokens: int) -> int:
        """Evict unlocked leaves, least recently used first, until ``tokens`` tokens are freed or none is left.

        Returns the tokens freed, which may exceed ``tokens`` by less than a block. O(log n) a block, amortized.
        """
        freed = 0
        while freed < tokens and self._evictable:
            last_use, _, node = heapq.heappop(self._evictable)
            if node.alive and node.locks == 0 and not node.children and node.last_use == last_use:
                freed += self._remove(node)
        return freed

    def discard(self, node: Node, keep: Node) -> None:
        """Remove the path from ``node`` up to, not including, its ancestor ``keep``: blocks that were never computed.

        Stops at a block that is locked or has other children. O(blocks removed).
        """
        while node is not keep and node.locks == 0 and not node.children:
            assert node.parent is not None
            parent = node.parent
            self._remove(node)
            node = parent

    def _remove(self, node: Node) -> int:
        """Take one unlocked leaf out of the tree; its parent may become evictable."""
        assert node.parent is not None
        del node.parent.children[node.key]
        node.alive = False
        self.total -= node.tokens
        if self.on_evict is not None:
            self.on_evict(node)
        self._offer(node.parent)
        return node.tokens

    def _offer(self, node: Node) -> None:
        """Queue ``node`` for eviction if it is an unlocked leaf; stale entries are dropped when they come up."""
        if node.locks == 0 and not node.children and node.parent is not None:
            self._serial += 1
            heapq.heappush(self._evictable, (node.last_use, self._serial, node))
