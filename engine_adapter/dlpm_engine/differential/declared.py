"""The reviewed list of declared differences: what an engine is known to do otherwise, and why that is accepted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dlpm.errors import InputError
from dlpm.jsonl import JsonValue, parse_object, shown
from dlpm_engine.differential.modes import SUBJECTS

SCHEMA = "dlpm.declared/1"
BUNDLED = Path(__file__).with_name("declared.json")
"""The list for the engines of this project. It is empty."""

_FIELDS = ("engine", "subject", "reason", "reviewed")


@dataclass(frozen=True, slots=True)
class Declared:
    """One difference: ``subject`` (a name of `modes.SUBJECTS`) of ``engine`` is not compared.

    ``reason`` says why it is accepted, ``reviewed`` who looked at it and when.
    """

    engine: str
    subject: str
    reason: str
    reviewed: str


def read_declared(path: Path = BUNDLED) -> tuple[Declared, ...]:
    """Read a list of declared differences: ``{"schema": "dlpm.declared/1", "differences": [...]}``.

    Raises:
        InputError: the file cannot be read, or an entry lacks a field, a reason or a review.
    """
    source = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", source=source) from error
    except UnicodeDecodeError as error:
        raise InputError("expected text in UTF-8", source=source) from error
    document = parse_object(text, source=source)
    differences = document.get("differences")
    if document.get("schema") != SCHEMA or not isinstance(differences, list):
        raise InputError(f"expected schema {SCHEMA} and a list of differences", source=source)
    return tuple(_entry(value, f"differences[{place}]", source) for place, value in enumerate(differences))


def _entry(value: JsonValue, field: str, source: str) -> Declared:
    """One entry of the list."""
    if not isinstance(value, dict) or value.keys() != set(_FIELDS):
        raise InputError(
            f"expected an object with {', '.join(_FIELDS)}, found {shown(value)}", source=source, field=field
        )
    texts = [value[name] for name in _FIELDS]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise InputError(f"expected text in every field, found {shown(value)}", source=source, field=field)
    entry = Declared(*(str(text) for text in texts))
    if entry.subject not in SUBJECTS:
        expected = ", ".join(sorted(SUBJECTS))
        raise InputError(
            f"expected one of {expected}, found {entry.subject!r}", source=source, field=f"{field}.subject"
        )
    return entry


def excused(entries: Iterable[Declared], engine: str) -> frozenset[str]:
    """What is not compared for ``engine``."""
    return frozenset(entry.subject for entry in entries if entry.engine == engine)
