"""Times of copies between GPU and CPU memory: exact sums, laws of any link, and the documented figures."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from math import ceil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlpm.errors import InputError
from dlpm.swap_timing import PCIE_4_X16, FixedCopy, Interconnect, interconnect_of
from dlpm.timing import MODELS

links = st.builds(
    Interconnect, st.integers(1, 10**6), st.integers(1, 200), st.integers(1, 10**12), st.integers(0, 10**6)
)
pieces = st.integers(0, 10**4)
tokens = st.integers(0, 10**6)


@given(links, pieces, tokens)
def test_a_copy_takes_its_overheads_and_its_bytes_rounded_up_once(link: Interconnect, count: int, moved: int) -> None:
    issuing = count * link.copies_per_piece * Fraction(link.overhead_ns, 1000)
    moving = Fraction(moved * link.bytes_per_token * 10**6, link.bandwidth)
    assert link.copy_us(count, moved) == ceil(issuing + moving)


@given(links, pieces, tokens, pieces, tokens)
def test_two_copies_in_one_take_no_longer_and_save_a_microsecond_at_most(
    link: Interconnect, count: int, moved: int, more_pieces: int, more_tokens: int
) -> None:
    apart = link.copy_us(count, moved) + link.copy_us(more_pieces, more_tokens)
    assert 0 <= apart - link.copy_us(count + more_pieces, moved + more_tokens) <= 1


@given(links, st.integers(1, 10**4), tokens)
def test_fewer_pieces_save_their_overheads_and_nothing_else(link: Interconnect, count: int, moved: int) -> None:
    saved = Fraction((count - 1) * link.copies_per_piece * link.overhead_ns, 1000)
    assert abs(link.copy_us(count, moved) - link.copy_us(1, moved) - saved) < 1


def test_a_copy_computed_by_hand() -> None:
    """2 pieces of 3 copies of 500 ns; 5 tokens of 1,000 bytes at 10^9 bytes a second: 3 us and 5 us."""
    assert Interconnect(1_000, 3, bandwidth=10**9, overhead_ns=500).copy_us(2, 5) == 8


def test_a_key_and_a_value_tensor_a_layer_make_the_copies_of_a_piece() -> None:
    model = replace(MODELS["llama-3.1-8b"], layers=3)
    link = interconnect_of(model)
    assert link.copies_per_piece == 6
    assert link.bytes_per_token == 6 * model.kv_heads * model.head_dim * 2


def test_the_link_is_no_faster_than_sixteen_lanes_of_pcie_4() -> None:
    """16 GT/s a lane, 128 bits of data in 130, eight bits a byte."""
    lanes = Fraction(16 * 16 * 10**9 * 128, 130 * 8)
    assert Fraction(3, 4) < PCIE_4_X16 / lanes < Fraction(17, 20)


def test_the_table_of_the_documentation_is_what_the_code_computes(repository: Path) -> None:
    text = (repository / "docs" / "timing.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (llama\S+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", text, flags=re.MULTILINE)
    assert {model for model, *_ in rows} == set(MODELS)
    for model, copies, *cells in rows:
        link = interconnect_of(MODELS[model])
        assert int(copies) == link.copies_per_piece
        times = [link.copy_us(1, 16), link.copy_us(64, 1_024), link.copy_us(1, 1_024)]
        assert cells == [f"{time / 1000:.3f}" for time in times]


def test_fixed_copies_take_so_long_a_piece_whatever_they_move() -> None:
    assert [FixedCopy(7).copy_us(count, 100 - count) for count in (0, 1, 3)] == [0, 7, 21]


@pytest.mark.parametrize(
    ("field", "value", "least"),
    [("bytes_per_token", 0, 1), ("copies_per_piece", 0, 1), ("bandwidth", 0, 1), ("overhead_ns", -1, 0)],
)
def test_a_link_that_never_ends_a_copy_is_refused(field: str, value: int, least: int) -> None:
    link = Interconnect(1, 1)
    with pytest.raises(InputError, match=f"{field}: expected an integer >= {least}, found {value}"):
        replace(link, **{field: value})
