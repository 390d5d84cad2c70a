"""One group of the waiting queue: its members by rank, and the first of them that fits."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch

from dlpm.request import Request
from dlpm_engine.tensor.edge import Edge, Path
from dlpm_engine.tensor.exact import INT64

NEVER = 2**62
"""A rank or size that no request has."""

_FEW = 32
_CHUNK = 4096


@dataclass(slots=True, eq=False)
class Queued:
    """A waiting request: ``client`` is its number, ``size`` the tokens it needs with nothing of it locked."""

    path: Path
    request: Request
    client: int
    rank: int
    size: int = 0
    generated: int = 0
    group: Group | None = None

    @property
    def resident(self) -> int:
        """Tokens that must be in memory once it runs."""
        return self.request.input_tokens + self.generated


@dataclass(frozen=True, slots=True)
class Anchor:
    """What members of a group have in common, and what makes two groups two.

    Attributes:
        client: number of the client.
        edge, blocks: the last block that any member could match; what lies beyond is not cached.
        reach: their resident tokens, where a member could be cached as a whole; 0 where none could.
        order: their place in a frozen order, where that is not their group's; -1 otherwise.
    """

    client: int
    edge: Edge
    blocks: int
    reach: int
    order: int = -1


class Group:
    """Waiting requests with one anchor, by rank; ranks and sizes are int64.

    Attributes:
        anchor: what they have in common.
        index: number of the group.
        order: matched tokens that count for the order.
        least: a lower bound on the sizes.
    """

    __slots__ = ("anchor", "index", "least", "members", "order", "ranks", "sizes")

    def __init__(self, anchor: Anchor, index: int, order: int) -> None:
        """An empty group."""
        self.anchor = anchor
        self.index = index
        self.order = order
        self.least = NEVER
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
        self.least = min(self.least, request.size)
        request.group = self

    def add_all(self, requests: Iterable[Queued]) -> None:
        """Put several requests at their ranks. O(n log n) in members and requests together."""
        self._hold(sorted((*self.members, *requests), key=lambda request: request.rank))

    def remove(self, request: Queued) -> None:
        """Take a member out. O(members) to close the gap."""
        place = bisect_left(self.ranks, request.rank)
        del self.ranks[place], self.sizes[place], self.members[place]
        request.group = None

    def remove_all(self, requests: Collection[Queued]) -> None:
        """Take several members out. O(members)."""
        for request in requests:
            request.group = None
        self._hold([request for request in self.members if request.group is not None])

    def _hold(self, members: list[Queued]) -> None:
        """Let these be the members."""
        self.members = members
        self.ranks = array("q", [request.rank for request in members])
        self.sizes = array("q", [request.size for request in members])
        self.least = self.smallest()
        for request in members:
            request.group = self

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
