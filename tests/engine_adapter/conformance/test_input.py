"""Input that is no log: one clear error, and never a violation or a verdict."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard
from hypothesis import assume, given
from hypothesis import strategies as st

from dlpm.errors import InputError
from dlpm.event_codec import decode_event, decode_header
from dlpm.jsonl import JsonValue, dump, parse_object
from dlpm_engine.conformance import check_log, check_path
from tests.engine_adapter.conformance.logs import as_bytes, check
from tests.engine_adapter.conformance.samples import sample_log

strange: st.SearchStrategy[JsonValue] = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(("", "x", "recompute", "output", 0, 1, -1, 2**31, 2**63, 2**70, -(2**63), 0.5, 1.0, "\ud800")),
    st.lists(st.sampled_from((0, 1, 1.0, True, "r1", "")), max_size=3),
    st.dictionaries(st.sampled_from(("", "A", "r1", "default", "extend")), st.sampled_from((0, 1, 1.0, True, "x"))),
)


def strictly_readable(lines: list[dict[str, Any]]) -> bool:
    """Whether the strict reader takes every line."""
    try:
        for number, line in enumerate(lines, start=1):
            values = parse_object(dump(line))
            if number == 1:
                header = decode_header(values, "log", 1)
                if header.policy == "dlpm" and header.default_quantum is None:
                    return False
            else:
                decode_event(values, "log", number)
    except InputError:
        return False
    return True


@given(st.sampled_from(("dlpm", "vtc", "fcfs")), st.booleans(), st.data())
def test_the_fast_reader_refuses_exactly_what_the_strict_reader_refuses(
    policy: str, optimistic: bool, data: st.DataObject
) -> None:
    log: list[dict[str, Any]] = sample_log(
        policy, data.draw(st.integers(0, 3)), memory="optimistic" if optimistic else "reserving"
    )
    index = data.draw(st.integers(0, len(log) - 1))
    line = dict(log[index])
    field = data.draw(st.sampled_from(sorted(line)))
    change = data.draw(st.sampled_from(("replace", "remove", "inside")))
    if change == "remove":
        del line[field]
    elif change == "inside" and isinstance(line[field], dict) and line[field]:
        inner = data.draw(st.sampled_from(sorted(line[field])))
        line[field] = {**line[field], inner: data.draw(strange)}
    elif change == "inside" and isinstance(line[field], list) and line[field]:
        line[field] = [*line[field][1:], data.draw(strange)]
    else:
        line[field] = data.draw(strange)
    # Under DLPM and VTC an admission must carry the counter, which the format alone does not demand.
    assume(not (policy != "fcfs" and field == "deficit" and change == "remove"))
    log[index] = line
    lines = [dump(changed).encode() for changed in log]
    try:
        check_log(lines, all_violations=True)
        refused = False
    except InputError as error:
        refused = True
        assert error.line == index + 1
    assert refused == (not strictly_readable(log))


@pytest.mark.parametrize("lines", [[], [b"\n"], [b" \n", b"\n"]])
def test_an_empty_log_is_refused(lines: list[bytes]) -> None:
    with pytest.raises(InputError, match=r"expected a header with schema 'dlpm\.events/1', found an empty log"):
        check_log(lines, source="empty.jsonl")


def test_a_log_without_an_event_is_refused_because_it_shows_nothing() -> None:
    with pytest.raises(InputError, match=r"idle\.jsonl:2: expected at least one event after the header"):
        check_log(as_bytes(sample_log("dlpm", 0)[:1]), source="idle.jsonl")


def test_a_log_of_dlpm_without_a_quantum_is_refused() -> None:
    log = sample_log("dlpm", 0)
    del log[0]["quantum"]
    with pytest.raises(InputError, match="quantum: expected a quantum"):
        check(log)


@pytest.mark.parametrize("policy", ["dlpm", "vtc"])
@pytest.mark.parametrize("kind", ["admit", "preempt"])
def test_a_log_of_a_policy_with_counters_must_carry_them(policy: str, kind: str) -> None:
    log = sample_log(policy, 0, memory="optimistic")
    index = next(index for index, line in enumerate(log) if line.get("event") == kind)
    del log[index]["deficit"]
    with pytest.raises(InputError, match=rf"log:{index + 1}: deficit: expected the client's counter"):
        check(log)


def test_blank_lines_and_a_missing_last_line_end_are_taken() -> None:
    log = as_bytes(sample_log("dlpm", 0))
    spaced = [b"\n", log[0], b"  \n", *log[1:-1], b"\r\n", log[-1].rstrip(b"\n")]
    report = check_log(spaced, all_violations=True)
    assert report.holds
    assert report.events == len(log) - 1


def test_lines_are_counted_with_blank_ones() -> None:
    log = as_bytes(sample_log("dlpm", 0))
    with pytest.raises(InputError, match="log:5: expected a JSON object, found text that stops"):
        check_log([b"\n", *log[:2], b"\n", b"{\n"])


def test_a_byte_order_mark_is_skipped() -> None:
    log = as_bytes(sample_log("dlpm", 0))
    assert check_log([b"\xef\xbb\xbf" + log[0], *log[1:]]).holds


@pytest.mark.parametrize(
    ("position", "line", "expected"),
    [
        (0, b'{"schema":"dlpm.workload/1","block_size":16}', "x:1: schema: expected 'dlpm.events/1', found"),
        (0, b'{"schema":"dlpm.events/1","engine":"\xff"}', "x:1: expected UTF-8 text, found byte 0xff"),
        (3, b'{"event":"finish","step":1,"request":"\xff"}', "x:4: expected UTF-8 text, found byte 0xff"),
        (3, b'{"event":"finish","step":1', "x:4: expected a JSON object, found text that stops making sense"),
        (3, b"[]", "x:4: expected a JSON object, found []"),
        (3, b"null", "x:4: expected a JSON object, found null"),
        (3, b'{"event":"finish","step":NaN,"request":"r"}', "x:4: expected a JSON object, found NaN"),
        (3, b'{"event":["finish"],"step":1,"request":"r"}', "x:4: event: expected a non-empty string"),
    ],
)
def test_a_broken_line_is_named(position: int, line: bytes, expected: str) -> None:
    log = as_bytes(sample_log("dlpm", 0))
    log[position] = line + b"\n"
    with pytest.raises(InputError) as caught:
        check_log(log, source="x")
    assert str(caught.value).startswith(expected)


def packed(data: bytes, suffix: str) -> bytes:
    """The bytes in the compression that a suffix stands for."""
    if suffix == ".gz":
        return gzip.compress(data)
    return zstandard.ZstdCompressor().compress(data) if suffix == ".zst" else data


@pytest.mark.parametrize("suffix", [".jsonl", ".gz", ".zst"])
def test_logs_are_read_in_every_compression(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"log{suffix}"
    path.write_bytes(packed(b"".join(as_bytes(sample_log("dlpm", 0))), suffix))
    assert check_path(path).holds


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_truncated_compressed_log_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"log{suffix}"
    path.write_bytes(packed(b"".join(as_bytes(sample_log("dlpm", 0))), suffix)[:-20])
    with pytest.raises(InputError, match=rf"log{suffix}:\d+: "):
        check_path(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: cannot be read: No such file"):
        check_path(tmp_path / "none.jsonl")


def test_a_refused_log_is_refused_after_a_violation_too() -> None:
    log: list[dict[str, Any]] = sample_log("dlpm", 0)
    index = next(index for index, line in enumerate(log) if line.get("event") == "admit")
    log[index] = {**log[index], "deficit": log[index]["deficit"] + 1}
    lines = [orjson.dumps(line) for line in log]
    assert len(check_log(lines).violations) == 1
    with pytest.raises(InputError):
        check_log([*lines, b"{"], all_violations=True)


def test_every_violation_of_a_file_is_reported_only_if_asked_for(tmp_path: Path) -> None:
    log = sample_log("dlpm", 0)
    for line in log:
        if line.get("event") == "admit":
            line["deficit"] = int(str(line["deficit"])) + 1
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"".join(as_bytes(log)))
    assert len(check_path(path).violations) == 1
    assert len(check_path(path, all_violations=True).violations) > 1
