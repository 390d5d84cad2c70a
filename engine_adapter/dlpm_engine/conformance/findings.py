"""Where violations are collected, and how one is described."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dlpm.errors import InputError
from dlpm.event_codec import decode_event
from dlpm.jsonl import JsonValue, parse_object
from dlpm_engine.conformance.report import Violation

MAX_LEDGER = 64
"""Most clients whose counters a violation shows."""

MAX_VIOLATIONS = 1000
"""Most violations that are kept in full."""

_SHOWN_NAMES = 4
_FIRST = ("step", "time_us", "request")


class StopCheckingError(Exception):
    """The first violation was found, and only the first was asked for."""


class Findings:
    """The violations of one log, and the line that is being checked.

    Attributes:
        line: number of the line that is being checked.
        raw: that line.
        violations: what was found, at most `MAX_VIOLATIONS`.
        omitted: violations beyond those.
    """

    def __init__(self, source: str, *, keep_all: bool) -> None:
        """Nothing found yet; without ``keep_all`` the first violation ends the check."""
        self.source = source
        self.line = 0
        self.raw = b""
        self.violations: list[Violation] = []
        self.omitted = 0
        self._keep_all = keep_all

    def strictly_parsed(self) -> dict[str, JsonValue]:
        """The line that is being checked, read by the strict reader.

        Raises:
            InputError: it is not an event.
        """
        try:
            text = self.raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise undecodable(error, self.source, self.line) from error
        values = parse_object(text, source=self.source, line=self.line)
        decode_event(values, self.source, self.line)
        return values

    def time_us(self) -> int | None:
        """The time in the line that is being checked, if it has one.

        Raises:
            InputError: it is not an event.
        """
        time_us = self.strictly_parsed().get("time_us")
        return time_us if isinstance(time_us, int) else None

    def add(self, violation: Violation) -> None:
        """Keep a violation.

        Raises:
            InputError: the line breaks the rule only because it is not an event at all.
            StopCheckingError: one violation was all that was asked for.
        """
        self.strictly_parsed()
        self.violations.append(violation)
        if not self._keep_all:
            raise StopCheckingError

    def omit(self) -> bool:
        """Whether there are too many violations to keep another in full: then it is only counted.

        Raises:
            InputError: the line breaks a rule only because it is not an event at all.
        """
        if len(self.violations) < MAX_VIOLATIONS:
            return False
        self.strictly_parsed()
        self.omitted += 1
        return True


def undecodable(error: UnicodeDecodeError, source: str, line: int) -> InputError:
    """The error for a line that is not UTF-8."""
    return InputError(f"expected UTF-8 text, found byte 0x{error.object[error.start]:02x}", source=source, line=line)


def names(items: Iterable[str]) -> str:
    """A few names, and how many more there are."""
    listed = sorted(items)
    shown = ", ".join(repr(item) for item in listed[:_SHOWN_NAMES])
    more = len(listed) - _SHOWN_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


def described(raw: bytes, client: str, source: str, line: int) -> str:
    """One earlier event in a few words, as far as it concerns ``client``. O(its size)."""
    values = parse_object(raw.decode("utf-8").rstrip("\r\n"), source=source, line=line)
    kind = values["event"]
    shown: dict[str, JsonValue] = {}
    for name in sorted(values, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)):
        value = values[name]
        if name in {"event", "client"}:
            continue
        if name == "tokens" and isinstance(value, dict):
            shown["requests"] = len(value)
        elif name == "deficits" and isinstance(value, Mapping):
            shown["deficit"] = value.get(client)
        elif not isinstance(value, list | dict):
            shown[name] = value
    return f"{kind} " + " ".join(f"{name}={value}" for name, value in shown.items() if value is not None)
