"""Fields of one parsed line, checked as they are taken: what a workload or trace reader is made of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal

from dlpm.errors import InputError
from dlpm.jsonl import JsonValue, shown

MAX_TOKENS = 2**31 - 1
"""Most tokens of one prompt or reply, and the largest token id: sums over 2**31 requests still fit 64 bits."""

MAX_INTEGER = 2**63 - 1
"""Counters, times and steps of an event log fit a signed 64-bit integer, so that any language can read it exactly."""

MAX_HASH = 2**64 - 1
"""The largest block hash: an unsigned 64-bit integer."""

MAX_SECONDS = 2**32
"""The latest arrival in seconds: 136 years, so Unix times are allowed; a float still tells microseconds apart there."""

_EXACT = Context(prec=60, rounding=ROUND_HALF_UP)
_PLAIN_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,2})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one line (or of an object inside it), and where it stands, for error messages.

    Attributes:
        values: field name to value; a CSV row has strings only.
        source: the file.
        line: its line, from 1; ``None`` where the file is one document.
        within: how messages name the object inside the line, such as ``requests[3].``; empty for the line itself.
    """

    values: Mapping[str, JsonValue]
    source: str
    line: int | None
    within: str = ""

    def wrong(self, field: str, expected: str) -> InputError:
        """The error that names this line and a field of it."""
        return InputError(expected, source=self.source, line=self.line, field=self.within + field)

    def mismatch(self, field: str, expected: str) -> InputError:
        """The error for a field whose value is not what was expected, quoting the value."""
        if field not in self.values:
            return self.wrong(field, f"expected {expected}, found no such field")
        return self.wrong(field, f"expected {expected}, found {shown(self.values[field])}")

    def integer(self, field: str, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``.

        Raises:
            InputError: it is missing, of another type (a boolean is), or out of range.
        """
        value = self.values.get(field)
        if type(value) is not int or not low <= value <= high:
            raise self.mismatch(field, f"a whole number from {low} to {high}")
        return value

    def digits(self, field: str, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, written in decimal digits in a CSV cell.

        Raises:
            InputError: it is missing, written otherwise, or out of range.
        """
        text = self.values.get(field)
        if not (isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= len(str(high))):
            raise self.mismatch(field, f"a whole number from {low} to {high}")
        value = int(text)
        if not low <= value <= high:
            raise self.mismatch(field, f"a whole number from {low} to {high}")
        return value

    def tokens(self, field: str, low: int = 1) -> int:
        """A count of tokens from ``low`` to `MAX_TOKENS`.

        Raises:
            InputError: as `integer`.
        """
        return self.integer(field, low, MAX_TOKENS)

    def text(self, field: str) -> str:
        """A non-empty string of valid Unicode.

        Raises:
            InputError: it is missing, of another type, empty, or half a surrogate pair.
        """
        value = self.values.get(field)
        if not isinstance(value, str) or not value or not is_unicode(value):
            raise self.mismatch(field, "a non-empty string")
        return value

    def name(self, field: str) -> str:
        """A non-empty string, or a whole number, as text: traces write ids both ways.

        Raises:
            InputError: it is missing or of another type.
        """
        value = self.values.get(field)
        if type(value) is int:
            return str(value)
        if not isinstance(value, str) or not value or not is_unicode(value):
            raise self.mismatch(field, "a non-empty string or a whole number")
        return value

    def microseconds(self, field: str, unit: int = 1_000_000) -> int:
        """A time from 0 to `MAX_SECONDS` seconds as whole microseconds, rounded half up.

        ``unit`` is how many microseconds the field counts in: 1,000,000 for seconds, 1,000 for milliseconds. A float
        stands for the shortest decimal that denotes it: the number as written, up to 17 digits.

        Raises:
            InputError: it is missing, not a number, negative or too large.
        """
        value = self.values.get(field)
        if type(value) is int or type(value) is float:
            time = whole_microseconds(repr(value), unit)
            if time is not None:
                return time
        raise self.mismatch(field, f"a number from 0 to {MAX_SECONDS * 1_000_000 // unit}")

    def seconds_cell(self, field: str) -> int:
        """As `microseconds`, of seconds written in a CSV cell.

        Raises:
            InputError: it is missing, not a plain decimal number, or too large.
        """
        value = self.values.get(field)
        time = whole_microseconds(value) if isinstance(value, str) else None
        if time is None:
            raise self.mismatch(field, f"a number from 0 to {MAX_SECONDS}")
        return time

    def integers(self, field: str, low: int, high: int) -> tuple[int, ...]:
        """A list of whole numbers from ``low`` to ``high``. O(its length).

        Raises:
            InputError: it is missing, not a list, or an item (which is named) is out of range or of another type.
        """
        values = self.values.get(field)
        if not isinstance(values, list):
            raise self.mismatch(field, "a list of whole numbers")
        taken: list[int] = []
        for place, value in enumerate(values):
            if type(value) is not int or not low <= value <= high:
                expected = f"expected a whole number from {low} to {high}, found {shown(value)}"
                raise self.wrong(f"{field}[{place}]", expected)
            taken.append(value)
        return tuple(taken)

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of non-empty strings, none of them twice. O(its length).

        Raises:
            InputError: it is missing or anything else.
        """
        values = self.values.get(field)
        if not isinstance(values, list):
            raise self.mismatch(field, "a list of strings")
        taken: dict[str, None] = {}
        for place, value in enumerate(values):
            if not isinstance(value, str) or not value or not is_unicode(value) or value in taken:
                raise self.wrong(
                    f"{field}[{place}]", f"expected a non-empty string, no two equal, found {shown(value)}"
                )
            taken[value] = None
        return tuple(taken)

    def objects(self, field: str) -> tuple[Fields, ...]:
        """A list of objects, each as its own `Fields`. O(its length).

        Raises:
            InputError: it is missing, not a list, or an item is not an object.
        """
        values = self.values.get(field)
        if not isinstance(values, list):
            raise self.mismatch(field, "a list of objects")
        taken = []
        for place, value in enumerate(values):
            if not isinstance(value, dict):
                raise self.wrong(f"{field}[{place}]", f"expected an object, found {shown(value)}")
            taken.append(Fields(value, self.source, self.line, f"{self.within}{field}[{place}]."))
        return tuple(taken)

    def blocks(self, field: str, input_tokens: int, block_size: int) -> tuple[int, ...]:
        """The block hashes of a prompt: one for each full block, and maybe one for a shorter last one. O(blocks).

        Raises:
            InputError: not a list of hashes, or not as many as the prompt has blocks.
        """
        hashes = self.integers(field, 0, MAX_HASH)
        self.check_block_count(field, hashes, input_tokens, block_size)
        return hashes

    def check_block_count(self, field: str, hashes: Sequence[int], input_tokens: int, block_size: int) -> None:
        """Check that there are as many hashes as ``input_tokens`` have blocks, with or without a partial last one.

        Raises:
            InputError: there are fewer or more.
        """
        fewest = input_tokens // block_size
        most = -(-input_tokens // block_size)
        if not fewest <= len(hashes) <= most:
            count = f"{fewest}" if fewest == most else f"{fewest} or {most}"
            expected = (
                f"expected {count} hashes for {input_tokens} tokens in blocks of {block_size}, found {len(hashes)}"
            )
            raise self.wrong(field, expected)


def whole_microseconds(text: str, unit: int = 1_000_000) -> int | None:
    """Microseconds from a decimal number of units of ``unit`` microseconds, rounded half up; ``None`` if it is no time.

    Exact: the decimals count as they are written, not as the nearest float.
    """
    if not _PLAIN_NUMBER.fullmatch(text):
        return None
    exact = _EXACT.multiply(Decimal(text), Decimal(unit))
    if exact > MAX_SECONDS * 1_000_000:
        return None
    return int(exact.to_integral_value(ROUND_HALF_UP, _EXACT))


def is_unicode(text: str) -> bool:
    """Whether the string can be written as UTF-8, which a lone surrogate (legal in JSON) cannot."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
