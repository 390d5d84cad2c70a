"""A table of text, as a terminal shows it and as a pipe gets it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_GAP = "  "


@dataclass(frozen=True, slots=True)
class Sheet:
    """Rows of text under a title. The first ``words`` columns are flush left, the others right.

    A column's header may have two lines. A cell in ``loud`` stands out where there is colour.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    loud: frozenset[str] = frozenset()
    words: int = 1

    def plain(self) -> str:
        """Aligned text without any decoration, for pipes and files. O(cells)."""
        lines = [*_header_lines(self.header), *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]
        text = [self.title] if self.title else []
        for line in lines:
            cells = (
                cell.ljust(width) if place < self.words else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            text.append(_GAP.join(cells).rstrip())
        return "\n".join(text)

    def rich(self) -> Table:
        """The same for a terminal, without the title, which may be wider."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for place, name in enumerate(self.header):
            table.add_column(Text(name), justify="left" if place < self.words else "right", no_wrap=place == 0)
        for row in self.rows:
            table.add_row(*(Text(cell, style="bold red" if cell in self.loud else "") for cell in row))
        return table


def show(console: Console, sheets: Sequence[Sheet]) -> None:
    """Print sheets one below the other: as tables on a terminal, plain otherwise."""
    for sheet in sheets:
        if console.is_terminal:
            if sheet.title:
                console.print(Text(sheet.title, style="bold"))
            console.print(sheet.rich())
        else:
            console.print(sheet.plain(), "\n", sep="", soft_wrap=True)


def _header_lines(header: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The header as one or two lines of cells, one-line names below."""
    if not any("\n" in name for name in header):
        return [header]
    split = [name.partition("\n") for name in header]
    upper = tuple(first if newline else "" for first, newline, _ in split)
    lower = tuple(second if newline else first for first, newline, second in split)
    return [upper, lower]


def whole(number: int | None) -> str:
    """A count with thousands separated, or a dash."""
    return "-" if number is None else f"{number:,}"


def ratio(value: Fraction | None) -> str:
    """A ratio to three decimals, or a dash."""
    return "-" if value is None else f"{float(value):.3f}"


def percent(value: Fraction | None) -> str:
    """A share in per cent, or a dash."""
    return "-" if value is None else f"{float(value) * 100:.1f}%"


def seconds(time_us: int | None) -> str:
    """Microseconds as seconds with about four digits, or a dash."""
    return "-" if time_us is None else about(time_us / 1_000_000)


def about(value: float) -> str:
    """A measured number: as many decimals as its size deserves."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def compact(number: int) -> str:
    """A large count in at most five characters: ``9.18M``, ``918k``, ``918``."""
    for size, letter in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            value = number / size
            return f"{value:.0f}{letter}" if value >= 100 else f"{value:.3g}{letter}"
    return str(number)
