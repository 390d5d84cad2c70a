"""Output events that are read without parsing their tokens: never another verdict than with parsing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlpm.errors import InputError
from dlpm_engine.conformance import Report, check_log
from dlpm_engine.conformance.checker import Checker
from tests.engine_adapter.conformance.logs import Log, as_bytes, recorded_logs
from tests.engine_adapter.conformance.samples import kind, sample_log


def spaced(line: Any) -> bytes:
    """A line as a writer with other habits writes it: with spaces, so that nothing is as foretold."""
    return json.dumps(line).encode()


def backwards(line: Any) -> bytes:
    """A line with its tokens in the opposite order."""
    if kind(line) == "output":
        line = {**line, "tokens": dict(reversed(line["tokens"].items()))}
    return json.dumps(line, separators=(",", ":")).encode()


def last_field_first(line: Any) -> bytes:
    """A line whose first field is not the kind of event."""
    return json.dumps(dict(reversed(line.items())), separators=(",", ":")).encode()


def verdict(report: Report) -> object:
    """A report without what quotes the bytes of the log."""
    return [(v.line, v.rule, v.expected, v.found, v.ledger, v.recent) for v in report.violations], report.events


@given(recorded_logs(), st.data())
def test_how_a_line_is_written_makes_no_difference(log: Log, data: st.DataObject) -> None:
    outputs = [index for index, line in enumerate(log) if kind(line) == "output"]
    if outputs:
        index = data.draw(st.sampled_from(outputs))
        changed: Any = dict(log[index])
        name = data.draw(st.sampled_from(sorted(changed["tokens"])))
        tokens = {**changed["tokens"], name: data.draw(st.integers(0, 3))}
        log[index] = {**changed, "tokens": tokens}
    as_written = check_log(as_bytes(log), all_violations=True)
    for rewrite in (spaced, backwards, last_field_first):
        assert verdict(check_log(map(rewrite, log), all_violations=True)) == verdict(as_written)


def output_line(log: Log) -> int:
    """The index of an output event with a request in it."""
    return next(index for index, line in enumerate(log) if kind(line) == "output")


def compact(line: Any) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        # The foretold bytes stand in an object that means nothing, and the tokens are others, or none.
        (lambda line: {**line, "x": {"tokens": line["tokens"]}, "tokens": {}}, "output-complete"),
        (lambda line: {"event": "output", "x": {"tokens": line["tokens"]}, **line, "tokens": {}}, "output-complete"),
        (lambda line: {"event": "output", "x": {"tokens": line["tokens"]}, **line}, None),
        (lambda line: {**line, "tokens": dict.fromkeys(line["tokens"], 2)}, "output-in-limit"),
    ],
)
def test_foretold_bytes_in_another_place_are_not_taken_for_the_tokens(
    change: Callable[[Any], Any], expected: str | None
) -> None:
    log = sample_log("dlpm", 0)
    index = output_line(log)
    tokens: Any = log[index]["tokens"]
    if expected == "output-in-limit":
        for line in log:
            if kind(line) == "arrive" and line["request"] in tokens:
                line["max_output"] = 1
    log[index] = change(log[index])
    report = check_log(map(compact, log))
    assert [violation.rule for violation in report.violations] == ([expected] if expected else [])


@pytest.mark.parametrize(
    "line",
    [
        b'{"event":"output","step":1,"tokens":null}',
        b'{"event":"output","step":1,"deficits":{}}',
        b'{"event":"output","step":1,"tokens":{"r1":1}',
        b'{"event":"output","step":1,"tokens":{"r1":1},}',
        b'{"event":"output","step":1,"x":"tokens":{"r1":1}}',
    ],
)
def test_a_broken_output_line_is_refused(line: bytes) -> None:
    arrive = b'{"event":"arrive","step":1,"request":"r1","client":"A","input":1,"max_output":5}'
    header = b'{"schema":"dlpm.events/1","engine":"e","policy":"fcfs","weights":{"extend":1,"output":2}}'
    admit = b'{"event":"admit","step":1,"request":"r1","matched":0,"extend":1}'
    output = b'{"event":"output","step":1,"tokens":{"r1":1}}'
    assert check_log([header, arrive, admit, output]).holds
    with pytest.raises(InputError, match="log:4: "):
        check_log([header, arrive, admit, line])


def test_most_output_lines_of_the_reference_are_read_as_foretold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the fast way is dead weight."""
    parsed: list[object] = []
    original = Checker._parsed

    def recording(raw: bytes, worker: Any) -> Any:
        event, kind_of_event = original(raw, worker)
        parsed.append(kind_of_event)
        return event, kind_of_event

    monkeypatch.setattr(Checker, "_parsed", staticmethod(recording))
    log = sample_log("dlpm", 1)
    assert check_log(as_bytes(log)).holds
    assert parsed.count("output") == 0
    assert len(parsed) == len(log) - 1
