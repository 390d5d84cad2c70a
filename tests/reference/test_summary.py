"""What a summary makes of numbers: the Jain index and percentiles."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlpm.summary import jain_index, percentile, quantiles


@given(shares=st.lists(st.integers(min_value=0, max_value=1000), min_size=1, max_size=20))
def test_the_jain_index_lies_between_one_nth_and_one(shares: list[int]) -> None:
    assert Fraction(1, len(shares)) <= jain_index(shares) <= 1


@given(share=st.integers(min_value=1, max_value=1000), clients=st.integers(min_value=1, max_value=20))
def test_equal_shares_have_index_one_and_a_monopoly_one_nth(share: int, clients: int) -> None:
    assert jain_index([share] * clients) == 1
    assert jain_index([share] + [0] * (clients - 1)) == Fraction(1, clients)


def test_the_jain_index_of_two_to_one_is_nine_tenths() -> None:
    """(2 + 1)^2 / (2 (4 + 1)) = 9 / 10."""
    assert jain_index([2, 1]) == Fraction(9, 10)


def test_nothing_for_everyone_is_equal_and_no_one_at_all_is_refused() -> None:
    assert jain_index([0, 0]) == 1
    with pytest.raises(ValueError, match="at least one"):
        jain_index([])


@given(
    values=st.lists(st.integers(min_value=0, max_value=50), min_size=1, max_size=60),
    percent=st.integers(min_value=1, max_value=100),
)
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(values: list[int], percent: int) -> None:
    found = percentile(sorted(values), percent)

    def covered(bound: int) -> bool:
        return 100 * sum(1 for value in values if value <= bound) >= percent * len(values)

    assert found == min(value for value in values if covered(value))


def test_percentiles_of_one_to_two_hundred() -> None:
    found = quantiles(range(1, 201))
    assert found is not None
    assert (found.count, found.p50, found.p90, found.p99, found.maximum) == (200, 100, 180, 198, 200)
    assert quantiles([]) is None
