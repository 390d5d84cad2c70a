"""ENGINE/reserving: the floor where chunks, several tokens a step and lateness come together under reserving memory.

The idea of the proof is that of T2*. Whatever a request will be charged, extend tokens chunk by chunk and outputs
several at a time, has its place in memory when the request is let in. So the counter, less what is pending [E8], less
what is left of the extends, less what is reserved, falls at admissions only.
"""

from __future__ import annotations

from collections.abc import Iterator

from dlpm import bounds, bounds_engine
from dlpm.cost import CostModel
from dlpm.ledger import Quanta
from dlpm_proofs.definitions import cost, define, tight_unit
from dlpm_proofs.postcondition import postcondition
from dlpm_proofs.solve import Named, Obligation, claim, possible
from dlpm_proofs.symbolic import Exploration, Path, SymInt, covering
from dlpm_proofs.terms import FALSE, Formula, Not, Poly, Products, all_of, any_of, at_least, at_most, between, poly
from dlpm_proofs.theorems import t2_floor
from dlpm_proofs.theorems.e8_late import CHECKED_DELAYS, DELAY, LateByTwo, late_forward, paid_alike_though_late
from dlpm_proofs.theorems.engine_optimistic import CHUNK, LEFT, PENDING, TRUE_COUNTER
from dlpm_proofs.transitions import (
    BEFORE,
    CLIENTS,
    COUNTS,
    EXTEND,
    HELD,
    L_IN,
    L_OUT,
    OUTPUT,
    PARAMETERS,
    SAMPLE,
    W_E,
    W_Q,
    Algorithm,
    B,
    F,
    M,
    Memory,
    State,
    Transition,
    arrival_of,
    departure_of,
    finish_of,
    visit_of,
)

A_STEP, TOKENS, LEFT_AFTER = (Poly.unknown(name) for name in ("most tokens a step", "tokens of a step", "left after"))
FLOOR = t2_floor.FLOOR
SAMPLE_ENGINE = {**SAMPLE, "d": 2, "most tokens a step": 6}
WHOLE = EXTEND + LEFT_AFTER
"""All extend tokens of the request let in: the first chunk and the rest."""

PRODUCTS = Products(
    (*t2_floor.LIMITED_PRODUCTS.factors, W_Q * A_STEP),
    COUNTS | {"d"} | {name for value in (LEFT, LEFT_AFTER, CHUNK, TOKENS, A_STEP) for name in value.names()},
    (WHOLE - M + L_OUT, WHOLE - M + Poly.constant(1) + B * L_OUT, WHOLE - L_IN, WHOLE - Poly.constant(1)),
)


def depth(true: Poly, left: Poly, reserved: Poly) -> Formula:
    """Even when all that is left is computed, and all that is reserved has come, the floor holds."""
    return at_least(true - W_E * left - W_Q * reserved, FLOOR)


def _known() -> tuple[Named, ...]:
    """What holds of the state before a transition."""
    return (
        ("what is pending is not negative, and at most d full steps [E8]", between(0, PENDING, W_Q * A_STEP * DELAY)),
        ("what is left of a prefill is not negative", at_least(LEFT, 0)),
        ("the batch is within its limits", all_of(t2_floor.accounts(BEFORE), at_most(BEFORE[F].running, B))),
        ("the invariant holds before", depth(TRUE_COUNTER, LEFT, BEFORE[F].reserved)),
    )


def _admission() -> tuple[Named, ...]:
    """An admission computes a first chunk; all of the prompt fits into memory beside what is reserved [M1, M3]."""
    reserved, running = OUTPUT, Poly.constant(1)
    for state in BEFORE.values():
        reserved += state.reserved
        running += state.running
    return (
        ("the rest of its prefill is not negative", at_least(LEFT_AFTER, 0)),
        ("extends have 1 to L_in tokens, outputs 1 to L_out", all_of(at_most(WHOLE, L_IN), between(1, OUTPUT, L_OUT))),
        ("prompts of others hold memory", all_of(at_least(HELD, 0), any_of(at_most(running, 1), at_least(HELD, 1)))),
        (
            "all of it fits beside all that is reserved",
            all_of(at_most(WHOLE + HELD + reserved, M), at_most(running, B)),
        ),
        ("nobody else is half prefilled", at_most(LEFT, 0)),
    )


def _after(transition: Transition, path: Path[State]) -> Formula:
    """The invariant where ``path`` ends."""
    if path.result is None:
        return FALSE
    state = path.result[F]
    admitted = transition.visited is not None and state.running != BEFORE[F].running
    return depth(state.deficit - PENDING, LEFT_AFTER if admitted else LEFT, state.reserved)


def obligations(ledger: type[LateByTwo] = LateByTwo) -> Iterator[Obligation]:
    """What is left to come keeps its floor at every transition."""
    unit = tight_unit(limited=True)
    wide = define(
        "U* of the engine",
        lambda symbol: bounds_engine.reserving_engine_unit(
            cost(symbol), symbol(unit.symbol), symbol(DELAY), symbol(A_STEP)
        ),
    )
    floor = define("floor", lambda symbol: bounds.deficit_floor(symbol(wide.symbol)))
    hypotheses = (
        *PARAMETERS,
        ("the delay and the tokens of a step are not negative", all_of(at_least(DELAY, 0), at_least(A_STEP, 1))),
        unit.meaning,
        wide.meaning,
        floor.meaning,
    )
    known = _known()
    yield claim("all counters start at 0, which is not below", hypotheses, at_most(FLOOR, 0), PRODUCTS)
    algorithm = Algorithm(ledger)
    for transition in _transitions(algorithm):
        contract = _admission() if transition.visited is not None else ()
        assumed = (*hypotheses, *transition.contract, *contract, *known)
        broken = any_of(*(all_of(path.condition(), Not(_after(transition, path))) for path in transition.paths))
        yield claim(f"{transition.name} keeps the invariant", assumed, Not(broken), PRODUCTS)
        yield claim(
            f"{transition.name}: no path is left out", (*PARAMETERS, *transition.contract), covering(transition.paths)
        )
        if transition.visited is not None:
            yield possible(f"{transition.name} can happen", assumed, at_least(LEFT_AFTER, 1), SAMPLE_ENGINE)
    yield from _chunk(ledger, (*hypotheses, *known))
    yield from _forward((*hypotheses, *known))
    given = (*hypotheses, *known)
    yield claim("no true counter is below the floor", given, at_least(TRUE_COUNTER, FLOOR), PRODUCTS)
    yield claim("nor is the counter that the gate sees", given, at_least(BEFORE[F].deficit, FLOOR), PRODUCTS)
    for delay in CHECKED_DELAYS:
        for unaccounted in range(delay + 1):
            yield from late_forward(ledger, delay, unaccounted)
    yield from paid_alike_though_late(algorithm)


def _transitions(algorithm: Algorithm) -> Iterator[Transition]:
    """Everything but chunks and forward steps. Memory's contract is `_admission`: more is admitted than is charged."""
    for client in CLIENTS:
        yield visit_of(client, algorithm, Memory.ANY)
        yield arrival_of(client, algorithm)
        yield departure_of(client, algorithm)
        yield finish_of(client, algorithm, Memory.RESERVING)


def _chunk(ledger_type: type[LateByTwo], assumed: tuple[Named, ...]) -> Iterator[Obligation]:
    """One more chunk of the request let in last is charged at once."""
    assumed = (*assumed, ("a chunk is part of what is left", between(1, CHUNK, LEFT)))
    exploration = Exploration([formula for _, formula in PARAMETERS])

    def symbol(value: Poly) -> SymInt:
        return SymInt(exploration, value)

    def body() -> Formula:
        ledger = ledger_type(Quanta(1), CostModel(symbol(W_E), symbol(W_Q)))
        ledger.deficits[F] = symbol(BEFORE[F].deficit)
        ledger.charge_extend(F, symbol(CHUNK))
        return depth(poly(ledger.deficits[F]) - PENDING, LEFT - CHUNK, BEFORE[F].reserved)

    yield from postcondition("a chunk keeps the invariant", assumed, exploration, body, PRODUCTS)


def _forward(assumed: tuple[Named, ...]) -> Iterator[Obligation]:
    """A forward step yields tokens that were reserved, each of which takes w_q of the true counter [`late_forward`]."""
    contract = (("what comes was reserved", between(0, TOKENS, BEFORE[F].reserved)),)
    kept = depth(TRUE_COUNTER - W_Q * TOKENS, LEFT, BEFORE[F].reserved - TOKENS)
    yield claim("a forward step keeps the invariant", (*assumed, *contract), kept, PRODUCTS)
    happens = all_of(at_least(TOKENS, 1), at_least(PENDING, 1), at_least(LEFT, 1))
    yield possible("a forward step can happen", (*assumed, *contract), happens, SAMPLE_ENGINE)
