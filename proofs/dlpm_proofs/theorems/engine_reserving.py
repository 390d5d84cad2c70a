"""ENGINE/reserving: the floor where chunks, several tokens a step and lateness come together under reserving memory.

The idea of the proof is that of T2*. Whatever a request will be charged, extend tokens chunk by chunk and outputs
several at a time, has its place in memory when the request is let in. So the counter, less what is pending [E8], less
what is left of the extends, less what is reserved, falls at admissions only.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from dlpm import bounds, bounds_engine
from dlpm_proofs.definitions import cost, define, tight_unit
from dlpm_proofs.solve import Named, Obligation, claim, possible
from dlpm_proofs.symbolic import Path
from dlpm_proofs.terms import FALSE, Formula, Poly, Products, all_of, any_of, at_least, at_most, between
from dlpm_proofs.theorems import t2_floor
from dlpm_proofs.theorems.e8_late import DELAY, LateByTwo
from dlpm_proofs.theorems.engine_ledger import (
    CHUNK,
    LEFT,
    PENDING,
    TRUE_COUNTER,
    charged_late,
    chunk,
    floor_holds,
    keeps,
    most_pending,
    transitions,
)
from dlpm_proofs.transitions import (
    BEFORE,
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
        most_pending(A_STEP, DELAY),
        ("what is left of a prefill is not negative", at_least(LEFT, 0)),
        ("the batch is within its limits", all_of(t2_floor.accounts(BEFORE), at_most(BEFORE[F].running, B))),
        ("the invariant holds before", depth(TRUE_COUNTER, LEFT, BEFORE[F].reserved)),
    )


def _admission() -> tuple[Named, ...]:
    """An admission computes a first chunk; all of the prompt fits beside what is reserved [M1, E2/request]."""
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
    given = (*hypotheses, *known)
    algorithm = Algorithm(ledger)
    for transition in transitions(algorithm, Memory.RESERVING):
        contract = _admission() if transition.visited is not None else ()
        assumed = (*hypotheses, *transition.contract, *contract, *known)
        yield from keeps(transition, assumed, partial(_after, transition), PRODUCTS)
        if transition.visited is not None:
            yield possible(f"{transition.name} can happen", assumed, at_least(LEFT_AFTER, 1), SAMPLE_ENGINE)
    yield from chunk(ledger, given, lambda true, left: depth(true, left, BEFORE[F].reserved), PRODUCTS)
    yield from _forward(given)
    yield from floor_holds(given, FLOOR, PRODUCTS)
    yield from charged_late(ledger, algorithm)


def _forward(assumed: tuple[Named, ...]) -> Iterator[Obligation]:
    """A forward step yields tokens that were reserved, each of which takes w_q of the true counter [`late_forward`]."""
    contract = (("what comes was reserved", between(0, TOKENS, BEFORE[F].reserved)),)
    kept = depth(TRUE_COUNTER - W_Q * TOKENS, LEFT, BEFORE[F].reserved - TOKENS)
    yield claim("a forward step keeps the invariant", (*assumed, *contract), kept, PRODUCTS)
    happens = all_of(at_least(TOKENS, 1), at_least(PENDING, 1), at_least(LEFT, 1))
    yield possible("a forward step can happen", (*assumed, *contract), happens, SAMPLE_ENGINE)
