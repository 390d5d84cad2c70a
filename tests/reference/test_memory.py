"""Admission control, by its definition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlpm.errors import InputError
from dlpm.memory import Optimistic, Reserving

tokens = st.integers(0, 20)


@given(free=tokens, extend=tokens, output_left=tokens, running=st.integers(0, 3))
def test_reserving_memory_asks_for_the_whole_output_too(free: int, extend: int, output_left: int, running: int) -> None:
    memory = Reserving()
    assert memory.can_add(free, extend, output_left, running) == (extend + output_left <= free)
    assert memory.reserve(output_left) == output_left


@given(free=tokens, extend=tokens, output_left=tokens, running=st.integers(0, 3), watermark=tokens)
def test_optimistic_memory_asks_for_extend_tokens_and_a_watermark_beside_others(
    free: int, extend: int, output_left: int, running: int, watermark: int
) -> None:
    memory = Optimistic(watermark)
    beside = watermark if running > 0 else 0
    assert memory.can_add(free, extend, output_left, running) == (extend + beside <= free)
    assert memory.reserve(output_left) == 0


def test_memory_has_the_name_it_has_in_logs() -> None:
    assert (Reserving().kind, Optimistic().kind) == ("reserving", "optimistic")


def test_optimistic_memory_keeps_nothing_free_unless_told() -> None:
    assert Optimistic() == Optimistic(0)


def test_a_negative_watermark_is_refused() -> None:
    with pytest.raises(InputError, match=r"^watermark: expected an integer >= 0, found -1$"):
        Optimistic(-1)
