"""Numbers for block keys: equal if and only if the keys are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from dlpm.request import BlockKey
from dlpm_engine.tensor.keys import BlockKeys

integers = (
    st.integers(-5, 5) | st.integers(2**62 - 2, 2**62 + 2) | st.integers(2**63 - 1, 2**64) | st.just(-(2**62) - 1)
)
keys: st.SearchStrategy[BlockKey] = integers | st.tuples(st.integers(0, 1), st.integers(0, 1))


@given(st.lists(st.lists(keys, max_size=5), max_size=6))
def test_two_keys_get_the_same_number_if_and_only_if_they_are_equal(sequences: list[list[BlockKey]]) -> None:
    numbers = BlockKeys()
    pairs = [
        (key, number)
        for sequence in sequences
        for key, number in zip(sequence, numbers.tensor(sequence).tolist(), strict=True)
    ]
    for key, number in pairs:
        for other, its_number in pairs:
            assert (key == other) == (number == its_number)
