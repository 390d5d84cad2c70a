"""Which bounds hold for one engine's real numbers, and which do not, and why (`dlpm verify --params FILE`).

docs/formats/params.md describes the file. Every number comes from `dlpm.bounds` and `dlpm.bounds_engine`, which the
theorems are about, and every line names the theorem that gives it or the hypothesis that the engine does not meet.
"""

from __future__ import annotations

from dataclasses import dataclass

from dlpm import bounds
from dlpm.bounds_engine import EngineBounds, for_engine, steps_while_waiting_with_chunks
from dlpm.bounds_extensions import weighted_gap
from dlpm.engine_profile import OPTIMISTIC, RESERVING, EngineProfile
from dlpm.jsonl import JsonValue


@dataclass(frozen=True, slots=True)
class Guarantee:
    """One bound for one engine: the theorem, the claim with its number, whether it holds, and why or why not."""

    theorem: str
    claim: str
    holds: bool
    reason: str


def guarantees(profile: EngineProfile) -> tuple[Guarantee, ...]:
    """Every bound about one worker, as printed and as proven, for this engine.

    Raises:
        InputError: no theorem is about such an engine.
    """
    found = for_engine(profile)
    quantum = profile.quanta.default
    same = f"two clients with the quantum {quantum}, the first backlogged: the other leads by at most {found.gap}"
    return (
        Guarantee("T1", f"a counter never exceeds its quantum, {quantum} by default", True, "any memory"),
        _printed_floor(profile, found),
        Guarantee(
            _theorem(profile, found, "T2*"), f"a counter never falls below {found.floor}", True, _why(profile, found)
        ),
        _printed_gap(profile, found),
        Guarantee(
            f"{_theorem(profile, found, 'T3')}, {_theorem(profile, found, 'T4')}", same, True, _why(profile, found)
        ),
        *_weighted(profile, found),
        *_waiting(profile, found),
        Guarantee("T6/fixpoint", "the worker is never idle while a request waits", True, "fixpoint admission"),
    )


def _theorem(profile: EngineProfile, found: EngineBounds, plain: str) -> str:
    """The theorem that gives a bound: ``plain`` for the engine's memory, or the one about the whole composition."""
    if profile.departs:
        return found.theorem if plain == "T2*" else f"{plain} with {found.theorem}"
    starred = plain if profile.memory == RESERVING or plain.endswith("*") else f"{plain}*"
    return f"{starred}/{profile.memory}"


def _why(profile: EngineProfile, found: EngineBounds) -> str:
    """What the engine meets, and what each part of it adds to the bound."""
    words = [f"{profile.memory} memory, M = {profile.kv_tokens}, L_in = {profile.max_input}"]
    for name, value in (("L_out", profile.max_output), ("B", profile.max_running)):
        if value is not None:
            words.append(f"{name} = {value}")
    if profile.chunk_budget is not None:
        words.append(f"chunks within a budget of {profile.chunk_budget}")
    if profile.most_accepted > 1:
        words.append(f"up to {profile.most_accepted} tokens a step")
    if profile.late_steps:
        words.append(f"outputs {profile.late_steps} steps late, which is {found.of_lateness} of it")
    return ", ".join(words)


def _unproved(profile: EngineProfile) -> str:
    """Why the paper's own proof says nothing of this engine; empty where it does."""
    if profile.memory == OPTIMISTIC:
        return "not by the paper's proof: it needs reserving memory, and this engine's is optimistic"
    if profile.late_steps:
        return "not by the paper's proof: it charges every step at once, and this engine late"
    return ""


def _printed_floor(profile: EngineProfile, found: EngineBounds) -> Guarantee:
    """The floor of A.1 eq. 2."""
    printed = bounds.deficit_floor_as_printed(profile.cost, profile.max_input, profile.kv_tokens)
    claim = f"as printed: a counter stays above -U = {printed}"
    unproved = _unproved(profile)
    if not unproved:
        return Guarantee("T2/reserving", claim, True, _why(profile, found))
    if found.floor > printed:
        reason = f"{unproved}; it follows from the floor {found.floor} below"
        return Guarantee(_theorem(profile, found, "T2*"), claim, True, reason)
    theorem = "T2/optimistic" if profile.memory == OPTIMISTIC else "E8/outputs"
    return Guarantee(theorem, claim, False, f"{unproved}; the floor that is true is {found.floor}")


def _printed_gap(profile: EngineProfile, found: EngineBounds) -> Guarantee:
    """The gap of Theorems 4.1 and 4.2."""
    printed = bounds.service_gap_as_printed(profile.cost, profile.max_input, profile.kv_tokens, profile.quanta.default)
    claim = f"as printed: backlogged clients differ by at most 2 (U + Q) = {printed}"
    unproved = _unproved(profile)
    if not unproved:
        return Guarantee("T3/reserving, T4/reserving", claim, True, _why(profile, found))
    if found.gap <= printed:
        reason = f"{unproved}; it follows from the gap {found.gap} below"
        return Guarantee(_theorem(profile, found, "T3"), claim, True, reason)
    theorem = "T3/optimistic" if profile.memory == OPTIMISTIC else "E8/outputs"
    return Guarantee(theorem, claim, False, f"{unproved}; the gap that is true is {found.gap}")


def _weighted(profile: EngineProfile, found: EngineBounds) -> list[Guarantee]:
    """For each other quantum: service per unit of quantum, cross-multiplied [E1]."""
    default = profile.quanta.default
    return [
        Guarantee(
            "E1",
            f"{client} (quantum {quantum}) against one of {default}: |{quantum} W - {default} W_{client}| <= "
            f"{weighted_gap(quantum, found.floor, default, found.floor)}",
            True,
            "both backlogged",
        )
        for client, quantum in sorted(profile.quanta.clients.items())
        if quantum != default
    ]


def _waiting(profile: EngineProfile, found: EngineBounds) -> list[Guarantee]:
    """How long a client waits for its next admission [T5]; nothing is proved for unequal quanta."""
    quanta = {profile.quanta.default, *profile.quanta.clients.values()}
    if profile.clients is None or len(quanta) != 1:
        return []
    quantum, floor = profile.quanta.default, found.floor
    service = bounds.service_while_waiting(quantum, floor, floor, profile.clients)
    steps = _steps_while_waiting(profile, service)
    claim = f"others are served at most {service} before a waiting client is let in again: at most {steps} steps"
    if profile.service_rate is not None:
        claim += f", {-(-service // profile.service_rate)} s at {profile.service_rate} a second"
    printed = Guarantee(
        "T5/printed", "as printed: a request waits at most 2 (n-1) (Q + U) / a", False, "refuted for every engine"
    )
    return [printed, Guarantee("T5/reserving", claim, True, "counted from a client with the deepest debt")]


def _steps_while_waiting(profile: EngineProfile, service: int) -> int:
    """How many forward steps it takes to serve so much, at most."""
    if profile.chunk_budget is None:
        return bounds.steps_while_waiting(profile.cost, service)
    return steps_while_waiting_with_chunks(profile.cost, service)


SCHEMA = "dlpm.guarantees/1"


def to_json(profile: EngineProfile) -> dict[str, JsonValue]:
    """The guarantees as JSON."""
    return {
        "schema": SCHEMA,
        "engine": profile.engine,
        "guarantees": [
            {"theorem": one.theorem, "claim": one.claim, "holds": one.holds, "reason": one.reason}
            for one in guarantees(profile)
        ],
    }
