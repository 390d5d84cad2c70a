"""One group of the waiting queue: its members by rank, and the first of them that fits."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

import torch

from dlpm_engine.tensor.edge import Edge
from dlpm_engine.tensor.exact import INT64

if TYPE_CHECKING:
    from dlpm_engine.tensor.waiting import Queued

NEVER = 2**62
"""A rank or size that no request has."""

_FEW = 32
_CHUNK = 4096


class Group:
    """Waiting requests of one client with one match and one place in the order, by rank: int64 ranks and sizes.

    ``hold`` is how much of the match is locked, ``matched`` what of it counts (all but one token at most).
    """

    __slots__ = ("blocks", "client", "edge", "index", "matched", "members", "order", "ranks", "sizes")

    def __init__(self, index: int, client: int, edge: Edge, blocks: int, matched: int, order: int) -> None:
        """An empty group with the number ``index``."""
        self.index = index
        self.client = client
        self.edge = edge
        self.blocks = blocks
        self.matched = matched
        self.order = order
        self.ranks = array("q")
        self.sizes = array("q")
        self.members: list[Queued] = []

    def add(self, request: Queued) -> None:
        """Put a request at its rank. O(1) at the end, else O(members) to make room."""
        place = len(self.ranks)
        if place and self.ranks[-1] > request.rank:
            place = bisect_left(self.ranks, request.rank)
        self.ranks.insert(place, request.rank)
        self.sizes.insert(place, request.size)
        self.members.insert(place, request)

    def remove(self, request: Queued) -> None:
        """Take a member out. O(members) to close the gap."""
        place = bisect_left(self.ranks, request.rank)
        del self.ranks[place], self.sizes[place], self.members[place]

    def first_after(self, rank: int) -> Queued | None:
        """The first member after ``rank``. O(log members)."""
        place = bisect_right(self.ranks, rank)
        return self.members[place] if place < len(self.members) else None

    def first_fitting(self, rank: int, room: int) -> Queued | None:
        """The first member after ``rank`` of size at most ``room``. O(members that are too large)."""
        start = bisect_right(self.ranks, rank)
        for place in range(start, min(start + _FEW, len(self.sizes))):
            if self.sizes[place] <= room:
                return self.members[place]
        for chunk in range(start + _FEW, len(self.sizes), _CHUNK):
            sizes = torch.frombuffer(self.sizes, dtype=INT64)[chunk : chunk + _CHUNK]
            fitting = (sizes <= room).nonzero()
            if fitting.numel():
                return self.members[chunk + int(fitting[0])]
        return None

    def smallest(self) -> int:
        """The least size of a member. O(members)."""
        if len(self.sizes) <= _FEW:
            return min(self.sizes, default=NEVER)
        return int(torch.frombuffer(self.sizes, dtype=INT64).amin())
