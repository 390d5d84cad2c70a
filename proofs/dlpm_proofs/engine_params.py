"""Which bounds hold for one engine's real numbers, and which do not, and why (`dlpm verify --params FILE`).

The file is TOML; docs/formats/params.md describes it. Every number comes from `dlpm.bounds`, which is what the theorems
are about, and every line names the theorem that gives it or the hypothesis that the engine does not meet.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dlpm import bounds
from dlpm.bounds_extensions import weighted_gap
from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.fields import MAX_TOKENS, Fields
from dlpm.jsonl import JsonValue
from dlpm.ledger import Quanta

MEMORIES = ("reserving", "optimistic")
MAX_WEIGHT = 2**31 - 1
KNOWN = {
    "": {"engine", "memory", "clients", "service_rate", "weights", "quantum", "limits"},
    "weights": {"extend", "output"},
    "quantum": {"default", "clients"},
    "limits": {"max_input", "max_output", "kv_tokens", "max_running"},
}


@dataclass(frozen=True, slots=True)
class EngineParams:
    """An engine as its operator describes it: weights, quanta, limits (tokens; requests for ``max_running``), memory.

    ``clients`` is how many clients there are at most; ``service_rate`` is what a worker serves, at least, in weighted
    tokens per second of every step. Both are ``None`` where not stated.
    """

    engine: str
    cost: CostModel
    quanta: Quanta
    memory: str
    kv_tokens: int
    max_input: int
    max_output: int | None
    max_running: int | None
    clients: int | None
    service_rate: int | None


@dataclass(frozen=True, slots=True)
class Guarantee:
    """One bound for one engine: the theorem, the claim with its number, whether it holds, and why or why not."""

    theorem: str
    claim: str
    holds: bool
    reason: str


def read_params(path: Path) -> EngineParams:
    """Read and check a parameter file.

    Raises:
        InputError: the file cannot be read, is not TOML, lacks a field, has an unknown one, or one out of range.
    """
    source = str(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"expected a readable file: {error.strerror}", source=source) from error
    except UnicodeDecodeError as error:
        raise InputError("expected UTF-8 text", source=source) from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"expected TOML: {error}", source=source) from error
    tables = {name: _table(document, name, source) for name in KNOWN}
    weights, quantum, limits, top = tables["weights"], tables["quantum"], tables["limits"], tables[""]
    memory = top.text("memory")
    if memory not in MEMORIES:
        raise top.wrong("memory", f"expected {' or '.join(MEMORIES)}, found {memory!r}")
    own = _subtable(quantum, "clients", source)
    return EngineParams(
        engine=top.text("engine") if "engine" in top.values else path.stem,
        cost=CostModel(weights.integer("extend", 1, MAX_WEIGHT), weights.integer("output", 1, MAX_WEIGHT)),
        quanta=Quanta(
            quantum.integer("default", 1, MAX_WEIGHT), {name: own.integer(name, 1, MAX_WEIGHT) for name in own.values}
        ),
        memory=memory,
        kv_tokens=limits.integer("kv_tokens", 2, MAX_TOKENS),
        max_input=limits.integer("max_input", 1, MAX_TOKENS),
        max_output=_optional(limits, "max_output"),
        max_running=_optional(limits, "max_running"),
        clients=_optional(top, "clients"),
        service_rate=_optional(top, "service_rate"),
    )


def _table(document: Mapping[str, JsonValue], name: str, source: str) -> Fields:
    """One table of the file, without unknown fields; ``""`` is the top."""
    values = document if not name else document.get(name)
    if not isinstance(values, dict):
        raise InputError(f"expected a table [{name}]", source=source, field=name)
    for field in values:
        if field not in KNOWN[name]:
            known = ", ".join(sorted(KNOWN[name]))
            raise InputError(f"expected one of {known}", source=source, field=f"{name}.{field}" if name else field)
    return Fields(values, source, None, f"{name}." if name else "")


def _subtable(fields: Fields, name: str, source: str) -> Fields:
    """A table whose keys are free, empty where absent."""
    values = fields.values.get(name, {})
    if not isinstance(values, dict):
        raise fields.mismatch(name, "expected a table of client = quantum")
    return Fields(values, source, None, f"{fields.within}{name}.")


def _optional(fields: Fields, name: str) -> int | None:
    """A positive number, or ``None`` where it is not stated."""
    return fields.integer(name, 1, MAX_TOKENS) if name in fields.values else None


def unit_that_holds(params: EngineParams) -> int:
    """``U*`` of the engine's memory and limits [T2*]. O(sqrt(M)) for optimistic memory."""
    if params.memory == "reserving":
        return bounds.tight_unit(
            params.cost,
            params.max_input,
            params.kv_tokens,
            max_output=params.max_output,
            max_running=params.max_running,
        )
    return bounds.optimistic_unit(
        params.cost,
        bounds.longest_recomputation(params.max_input, params.kv_tokens, params.max_output),
        bounds.outputs_after_admission(params.kv_tokens, params.max_output, params.max_running),
    )


def guarantees(params: EngineParams) -> tuple[Guarantee, ...]:
    """Every bound about one worker, as printed and as proven, for these parameters."""
    quantum = params.quanta.default
    unit = unit_that_holds(params)
    floor = bounds.deficit_floor(unit)
    gap = bounds.service_gap(quantum, floor)
    found = [
        Guarantee("T1", f"a counter never exceeds its quantum, {quantum} by default", True, "any memory"),
        _printed_floor(params, floor),
        Guarantee(_case("T2*", params), f"a counter never falls below {floor}", True, _why(params)),
        _printed_gap(params, gap),
    ]
    same = f"two clients with the quantum {quantum}, the first backlogged: the other leads by at most {gap}"
    found.append(Guarantee(_case("T3", params) + ", " + _case("T4", params), same, True, _why(params)))
    found += _weighted(params, unit)
    found += _waiting(params, floor)
    found.append(Guarantee("T6/fixpoint", "the worker is never idle while a request waits", True, "fixpoint admission"))
    return tuple(found)


def _case(theorem: str, params: EngineParams) -> str:
    """The case of a theorem that speaks of the engine's memory."""
    starred = theorem if params.memory == "reserving" or theorem.endswith("*") else f"{theorem}*"
    return f"{starred}/{params.memory}"


def _why(params: EngineParams) -> str:
    """What the engine meets."""
    limits = [
        f"{name} = {value}"
        for name, value in (("L_out", params.max_output), ("B", params.max_running))
        if value is not None
    ]
    return f"{params.memory} memory, M = {params.kv_tokens}, L_in = {params.max_input}" + "".join(
        f", {limit}" for limit in limits
    )


NOT_RESERVED = "not by the paper's proof: it needs reserving memory, and this engine's is optimistic"


def _printed_floor(params: EngineParams, floor: int) -> Guarantee:
    """The floor of A.1 eq. 2."""
    printed = bounds.deficit_floor_as_printed(params.cost, params.max_input, params.kv_tokens)
    claim = f"as printed: a counter stays above -U = {printed}"
    if params.memory == "reserving":
        return Guarantee("T2/reserving", claim, True, _why(params))
    if floor > printed:
        return Guarantee("T2*/optimistic", claim, True, f"{NOT_RESERVED}; it follows from the floor {floor} below")
    return Guarantee("T2/optimistic", claim, False, f"{NOT_RESERVED}; the floor that is true is {floor}")


def _printed_gap(params: EngineParams, gap: int) -> Guarantee:
    """The gap of Theorems 4.1 and 4.2."""
    printed = bounds.service_gap_as_printed(params.cost, params.max_input, params.kv_tokens, params.quanta.default)
    claim = f"as printed: backlogged clients differ by at most 2 (U + Q) = {printed}"
    if params.memory == "reserving":
        return Guarantee("T3/reserving, T4/reserving", claim, True, _why(params))
    if gap <= printed:
        return Guarantee("T3*/optimistic", claim, True, f"{NOT_RESERVED}; it follows from the gap {gap} below")
    return Guarantee("T3/optimistic", claim, False, f"{NOT_RESERVED}; the gap that is true is {gap}")


def _weighted(params: EngineParams, unit: int) -> list[Guarantee]:
    """For each other quantum: service per unit of quantum, cross-multiplied [E1]."""
    default = params.quanta.default
    floor = bounds.deficit_floor(unit)
    return [
        Guarantee(
            "E1",
            f"{client} (quantum {quantum}) against one of {default}: |{quantum} W - {default} W_{client}| <= "
            f"{weighted_gap(quantum, floor, default, floor)}",
            True,
            "both backlogged",
        )
        for client, quantum in sorted(params.quanta.clients.items())
        if quantum != default
    ]


def _waiting(params: EngineParams, floor: int) -> list[Guarantee]:
    """How long a client waits for its next admission [T5]; nothing is proved for unequal quanta."""
    quanta = {params.quanta.default, *params.quanta.clients.values()}
    if params.clients is None or len(quanta) != 1:
        return []
    quantum = params.quanta.default
    service = bounds.service_while_waiting(quantum, floor, floor, params.clients)
    steps = bounds.steps_while_waiting(params.cost, service)
    claim = f"others are served at most {service} before a waiting client is let in again: at most {steps} steps"
    if params.service_rate is not None:
        claim += f", {-(-service // params.service_rate)} s at {params.service_rate} a second"
    printed = Guarantee(
        "T5/printed", "as printed: a request waits at most 2 (n-1) (Q + U) / a", False, "refuted for every engine"
    )
    return [printed, Guarantee("T5/reserving", claim, True, "counted from a client with the deepest debt")]


SCHEMA = "dlpm.guarantees/1"


def to_json(params: EngineParams) -> dict[str, JsonValue]:
    """The guarantees as JSON."""
    return {
        "schema": SCHEMA,
        "engine": params.engine,
        "guarantees": [
            {"theorem": one.theorem, "claim": one.claim, "holds": one.holds, "reason": one.reason}
            for one in guarantees(params)
        ],
    }
