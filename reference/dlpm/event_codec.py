"""The event log as text: `dlpm.events/1`, JSON Lines (docs/formats/events.md, docs/schemas/events.schema.json).

A field of an event has the same name in JSON as in `dlpm.events`; what is ``None`` or empty is left out. Readers are
strict about every field they know and keep every field they do not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from typing import TextIO, TypedDict

from dlpm.errors import InputError
from dlpm.events import (
    SCHEMA,
    Admit,
    Arrive,
    Chunk,
    Deliver,
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
    Resume,
)
from dlpm.fields import MAX_HASH, MAX_TOKENS, Fields, is_unicode
from dlpm.jsonl import JsonValue, dump, parse_object, shown

MAX_INTEGER = 2**63 - 1
"""Counters, times and steps fit a signed 64-bit integer, so that any language can read a log exactly."""

EVENT_NAMES: Mapping[type[Event], str] = {
    Arrive: "arrive",
    Order: "order",
    Refill: "refill",
    Admit: "admit",
    Chunk: "chunk",
    Output: "output",
    Finish: "finish",
    Preempt: "preempt",
    Resume: "resume",
    Dispatch: "dispatch",
    Deliver: "deliver",
    Evict: "evict",
}
"""The value of ``event`` for each kind of event."""

MEMORY_KINDS = ("reserving", "optimistic")
VISIBILITIES = ("at_admission", "after_forward")
LEVELS = ("decisions", "full")
PREEMPTIONS = ("recompute", "swap")

# -- writing -----------------------------------------------------------------------------------------------------------


def encode_header(header: Header) -> dict[str, JsonValue]:
    """The first line of a log as a JSON object."""
    encoded: dict[str, JsonValue] = {
        "schema": SCHEMA,
        "engine": header.engine,
        "policy": header.policy,
        "weights": {"extend": header.extend_weight, "output": header.output_weight},
    }
    if header.default_quantum is not None:
        quantum: dict[str, JsonValue] = {"default": header.default_quantum}
        if header.quanta:
            quantum["clients"] = dict(header.quanta)
        encoded["quantum"] = quantum
    limits = {item.name: getattr(header.limits, item.name) for item in fields(Limits)}
    encoded["limits"] = {name: value for name, value in limits.items() if value is not None}
    for name in ("memory", "visibility", "block_size", "watermark", "level"):
        value = getattr(header, name)
        if value is not None:
            encoded[name] = value
    if header.extensions:
        encoded["extensions"] = {name: dict(options) for name, options in header.extensions.items()}
    return _with_extra(encoded, header.extra)


def encode_event(event: Event) -> dict[str, JsonValue]:
    """One event as a JSON object. O(its size)."""
    encoded: dict[str, JsonValue] = {"event": EVENT_NAMES[type(event)]}
    for name in _FIELD_NAMES[type(event)]:
        value = getattr(event, name)
        if value is None:
            continue
        if isinstance(value, tuple):
            encoded[name] = list(value)
        elif isinstance(value, Mapping):
            if value or name not in _LEFT_OUT_WHEN_EMPTY.get(type(event), ()):
                encoded[name] = dict(value)
        else:
            encoded[name] = value
    return _with_extra(encoded, event.extra or {})


def _with_extra(encoded: dict[str, JsonValue], extra: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Add unknown fields after the known ones; those of a known object go into that object."""
    for name, value in extra.items():
        known = encoded.get(name)
        if isinstance(known, dict) and isinstance(value, dict):
            encoded[name] = known | value
        else:
            encoded[name] = value
    return encoded


class EventWriter:
    """An event sink that writes a log to a text stream: the header at once, then one line an event.

    The same events give the same bytes. Open the stream with `dlpm.files.written_whole`: a run that fails then leaves
    no half log behind.
    """

    def __init__(self, stream: TextIO, header: Header) -> None:
        """Write the header."""
        self._stream = stream
        self._write(encode_header(header))

    def __call__(self, event: Event) -> None:
        """Write one event. O(its size)."""
        self._write(encode_event(event))

    def _write(self, value: dict[str, JsonValue]) -> None:
        """Write one line."""
        self._stream.write(dump(value))
        self._stream.write("\n")


# -- reading -----------------------------------------------------------------------------------------------------------


def read_log(lines: Iterable[tuple[int, str]], source: str) -> tuple[Header, Iterator[tuple[int, Event]]]:
    """The header of a log, and its events with their line numbers, read as they are asked for.

    ``lines`` are numbered lines, as from `dlpm.files.numbered_lines`; ``source`` is what errors call the log.

    Raises:
        InputError: there is no header, or (while iterating) a line is not an event.
    """
    iterator = iter(lines)
    first = next(iterator, None)
    if first is None:
        raise InputError(f"expected a header with schema {SCHEMA!r}, found an empty log", source=source, line=1)
    header = decode_header(parse_object(first[1], source=source, line=first[0]), source, first[0])
    return header, _events(iterator, source)


def _events(lines: Iterator[tuple[int, str]], source: str) -> Iterator[tuple[int, Event]]:
    """The events after the header."""
    for number, text in lines:
        yield number, decode_event(parse_object(text, source=source, line=number), source, number)


def decode_header(values: Mapping[str, JsonValue], source: str, line: int) -> Header:
    """Read the first line of a log.

    Raises:
        InputError: a required field is missing, or a known one is not what it must be.
    """
    top = Fields(values, source, line)
    if values.get("schema") != SCHEMA:
        raise top.mismatch("schema", repr(SCHEMA))
    weights = _object(top, "weights")
    quantum = _object(top, "quantum") if "quantum" in values else None
    limits = _object(top, "limits") if "limits" in values else Fields({}, source, line, "limits.")
    limit_names = [item.name for item in fields(Limits)]
    nested = (("weights", weights, ["extend", "output"]), ("quantum", quantum, ["default", "clients"]))
    extra: dict[str, JsonValue] = {name: value for name, value in values.items() if name not in _HEADER_FIELDS}
    for name, inner, known in (*nested, ("limits", limits, limit_names)):
        unknown = {key: value for key, value in inner.values.items() if key not in known} if inner else {}
        if unknown:
            extra[name] = unknown
    return Header(
        engine=top.text("engine"),
        policy=top.text("policy"),
        extend_weight=weights.integer("extend", 1, MAX_INTEGER),
        output_weight=weights.integer("output", 1, MAX_INTEGER),
        default_quantum=quantum.integer("default", 1, MAX_INTEGER) if quantum else None,
        quanta=_counts(quantum, "clients", 1) if quantum and "clients" in quantum.values else {},
        limits=Limits(**{name: _optional(limits, name, 1) for name in limit_names}),
        memory=_choice(top, "memory", MEMORY_KINDS),
        visibility=_choice(top, "visibility", VISIBILITIES),
        block_size=_optional(top, "block_size", 1),
        watermark=_optional(top, "watermark", 0),
        level=_choice(top, "level", LEVELS) or "decisions",
        extensions=_options(top, "extensions") if "extensions" in values else {},
        extra=extra,
    )


def decode_event(values: Mapping[str, JsonValue], source: str, line: int) -> Event:
    """Read one event. O(its size).

    Raises:
        InputError: it is of no known kind, a required field is missing, or a known one is not what it must be.
    """
    line_fields = Fields(values, source, line)
    decoder = _DECODERS.get(line_fields.text("event"))
    if decoder is None:
        raise line_fields.mismatch("event", f"one of {', '.join(_DECODERS)}")
    return decoder(line_fields)


def _arrive(line: Fields) -> Event:
    return Arrive(
        **_common(line, Arrive),
        request=line.text("request"),
        client=line.text("client"),
        input=line.tokens("input"),
        max_output=line.tokens("max_output"),
        arrived_us=_optional(line, "arrived_us", 0),
    )


def _order(line: Fields) -> Event:
    requests = line.texts("requests")
    matched = line.integers("matched", 0, MAX_TOKENS)
    if len(requests) != len(matched):
        raise line.wrong("matched", f"expected one number for each of {len(requests)} requests, found {len(matched)}")
    return Order(
        **_common(line, Order),
        requests=requests,
        matched=matched,
        free=_optional(line, "free", -MAX_INTEGER),
    )


def _refill(line: Fields) -> Event:
    return Refill(
        **_common(line, Refill),
        deficits=_counts(line, "deficits", -MAX_INTEGER),
    )


def _admit(line: Fields) -> Event:
    if ("payer" in line.values) != ("payer_deficit" in line.values):
        missing = "payer_deficit" if "payer" in line.values else "payer"
        raise line.wrong(missing, "expected payer and payer_deficit, or neither")
    return Admit(
        **_common(line, Admit),
        request=line.text("request"),
        matched=line.integer("matched", 0, MAX_INTEGER),
        extend=line.integer("extend", 0, MAX_INTEGER),
        deficit=_optional(line, "deficit", -MAX_INTEGER),
        free=_optional(line, "free", -MAX_INTEGER),
        chunk=_optional(line, "chunk", 1),
        payer=line.text("payer") if "payer" in line.values else None,
        payer_deficit=_optional(line, "payer_deficit", -MAX_INTEGER),
        charged=_optional(line, "charged", 0),
        refunds=_counts(line, "refunds", 0) if "refunds" in line.values else None,
        deficits=_counts(line, "deficits", -MAX_INTEGER) if "deficits" in line.values else None,
    )


def _chunk(line: Fields) -> Event:
    return Chunk(
        **_common(line, Chunk),
        request=line.text("request"),
        tokens=line.integer("tokens", 1, MAX_INTEGER),
        deficit=_optional(line, "deficit", -MAX_INTEGER),
    )


def _output(line: Fields) -> Event:
    return Output(
        **_common(line, Output),
        tokens=_counts(line, "tokens", 0),
        deficits=_counts(line, "deficits", -MAX_INTEGER) if "deficits" in line.values else {},
        accepted=_counts(line, "accepted", 1) if "accepted" in line.values else {},
    )


def _finish(line: Fields) -> Event:
    return Finish(
        **_common(line, Finish),
        request=line.text("request"),
    )


def _preempt(line: Fields) -> Event:
    kind = _choice(line, "kind", PREEMPTIONS)
    if kind is None:
        raise line.mismatch("kind", f"one of {', '.join(PREEMPTIONS)}")
    return Preempt(
        **_common(line, Preempt),
        request=line.text("request"),
        kind=kind,
        deficit=_optional(line, "deficit", -MAX_INTEGER),
        copied=_optional(line, "copied", 0),
        copied_us=_optional(line, "copied_us", 0),
    )


def _resume(line: Fields) -> Event:
    return Resume(
        **_common(line, Resume),
        request=line.text("request"),
        copied=line.integer("copied", 0, MAX_INTEGER),
        began_us=line.integer("began_us", 0, MAX_INTEGER),
        copied_us=line.integer("copied_us", 0, MAX_INTEGER),
        deficit=_optional(line, "deficit", -MAX_INTEGER),
    )


def _dispatch(line: Fields) -> Event:
    if "worker" not in line.values:
        raise line.mismatch("worker", "the worker that the request goes to")
    return Dispatch(
        **_common(line, Dispatch),
        request=line.text("request"),
        matched_workers=line.integers("matched_workers", 0, MAX_TOKENS),
        counter=_optional(line, "counter", -MAX_INTEGER),
        client=line.text("client") if "client" in line.values else None,
        input=line.tokens("input") if "input" in line.values else None,
    )


def _deliver(line: Fields) -> Event:
    if "worker" not in line.values:
        raise line.mismatch("worker", "the worker whose updates these are")
    return Deliver(**_common(line, Deliver), updates=line.integer("updates", 1, MAX_INTEGER))


def _evict(line: Fields) -> Event:
    if ("tokens" in line.values) == ("blocks" in line.values):
        raise line.wrong("tokens", "expected exactly one of tokens and blocks")
    return Evict(
        **_common(line, Evict),
        tokens=_optional(line, "tokens", 0),
        blocks=line.integers("blocks", 0, MAX_HASH) if "blocks" in line.values else None,
    )


_DECODERS: Mapping[str, Callable[[Fields], Event]] = {
    "arrive": _arrive,
    "order": _order,
    "refill": _refill,
    "admit": _admit,
    "chunk": _chunk,
    "output": _output,
    "finish": _finish,
    "preempt": _preempt,
    "resume": _resume,
    "dispatch": _dispatch,
    "deliver": _deliver,
    "evict": _evict,
}
_FIELD_NAMES: Mapping[type[Event], tuple[str, ...]] = {
    kind: tuple(item.name for item in fields(kind) if item.name != "extra") for kind in EVENT_NAMES
}
_LEFT_OUT_WHEN_EMPTY: Mapping[type[Event], tuple[str, ...]] = {Output: ("deficits", "accepted")}
_HEADER_FIELDS = {
    "schema",
    "engine",
    "policy",
    "weights",
    "quantum",
    "limits",
    "memory",
    "visibility",
    "block_size",
    "watermark",
    "level",
    "extensions",
}


class _Common(TypedDict):
    """What every event carries."""

    step: int
    worker: int | None
    time_us: int | None
    extra: dict[str, JsonValue] | None


def _common(line: Fields, kind: type[Event]) -> _Common:
    """What every event carries, and the fields that this kind of event does not have."""
    known = _FIELD_NAMES[kind]
    extra = {name: value for name, value in line.values.items() if name != "event" and name not in known}
    return {
        "step": line.integer("step", 0, MAX_INTEGER),
        "worker": line.integer("worker", 0, MAX_TOKENS) if "worker" in line.values else None,
        "time_us": _optional(line, "time_us", 0),
        "extra": extra or None,
    }


def _optional(line: Fields, field: str, low: int) -> int | None:
    """A whole number from ``low``, or ``None`` if the field is not there."""
    return line.integer(field, low, MAX_INTEGER) if field in line.values else None


def _choice(line: Fields, field: str, choices: tuple[str, ...]) -> str | None:
    """One of a few words, or ``None`` if the field is not there."""
    if field not in line.values:
        return None
    value = line.values[field]
    if value not in choices:
        raise line.mismatch(field, f"one of {', '.join(choices)}")
    return str(value)


def _object(line: Fields, field: str) -> Fields:
    """A required object inside the line."""
    value = line.values.get(field)
    if not isinstance(value, dict):
        raise line.mismatch(field, "an object")
    return Fields(value, line.source, line.line, f"{line.within}{field}.")


def _options(line: Fields, field: str) -> dict[str, dict[str, JsonValue]]:
    """An object that maps names to objects; what is in those is for others to judge. O(names)."""
    inner = _object(line, field)
    found: dict[str, dict[str, JsonValue]] = {}
    for name, options in inner.values.items():
        if not name or not is_unicode(name):
            raise line.wrong(field, f"expected names that are not empty, found {shown(name)}")
        if not isinstance(options, dict):
            raise inner.mismatch(name, "an object with the options of this extension")
        found[name] = options
    return found


def _counts(line: Fields, field: str, low: int) -> dict[str, int]:
    """An object that maps names to whole numbers from ``low``. O(its size)."""
    inner = _object(line, field)
    for name in inner.values:
        if not name or not is_unicode(name):
            raise line.wrong(field, f"expected names that are not empty, found {shown(name)}")
    return {name: inner.integer(name, low, MAX_INTEGER) for name in inner.values}
