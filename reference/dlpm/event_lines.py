"""What the lines of an event log say, kind by kind: each event from its fields, strictly (see `event_codec`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TypedDict

from dlpm.events import (
    Admit,
    Arrive,
    Chunk,
    Deliver,
    Dispatch,
    Event,
    Evict,
    Finish,
    Order,
    Output,
    Preempt,
    Refill,
    Resume,
)
from dlpm.fields import MAX_HASH, MAX_INTEGER, MAX_TOKENS, Fields, is_unicode
from dlpm.jsonl import JsonValue, shown

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

PREEMPTIONS = ("recompute", "swap")

FIELD_NAMES: Mapping[type[Event], tuple[str, ...]] = {
    kind: tuple(item.name for item in fields(kind) if item.name != "extra") for kind in EVENT_NAMES
}
"""The fields of each kind of event; a line may have others, which are kept."""


def _arrive(line: Fields) -> Event:
    return Arrive(
        **_common(line, Arrive),
        request=line.text("request"),
        client=line.text("client"),
        input=line.tokens("input"),
        max_output=line.tokens("max_output"),
        arrived_us=optional(line, "arrived_us", 0),
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
        free=optional(line, "free", -MAX_INTEGER),
    )


def _refill(line: Fields) -> Event:
    return Refill(
        **_common(line, Refill),
        deficits=counts(line, "deficits", -MAX_INTEGER),
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
        deficit=optional(line, "deficit", -MAX_INTEGER),
        free=optional(line, "free", -MAX_INTEGER),
        chunk=optional(line, "chunk", 1),
        payer=line.text("payer") if "payer" in line.values else None,
        payer_deficit=optional(line, "payer_deficit", -MAX_INTEGER),
        charged=optional(line, "charged", 0),
        refunds=counts(line, "refunds", 0) if "refunds" in line.values else None,
        deficits=counts(line, "deficits", -MAX_INTEGER) if "deficits" in line.values else None,
    )


def _chunk(line: Fields) -> Event:
    return Chunk(
        **_common(line, Chunk),
        request=line.text("request"),
        tokens=line.integer("tokens", 1, MAX_INTEGER),
        deficit=optional(line, "deficit", -MAX_INTEGER),
    )


def _output(line: Fields) -> Event:
    return Output(
        **_common(line, Output),
        tokens=counts(line, "tokens", 0),
        deficits=counts(line, "deficits", -MAX_INTEGER) if "deficits" in line.values else {},
        accepted=counts(line, "accepted", 1) if "accepted" in line.values else {},
    )


def _finish(line: Fields) -> Event:
    return Finish(
        **_common(line, Finish),
        request=line.text("request"),
    )


def _preempt(line: Fields) -> Event:
    kind = choice(line, "kind", PREEMPTIONS)
    if kind is None:
        raise line.mismatch("kind", f"one of {', '.join(PREEMPTIONS)}")
    return Preempt(
        **_common(line, Preempt),
        request=line.text("request"),
        kind=kind,
        deficit=optional(line, "deficit", -MAX_INTEGER),
        copied=optional(line, "copied", 0),
        copied_us=optional(line, "copied_us", 0),
    )


def _resume(line: Fields) -> Event:
    return Resume(
        **_common(line, Resume),
        request=line.text("request"),
        copied=line.integer("copied", 0, MAX_INTEGER),
        began_us=line.integer("began_us", 0, MAX_INTEGER),
        copied_us=line.integer("copied_us", 0, MAX_INTEGER),
        deficit=optional(line, "deficit", -MAX_INTEGER),
    )


def _dispatch(line: Fields) -> Event:
    if "worker" not in line.values:
        raise line.mismatch("worker", "the worker that the request goes to")
    return Dispatch(
        **_common(line, Dispatch),
        request=line.text("request"),
        matched_workers=line.integers("matched_workers", 0, MAX_TOKENS),
        counter=optional(line, "counter", -MAX_INTEGER),
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
        tokens=optional(line, "tokens", 0),
        blocks=line.integers("blocks", 0, MAX_HASH) if "blocks" in line.values else None,
    )


DECODERS: Mapping[str, Callable[[Fields], Event]] = {
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
"""What reads each kind of event, by the value of ``event``."""


class _Common(TypedDict):
    """What every event carries."""

    step: int
    worker: int | None
    time_us: int | None
    extra: dict[str, JsonValue] | None


def _common(line: Fields, kind: type[Event]) -> _Common:
    """What every event carries, and the fields that this kind of event does not have."""
    known = FIELD_NAMES[kind]
    extra = {name: value for name, value in line.values.items() if name != "event" and name not in known}
    return {
        "step": line.integer("step", 0, MAX_INTEGER),
        "worker": line.integer("worker", 0, MAX_TOKENS) if "worker" in line.values else None,
        "time_us": optional(line, "time_us", 0),
        "extra": extra or None,
    }


def optional(line: Fields, field: str, low: int) -> int | None:
    """A whole number from ``low``, or ``None`` if the field is not there."""
    return line.integer(field, low, MAX_INTEGER) if field in line.values else None


def choice(line: Fields, field: str, choices: tuple[str, ...]) -> str | None:
    """One of a few words, or ``None`` if the field is not there."""
    if field not in line.values:
        return None
    value = line.values[field]
    if value not in choices:
        raise line.mismatch(field, f"one of {', '.join(choices)}")
    return str(value)


def nested(line: Fields, field: str) -> Fields:
    """A required object inside the line."""
    value = line.values.get(field)
    if not isinstance(value, dict):
        raise line.mismatch(field, "an object")
    return Fields(value, line.source, line.line, f"{line.within}{field}.")


def named_options(line: Fields, field: str) -> dict[str, dict[str, JsonValue]]:
    """An object that maps names to objects; what is in those is for others to judge. O(names)."""
    inner = nested(line, field)
    found: dict[str, dict[str, JsonValue]] = {}
    for name, options in inner.values.items():
        if not name or not is_unicode(name):
            raise line.wrong(field, f"expected names that are not empty, found {shown(name)}")
        if not isinstance(options, dict):
            raise inner.mismatch(name, "an object with the options of this extension")
        found[name] = options
    return found


def counts(line: Fields, field: str, low: int) -> dict[str, int]:
    """An object that maps names to whole numbers from ``low``. O(its size)."""
    inner = nested(line, field)
    for name in inner.values:
        if not name or not is_unicode(name):
            raise line.wrong(field, f"expected names that are not empty, found {shown(name)}")
    return {name: inner.integer(name, low, MAX_INTEGER) for name in inner.values}
