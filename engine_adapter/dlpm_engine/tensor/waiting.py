"""The waiting queue of the tensor path: requests that look alike to the scheduler are one group.

A group holds the waiting requests of one client whose longest match ends at the same block. They share the matched
length, and so the place in the order up to arrival, and the locked part of their match, and so all that admission asks
about them but their own size. What decides among groups is one int64 tensor ``[fields, groups]``; a step that changes
few prefixes touches few groups, however many requests wait.

During an admission phase the order is frozen as it was when the phase began, while matches and locks move on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dlpm.request import Request
from dlpm_engine.tensor.edge import Edge, Node, Parked
from dlpm_engine.tensor.exact import HIGHEST, INT64
from dlpm_engine.tensor.group import NEVER, Group
from dlpm_engine.tensor.radix import RadixCache

CLIENT, ORDER, SMALLEST, HOLD, FIRST, BOUND = range(6)
_FIELDS = 6
_FIRST_CAPACITY = 16


@dataclass(slots=True, eq=False)
class Queued(Parked):
    """A waiting request: ``client`` is its number, ``size`` the tokens it needs with nothing of it locked."""

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
class Place:
    """A place in the frozen order: by matched tokens, longest first, then by rank."""

    order: int
    rank: int


START = Place(HIGHEST, -1)
"""Before every request."""


class WaitingGroups:
    """The waiting queue, grouped. ``len()`` is the number of waiting requests.

    The tensor's fields: client; matched tokens when the order was frozen; a lower bound on the sizes; tokens of the
    match that are locked; the first rank; and a lower bound on the rank of the next request that fits, in this pass.
    """

    def __init__(self, cache: RadixCache) -> None:
        """An empty queue beside ``cache``."""
        self._cache = cache
        self._table = torch.zeros((_FIELDS, _FIRST_CAPACITY), dtype=INT64)
        self._groups: list[Group | None] = []
        self._unused: list[int] = []
        self._by_key: dict[tuple[int, Edge, int, int, int], Group] = {}
        self._at: dict[Edge, dict[int, set[Group]]] = {}
        self._below: dict[Edge, dict[Edge, int]] = {}
        self._frozen = False
        self._displaced: set[Group] = set()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    # -- members -------------------------------------------------------------------------------------------------------

    def add(self, request: Queued) -> None:
        """A request joins, at its rank. O(edges of its prompt), and O(group) unless it is the last by rank."""
        self._cache.park(request)
        self._join(request, None)
        self._count += 1

    def remove(self, request: Queued) -> None:
        """A request leaves. O(group)."""
        self._leave(request)
        self._cache.unpark(request)
        self._count -= 1

    def _join(self, request: Queued, order: int | None) -> None:
        """Put a parked request into its group; ``order`` is its place in a frozen order."""
        edge, blocks = request.node
        matched = min(edge.tokens(blocks), request.resident - 1)
        group = self._group(request.client, request.node, matched, matched if order is None else order)
        group.add(request)
        request.group = group
        column = self._table[:, group.index]
        values = column.tolist()
        values[SMALLEST] = min(values[SMALLEST], request.size)
        values[FIRST] = min(values[FIRST], request.rank)
        values[BOUND] = min(values[BOUND], request.rank)
        column.copy_(torch.tensor(values, dtype=INT64))

    def _leave(self, request: Queued) -> None:
        """Take a request out of its group."""
        group = request.group
        assert group is not None
        group.remove(request)
        request.group = None
        if group.members:
            self._table[FIRST, group.index] = group.ranks[0]
        else:
            self._drop(group)

    # -- groups --------------------------------------------------------------------------------------------------------

    def _group(self, client: int, node: Node, matched: int, order: int) -> Group:
        """The group with these properties, made if there is none."""
        edge, blocks = node
        key = (client, edge, blocks, matched, order)
        group = self._by_key.get(key)
        if group is None:
            group = self._by_key[key] = Group(self._free_index(), client, edge, blocks, matched, order)
            self._groups[group.index] = group
            hold = min(edge.locked_tokens(blocks), matched)
            values = (client, order, NEVER, hold, NEVER, NEVER)
            self._table[:, group.index] = torch.tensor(values, dtype=INT64)
            self._at.setdefault(edge, {}).setdefault(blocks, set()).add(group)
            self._count_below(edge, 1)
            if order != matched:
                self._displaced.add(group)
        return group

    def _free_index(self) -> int:
        """A column of the table that no group uses."""
        if self._unused:
            return self._unused.pop()
        if len(self._groups) == self._table.shape[1]:
            self._table = torch.cat((self._table, torch.zeros_like(self._table)), dim=1)
        self._groups.append(None)
        return len(self._groups) - 1

    def _drop(self, group: Group) -> None:
        """Forget an empty group."""
        del self._by_key[group.client, group.edge, group.blocks, group.matched, group.order]
        self._groups[group.index] = None
        self._unused.append(group.index)
        values = (0, -1, NEVER, 0, NEVER, NEVER)
        self._table[:, group.index] = torch.tensor(values, dtype=INT64)
        self._displaced.discard(group)
        places = self._at[group.edge]
        places[group.blocks].remove(group)
        if not places[group.blocks]:
            del places[group.blocks]
        if not places:
            del self._at[group.edge]
        self._count_below(group.edge, -1)

    def _count_below(self, edge: Edge, change: int) -> None:
        """Tell every edge above how many groups there are below it, and through which of its children."""
        while edge.parent is not None:
            below = self._below.setdefault(edge.parent, {})
            below[edge] = below.get(edge, 0) + change
            if not below[edge]:
                del below[edge]
                if not below:
                    del self._below[edge.parent]
            edge = edge.parent

    # -- what the cache changed ----------------------------------------------------------------------------------------

    def follow_cache(self) -> None:
        """Take in what changed in the cache. O(requests whose match changed + groups whose locks changed)."""
        moved, self._cache.moved = self._cache.moved, set()
        for parked in moved:
            assert isinstance(parked, Queued)
            if parked.group is not None:
                order = parked.group.order if self._frozen else None
                self._leave(parked)
                self._cache.unpark(parked)
                self._cache.park(parked)
                self._join(parked, order)
        relocked, self._cache.relocked = self._cache.relocked, {}
        indices: list[int] = []
        holds: list[int] = []
        for edge, blocks in relocked.items():
            self._collect_holds(edge, blocks, indices, holds)
        if indices:
            columns = torch.tensor(indices, dtype=INT64)
            self._table[HOLD, columns] = torch.tensor(holds, dtype=INT64)
            # More of a match may be locked than before, so that requests already passed over may fit now.
            self._table[BOUND, columns] = self._table[FIRST, columns]

    def _collect_holds(self, edge: Edge, blocks: int, indices: list[int], holds: list[int]) -> None:
        """The groups below the first ``blocks`` blocks of ``edge``, and how much of their match is locked."""
        for at, groups in self._at.get(edge, {}).items():
            if at > blocks:
                locked = edge.locked_tokens(at)
                for group in groups:
                    indices.append(group.index)
                    holds.append(min(locked, group.matched))
        for child in self._below.get(edge, {}):
            if child.at > blocks:
                self._collect_holds(child, 0, indices, holds)

    # -- the admission phase -------------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """An admission phase begins: the order stays what it is now."""
        self.follow_cache()
        self._frozen = True

    def thaw(self) -> None:
        """The admission phase is over: requests whose match changed move to their new place. O(such requests)."""
        self.follow_cache()
        self._frozen = False
        for group in tuple(self._displaced):
            for request in tuple(group.members):
                self._leave(request)
                self._join(request, None)

    def start_pass(self) -> None:
        """A pass over the queue begins. O(groups)."""
        self._table[BOUND] = self._table[FIRST]

    def in_order(self) -> list[Queued]:
        """All waiting requests in the order, as frozen. O(n log n)."""
        everyone = [(group.order, request) for group in self._by_key.values() for request in group.members]
        return [request for _, request in sorted(everyone, key=lambda entry: (-entry[0], entry[1].rank))]

    def by_rank(self) -> list[Queued]:
        """All waiting requests in order of arrival. O(n log n)."""
        everyone = [request for group in self._by_key.values() for request in group.members]
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

        ``deficits`` are those of all clients, ``[clients]``. O(groups), and O(requests passed over that do not fit).
        """
        self.follow_cache()
        used = self._table[:, : len(self._groups)]
        possible = (used[SMALLEST] - used[HOLD] <= room) & (used[ORDER] <= after.order)
        columns = possible.nonzero().flatten()
        columns = columns[deficits[used[CLIENT, columns]] > 0]
        while columns.numel():
            orders = used[ORDER, columns]
            top = int(orders.amax())
            found = self._first_fitting(columns[orders == top], after.rank if top == after.order else -1, room)
            if found is not None:
                return found
            columns = columns[orders < top]
        return None

    def _first_fitting(self, columns: torch.Tensor, rank: int, room: int) -> Queued | None:
        """The first request after ``rank`` that fits, of the groups in ``columns``: best first, by their bounds."""
        bounds = self._table[BOUND, columns]
        while True:
            place = int(bounds.argmin())
            bound = int(bounds[place])
            if bound >= NEVER:
                return None
            index = int(columns[place])
            group = self._group_at(index)
            found = group.first_fitting(max(rank, bound - 1), room + int(self._table[HOLD, index]))
            if found is None:
                self._table[SMALLEST, index] = group.smallest()
            elif found.rank == bound:
                return found
            bounds[place] = self._table[BOUND, index] = NEVER if found is None else found.rank

    def _group_at(self, index: int) -> Group:
        """The group that uses a column."""
        group = self._groups[index]
        assert group is not None
        return group

    def fits(self, request: Queued, room: int) -> bool:
        """Whether ``room`` tokens hold what of ``request`` is not locked yet. O(1)."""
        assert request.group is not None
        self.follow_cache()
        return request.size - int(self._table[HOLD, request.group.index]) <= room


def _rank(request: Queued) -> int:
    """Place in the order of arrival."""
    return request.rank
