"""The waiting queue of the tensor path: requests that look alike to the scheduler are one group.

A group holds the waiting requests of one client that part from all other prompts at the same block, its *anchor*: what
lies beyond is not cached. So they match equally many tokens, whatever the cache does, and stand at one place in the
order up to arrival; and equally much of their match is locked. What decides among groups is one int64 tensor
``[fields, groups]``; a step that changes few prefixes touches few groups, however many requests wait.

During an admission phase the order is frozen as it was when the phase began, while matches and locks move on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from dlpm_engine.tensor.edge import Edge
from dlpm_engine.tensor.exact import HIGHEST, INT64
from dlpm_engine.tensor.group import NEVER, Anchor, Group, Queued
from dlpm_engine.tensor.radix import RadixCache
from dlpm_engine.tensor.survey import Survey

CLIENT, ORDER, SMALLEST, HOLD, FIRST, BOUND = range(6)
_FIELDS = 6
_FIRST_CAPACITY = 16
_NO_GROUP = (0, -1, NEVER, 0, NEVER, NEVER)


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the frozen order: by matched tokens, longest first, then by rank."""

    order: int
    rank: int


START = Place(HIGHEST, -1)
"""Before every request."""


class WaitingGroups:
    """The waiting queue, grouped. ``len()`` is the number of waiting requests.

    The tensor's fields: client; matched tokens that count for the order; a lower bound on the sizes; tokens of the
    match that are locked; the first rank; and a lower bound on the rank of the next request that fits, in this pass.
    """

    def __init__(self, cache: RadixCache) -> None:
        """An empty queue beside ``cache``."""
        self._cache = cache
        self._table = torch.zeros((_FIELDS, _FIRST_CAPACITY), dtype=INT64)
        self._groups: list[Group | None] = []
        self._unused: list[int] = []
        self._by_anchor: dict[Anchor, Group] = {}
        self._at: dict[Edge, dict[int, set[Group]]] = {}
        self._ending: dict[Edge, set[Queued]] = {}
        self._frozen = False
        self._displaced: set[Group] = set()
        self._reordered: set[Group] = set()
        self._count = 0
        self._survey: Survey | None = None

    def __len__(self) -> int:
        return self._count

    # -- members -------------------------------------------------------------------------------------------------------

    def add(self, request: Queued) -> None:
        """A request joins, at its rank. O(edges of its prompt), and O(group) unless it is the last by rank."""
        end = request.path.end()
        if end is not None:
            self._ending.setdefault(end[0], set()).add(request)
        group = self._group(self._anchor(request))
        group.add(request)
        self._note_members(group)
        self._count += 1

    def remove(self, request: Queued) -> None:
        """A request leaves. O(group)."""
        end = request.path.end()
        if end is not None:
            ending = self._ending[end[0]]
            ending.remove(request)
            if not ending:
                del self._ending[end[0]]
        group = request.group
        assert group is not None
        group.remove(request)
        self._count -= 1
        if not group.members:
            self._drop(group)
        elif group.ranks[0] > request.rank:
            self._table[FIRST, group.index] = group.ranks[0]
            self._bound(group.index, group.ranks[0])

    def _bound(self, index: int, rank: int) -> None:
        """In this pass the next request of a group that fits has ``rank`` at least. O(1)."""
        self._table[BOUND, index] = rank
        if self._survey is not None:
            self._survey.bound(index, rank)

    def _anchor(self, request: Queued) -> Anchor:
        """Where a waiting request belongs now. O(1).

        While nothing of its last edge is cached, that edge does not count. Then its whole prompt is not cached, and its
        match is less than its input, unless its blocks say more tokens than it has.
        """
        end = request.path.end()
        if end is None:
            return Anchor(request.client, self._cache.root, 0, 0)
        edge, blocks = end
        if edge.cached or edge.depth * edge.size >= request.request.input_tokens:
            return Anchor(request.client, edge, blocks, request.resident)
        assert edge.parent is not None
        return Anchor(request.client, edge.parent, edge.at, 0)

    # -- groups --------------------------------------------------------------------------------------------------------

    def _group(self, anchor: Anchor) -> Group:
        """The group with an anchor, made if there is none. O(edges)."""
        group = self._by_anchor.get(anchor)
        if group is None:
            matched, hold = _matched_and_locked(anchor)
            order = matched if anchor.order < 0 else anchor.order
            group = self._by_anchor[anchor] = Group(anchor, self._free_index(), order)
            self._groups[group.index] = group
            values = (anchor.client, order, NEVER, hold, NEVER, NEVER)
            self._table[:, group.index] = torch.tensor(values, dtype=INT64)
            self._at.setdefault(anchor.edge, {}).setdefault(anchor.blocks, set()).add(group)
            _count_below(anchor.edge, 1)
            if anchor.order >= 0:
                self._displaced.add(group)
            self._survey = None
        return group

    def _free_index(self) -> int:
        """A column of the table that no group uses."""
        if self._unused:
            return self._unused.pop()
        if len(self._groups) == self._table.shape[1]:
            self._table = torch.cat((self._table, torch.zeros_like(self._table)), dim=1)
        self._groups.append(None)
        return len(self._groups) - 1

    def _note_members(self, group: Group, joined: int = NEVER) -> None:
        """Members of a group came or went: write down what the table says about them. O(1).

        ``joined`` is the first rank of those who came: within a pass nobody may be taken for passed over who was not
        there when the others were.
        """
        self._survey = None
        if not group.members:
            self._drop(group)
            return
        column = self._table[:, group.index]
        smallest, hold, first, bound = column[SMALLEST:].tolist()
        if group.least != smallest or group.ranks[0] != first or joined < bound:
            values = (group.least, hold, group.ranks[0], min(bound, group.ranks[0], joined))
            column[SMALLEST:] = torch.tensor(values, dtype=INT64)

    def _drop(self, group: Group) -> None:
        """Forget an empty group."""
        anchor = group.anchor
        del self._by_anchor[anchor]
        self._groups[group.index] = None
        self._unused.append(group.index)
        self._table[:, group.index] = torch.tensor(_NO_GROUP, dtype=INT64)
        self._bound(group.index, NEVER)
        self._displaced.discard(group)
        self._reordered.discard(group)
        places = self._at[anchor.edge]
        places[anchor.blocks].remove(group)
        if not places[anchor.blocks]:
            del places[anchor.blocks]
        if not places:
            del self._at[anchor.edge]
        _count_below(anchor.edge, -1)

    # -- what the cache changed ----------------------------------------------------------------------------------------

    def follow_cache(self) -> None:
        """Take in what changed in the cache. O(groups concerned, and requests whose own last edge came or went)."""
        if self._cache.flipped:
            flipped, self._cache.flipped = self._cache.flipped, set()
            self._move([request for edge in flipped for request in self._ending.get(edge, ())])
        if self._cache.changed:
            changed, self._cache.changed = self._cache.changed, {}
            concerned: list[Group] = []
            for edge, blocks in changed.items():
                self._collect(edge, blocks, concerned)
            if concerned:
                self._refresh(concerned)

    def _move(self, requests: Iterable[Queued]) -> None:
        """Put requests into the groups where they belong now; in a frozen order they keep their place."""
        leaving: dict[Group, list[Queued]] = {}
        joining: dict[Anchor, list[Queued]] = {}
        for request in requests:
            group = request.group
            assert group is not None
            anchor = self._anchor(request)
            if self._frozen:
                anchor = replace(anchor, order=group.order)
            if anchor != group.anchor:
                leaving.setdefault(group, []).append(request)
                joining.setdefault(anchor, []).append(request)
        for group, members in leaving.items():
            group.remove_all(members)
            self._note_members(group)
        for anchor, members in joining.items():
            group = self._group(anchor)
            group.add_all(members)
            self._note_members(group, min(member.rank for member in members))

    def _collect(self, edge: Edge, blocks: int, concerned: list[Group]) -> None:
        """The groups whose anchor lies below the first ``blocks`` blocks of ``edge``."""
        for at, groups in self._at.get(edge, {}).items():
            if at > blocks:
                concerned.extend(groups)
        for child in edge.groups_below:
            if child.at > blocks:
                self._collect(child, 0, concerned)

    def _refresh(self, groups: list[Group]) -> None:
        """Matches or locks of these groups may have changed."""
        orders: list[int] = []
        holds: list[int] = []
        for group in groups:
            matched, hold = _matched_and_locked(group.anchor)
            holds.append(hold)
            if group.anchor.order < 0 and matched != group.order:
                if self._frozen:
                    self._reordered.add(group)
                else:
                    group.order = matched
            orders.append(group.order)
        columns = torch.tensor([group.index for group in groups], dtype=INT64)
        self._table[ORDER, columns] = torch.tensor(orders, dtype=INT64)
        self._table[HOLD, columns] = torch.tensor(holds, dtype=INT64)
        # More of a match may be locked than before, so that requests already passed over may fit now.
        self._table[BOUND, columns] = self._table[FIRST, columns]
        self._survey = None

    # -- the admission phase -------------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """An admission phase begins: the order stays what it is now."""
        self.follow_cache()
        self._frozen = True

    def thaw(self) -> None:
        """The admission phase is over: what moved in the order does so now. O(groups and requests concerned)."""
        self.follow_cache()
        self._frozen = False
        self._move([request for group in self._displaced for request in group.members])
        if self._reordered:
            self._refresh(list(self._reordered))
            self._reordered.clear()

    def start_pass(self) -> None:
        """A pass over the queue begins, or what was passed over may fit after all. O(groups)."""
        self._table[BOUND] = self._table[FIRST]
        self._survey = None

    def credit_given(self) -> None:
        """Clients got credit, so that their requests count again. O(1)."""
        self._survey = None

    def in_order(self) -> list[Queued]:
        """All waiting requests in the order, as frozen. O(n log n)."""
        everyone = [(group.order, request) for group in self._by_anchor.values() for request in group.members]
        return [request for _, request in sorted(everyone, key=lambda entry: (-entry[0], entry[1].rank))]

    def by_rank(self) -> list[Queued]:
        """All waiting requests in order of arrival. O(n log n)."""
        everyone = [request for group in self._by_anchor.values() for request in group.members]
        return sorted(everyone, key=lambda request: request.rank)

    def next_any(self, after: Place) -> Queued | None:
        """The next request after a place, whatever it needs. O(groups)."""
        used = self._table[:, : len(self._groups)]
        alive = used[FIRST] < NEVER
        tied = (alive & (used[ORDER] == after.order)).nonzero().flatten().tolist()
        followers = [self._group_at(index).first_after(after.rank) for index in tied]
        first = min((request for request in followers if request is not None), key=_rank, default=None)
        if first is not None:
            return first
        later = (alive & (used[ORDER] < after.order)).nonzero().flatten()
        if not later.numel():
            return None
        orders = used[ORDER, later]
        best = later[orders == orders.amax()]
        return self._group_at(int(best[used[FIRST, best].argmin()])).members[0]

    def next_fitting(self, after: Place, room: int, deficits: torch.Tensor) -> Queued | None:
        """The next request after a place whose client has credit and that fits into ``room`` tokens.

        ``deficits`` are those of all clients, ``[clients]``. Within a pass, room and credit only shrink but where this
        class is told otherwise. O(groups), and O(requests passed over that do not fit).
        """
        if room < 1:
            return None
        self.follow_cache()
        fresh = self._survey is None
        while True:
            if self._survey is None:
                used = self._table[:, : len(self._groups)]
                possible = (used[SMALLEST] <= used[HOLD] + room) & (deficits > 0)[used[CLIENT]]
                self._survey = Survey(
                    torch.where(possible & (used[ORDER] <= after.order), used[ORDER], -1), used[BOUND]
                )
            best = self._survey.best()
            if best is None:
                return None
            index, bound = best
            group = self._group_at(index)
            room_here = room + int(self._table[HOLD, index])
            if not fresh and (group.least > room_here or int(deficits[group.anchor.client]) <= 0):
                self._survey = None
                fresh = True
                continue
            rank = after.rank if group.order == after.order else -1
            found = group.first_fitting(max(rank, bound - 1), room_here)
            if found is None:
                group.least = group.smallest()
                self._table[SMALLEST, index] = group.least
                self._bound(index, NEVER)
            elif found.rank == bound:
                return found
            else:
                self._bound(index, found.rank)

    def fits(self, request: Queued, room: int) -> bool:
        """Whether ``room`` tokens hold what of ``request`` is not locked yet. O(1)."""
        self.follow_cache()
        assert request.group is not None
        return request.size - int(self._table[HOLD, request.group.index]) <= room

    def _group_at(self, index: int) -> Group:
        """The group that uses a column."""
        group = self._groups[index]
        assert group is not None
        return group


def _matched_and_locked(anchor: Anchor) -> tuple[int, int]:
    """Tokens that requests with an anchor match now, all but one at most, and how many of those are locked."""
    edge, blocks = anchor.edge.cached_end(anchor.blocks)
    matched = edge.tokens(blocks)
    if anchor.reach:
        matched = min(matched, anchor.reach - 1)
    return matched, min(edge.locked_tokens(blocks), matched)


def _count_below(edge: Edge, change: int) -> None:
    """Tell every edge above how many groups there are in and below the one of its children that leads to ``edge``."""
    while edge.parent is not None:
        below = edge.parent.groups_below
        below[edge] = below.get(edge, 0) + change
        if not below[edge]:
            del below[edge]
        edge = edge.parent


def _rank(request: Queued) -> int:
    """Place in the order of arrival."""
    return request.rank
