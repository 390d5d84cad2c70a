"""ENGINE: the floors of engines that depart from the paper in several ways at once, and runs that come near them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from dlpm.cost import CostModel
from dlpm.engine_profile import OPTIMISTIC, RESERVING, EngineProfile
from dlpm.ledger import Quanta
from dlpm_proofs.solve import Obligation
from dlpm_proofs.theorem import Mutant, Theorem, Verdict
from dlpm_proofs.theorems import engine_optimistic, engine_reserving
from dlpm_proofs.theorems.e8_late import ForgottenStep, LateByTwo, LateGateAtZero, LaterThanSaid
from dlpm_proofs.theorems.engine_runs import SINKS, deepest
from dlpm_proofs.witness import Demonstration

NEAR = (3, 2)
"""A run comes near a floor that is at most this many times as deep."""

COST, QUANTA = CostModel(1, 2), Quanta(64)
RESERVED = (
    EngineProfile("reserving, d = 1", COST, QUANTA, RESERVING, 64, 12, 12, 8, late_steps=1),
    EngineProfile("reserving, d = 3", COST, QUANTA, RESERVING, 48, 6, 5, 8, late_steps=3, chunk_budget=9),
)
OPTIMISTIC_RUNS = (
    EngineProfile("optimistic, d = 1", COST, QUANTA, OPTIMISTIC, 64, 12, 12, 8, late_steps=1),
    EngineProfile("optimistic, d = 3", COST, QUANTA, OPTIMISTIC, 64, 12, 30, 16, late_steps=3, chunk_budget=16),
)


def near_the_floor(profiles: tuple[EngineProfile, ...]) -> tuple[Demonstration, ...]:
    """Replay the constructed run of each profile."""
    shown = []
    for profile in profiles:
        found = deepest(profile)
        story = (
            f"M = {profile.kv_tokens}, L_in = {profile.max_input}, L_out = {profile.max_output},"
            f" B = {profile.max_running}, d = {profile.late_steps}, Q = {profile.quanta.default}"
            f"{'' if profile.chunk_budget is None else f', {profile.chunk_budget} tokens a step'}.",
            f"A full batch decodes unheard, then the costliest one is let in: {SINKS} sinks to {-found.found};"
            f" the floor is {-found.bound}.",
        )
        shown.append(Demonstration(f"near the floor: {profile.engine}", story, found.within(*NEAR), found.run))
    return tuple(shown)


def _mutants(
    obligations: Callable[[type[LateByTwo]], Iterator[Obligation]], given: Mapping[str, int]
) -> tuple[Mutant, ...]:
    """Changed ledgers that the proof must notice."""
    return tuple(
        Mutant(name, (ledger.__doc__ or "").strip(), partial(obligations, ledger), given)
        for name, ledger in (
            ("late-gate-at-zero", LateGateAtZero),
            ("later-than-said", LaterThanSaid),
            ("forgotten-step", ForgottenStep),
        )
    )


RESERVING_ENGINE = Theorem(
    id="ENGINE/reserving",
    title="Chunks, several tokens a step and late outputs together, reserving memory",
    source="ours",
    statement="Under reserving memory q_i >= 1 - U* - w_q k R d with the U* of T2*, chunks or not; R = min(B, M - 1).",
    hypotheses=(
        "reserving memory: all extend tokens and outputs have their place at admission",
        "the gate is asked once a request; chunks are charged when computed; one prefill at a time is unfinished",
        "a step yields at most k tokens a request, and is charged at most d steps late, in order",
    ),
    expected=Verdict.PROVED,
    checked="q - pending - w_e left - w_q R keeps its floor at every transition; the ledger's own queue for d up to 3.",
    argued="Three clients stand for any number (N1), longer delays are alike (E8).",
    obligations=engine_reserving.obligations,
    demonstrations=partial(near_the_floor, RESERVED),
    mutants=_mutants(engine_reserving.obligations, engine_reserving.SAMPLE_ENGINE),
)

OPTIMISTIC_ENGINE = Theorem(
    id="ENGINE/optimistic",
    title="Chunks, recomputation and late outputs together, optimistic memory",
    source="ours",
    statement="Under optimistic memory q_i >= 1 - w_e E - w_q S - w_q R d, E, S as in T2*/optimistic, chunks or not.",
    hypotheses=(
        "optimistic memory with recomputation, charged again to the client",
        "the gate is asked once a request; chunks are charged when computed; one prefill at a time is unfinished",
        "in every step a running request computes a chunk or yields a token: the budget has room for all decodes",
        "outputs are charged at most d forward steps late, in order; extend tokens at once",
    ),
    expected=Verdict.PROVED,
    checked="The depth since the last admission is inductive on true counters; the ledger's own queue for d up to 3.",
    argued="As for T2*/optimistic and E8. What it assumes of the worker is M3.",
    obligations=engine_optimistic.obligations,
    demonstrations=partial(near_the_floor, OPTIMISTIC_RUNS),
    mutants=_mutants(engine_optimistic.obligations, engine_optimistic.SAMPLE_ENGINE),
)
