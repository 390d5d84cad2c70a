"""The event log as text: what is written is read back, and what is wrong is named."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import fields
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from dlpm.errors import InputError
from dlpm.event_codec import (
    EventWriter,
    decode_event,
    decode_header,
    encode_event,
    encode_header,
    read_log,
)
from dlpm.event_lines import EVENT_NAMES
from dlpm.events import (
    Admit,
    Arrive,
    Chunk,
    Dispatch,
    Event,
    Evict,
    Finish,
    Header,
    Limits,
    Order,
    Output,
    Preempt,
    Refill,
)
from dlpm.fields import MAX_INTEGER
from dlpm.jsonl import JsonValue, dump, parse_object

LOG_HEADER = '{"schema":"dlpm.events/1","engine":"e 1","policy":"dlpm","weights":{"extend":1,"output":2}}'

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
tokens = st.integers(1, 2**31 - 1)
counts = st.integers(0, MAX_INTEGER)
positive = st.integers(1, MAX_INTEGER)
counters = st.integers(-MAX_INTEGER, MAX_INTEGER)
workers = st.integers(0, 2**31 - 1)
any_value = st.one_of(st.integers(-9, 9), st.text("xy", max_size=3), st.none(), st.booleans())
unknown: st.SearchStrategy[dict[str, JsonValue]] = st.fixed_dictionaries(
    {}, optional={"x_note": any_value, "x_tags": any_value}
)


def optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), values)


common: dict[str, st.SearchStrategy[Any]] = {
    "step": counts,
    "worker": optional(workers),
    "time_us": optional(counts),
    "extra": unknown.map(lambda found: found or None),
}
orders = st.lists(st.tuples(names, st.integers(0, 2**31 - 1)), unique_by=lambda pair: pair[0], max_size=4)
any_order = st.builds(
    lambda order, **rest: Order(
        requests=tuple(name for name, _ in order), matched=tuple(count for _, count in order), **rest
    ),
    order=orders,
    free=optional(counters),
    **common,
)
any_event: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        Arrive,
        request=names,
        client=names,
        input=tokens,
        max_output=tokens,
        arrived_us=optional(counts),
        **common,
    ),
    any_order,
    st.builds(Refill, deficits=st.dictionaries(names, counters, max_size=3), **common),
    st.builds(
        Admit,
        request=names,
        matched=counts,
        extend=counts,
        deficit=optional(counters),
        free=optional(counters),
        chunk=optional(positive),
        **common,
    ),
    st.builds(Chunk, request=names, tokens=positive, deficit=optional(counters), **common),
    st.builds(
        Output,
        accepted=st.dictionaries(names, positive, max_size=2),
        tokens=st.dictionaries(names, counts, max_size=3),
        deficits=st.dictionaries(names, counters, max_size=3),
        **common,
    ),
    st.builds(Finish, request=names, **common),
    st.builds(
        Preempt, request=names, kind=st.sampled_from(("recompute", "swap")), deficit=optional(counters), **common
    ),
    st.builds(
        Dispatch,
        request=names,
        matched_workers=st.lists(workers, max_size=3).map(tuple),
        counter=optional(counters),
        **(common | {"worker": workers}),
    ),
    st.builds(Evict, tokens=counts, **common),
    st.builds(Evict, blocks=st.lists(st.integers(0, 2**64 - 1), max_size=3).map(tuple), **common),
)
any_header = st.builds(
    lambda quantum, quanta, **rest: Header(default_quantum=quantum, quanta=quanta if quantum else {}, **rest),
    engine=names,
    policy=names,
    extend_weight=positive,
    output_weight=positive,
    quantum=optional(positive),
    quanta=st.dictionaries(names, positive, max_size=2),
    limits=st.builds(
        Limits,
        max_input=optional(positive),
        max_output=optional(positive),
        kv_tokens=optional(positive),
        max_running=optional(positive),
    ),
    memory=st.sampled_from((None, "reserving", "optimistic")),
    visibility=st.sampled_from((None, "at_admission", "after_forward")),
    block_size=optional(positive),
    watermark=optional(counts),
    level=st.sampled_from(("decisions", "full")),
    extensions=st.dictionaries(names, unknown, max_size=2),
    extra=unknown,
)


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json.loads((package_files("dlpm") / "schemas" / "events.schema.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@given(any_header, st.lists(any_event, max_size=5))
def test_a_log_that_is_written_is_read_back(header: Header, events: list[Event]) -> None:
    stream = io.StringIO()
    writer = EventWriter(stream, header)
    for event in events:
        writer(event)
    lines = stream.getvalue().splitlines()
    read_header, read_events = read_log(enumerate(lines, start=1), "log")
    assert read_header == header
    assert list(read_events) == list(enumerate(events, start=2))


@given(any_header, any_event)
def test_every_line_that_is_written_is_valid_under_the_schema(
    validator: Draft202012Validator, header: Header, event: Event
) -> None:
    assert validator.is_valid(json.loads(dump(encode_header(header))))
    assert validator.is_valid(json.loads(dump(encode_event(event))))


def decodes(values: Mapping[str, JsonValue]) -> bool:
    """Whether the reader takes a line."""
    try:
        if "schema" in values:
            decode_header(values, "log", 1)
        else:
            decode_event(values, "log", 2)
    except InputError:
        return False
    return True


strange: st.SearchStrategy[JsonValue] = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(("", "x", "recompute", "arrive", 0, 1, -1, 2**31, 2**63, -(2**63), 0.5)),
    st.lists(st.integers(-1, 1), max_size=2),
    st.dictionaries(st.sampled_from(("", "A", "default", "extend")), st.integers(-1, 1), max_size=2),
)


@given(st.one_of(any_header, any_event), st.data())
def test_reader_and_schema_refuse_the_same_lines(
    validator: Draft202012Validator, item: Header | Event, data: st.DataObject
) -> None:
    values = encode_header(item) if isinstance(item, Header) else encode_event(item)
    field = data.draw(st.sampled_from(sorted(values)))
    if data.draw(st.booleans()):
        values[field] = data.draw(strange)
    else:
        del values[field]
    if values.get("event") == "order":
        # The lengths of the two lists are beyond a schema of one line.
        lists = [values.get(name) for name in ("requests", "matched")]
        if all(isinstance(found, list) for found in lists) and len({len(found or ()) for found in lists}) > 1:  # type: ignore[arg-type]
            assert not decodes(values)
            return
    assert decodes(values) == validator.is_valid(values)


def test_the_schema_in_the_documentation_is_the_one_in_the_package(repository: Path) -> None:
    packaged = (package_files("dlpm") / "schemas" / "events.schema.json").read_bytes()
    assert (repository / "docs" / "schemas" / "events.schema.json").read_bytes() == packaged


def test_the_schema_names_the_fields_of_every_event() -> None:
    definitions = json.loads((package_files("dlpm") / "schemas" / "events.schema.json").read_text("utf-8"))["$defs"]
    shared = {"step", "worker", "time_us"}
    for kind, name in EVENT_NAMES.items():
        own = {item.name for item in fields(kind)} - shared - {"extra"}
        assert set(definitions[name]["properties"]) == own
    assert set(definitions["event"]["properties"]) == shared | {"event"}


@pytest.mark.parametrize(
    ("line", "field", "expected"),
    [
        ("[1]", None, "expected a JSON object, found [1]"),
        ("{", None, "expected a JSON object, found text that stops making sense at column 2"),
        ('{"event":"admit","event":"admit"}', None, 'expected a JSON object, found the key "event" twice'),
        ('{"step":1}', "event", "expected a non-empty string, found no such field"),
        ('{"event":"depart","step":1}', "event", "expected one of arrive, order, refill, admit, chunk, output"),
        ('{"event":"finish","request":"r"}', "step", "expected a whole number from 0"),
        ('{"event":"finish","step":-1,"request":"r"}', "step", "found -1"),
        ('{"event":"finish","step":true,"request":"r"}', "step", "found true"),
        ('{"event":"finish","step":1.0,"request":"r"}', "step", "found 1.0"),
        ('{"event":"finish","step":1,"worker":-1,"request":"r"}', "worker", "found -1"),
        ('{"event":"finish","step":1,"time_us":null,"request":"r"}', "time_us", "found null"),
        ('{"event":"finish","step":1,"request":""}', "request", 'expected a non-empty string, found ""'),
        ('{"event":"finish","step":1,"request":7}', "request", "expected a non-empty string, found 7"),
        ('{"event":"arrive","step":1,"request":"r","client":"A","input":0,"max_output":1}', "input", "found 0"),
        ('{"event":"arrive","step":1,"request":"r","client":"A","input":1}', "max_output", "found no such field"),
        ('{"event":"order","step":1,"requests":["a","a"],"matched":[0,0]}', "requests[1]", "no two equal"),
        ('{"event":"order","step":1,"requests":["a"],"matched":[0,0]}', "matched", "one number for each of 1 requests"),
        ('{"event":"order","step":1,"requests":["a"],"matched":[-1]}', "matched[0]", "found -1"),
        ('{"event":"refill","step":1,"deficits":[]}', "deficits", "expected an object, found []"),
        ('{"event":"refill","step":1,"deficits":{"":1}}', "deficits", "expected names that are not empty"),
        ('{"event":"refill","step":1,"deficits":{"A":1.5}}', "deficits.A", "found 1.5"),
        ('{"event":"admit","step":1,"request":"r","matched":0,"extend":-1}', "extend", "found -1"),
        ('{"event":"output","step":1,"tokens":{"r":-1}}', "tokens.r", "found -1"),
        ('{"event":"preempt","step":1,"request":"r","kind":"kill"}', "kind", "expected one of recompute, swap"),
        ('{"event":"preempt","step":1,"request":"r"}', "kind", "expected one of recompute, swap, found no such field"),
        ('{"event":"dispatch","step":1,"request":"r","matched_workers":[]}', "worker", "the worker that the request"),
        ('{"event":"evict","step":1}', "tokens", "expected exactly one of tokens and blocks"),
        ('{"event":"evict","step":1,"tokens":1,"blocks":[]}', "tokens", "expected exactly one of tokens and blocks"),
    ],
)
def test_an_event_that_is_wrong_is_refused_with_line_and_field(line: str, field: str | None, expected: str) -> None:
    _, events = read_log([(1, LOG_HEADER), (2, line)], "some.jsonl")
    with pytest.raises(InputError) as caught:
        list(events)
    assert (caught.value.source, caught.value.line, caught.value.field) == ("some.jsonl", 2, field)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ({"schema": "dlpm.events/2"}, "schema", "expected 'dlpm.events/1', found \"dlpm.events/2\""),
        ({"engine": None}, "engine", "expected a non-empty string"),
        ({"policy": ""}, "policy", "expected a non-empty string"),
        ({"weights": 1}, "weights", "expected an object, found 1"),
        ({"weights": {"extend": 0, "output": 2}}, "weights.extend", "from 1"),
        ({"weights": {"extend": 1}}, "weights.output", "found no such field"),
        ({"quantum": {}}, "quantum.default", "found no such field"),
        ({"quantum": {"default": 5, "clients": {"A": 0}}}, "quantum.clients.A", "found 0"),
        ({"limits": {"kv_tokens": None}}, "limits.kv_tokens", "found null"),
        ({"limits": {"max_running": 0}}, "limits.max_running", "found 0"),
        ({"memory": "huge"}, "memory", "expected one of reserving, optimistic"),
        ({"visibility": "never"}, "visibility", "expected one of at_admission, after_forward"),
        ({"level": "some"}, "level", "expected one of decisions, full"),
        ({"extensions": ["late"]}, "extensions", "expected an object"),
        ({"extensions": {"": {}}}, "extensions", "expected names that are not empty"),
        ({"extensions": {"late": 2}}, "extensions.late", "expected an object with the options"),
        ({"watermark": -1}, "watermark", "found -1"),
        ({"block_size": 0}, "block_size", "found 0"),
    ],
)
def test_a_header_that_is_wrong_is_refused_with_its_field(
    change: dict[str, JsonValue], field: str, expected: str
) -> None:
    header = {**parse_object(LOG_HEADER), **change}
    with pytest.raises(InputError) as caught:
        read_log([(1, dump(header))], "some.jsonl")
    assert (caught.value.line, caught.value.field) == (1, field)
    assert expected in str(caught.value)


def test_a_log_without_a_header_is_refused() -> None:
    with pytest.raises(InputError, match="expected a header"):
        read_log([], "empty.jsonl")
    with pytest.raises(InputError, match=r"x\.jsonl:1: schema: expected 'dlpm.events/1', found no such field"):
        read_log([(1, '{"event":"finish","step":1,"request":"r"}')], "x.jsonl")


def test_unknown_fields_of_known_objects_in_the_header_are_kept() -> None:
    header = parse_object(LOG_HEADER)
    header["weights"] = {"extend": 1, "output": 2, "image": 9}
    header["limits"] = {"max_batched_tokens": 7}
    read, _ = read_log([(1, dump(header))], "log")
    assert read.extra == {"weights": {"image": 9}, "limits": {"max_batched_tokens": 7}}
    assert encode_header(read)["weights"] == {"extend": 1, "output": 2, "image": 9}
    assert encode_header(read)["limits"] == {"max_batched_tokens": 7}


def test_events_are_written_compactly_and_without_what_is_not_there() -> None:
    assert dump(encode_event(Admit(step=3, request="r", matched=0, extend=5, deficit=-5))) == (
        '{"event":"admit","step":3,"request":"r","matched":0,"extend":5,"deficit":-5}'
    )
    assert dump(encode_event(Output(step=3, tokens={"r": 1}))) == '{"event":"output","step":3,"tokens":{"r":1}}'
    assert dump(encode_event(Refill(step=3, deficits={}))) == '{"event":"refill","step":3,"deficits":{}}'
