"""Fields of every kind of event at the edge of what they may say: refused where the strict reader refuses them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from dlpm.errors import InputError
from dlpm.event_codec import decode_event
from dlpm.fields import MAX_INTEGER, MAX_TOKENS
from dlpm.jsonl import dump
from dlpm_engine.conformance import check_log
from tests.engine_adapter.conformance.logs import Log, as_bytes
from tests.engine_adapter.conformance.samples import kind, sample_log

EDGES = (0, 1, MAX_TOKENS, MAX_TOKENS + 1, MAX_INTEGER, MAX_INTEGER + 1)
VALUES: tuple[Any, ...] = (
    *EDGES,
    *(-edge for edge in EDGES),
    True,
    1.0,
    None,
    "",
    "x",
    "r1",
    [],
    {},
    [1],
    [-1],
    {"A": -1},
)

OPTIONAL: dict[str, dict[str, Any]] = {
    "arrive": {"arrived_us": 0},
    "admit": {"deficit": 1, "free": 1},
    "preempt": {"deficit": 1},
    "output": {"deficits": {}},
    "order": {"free": 1},
}
"""Optional fields that not every log has."""


def last_lines(policy: str, memory: str, *, bare: bool) -> Iterator[Log]:
    """A log that ends with an event, for each kind of event; the header of a ``bare`` one says nothing of limits."""
    log = sample_log(policy, 0, memory=memory)
    if bare:
        log[0] = {name: value for name, value in log[0].items() if name not in ("memory", "watermark", "level")}
        log[0]["limits"] = {}
    return cut_after_each_kind(log)


def cut_after_each_kind(log: Log) -> Iterator[Log]:
    """The beginnings of a log that end with the first event of each kind, and with the first of most fields."""
    for wanted in sorted({str(kind(line)) for line in log[1:]}):
        indexes = [index for index, line in enumerate(log) if kind(line) == wanted]
        fullest = max(indexes, key=lambda index: (len(log[index]), -index))
        for index in sorted({indexes[0], fullest}):
            yield log[: index + 1]


def changes(line: Any) -> Iterator[Any]:
    """The line with one field, or one entry of a field, replaced by every value."""
    full = {**OPTIONAL.get(line["event"], {}), **line}
    for name, value in full.items():
        if name == "event":
            continue
        for other in VALUES:
            yield {**full, name: other}
            if isinstance(value, dict):
                yield {**full, name: {**value, next(iter(value), "A"): other}}
            elif isinstance(value, list) and value:
                yield {**full, name: [*value[:-1], other]}


@pytest.mark.parametrize("policy", ["dlpm", "vtc", "lpm", "fcfs"])
@pytest.mark.parametrize("memory", ["reserving", "optimistic"])
@pytest.mark.parametrize("bare", [False, True])
def test_a_field_at_its_edge_is_refused_exactly_where_the_strict_reader_refuses(
    policy: str, memory: str, bare: bool
) -> None:
    tried, refused = refused_alike(last_lines(policy, memory, bare=bare))
    assert tried > 500
    assert 0 < refused < tried


def refused_alike(logs: Iterable[Log]) -> tuple[int, int]:
    """Change the last line of each log in every way: how many were tried, and how many both readers refused."""
    tried = refused = 0
    for log in logs:
        before = as_bytes(log[:-1])
        for line in changes(log[-1]):
            tried += 1
            try:
                decode_event(line, "log", len(log))
                expected = ""
            except InputError as error:
                expected = str(error)
                refused += 1
            try:
                check_log([*before, dump(line).encode()], all_violations=True)
                found = ""
            except InputError as error:
                found = str(error)
            assert found == expected, line
    return tried, refused
