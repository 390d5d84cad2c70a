"""Tables show the same cells on a terminal and in a pipe, and numbers keep their size when they are shortened."""

from __future__ import annotations

import io
import re

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dlpm_engine.report.sheet import Sheet, about, compact, show

cells = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8)


@st.composite
def sheets(draw: st.DrawFn) -> Sheet:
    columns = draw(st.integers(1, 5))
    row = st.tuples(*[cells] * columns)
    header = tuple(draw(st.lists(st.one_of(cells, st.just("two\nlines")), min_size=columns, max_size=columns)))
    return Sheet("title", header, tuple(draw(st.lists(row, max_size=4))))


def printed(sheet: Sheet, *, terminal: bool) -> str:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=200, no_color=True, markup=False, emoji=False)
    show(console, [sheet])
    return re.sub(r"\x1b\[[0-9;]*m", "", text.getvalue())


@given(sheets())
def test_a_terminal_and_a_pipe_show_the_same_words_in_the_same_order(sheet: Sheet) -> None:
    plain, rich = (re.findall(r"[A-Za-z0-9]+", printed(sheet, terminal=terminal)) for terminal in (False, True))
    assert plain == rich


@given(sheets())
def test_in_plain_text_every_row_is_a_line_and_every_column_but_the_first_ends_flush(sheet: Sheet) -> None:
    lines = sheet.plain().splitlines()[1:]
    rows = lines[len(lines) - len(sheet.rows) :]
    for line, row in zip(rows, sheet.rows, strict=True):
        assert line.split() == list(row)
        assert len(line) == len(rows[0]) or len(row) == 1
    assert all(line == line.rstrip() for line in lines)


@given(st.integers(0, 999_000_000_000_000))
def test_a_compact_number_is_short_and_within_one_percent(number: int) -> None:
    text = compact(number)
    size = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}.get(text[-1], 1)
    value = float(text.rstrip("kMGT")) * size
    assert abs(value - number) <= number / 100
    assert len(text) <= 5


@given(st.floats(0, 1e9))
def test_a_measured_number_keeps_about_three_digits(value: float) -> None:
    assert abs(float(about(value).replace(",", "")) - value) <= max(value / 190, 0.005)
