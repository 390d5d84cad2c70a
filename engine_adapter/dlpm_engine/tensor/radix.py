"""The prefix cache of the tensor path: a radix tree whose edges are int64 tensors.

It keeps the blocks that `dlpm.prefix_cache` keeps and evicts the ones that it evicts, but a chain of blocks is one
edge, so that locking, stamping, inserting and evicting a prompt are slice operations. Two facts make that exact:
cached, locked and last-used values never grow from a block to the next one below it; and all blocks with one
``last_use`` lie on one path, so the least recently used leaf is never tied.

The cache also knows which waiting requests a change concerns: `moved` collects those whose longest match may have
changed, `relocked` the places where locks did.
"""

from __future__ import annotations

import heapq

import torch

from dlpm_engine.tensor.edge import Edge, Node, Parked, Path, shared_length
from dlpm_engine.tensor.exact import INT64


class RadixCache:
    """A prefix cache with lock counts and least-recently-used eviction of unlocked leaves. All counts are in tokens."""

    def __init__(self, block_size: int) -> None:
        """An empty cache of blocks of ``block_size`` tokens."""
        self.block_size = block_size
        self.root = Edge(None, 0, torch.empty(0, dtype=INT64))
        self.total = 0
        self.locked = 0
        self.moved: set[Parked] = set()
        self.relocked: dict[Edge, int] = {}
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

    @staticmethod
    def _child(edge: Edge, at: int, keys: torch.Tensor) -> Edge:
        """The edge below the first ``at`` blocks of ``edge`` that starts like ``keys``, made if there is none."""
        siblings = edge.children.setdefault(at, {})
        first = int(keys[0])
        child = siblings.get(first)
        if child is None:
            child = siblings[first] = Edge(edge, at, keys)
        return child

    def release(self, path: Path) -> None:
        """Whoever asked for ``path`` needs it no longer. O(edges)."""
        for edge, _ in path.segments:
            edge.users -= 1
        for edge, _ in reversed(path.segments):
            self._forget(edge)

    def _forget(self, edge: Edge) -> None:
        """Drop edges, from ``edge`` upwards, that nobody uses and that hold nothing."""
        while edge.parent is not None and not (edge.users or edge.cached or edge.children):
            siblings = edge.parent.children[edge.at]
            first = int(edge.keys[0])
            if siblings.get(first) is not edge:
                return
            del siblings[first]
            if not siblings:
                del edge.parent.children[edge.at]
            edge = edge.parent

    # -- matching ------------------------------------------------------------------------------------------------------

    def match(self, path: Path) -> tuple[Node, Edge | None]:
        """Where the longest cached prefix of ``path`` ends, and the edge where it stops short. O(edges)."""
        node: Node = (self.root, 0)
        for edge, blocks in path.segments:
            if edge.cached < blocks:
                return (edge, edge.cached) if edge.cached else node, edge
            node = (edge, blocks)
        return node, None

    def park(self, parked: Parked) -> None:
        """Watch the match of a waiting request. O(edges)."""
        parked.node, parked.stop = self.match(parked.path)
        if parked.stop is not None:
            parked.stop.stopped.add(parked)
        else:
            edge, blocks = parked.node
            edge.ended.setdefault(blocks, set()).add(parked)

    def unpark(self, parked: Parked) -> None:
        """Stop watching. O(1)."""
        if parked.stop is not None:
            parked.stop.stopped.remove(parked)
            return
        edge, blocks = parked.node
        edge.ended[blocks].remove(parked)
        if not edge.ended[blocks]:
            del edge.ended[blocks]

    # -- locks and recency ---------------------------------------------------------------------------------------------

    def lock(self, node: Node) -> None:
        """Lock the path to ``node`` for one running request and mark it used now. O(edges), as slice operations."""
        self._clock += 1
        edge, blocks = node
        while edge.parent is not None:
            edge.locks[:blocks].add_(1)
            edge.last_use[:blocks].fill_(self._clock)
            if edge.locked < blocks:
                self.locked += edge.tokens(blocks) - edge.tokens(edge.locked)
                self._relocked(edge, edge.locked)
                edge.locked = blocks
            edge, blocks = edge.parent, edge.at

    def unlock(self, node: Node) -> None:
        """Undo one `lock` of the path to ``node``. O(edges), as slice operations."""
        edge, blocks = node
        while edge.parent is not None:
            edge.locks[:blocks].sub_(1)
            locked = int(torch.count_nonzero(edge.locks[: edge.locked]))
            if locked < edge.locked:
                self.locked -= edge.tokens(edge.locked) - edge.tokens(locked)
                self._relocked(edge, locked)
                edge.locked = locked
                self._offer(edge)
            edge, blocks = edge.parent, edge.at

    def touch(self, node: Node) -> None:
        """Mark the path to ``node`` used now. O(edges), as slice operations."""
        self._clock += 1
        edge, blocks = node
        while edge.parent is not None:
            edge.last_use[:blocks].fill_(self._clock)
            self._offer(edge)
            edge, blocks = edge.parent, edge.at

    def _relocked(self, edge: Edge, blocks: int) -> None:
        """Locks of ``edge`` changed below its first ``blocks`` blocks."""
        self.relocked[edge] = min(blocks, self.relocked.get(edge, blocks))

    # -- contents ------------------------------------------------------------------------------------------------------

    def insert(self, path: Path, tokens: int) -> Node:
        """Cache all blocks of ``path``, a sequence of ``tokens`` tokens; returns its last block.

        The last block is partial if the sequence ends in it. New blocks are unlocked, and count as used when their path
        is next locked or touched. O(edges), as slice operations, and O(requests concerned).
        """
        node: Node = (self.root, 0)
        for edge, blocks in path.segments:
            if edge.cached < blocks:
                self._grow(edge, blocks, tokens)
            node = (edge, blocks)
        return node

    def _grow(self, edge: Edge, blocks: int, tokens: int) -> None:
        """Cache the first ``blocks`` blocks of ``edge``."""
        edge.allocate()
        cached = edge.cached
        start = edge.tokens(cached)
        before = (edge.depth + cached) * self.block_size
        new = torch.arange(blocks - cached, dtype=INT64).mul_(-self.block_size).add_(tokens - before)
        edge.ends[cached:blocks] = new.clamp_(max=self.block_size).cumsum(0).add_(start)
        # A block that was evicted while partial may come back whole, and carries no old lock or stamp.
        edge.last_use[cached:blocks] = 0
        edge.cached = blocks
        self.total += edge.tokens(blocks) - start
        if not cached and edge.parent is not None:
            hanging = edge.parent.cached_children
            hanging[edge.at] = hanging.get(edge.at, 0) + 1
        self.moved |= edge.stopped

    def evict(self, tokens: int) -> int:
        """Evict unlocked leaves, least recently used first, until ``tokens`` tokens are freed or none is left.

        Returns the tokens freed, which may exceed ``tokens`` by less than a block. O(edges evicted), as slice
        operations, and O(requests concerned).
        """
        freed = 0
        while freed < tokens and self._evictable:
            last_use, _, edge = heapq.heappop(self._evictable)
            if edge.is_leaf() and int(edge.last_use[edge.cached - 1]) == last_use:
                freed += self._evict_run(edge, last_use, tokens - freed)
        return freed

    def _evict_run(self, edge: Edge, last_use: int, tokens: int) -> int:
        """Evict from the end of ``edge`` what was last used at ``last_use``, stopping once ``tokens`` are freed."""
        floor = edge.floor()
        older = int(torch.count_nonzero(edge.last_use[floor : edge.cached] == last_use))
        enough = edge.tokens(edge.cached) - tokens
        kept = int(torch.searchsorted(edge.ends[: edge.cached], enough, right=True))
        return self._shrink(edge, max(edge.cached - older, kept))

    def discard(self, node: Node, keep: Node) -> None:
        """Remove the path from ``node`` up to, not including, its ancestor ``keep``: blocks that were never computed.

        Stops at a block that is locked or has other cached blocks below it. O(edges), and O(requests concerned).
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
        edge.cached = blocks
        self._collect_moved(edge, blocks)
        if blocks:
            self._offer(edge)
            return freed
        hanging = edge.parent.cached_children
        hanging[edge.at] -= 1
        if not hanging[edge.at]:
            del hanging[edge.at]
        self._offer(edge.parent)
        self._forget(edge)
        return freed

    def _collect_moved(self, edge: Edge, blocks: int) -> None:
        """Waiting requests that matched more than the first ``blocks`` blocks of ``edge``."""
        self.moved |= edge.stopped
        for at, ended in edge.ended.items():
            if at > blocks:
                self.moved |= ended
        for at, siblings in edge.children.items():
            if at > blocks:
                for child in siblings.values():
                    self.moved |= child.stopped

    def _offer(self, edge: Edge) -> None:
        """Queue ``edge`` for eviction if it ends in an unlocked leaf; stale entries are dropped when they come up."""
        if edge.is_leaf():
            self._serial += 1
            heapq.heappush(self._evictable, (int(edge.last_use[edge.cached - 1]), self._serial, edge))
