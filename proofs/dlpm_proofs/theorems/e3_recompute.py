"""E3: preemption by recomputation: the floors for each rule of who pays, and who is preempted for ever.

The idea of the proofs. That of T2*/optimistic does not ask *which* request is preempted: whatever still runs holds its
tokens. It asks what an admission costs. If nobody pays for recomputations that is an input, and an admission that costs
nothing only starts the count anew. If the causer pays, it is charged without a gate: the floor deepens with each such
charge since its own last admission, and nothing limits how many there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from dlpm import bounds, bounds_recompute
from dlpm.batch import AT_ADMISSION
from dlpm.cost import CostModel
from dlpm.extensions.recompute import Payer, RecomputeDLPM
from dlpm.ledger import Ledger
from dlpm.memory import Optimistic
from dlpm.quanta import Quanta
from dlpm.request import ClientId
from dlpm_proofs import mutants
from dlpm_proofs.definitions import cost, define
from dlpm_proofs.opaque import OpaqueWorker, Running, cache_contract
from dlpm_proofs.postcondition import postcondition
from dlpm_proofs.solve import Obligation, claim, possible
from dlpm_proofs.symbolic import Exploration, Path, SymInt
from dlpm_proofs.terms import (
    FALSE,
    Formula,
    Poly,
    Products,
    all_of,
    at_least,
    at_most,
    between,
    implies,
    poly,
)
from dlpm_proofs.theorem import Mutant, Theorem, Verdict
from dlpm_proofs.theorems import m2_optimistic_memory as m2
from dlpm_proofs.theorems import t2_optimistic
from dlpm_proofs.theorems.e3_runs import (
    causer_sinks,
    preempted_for_ever,
    room_ends_it,
    work_without_limit,
)
from dlpm_proofs.theorems.e3_victims import (
    CAUSED,
    CHARGED,
    NEW,
    ROOM,
    FirstVictim,
    ReverseVictim,
    charges,
    client_pays,
    system_pays,
)
from dlpm_proofs.theorems.t2_optimistic import ALL, ONE, RECOMPUTED, SO_FAR
from dlpm_proofs.transitions import (
    BEFORE,
    EXTEND,
    L_IN,
    L_OUT,
    PARAMETERS,
    REFERENCE,
    SAMPLE,
    W_E,
    W_Q,
    B,
    F,
    Memory,
    State,
    Transition,
    transitions,
)

# -- the causer pays ---------------------------------------------------------------------------------------------------

CAUSED_PRODUCTS = Products(
    t2_optimistic.PRODUCTS.factors,
    t2_optimistic.PRODUCTS.counts | {"K", "e again"},
    (*t2_optimistic.PRODUCTS.cuts, RECOMPUTED - CHARGED),
)


def caused_depth(deficit: Poly, outputs: Poly, caused: Poly) -> Formula:
    """The depth of T2*/optimistic, and a longest recomputation for each charge since the last admission."""
    return at_least(deficit, ONE - W_E * RECOMPUTED - W_E * RECOMPUTED * caused - W_Q * outputs)


def causer_pays(policy: type[RecomputeDLPM] = RecomputeDLPM) -> Iterator[Obligation]:
    """With K charges since its last admission a client is no deeper than K recomputations more."""
    yield from charges(Payer.CAUSER)
    hypotheses = (
        *PARAMETERS,
        *t2_optimistic.sums(),
        ("charges are counted", at_least(CAUSED, 0)),
        ("S starts at 0 and never shrinks", all_of(at_least(SO_FAR, 0), at_least(ALL, SO_FAR))),
    )
    floor = define(
        "floor with K",
        lambda symbol: bounds.deficit_floor(
            bounds_recompute.causer_paid_unit(cost(symbol), symbol(RECOMPUTED), symbol(ALL), symbol(CAUSED))
        ),
    )
    held = ("the invariant holds before", caused_depth(BEFORE[F].deficit, SO_FAR, CAUSED))
    for transition in transitions(REFERENCE, Memory.ANY):
        if transition.name == "a forward step":
            continue
        extra = (("an extend is no longer than the longest recomputation [M2]", at_most(EXTEND, RECOMPUTED)),)
        assumed = (*hypotheses, *transition.contract, *(extra if transition.visited is not None else ()), held)
        kept = all_of(*(_after_caused(transition, path) for path in transition.paths))
        yield claim(f"{transition.name} keeps the invariant", assumed, kept, CAUSED_PRODUCTS)
    exploration = Exploration([formula for _, formula in PARAMETERS])

    def body() -> Formula:
        def symbol(value: Poly) -> SymInt:
            return SymInt(exploration, value)

        ledger = Ledger(Quanta(1), CostModel(symbol(W_E), symbol(W_Q)))
        ledger.deficits[F] = symbol(BEFORE[F].deficit)
        policy(ledger).charge_recomputation(F, symbol(CHARGED))
        return caused_depth(poly(ledger.deficits[F]), SO_FAR, CAUSED + ONE)

    again = ("what is recomputed is no longer than the longest", between(1, CHARGED, RECOMPUTED))
    yield from postcondition(
        "a charge for what was caused keeps the invariant",
        (*hypotheses, held, again),
        exploration,
        body,
        CAUSED_PRODUCTS,
    )
    yield claim(
        "no counter is below the floor with K",
        (*hypotheses, floor.meaning, held),
        at_least(BEFORE[F].deficit, floor.symbol),
        CAUSED_PRODUCTS,
    )
    yield possible("the hypotheses can hold", (*hypotheses, held), at_least(CAUSED, 2), {**SAMPLE, "s": 1, "K": 2})


def _after_caused(transition: Transition, path: Path[State]) -> Formula:
    """An admission of f starts both counts anew; nothing else touches them."""
    if path.result is None:
        return FALSE
    state = path.result[F]
    if transition.visited is not None and state.running != BEFORE[F].running:
        return implies(path.condition(), caused_depth(state.deficit, Poly.constant(0), Poly.constant(0)))
    return implies(path.condition(), caused_depth(state.deficit, SO_FAR, CAUSED))


class TwiceForTheCause(RecomputeDLPM):
    """Charges the causer twice."""

    def charge_recomputation(self, client: ClientId, tokens: int) -> None:
        """Charge twice."""
        super().charge_recomputation(client, tokens)
        super().charge_recomputation(client, tokens)


class WholeForTheCause(RecomputeDLPM):
    """Charges the causer a token more than was computed."""

    def charge_recomputation(self, client: ClientId, tokens: int) -> None:
        """One token too many."""
        super().charge_recomputation(client, tokens + 1)


# -- preempted for ever ------------------------------------------------------------------------------------------------


def room(memory: type[Optimistic] = Optimistic) -> Iterator[Obligation]:
    """With a watermark of B an admission leaves a token for each running request: nobody is preempted in that step.

    So each admission yields a token before the next preemption, and a request is preempted at most L_out times.
    """
    for count in range(1, len(m2.BATCH)):
        running = m2.BATCH[:count]
        assumed = (
            *m2.hypotheses(running),
            ("the watermark is the largest batch", all_of(at_least(ROOM, B), at_least(B, 1))),
            ("the request keeps the limits", all_of(between(1, NEW.unknown("input"), L_IN), at_most(NEW.most, L_OUT))),
            ("it has not generated all its output", between(0, NEW.generated, NEW.most - ONE)),
            ("the cache keeps its contract", cache_contract(NEW.unknown("input"))),
        )
        world = OpaqueWorker([formula for _, formula in assumed], Optimistic(), AT_ADMISSION)

        def body(world: OpaqueWorker = world, running: Sequence[Running] = running) -> Formula:
            worker = world.build(running, memory=memory(world.symbol(ROOM)))
            queued_request = world.queued(NEW)
            worker._enqueue(queued_request)
            if worker.try_admit(queued_request) is None:
                return all_of()
            before = len(worker.running)
            enough = at_least(worker.free_tokens(), before)
            worker._make_room_for_outputs()
            return enough if len(worker.running) == before else FALSE

        name = f"an admission beside {count} requests leaves a token for everybody: nobody is preempted"
        yield from postcondition(name, assumed, world.exploration, body)


class ForgetfulWatermark(Optimistic):
    """Leaves one token less free than the watermark."""

    def can_add(self, free: int, extend: int, output_left: int, running: int) -> bool:
        """One token more than is allowed."""
        return super().can_add(free + 1, extend, output_left, running)


class NoWatermark(Optimistic):
    """Knows of a watermark and does not keep it."""

    def can_add(self, free: int, extend: int, output_left: int, running: int) -> bool:
        """Only the extend tokens must fit."""
        return extend <= free


def _mutant(name: str, cause: type[object], obligations: partial[Iterator[Obligation]]) -> Mutant:
    """One changed class that must be noticed."""
    return Mutant(name, (cause.__doc__ or name).strip().splitlines()[0], obligations, {})


E3_CLIENT = Theorem(
    id="E3/client",
    title="Whoever is preempted, if the client pays again",
    source="ours, for [DLPM App. A.1 eq. 2]",
    statement="By whatever rule victims are chosen, q_i >= 1 - w_e E - w_q S as in T2*/optimistic; somebody stays.",
    hypotheses=("optimistic memory", "what is computed again is charged again to the request's client"),
    expected=Verdict.PROVED,
    checked="The worker's room for outputs and forward step with each rule of victims; the furthest request is never"
    " preempted, so that something always ends.",
    argued="As for T2*/optimistic and M2; more running requests than three are alike.",
    obligations=client_pays,
    mutants=(
        _mutant("first-victim", FirstVictim, partial(client_pays, FirstVictim)),
        _mutant("reverse-victim", ReverseVictim, partial(client_pays, ReverseVictim)),
    ),
)

E3_SYSTEM = Theorem(
    id="E3/system",
    title="Recomputation that nobody pays for: floor and charged gap",
    source="ours",
    statement="If nobody pays for recomputations, q_i >= 1 - w_e min(L_in, M-1) - w_q S, and the gap in charged service"
    " is 2 (Q - floor).",
    hypotheses=("optimistic memory", "a readmission after a preemption is free, but passes the gate"),
    expected=Verdict.PROVED,
    checked="What the worker's try_admit charges; the invariant of T2*/optimistic with an input for a recomputation.",
    argued="As for T2*/optimistic and T3*/optimistic.",
    obligations=system_pays,
    mutants=mutants.to_be_noticed(system_pays, "gate-at-zero", "double-outputs", given={**SAMPLE, "s": 1}),
)

E3_WORK = Theorem(
    id="E3/work",
    title="The same gap in work done",
    source="ours",
    statement="If nobody pays for recomputations, the gap in computed service is bounded, too.",
    hypotheses=("optimistic memory", "a readmission after a preemption is free, but passes the gate"),
    expected=Verdict.REFUTED,
    checked="Replayed runs of three lengths: the gap in computed tokens grows with the run.",
    argued="That it goes on growing: the runs are periodic.",
    obligations=tuple,
    demonstrations=work_without_limit,
)

E3_CAUSER = Theorem(
    id="E3/causer",
    title="Recomputation that the causer pays for: floor",
    source="ours",
    statement="If the causer pays, q_i >= 1 - w_e E (1 + K) - w_q S after K such charges since its own last admission.",
    hypotheses=("optimistic memory", "who took the memory pays when the victim is let in again"),
    expected=Verdict.PROVED,
    checked="The invariant of T2*/optimistic with K recomputations more; charges come at any time.",
    argued="As for T2*/optimistic.",
    obligations=causer_pays,
    mutants=(
        Mutant(
            "twice-for-the-cause",
            (TwiceForTheCause.__doc__ or "").strip(),
            partial(causer_pays, TwiceForTheCause),
            {**SAMPLE, "s": 1, "K": 1},
        ),
        Mutant(
            "whole-for-the-cause",
            (WholeForTheCause.__doc__ or "").strip(),
            partial(causer_pays, WholeForTheCause),
            {**SAMPLE, "s": 1, "K": 1},
        ),
    ),
)

E3_CAUSER_FLOOR = Theorem(
    id="E3/causer-floor",
    title="The plain floor if the causer pays",
    source="ours",
    statement="If the causer pays for recomputations, q_i >= 1 - w_e E - w_q S as in T2*/optimistic.",
    hypotheses=("optimistic memory", "who took the memory pays when the victim is let in again"),
    expected=Verdict.REFUTED,
    checked="A replayed run: a client that runs nothing any more is charged for one victim after the other.",
    argued="Nothing.",
    obligations=tuple,
    demonstrations=causer_sinks,
)

E3_FOR_EVER = Theorem(
    id="E3/for-ever",
    title="No client is preempted for ever",
    source="ours",
    statement="A client whose requests are let in again and again gets one of them done, by each rule of victims.",
    hypotheses=("optimistic memory", "no watermark, or one smaller than the batch"),
    expected=Verdict.REFUTED,
    checked="For each rule a cycle in the state graph of the real worker, replayed: let in, preempted, and charged.",
    argued="Nothing.",
    obligations=tuple,
    demonstrations=preempted_for_ever,
)

E3_ROOM = Theorem(
    id="E3/room",
    title="No client is preempted for ever if admissions leave room",
    source="ours",
    statement="With a watermark of B no step both admits and preempts: each admission yields a token, at least.",
    hypotheses=("optimistic memory with a watermark of the largest batch", "at most B requests run"),
    expected=Verdict.PROVED,
    checked="The worker's try_admit and its room for outputs; and small instances explored to the last state.",
    argued="So a request is preempted at most L_out times, as each admission brings it one token further.",
    obligations=room,
    demonstrations=room_ends_it,
    mutants=(
        _mutant("forgetful-watermark", ForgetfulWatermark, partial(room, ForgetfulWatermark)),
        _mutant("no-watermark", NoWatermark, partial(room, NoWatermark)),
    ),
)

RECOMPUTATION: tuple[Theorem, ...] = (
    *(E3_CLIENT, E3_SYSTEM, E3_WORK),
    *(E3_CAUSER, E3_CAUSER_FLOOR),
    *(E3_FOR_EVER, E3_ROOM),
)
