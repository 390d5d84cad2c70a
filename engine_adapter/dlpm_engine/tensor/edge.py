"""The pieces of the tensor radix cache: edges that are chains of blocks, paths along them, and who is parked where."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dlpm_engine.tensor.exact import INT64


class Edge:
    """A chain of blocks below one block of its parent; never split: a branch from its middle is an edge of its own.

    The cached blocks of an edge are always its first ``cached`` ones, the locked blocks its first ``locked`` ones.
    ``keys`` are the block keys; ``ends`` (tokens from the root to each block's end), ``locks`` and ``last_use`` exist
    once a block of the edge has been cached. All four are int64 of shape ``[blocks]``.

    Attributes:
        parent: the edge it hangs on; ``None`` for the root, which has no blocks.
        at: it hangs below the parent's first ``at`` blocks.
        depth: blocks above its first one.
        children: edges that hang on this one, by where and by their first key.
        cached_children: where edges with cached blocks hang on this one, and how many.
        users: requests, waiting or running, whose path uses this edge.
        stopped: waiting requests whose first block that is not cached lies in this edge.
        ended: waiting requests that are cached as a whole and end in this edge, by where.
    """

    __slots__ = (
        "at",
        "cached",
        "cached_children",
        "children",
        "depth",
        "ended",
        "ends",
        "keys",
        "last_use",
        "locked",
        "locks",
        "parent",
        "stopped",
        "users",
    )

    def __init__(self, parent: Edge | None, at: int, keys: torch.Tensor) -> None:
        """An edge of which nothing is cached."""
        self.parent = parent
        self.at = at
        self.depth: int = at + (parent.depth if parent is not None else 0)
        self.keys = keys
        self.cached = 0
        self.locked = 0
        self.users = 0
        self.children: dict[int, dict[int, Edge]] = {}
        self.cached_children: dict[int, int] = {}
        self.stopped: set[Parked] = set()
        self.ended: dict[int, set[Parked]] = {}
        self.ends = self.locks = self.last_use = keys[:0]

    def allocate(self) -> None:
        """Make room for the state of cached blocks. O(blocks)."""
        if self.ends.numel() != self.keys.numel():
            state = torch.zeros((3, self.keys.numel()), dtype=INT64)
            self.ends, self.locks, self.last_use = state.unbind()

    def tokens(self, blocks: int) -> int:
        """Tokens from the root to the end of the first ``blocks`` blocks, which are cached. O(1)."""
        if blocks:
            return int(self.ends[blocks - 1])
        return self.parent.tokens(self.at) if self.parent is not None else 0

    def locked_tokens(self, blocks: int) -> int:
        """Locked tokens on the path to the end of the first ``blocks`` blocks. O(edges above)."""
        edge = self
        while not edge.locked:
            if edge.parent is None:
                return 0
            edge, blocks = edge.parent, edge.at
        return edge.tokens(min(blocks, edge.locked))

    def floor(self) -> int:
        """Blocks from the top that must stay cached: they are locked, or cached edges hang on them."""
        return max(self.locked, max(self.cached_children, default=0))

    def is_leaf(self) -> bool:
        """Its last cached block is an unlocked leaf of the cache."""
        return self.cached > self.locked and self.cached not in self.cached_children and self.parent is not None


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


@dataclass(slots=True, eq=False)
class Parked:
    """A waiting request's place in the cache: its longest match ends at ``node``.

    ``stop`` is the edge that holds its first block that is not cached, or ``None`` if all are.
    """

    path: Path
    node: Node
    stop: Edge | None


def shared_length(ours: torch.Tensor, theirs: torch.Tensor) -> int:
    """Length of the longest common prefix of two key tensors ``[a]`` and ``[b]``. O(min(a, b))."""
    length = min(ours.numel(), theirs.numel())
    differ = (ours[:length] != theirs[:length]).nonzero()
    return int(differ[0]) if differ.numel() else length
