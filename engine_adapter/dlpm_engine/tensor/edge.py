"""The pieces of the tensor radix cache: edges that are chains of blocks, and paths along them."""

from __future__ import annotations

from dataclasses import dataclass

import torch


class Edge:
    """A chain of blocks below one block of its parent; never split: a branch from its middle is an edge of its own.

    ``keys`` are the block keys, int64 ``[blocks]``. The cached blocks of an edge are its first ``cached`` ones, the
    locked blocks its first ``locked`` ones. What a block counts (tokens, locks, last use) is the same for runs of
    blocks, and kept by run; one number a block would say no more, and cost a tensor operation where this costs none.

    Attributes:
        parent: the edge it hangs on; ``None`` for the root, which has no blocks.
        at: it hangs below the parent's first ``at`` blocks.
        depth: blocks above its first one.
        size: tokens of a whole block.
        children: edges that hang on this one, by where and by their first key.
        cached_children: where edges with cached blocks hang on this one, and how many.
        users: requests, waiting or running, whose path uses this edge.
        groups_below: edges that hang on this one and have groups of waiting requests in or below them, and how many.
        start: tokens from the root to the first block, while blocks are cached.
        short: cached blocks that are not whole: their place from 0, and the tokens they lack.
        uses: runs of cached blocks last used at the same time: where the run ends, and when. From the top, so ever
            older.
        locks: for each place where locked paths leave this edge or end, how many do.
    """

    __slots__ = (
        "at",
        "cached",
        "cached_children",
        "children",
        "depth",
        "groups_below",
        "keys",
        "locked",
        "locks",
        "parent",
        "short",
        "size",
        "start",
        "users",
        "uses",
    )

    def __init__(self, parent: Edge | None, at: int, keys: torch.Tensor, size: int) -> None:
        """An edge of which nothing is cached."""
        self.parent = parent
        self.at = at
        self.depth: int = at + (parent.depth if parent is not None else 0)
        self.keys = keys
        self.size = size
        self.cached = 0
        self.locked = 0
        self.users = 0
        self.start = 0
        self.children: dict[int, dict[int, Edge]] = {}
        self.cached_children: dict[int, int] = {}
        self.groups_below: dict[Edge, int] = {}
        self.short: list[tuple[int, int]] = []
        self.uses: list[tuple[int, int]] = []
        self.locks: dict[int, int] = {}

    # -- reading -------------------------------------------------------------------------------------------------------

    def tokens(self, blocks: int) -> int:
        """Tokens from the root to the end of the first ``blocks`` blocks, which are cached. O(1)."""
        if not blocks:
            return self.parent.tokens(self.at) if self.parent is not None else 0
        tokens = self.start + blocks * self.size
        for place, lacking in self.short:
            if place < blocks:
                tokens -= lacking
        return tokens

    def locked_tokens(self, blocks: int) -> int:
        """Locked tokens on the path to the end of the first ``blocks`` blocks. O(edges above)."""
        edge = self
        while not edge.locked:
            if edge.parent is None:
                return 0
            edge, blocks = edge.parent, edge.at
        return edge.tokens(min(blocks, edge.locked))

    def last_use(self) -> int:
        """When its last cached block was last used. O(1)."""
        return self.uses[-1][1]

    def cached_end(self, blocks: int) -> Node:
        """The last cached block on the path to its block ``blocks``. O(edges above)."""
        edge = self
        while edge.parent is not None:
            cached = min(blocks, edge.cached)
            if cached:
                return edge, cached
            edge, blocks = edge.parent, edge.at
        return edge, 0

    def is_leaf(self) -> bool:
        """Its last cached block is an unlocked leaf of the cache. O(1)."""
        return self.cached > self.locked and self.cached not in self.cached_children and self.parent is not None

    def floor(self) -> int:
        """Blocks from the top that must stay cached: they are locked, or cached edges hang on them. O(branches)."""
        return max(self.locked, max(self.cached_children, default=0))

    def kept_by_eviction(self, tokens: int) -> int:
        """Blocks left once ``tokens`` tokens, or all that were last used with the last block, are evicted. O(branches).

        The edge ends in an unlocked leaf.
        """
        older = self.uses[-2][0] if len(self.uses) > 1 else 0
        enough = self.tokens(self.cached) - tokens
        kept = (enough - self.start) // self.size
        # Short blocks make the true number a little larger.
        while kept + 1 < self.cached and self.tokens(max(kept, 0) + 1) <= enough:
            kept = max(kept, 0) + 1
        return max(kept, older, self.floor())

    # -- changing ------------------------------------------------------------------------------------------------------

    def use(self, blocks: int, clock: int) -> None:
        """Its first ``blocks`` blocks are used now. O(runs that this makes one)."""
        newer = 0
        while newer < len(self.uses) and self.uses[newer][0] <= blocks:
            newer += 1
        self.uses[:newer] = [(blocks, clock)]

    def lock(self, blocks: int) -> None:
        """One more locked path uses its first ``blocks`` blocks. O(1)."""
        self.locks[blocks] = self.locks.get(blocks, 0) + 1
        self.locked = max(self.locked, blocks)

    def unlock(self, blocks: int) -> None:
        """One locked path less uses its first ``blocks`` blocks. O(places where locked paths leave)."""
        self.locks[blocks] -= 1
        if not self.locks[blocks]:
            del self.locks[blocks]
            if blocks == self.locked:
                self.locked = max(self.locks, default=0)

    def grow(self, blocks: int, tokens: int) -> None:
        """Cache its first ``blocks`` blocks; the sequence they are of has ``tokens`` tokens. O(short blocks)."""
        if not self.cached:
            self.start = self.tokens(0)
        place = blocks
        while place > self.cached and (self.depth + place) * self.size > tokens:
            self.short.append((place - 1, (self.depth + place) * self.size - tokens))
            place -= 1
        self.uses.append((blocks, 0))
        self.cached = blocks

    def shrink(self, blocks: int) -> None:
        """Keep its first ``blocks`` cached blocks only. O(runs)."""
        self.short = [(place, lacking) for place, lacking in self.short if place < blocks]
        while self.uses and (self.uses[-2][0] if len(self.uses) > 1 else 0) >= blocks:
            self.uses.pop()
        if self.uses:
            self.uses[-1] = (blocks, self.uses[-1][1])
        self.cached = blocks


Node = tuple[Edge, int]
"""A block: the edge it lies in, and its place there, from 1. ``(root, 0)`` is the root."""


def block_above(node: Node) -> Node:
    """The block before ``node``, which is not the root, on its path. O(1)."""
    edge, blocks = node
    if blocks > 1:
        return edge, blocks - 1
    assert edge.parent is not None
    return edge.parent, edge.at


@dataclass(frozen=True, slots=True)
class Path:
    """The blocks of one sequence: edges from the root down, and how many blocks of each."""

    segments: tuple[tuple[Edge, int], ...]

    def end(self) -> Node | None:
        """Its last block, or ``None`` for a sequence without any. O(1)."""
        return self.segments[-1] if self.segments else None


def shared_length(ours: torch.Tensor, theirs: torch.Tensor) -> int:
    """Length of the longest common prefix of two key tensors ``[a]`` and ``[b]``. O(min(a, b))."""
    length = min(ours.numel(), theirs.numel())
    differ = (ours[:length] != theirs[:length]).nonzero()
    return int(differ[0]) if differ.numel() else length
