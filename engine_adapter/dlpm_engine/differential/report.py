"""A divergence as a person reads it: where, what each engine did, both states, the reason, and how to see it again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from dlpm.jsonl import JsonValue
from dlpm.request import Request
from dlpm_engine.adapter import Snapshot
from dlpm_engine.differential.case import Case
from dlpm_engine.differential.explain import explain
from dlpm_engine.differential.lockstep import Divergence
from dlpm_engine.differential.record import event_key

_SHOWN = 40


def report(case: Case, divergence: Divergence, engine: str, file: Path | None = None, *, repeats: bool = True) -> str:
    """The divergence report, as text. ``repeats`` says whether ``file`` alone shows it. O(state + requests)."""
    difference = divergence.difference
    lines = [
        f"{engine} differs from the reference in step {divergence.step}, "
        + _subject(difference.subject, difference.place),
        f"  reference: {_shown(difference.expected)}",
        f"  {engine}: {_shown(difference.found)}",
        f"why: {explain(case, divergence)}",
        "",
        "before the step",
        *_states(divergence.before, engine),
        *_submitted(divergence.submitted),
        "",
        "the step in the reference",
        *(f"  {_shown(key)}" for event in divergence.expected.events if (key := event_key(event)) is not None),
        f"the step in {engine}",
        *_found(divergence),
        "",
        f"case: {case.name}",
        f"  {_config(case)}",
        *(f"  {_request(request)}" for request in case.requests[:_SHOWN]),
    ]
    if len(case.requests) > _SHOWN:
        lines.append(f"  ... and {len(case.requests) - _SHOWN} more")
    if not repeats:
        lines += [
            "",
            f"{engine} did not differ on this case again, alone: it depends on what else it schedules, or on chance",
        ]
        lines += ["to see it again: the same campaign" + (f"; the case is in {file}" if file is not None else "")]
    elif file is not None:
        lines += ["", f"to see it again: {command(engine, file)}"]
    return "\n".join(lines)


def command(engine: str, file: Path) -> str:
    """The command line that reproduces a divergence from its file."""
    return f"dlpm diff --engine {engine} --workload {file}"


def as_json(case: Case, divergence: Divergence, engine: str, file: Path | None, *, repeats: bool = True) -> JsonValue:
    """The divergence for machines: what `report` says first."""
    return {
        "case": case.name,
        "requests": len(case.requests),
        "step": divergence.step,
        "subject": divergence.difference.subject,
        "reference": _shown(divergence.difference.expected),
        "engine": _shown(divergence.difference.found),
        "reason": explain(case, divergence),
        "repeats": repeats,
        "file": None if file is None else str(file),
        "command": None if file is None or not repeats else command(engine, file),
    }


def _subject(subject: str, place: int) -> str:
    """What it is that differs."""
    if subject == "event":
        return f"decision {place + 1} of the step"
    return f"{subject}, place {place + 1}" if subject == "order" else subject


def _shown(value: object) -> str:
    """A decision or a part of the state, in words."""
    match value:
        case None:
            return "nothing"
        case ("admit", request, matched, extend, deficit):
            return f"admit {request}: matched {matched}, extend {extend}, deficit afterwards {deficit}"
        case ("refill", Mapping() as deficits):
            return f"refill: {_counters(deficits)}"
        case ("output", Mapping() as tokens, Mapping() as deficits):
            return f"output tokens for {', '.join(tokens)}; deficits {_counters(deficits)}"
        case ("finish", request):
            return f"finish {request}"
        case ("preempt", request, kind, deficit):
            return f"preempt {request} ({kind}), deficit {deficit}"
        case ("evict", tokens):
            return f"evict {tokens} tokens"
        case (str() as request, int() as matched):
            return f"{request}, matched {matched}"
        case Mapping():
            return _counters({str(name): entry for name, entry in value.items()})
        case tuple():
            return ", ".join(str(part) for part in value) or "nobody"
        case _:
            return str(value)


def _counters(values: Mapping[str, object]) -> str:
    """Values by name."""
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "none"


def _states(states: tuple[Snapshot, Snapshot], engine: str) -> list[str]:
    """Both ledgers side by side, and the rest of the two states."""
    reference, other = states
    clients = sorted(reference.deficits.keys() | other.deficits.keys())[:_SHOWN]
    rows = [("client", "reference", engine)]
    rows += [(name, str(reference.deficits.get(name, "-")), str(other.deficits.get(name, "-"))) for name in clients]
    width = max(len(row[0]) for row in rows)
    middle = max(len(row[1]) for row in rows)
    lines = [f"  {row[0]:<{width}}  {row[1]:>{middle}}  {row[2]:>{max(len(engine), middle)}}" for row in rows]
    for label, value in (
        ("queue", _names(reference.queue)),
        ("running", _names(reference.running)),
        ("free tokens", str(reference.free_tokens)),
        ("cached tokens", str(reference.cached_tokens)),
    ):
        lines.append(f"  {label}: {value}")
    return lines


def _names(names: tuple[str, ...]) -> str:
    """Some names."""
    more = f" ... and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "nobody") + more


def _submitted(requests: Iterable[Request]) -> list[str]:
    """What arrived for this step."""
    return [f"  arrives: {request.id} of {request.client}" for request in requests][:_SHOWN]


def _found(divergence: Divergence) -> list[str]:
    """The events of the engine under test."""
    if divergence.found is None:
        return ["  (none: it did not get that far)"]
    return [f"  {_shown(key)}" for event in divergence.found.events if (key := event_key(event)) is not None]


def _config(case: Case) -> str:
    """The parameters in one line."""
    config = case.config
    own = f" ({_counters(config.quanta)})" if config.quanta else ""
    watermark = f" with watermark {config.watermark}" if config.watermark else ""
    return (
        f"quantum {config.quantum}{own}, weights {config.extend_weight},{config.output_weight}, "
        f"{config.kv_tokens} KV tokens in blocks of {config.block_size}, {config.memory} memory{watermark}, "
        f"{config.visibility}, batch {config.max_running if config.max_running is not None else 'unlimited'}"
    )


def _request(request: Request) -> str:
    """One request in one line."""
    prompt = f"prompt {list(request.prompt)}" if request.prompt else f"blocks {list(request.blocks)}"
    after = f", reply {list(request.reply or request.reply_blocks)}" if request.reply or request.reply_blocks else ""
    waits = f", after {', '.join(request.parents)}" if request.parents else ""
    return (
        f"{request.id} of {request.client} at {request.arrival_us} us: {prompt} ({request.input_tokens} tokens), "
        f"{request.output_tokens} of at most {request.max_output} output{after}{waits}"
    )
