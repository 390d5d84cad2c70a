"""Read TTIR line by line, and write Python beside it: what all operations share."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NoReturn

from tests.engine_adapter.tensor.ttir_numbers import TtirError


@dataclass(frozen=True, slots=True)
class Type:
    """An integer or a pointer to integers, of which there is one, or a block of ``lanes``."""

    element: str
    lanes: int
    is_pointer: bool


@dataclass(slots=True)
class Region:
    """An operation whose regions are being read: its results, and what is carried from turn to turn."""

    kind: str
    results: list[str]
    carried: list[str] = field(default_factory=list)


class Reader:
    """A module of TTIR, up to a line; and the Python for what came before."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = iter(lines)
        self._line = ""
        self._names: dict[str, str] = {}
        self._defined = 0
        self._source: list[str] = []
        self._regions: list[Region] = []

    # -- reading -------------------------------------------------------------------------------------------------------

    def _next(self, expected: str | None = None) -> str:
        """The next line; it must be the one expected, if one is."""
        self._line = next(self._lines, "")
        if not self._line or expected not in {None, self._line}:
            self._unknown()
        return self._line

    def _unknown(self) -> NoReturn:
        raise TtirError(f"not known here: {self._line or 'the end of the text'}")

    def _typed(self, text: str) -> Type:
        """A type."""
        integer = r"(?P<pointer>!tt\.ptr<)?(?P<element>i1|i8|i32|i64)(?(pointer)>)"
        pattern = rf"(?P<block>tensor<(?P<lanes>\d+)x)?{integer}(?(block)>)"
        match = re.fullmatch(pattern, text)
        if match is None or (match["pointer"] and match["element"] == "i1"):
            self._unknown()
        return Type(match["element"], int(match["lanes"] or 0), match["pointer"] is not None)

    def _integers(self, text: str, *elements: str) -> Type:
        """A type of integers of one of these widths."""
        kind = self._typed(text)
        if kind.is_pointer or kind.element not in elements:
            self._unknown()
        return kind

    def _values(self, *names: str) -> list[str]:
        """What operands are in Python. An operand that nothing known has defined is an error."""
        missing = [name for name in names if name not in self._names]
        if missing:
            raise TtirError(f"not defined by anything known here: {missing[0]} in {self._line}")
        return [self._names[name] for name in names]

    def _pointers(self, text: str) -> str:
        """What pointers point to."""
        kind = self._typed(text)
        if not kind.is_pointer:
            self._unknown()
        return kind.element

    def _within(self, *kinds: str) -> Region:
        """The region that is being read."""
        if not self._regions or self._regions[-1].kind not in kinds:
            self._unknown()
        return self._regions[-1]

    # -- writing -------------------------------------------------------------------------------------------------------

    def _write(self, text: str) -> None:
        self._source.append("    " * (1 + len(self._regions)) + text)

    def _define(self, name: str) -> str:
        """A name in Python for a result.

        TTIR uses a name again only where the first is no longer visible, so one function can hold all of them.
        """
        if name not in self._names:
            self._names[name] = f"v{self._defined}"
            self._defined += 1
        return self._names[name]

    def _assign(self, results: list[str], expression: str) -> None:
        """The one result of an operation."""
        if len(results) != 1:
            self._unknown()
        self._write(f"{self._define(results[0])} = {expression}")

    def _open(self, head: str, region: Region) -> None:
        self._write(head)
        self._regions.append(region)
        # A region may be empty.
        self._write("pass")

    def _give(self, names: list[str], values: list[str]) -> None:
        """Several values at once, to names in Python."""
        if len(names) != len(values):
            self._unknown()
        if names:
            self._write(f"{', '.join(names)}, = {', '.join(values)},")


def listed(text: str) -> list[str]:
    """Parts between commas."""
    return text.split(", ") if text else []
