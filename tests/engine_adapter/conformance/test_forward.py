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
from dlpm_engine.conformance.forward import Forward
from dlpm_engine.conformance.worker_state import WorkerState
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


def test_foretelling_is_given_up_where_it_is_mostly_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log whose tokens stand in another order is not searched for what is never there."""
    searched = []
    original = Forward.shortened

    def recording(forward: Forward, raw: bytes) -> bytes | None:
        searched.append(forward._state.foretold_tokens() in raw)
        return original(forward, raw)

    monkeypatch.setattr(Forward, "shortened", recording)
    asked = []
    told = WorkerState.foretold_tokens

    def asking(state: WorkerState) -> bytes:
        asked.append(state.step)
        return told(state)

    monkeypatch.setattr(WorkerState, "foretold_tokens", asking)
    lines = [b'{"event":"output","step":%d,"tokens":{"b":1,"a":1}}' % step for step in range(200)]
    start = [
        b'{"schema":"dlpm.events/1","engine":"e","policy":"fcfs","weights":{"extend":1,"output":2}}',
        *(
            b'{"event":"arrive","step":0,"request":"%s","client":"A","input":1,"max_output":999}' % name
            for name in (b"a", b"b")
        ),
        *(b'{"event":"admit","step":0,"request":"%s","matched":0,"extend":1}' % name for name in (b"a", b"b")),
    ]
    assert check_log([*start, *lines]).holds
    assert searched == [False] * 200
    assert len(asked) - len(searched) == 65, "64 trials, and the one after which it is known"


@pytest.mark.parametrize("wrong", ["B", "C"])
def test_of_several_counters_the_wrong_one_is_named(wrong: str) -> None:
    """A has two requests in the batch, and its counter is right: what was taken in for it is taken back."""
    log: list[dict[str, Any]] = [
        {"schema": "dlpm.events/1", "engine": "e", "policy": "vtc", "weights": {"extend": 1, "output": 3}},
        *(
            {"event": "arrive", "step": 0, "request": name, "client": name[0], "input": 1, "max_output": 9}
            for name in ("A1", "A2", "B1", "C1")
        ),
        {"event": "admit", "step": 0, "request": "A1", "matched": 0, "extend": 1, "deficit": 1},
        {"event": "admit", "step": 0, "request": "B1", "matched": 0, "extend": 1, "deficit": 1},
        {"event": "admit", "step": 0, "request": "C1", "matched": 0, "extend": 1, "deficit": 1},
        {"event": "admit", "step": 0, "request": "A2", "matched": 0, "extend": 1, "deficit": 2},
    ]
    right = {"A": 8, "B": 4, "C": 4}
    tokens = dict.fromkeys(("A1", "B1", "C1", "A2"), 1)
    good: dict[str, Any] = {"event": "output", "step": 0, "tokens": tokens, "deficits": right}
    assert check_log(as_bytes([*log, good])).holds
    bad = {**good, "deficits": {**right, wrong: 7}}
    (violation,) = check_log(as_bytes([*log, bad])).violations
    assert (violation.rule, violation.client, violation.found) == ("vtc-charge-output", wrong, "7")
    assert violation.expected == f"1 + 3 = 4 for 1 output tokens of {wrong!r}"
    assert violation.ledger == {"A": 2, "B": 1, "C": 1}
