"""Finding places in a log, and changing it there: what makes a sound log one with a fault."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.engine_adapter.conformance.logs import Log
from tests.engine_adapter.conformance.samples import kind
from tests.engine_adapter.conformance.views import View, views


def events(log: Log, wanted: str) -> Iterator[tuple[int, Any, View]]:
    """Every event of one kind, with its index and the state before it."""
    for index, view in enumerate(views(log)):
        if kind(log[index]) == wanted:
            yield index, log[index], view


def replaced(log: Log, index: int, **changes: Any) -> Log:
    """The log with some fields of one line changed."""
    return [*log[:index], {**log[index], **changes}, *log[index + 1 :]]


def inserted(log: Log, index: int, line: Any) -> Log:
    """The log with a line put in at ``index``."""
    return [*log[:index], line, *log[index:]]


def dropped(log: Log, *indices: int) -> Log:
    """The log without some lines."""
    return [line for index, line in enumerate(log) if index not in indices]


def stamp(line: Any) -> Any:
    """Step and time of a line, for one that is put in beside it."""
    return {name: line[name] for name in ("step", "time_us") if name in line}


def next_kind(log: Log, index: int) -> tuple[int, Any]:
    """The next line that is no eviction, and its index."""
    while index < len(log) and kind(log[index]) == "evict":
        index += 1
    return index, log[index] if index < len(log) else {}


def quantum(log: Log) -> int:
    header: Any = log[0]
    return int(header["quantum"]["default"])
