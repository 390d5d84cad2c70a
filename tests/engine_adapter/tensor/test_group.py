"""A group of waiting requests finds the first that fits, like a search from the front."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from dlpm.request import Request  # noqa: E402
from dlpm_engine.tensor.edge import Edge, Path  # noqa: E402
from dlpm_engine.tensor.exact import INT64  # noqa: E402
from dlpm_engine.tensor.group import Anchor, Group, Queued  # noqa: E402

ROOT = Edge(None, 0, torch.empty(0, dtype=INT64), 1)


def queued(rank: int, size: int) -> Queued:
    """A waiting request of which only rank and size matter."""
    return Queued(Path(()), Request(f"r{rank}", "A", 0, 1, 1, 1, prompt=(0,)), 0, rank, size)


@given(
    sizes=st.dictionaries(st.integers(0, 300), st.integers(1, 9), max_size=90),
    order=st.randoms(use_true_random=False),
    queries=st.lists(st.tuples(st.integers(-1, 300), st.integers(0, 9)), max_size=8),
)
def test_the_first_that_fits_is_the_first_that_fits(
    sizes: dict[int, int], order: Random, queries: list[tuple[int, int]]
) -> None:
    ranks = list(sizes)
    order.shuffle(ranks)
    group = Group(Anchor(0, ROOT, 0, 0), 0, 0)
    requests = {rank: queued(rank, sizes[rank]) for rank in ranks}
    one_by_one = ranks[: len(ranks) // 2]
    for rank in one_by_one:
        group.add(requests[rank])
    group.add_all(requests[rank] for rank in ranks[len(ranks) // 2 :])
    gone = ranks[::3]
    for rank in gone[::2]:
        group.remove(requests[rank])
    group.remove_all([requests[rank] for rank in gone[1::2]])
    left = sorted(set(ranks) - set(gone))
    assert [member.rank for member in group.members] == left
    assert group.smallest() == min((sizes[rank] for rank in left), default=2**62)
    for after, room in queries:
        fitting = [rank for rank in left if rank > after and sizes[rank] <= room]
        found = group.first_fitting(after, room)
        assert (found.rank if found else None) == (fitting[0] if fitting else None)
        follower = group.first_after(after)
        assert (follower.rank if follower else None) == next((rank for rank in left if rank > after), None)


def test_a_search_through_thousands_of_large_requests_finds_the_small_one() -> None:
    group = Group(Anchor(0, ROOT, 0, 0), 0, 0)
    group.add_all(queued(rank, 5 if rank == 9000 else 50) for rank in range(10_000))
    found = group.first_fitting(-1, 10)
    assert found is not None
    assert found.rank == 9000
    assert group.first_fitting(9000, 10) is None
