"""The prefix cache of the tensor path: a radix tree whose edges are chains of blocks.

It keeps the blocks that `dlpm.prefix_cache` keeps and evicts the ones that it evicts, but a chain of blocks is one
edge, so that locking, using, inserting and evicting a prompt take a few integer operations, however long it is. Two
facts make that exact: cached, locked and last-used values never grow from a block to the next one below it; and all
blocks with one last use lie on one path, so the least recently used leaf is never tied.

The cache also tells what changed, so that the waiting queue can follow: `changed` collects the edges whose cached or
locked blocks did, and `flipped` those of which nothing was cached before or is now.
"""

from __future__ import annotations

import heapq

import torch

from dlpm_engine.tensor.edge import Edge, Node, Path, shared_length
from dlpm_engine.tensor.exact import INT64


class RadixCache:
    """A prefix cache with lock counts and least-recently-used eviction of unlocked leaves. All counts are in tokens."""

    def __init__(self, block_size: int) -> None:
        """An empty cache of blocks of ``block_size`` tokens."""
        self.block_size = block_size
        self.root = Edge(None, 0, torch.empty(0, dtype=INT64), block_size)
        self.total = 0
        self.locked = 0
        self.changed: dict[Edge, int] = {}
        self.flipped: set[Edge] = set()
        self._clock = 0
        self._serial = 0
        self._evictable: list[tuple[int, int, Edge]] = []

    # -- paths ---------------------------------------------------------------------------------------------------------

    def path(self, keys: torch.Tensor) -> Path:
        """The path of a sequence with block keys ``[blocks]``; adds an edge for what no other sequence has.

        Whoever asks must `release` it. O(edges on the path), and a comparison of its keys.
        """
        segments: list[tuple[Edge, int]] = []
        edge, within, start = self.root, 0, 0
        while start < keys.numel():
            ahead = shared_length(edge.keys[within:], keys[start:])
            if ahead:
                within += ahead
                start += ahead
                continue
            if edge is not self.root:
                segments.append((edge, within))
            edge, within = self._child(edge, within, keys[start:]), 0
        if edge is not self.root:
            segments.append((edge, within))
        for used, _ in segments:
            used.users += 1
        return Path(tuple(segments))

    def _child(self, edge: Edge, at: int, keys: torch.Tensor) -> Edge:
        """The edge below the first ``at`` blocks of ``edge`` that starts like ``keys``, made if there is none."""
        siblings = edge.children.setdefault(at, {})
        first = int(keys[0])
        child = siblings.get(first)
        if child is None:
            child = siblings[first] = Edge(edge, at, keys, self.block_size)
        return child

    def release(self, path: Path) -> None:
        """Whoever asked for ``path`` needs it no longer. O(edges)."""
        for edge, _ in path.segments:
            edge.users -= 1
        end = path.end()
        if end is not None:
            self._forget(end[0])

    def _forget(self, edge: Edge) -> None:
        """Drop edges, from ``edge`` upwards, that nobody uses and that hold nothing."""
        while edge.parent is not None and not (edge.users or edge.cached or edge.children):
            siblings = edge.parent.children[edge.at]
            del siblings[int(edge.keys[0])]
            if not siblings:
                del edge.parent.children[edge.at]
            edge = edge.parent

    def match(self, path: Path) -> Node:
        """Where the longest cached prefix of ``path`` ends. O(edges)."""
        end = path.end()
        return (self.root, 0) if end is None else end[0].cached_end(end[1])

    # -- locks and recency ---------------------------------------------------------------------------------------------

    def lock(self, node: Node) -> None:
        """Lock the path to ``node`` for one running request and mark it used now. O(edges)."""
        self._clock += 1
        edge, blocks = node
        while edge.parent is not None:
            locked = edge.locked
            edge.lock(blocks)
            edge.use(blocks, self._clock)
            if edge.locked > locked:
                self.locked += edge.tokens(edge.locked) - edge.tokens(locked)
                self._change(edge, locked)
            edge, blocks = edge.parent, edge.at

    def unlock(self, node: Node) -> None:
        """Undo one `lock` of the path to ``node``. O(edges)."""
        edge, blocks = node
        while edge.parent is not None:
            locked = edge.locked
            edge.unlock(blocks)
            if edge.locked < locked:
                self.locked -= edge.tokens(locked) - edge.tokens(edge.locked)
                self._change(edge, edge.locked)
                self._offer(edge)
            edge, blocks = edge.parent, edge.at

    def touch(self, node: Node) -> None:
        """Mark the path to ``node`` used now. O(edges)."""
        self._clock += 1
        edge, blocks = node
        while edge.parent is not None:
            edge.use(blocks, self._clock)
            self._offer(edge)
            edge, blocks = edge.parent, edge.at

    def _change(self, edge: Edge, blocks: int) -> None:
        """Something changed in ``edge`` below its first ``blocks`` blocks."""
        self.changed[edge] = min(blocks, self.changed.get(edge, blocks))

    # -- contents ------------------------------------------------------------------------------------------------------

    def insert(self, path: Path, tokens: int) -> Node:
        """Cache all blocks of ``path``, a sequence of ``tokens`` tokens; returns its last block.

        The last block is partial if the sequence ends in it. New blocks are unlocked, and count as used when their path
        is next locked or touched. O(edges).
        """
        node: Node = (self.root, 0)
        for edge, blocks in path.segments:
            if edge.cached < blocks:
                self._grow(edge, blocks, tokens)
            node = (edge, blocks)
        return node

    def _grow(self, edge: Edge, blocks: int, tokens: int) -> None:
        """Cache the first ``blocks`` blocks of ``edge``."""
        assert edge.parent is not None
        before = edge.tokens(edge.cached)
        if not edge.cached:
            hanging = edge.parent.cached_children
            hanging[edge.at] = hanging.get(edge.at, 0) + 1
            self.flipped.add(edge)
        self._change(edge, edge.cached)
        edge.grow(blocks, tokens)
        self.total += edge.tokens(blocks) - before

    def evict(self, tokens: int) -> int:
        """Evict unlocked leaves, least recently used first, until ``tokens`` tokens are freed or none is left.

        Returns the tokens freed, which may exceed ``tokens`` by less than a block. O(edges evicted * log
        cached edges).
        """
        freed = 0
        while freed < tokens and self._evictable:
            last_use, _, edge = heapq.heappop(self._evictable)
            if edge.is_leaf() and edge.last_use() == last_use:
                freed += self._shrink(edge, edge.kept_by_eviction(tokens - freed))
        return freed

    def discard(self, node: Node, keep: Node) -> None:
        """Remove the path from ``node`` up to, not including, its ancestor ``keep``: blocks that were never computed.

        Stops at a block that is locked or has other cached blocks below it. O(edges).
        """
        edge, blocks = node
        while (edge, blocks) != keep and edge.cached == blocks and edge.is_leaf():
            parent, at = edge.parent, edge.at
            assert parent is not None
            wanted = keep[1] if keep[0] is edge else 0
            kept = max(wanted, edge.floor())
            self._shrink(edge, kept)
            if kept:
                return
            edge, blocks = parent, at

    def _shrink(self, edge: Edge, blocks: int) -> int:
        """Keep only the first ``blocks`` cached blocks of ``edge``; returns the tokens freed."""
        assert edge.parent is not None
        freed = edge.tokens(edge.cached) - edge.tokens(blocks)
        self.total -= freed
        edge.shrink(blocks)
        self._change(edge, blocks)
        if blocks:
            self._offer(edge)
            return freed
        self.flipped.add(edge)
        hanging = edge.parent.cached_children
        hanging[edge.at] -= 1
        if not hanging[edge.at]:
            del hanging[edge.at]
        self._offer(edge.parent)
        self._forget(edge)
        return freed

    def _offer(self, edge: Edge) -> None:
        """Queue ``edge`` for eviction if it ends in an unlocked leaf; stale entries are dropped when they come up."""
        if edge.is_leaf():
            self._serial += 1
            heapq.heappush(self._evictable, (edge.last_use(), self._serial, edge))
