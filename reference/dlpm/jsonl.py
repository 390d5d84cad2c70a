"""Strict JSON, one object a line: what this project's files are made of."""

from __future__ import annotations

import json
import math

from dlpm.errors import InputError

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
"""What the standard library's `json` reads and writes."""

_SHOWN = 60


class _RefusedError(ValueError):
    """What JSON allows, or Python reads, and this project refuses."""


def parse_object(text: str, *, source: str | None = None, line: int | None = None) -> dict[str, JsonValue]:
    """Parse one line as a JSON object. O(len(text)).

    Stricter than `json.loads`: no key twice, no ``NaN`` or ``Infinity``, no number too large for a float.

    Raises:
        InputError: the line is anything else; the message says what was found instead.
    """
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        found = f"text that stops making sense at column {error.colno} ({error.msg[:1].lower()}{error.msg[1:]})"
    except RecursionError:
        found = "one nested too deeply"
    except _RefusedError as error:
        found = str(error)
    except ValueError:
        # What is left is Python's own limit on the digits of a whole number.
        found = "a whole number of thousands of digits"
    else:
        if isinstance(value, dict):
            return value
        found = shown(value)
    raise InputError(f"expected a JSON object, found {found}", source=source, line=line)


def dump(value: JsonValue) -> str:
    """Write a value as compact JSON in ASCII, keys in the order given. O(size).

    Raises:
        ValueError: a float in it is not finite.
    """
    return _ENCODER.encode(value)


def shown(value: JsonValue) -> str:
    """A value as an error message quotes it: JSON, cut off where it is long."""
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _object(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    """Build an object, refusing a key that comes twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RefusedError(f"the key {shown(next(key for key in keys if keys.count(key) > 1))} twice")
    return found


def _constant(text: str) -> float:
    """Refuse what Python reads beyond JSON."""
    raise _RefusedError(f"{text}, which is not a JSON number")


def _float(text: str) -> float:
    """Read a float, refusing one that overflows."""
    value = float(text)
    if not math.isfinite(value):
        raise _RefusedError(f"the number {text[:_SHOWN]}, which is too large")
    return value


_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
