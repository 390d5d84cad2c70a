"""The event log as text: `dlpm.events/1`, JSON Lines (docs/formats/events.md, docs/schemas/events.schema.json).

A field of an event has the same name in JSON as in `dlpm.events`; what is ``None`` or empty is left out. Readers are
strict about every field they know and keep every field they do not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import TextIO

from dlpm.errors import InputError
from dlpm.event_lines import DECODERS, EVENT_NAMES, FIELD_NAMES, choice, counts, named_options, nested, optional
from dlpm.events import SCHEMA, Event, Header, Limits, Output
from dlpm.fields import MAX_INTEGER, Fields
from dlpm.jsonl import JsonValue, dump, parse_object

MEMORY_KINDS = ("reserving", "optimistic")
VISIBILITIES = ("at_admission", "after_forward")
LEVELS = ("decisions", "full")
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
    for name in FIELD_NAMES[type(event)]:
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
    weights = nested(top, "weights")
    quantum = nested(top, "quantum") if "quantum" in values else None
    limits = nested(top, "limits") if "limits" in values else Fields({}, source, line, "limits.")
    limit_names = [item.name for item in fields(Limits)]
    known_objects = (("weights", weights, ["extend", "output"]), ("quantum", quantum, ["default", "clients"]))
    extra: dict[str, JsonValue] = {name: value for name, value in values.items() if name not in _HEADER_FIELDS}
    for name, inner, known in (*known_objects, ("limits", limits, limit_names)):
        unknown = {key: value for key, value in inner.values.items() if key not in known} if inner else {}
        if unknown:
            extra[name] = unknown
    return Header(
        engine=top.text("engine"),
        policy=top.text("policy"),
        extend_weight=weights.integer("extend", 1, MAX_INTEGER),
        output_weight=weights.integer("output", 1, MAX_INTEGER),
        default_quantum=quantum.integer("default", 1, MAX_INTEGER) if quantum else None,
        quanta=counts(quantum, "clients", 1) if quantum and "clients" in quantum.values else {},
        limits=Limits(**{name: optional(limits, name, 1) for name in limit_names}),
        memory=choice(top, "memory", MEMORY_KINDS),
        visibility=choice(top, "visibility", VISIBILITIES),
        block_size=optional(top, "block_size", 1),
        watermark=optional(top, "watermark", 0),
        level=choice(top, "level", LEVELS) or "decisions",
        extensions=named_options(top, "extensions") if "extensions" in values else {},
        extra=extra,
    )


def decode_event(values: Mapping[str, JsonValue], source: str, line: int) -> Event:
    """Read one event. O(its size).

    Raises:
        InputError: it is of no known kind, a required field is missing, or a known one is not what it must be.
    """
    line_fields = Fields(values, source, line)
    decoder = DECODERS.get(line_fields.text("event"))
    if decoder is None:
        raise line_fields.mismatch("event", f"one of {', '.join(DECODERS)}")
    return decoder(line_fields)
