"""ENGINE: how deep a counter falls where chunks, optimistic memory, recomputation and lateness come together.

The idea of the proof is that of T2*/optimistic. Let ``true`` be the counter less what is pending [E8]. At a client's
last admission the gate saw a positive counter, so ``true >= 1 - w_q R d``, where R requests run at most. From then on
two things are charged: what is left of that request's extend tokens, chunk by chunk, and outputs. Count the forward
steps ``s``. The client's other requests have finished their prefill (a request that has not takes all of the token
budget, so nobody is let in beside it), yield a token in every step, and hold ``s`` of them each. The request let in
last computes a chunk or yields a token in every step, and its whole prompt is in memory: that, too, is more than
``s`` tokens. So of all of them at most ``(M - 1) / s`` run, as without chunks.

What the request let in last does not yield while it is prefilled, it may yield later, when all the others must have
ended. That is what the others leave of the sum meanwhile: ``spare`` counts it. So chunks do not deepen the floor.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from dlpm import bounds, bounds_engine
from dlpm_proofs.definitions import cost, define
from dlpm_proofs.solve import Named, Obligation, claim, possible
from dlpm_proofs.symbolic import Path
from dlpm_proofs.terms import (
    FALSE,
    Formula,
    Not,
    Poly,
    Products,
    all_of,
    any_of,
    at_least,
    at_most,
    between,
    equal,
    implies,
)
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
from dlpm_proofs.theorems.t2_optimistic import STEPS
from dlpm_proofs.transitions import (
    BEFORE,
    COUNTS,
    EXTEND,
    L_IN,
    L_OUT,
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

ONE = Poly.constant(1)
YIELDED, SPARE, OTHERS, RUNS, YIELDS, WHOLE = (
    Poly.unknown(name)
    for name in (
        "yielded by the last",
        "spare",
        "others running",
        "the last one runs",
        "the last one yields",
        "all its extend tokens",
    )
)
SO_FAR, NEXT, ALL = (Poly.unknown(name) for name in ("S(s)", "S(s+1)", "S(last)"))
MOST_NEXT, FITTING = Poly.unknown("most requests in step s+1"), Poly.unknown("(M - 1) div (s + 1)")
RECOMPUTED, RUNNING, FLOOR = (Poly.unknown(name) for name in ("E", "R", "floor"))

COUNTED = (LEFT, YIELDED, SPARE, OTHERS, RUNS, YIELDS, WHOLE, CHUNK, STEPS, SO_FAR, NEXT, ALL, MOST_NEXT, FITTING)
PRODUCTS = Products(
    (W_E, W_Q, W_Q * RUNNING, STEPS + ONE),
    COUNTS | {"d", "E", "R"} | {name for value in COUNTED for name in value.names()},
    (FITTING + ONE, OTHERS + RUNS - FITTING - ONE, OTHERS + RUNS - MOST_NEXT),
)
SAMPLE_ENGINE = {**SAMPLE, "d": 2, "s": 1}


def sums() -> tuple[Named, ...]:
    """What `dlpm.bounds_engine` computes with, one step of the harmonic sum at a time, and the floor made of it."""
    positive = (
        *PARAMETERS,
        ("steps are counted, and so is the delay", all_of(at_least(STEPS, 0), at_least(DELAY, 0))),
    )
    parts = (
        define(
            "most requests in step s+1",
            lambda symbol: min(symbol(B), bounds.requests_that_fit(symbol(M), symbol(STEPS + ONE))),
            positive,
        ),
        define("E", lambda symbol: bounds.longest_recomputation(symbol(L_IN), symbol(M), symbol(L_OUT))),
        define("R", lambda symbol: bounds_engine.most_running(symbol(M), symbol(B))),
        define(
            "floor",
            lambda symbol: bounds.deficit_floor(
                bounds_engine.optimistic_engine_unit(
                    cost(symbol), symbol(RECOMPUTED), symbol(ALL), symbol(DELAY), symbol(RUNNING)
                )
            ),
        ),
    )
    return (
        positive[-1],
        *(part.meaning for part in parts),
        ("S grows by what one more step can yield", equal(NEXT, SO_FAR + MOST_NEXT)),
        ("S starts at 0 and never shrinks", all_of(at_least(SO_FAR, 0), at_least(ALL, SO_FAR))),
    )


def depth(true: Poly, left: Poly, spare: Poly, outputs: Poly) -> Formula:
    """How far the true counter has fallen since the gate last saw it positive, with what is left to come."""
    deepest = ONE - W_Q * RUNNING * DELAY - W_E * RECOMPUTED - W_Q * outputs
    return at_least(true - W_E * left - W_Q * spare, deepest)


def _known() -> tuple[Named, ...]:
    """What holds of the state before a transition."""
    lagging = any_of(
        all_of(at_most(STEPS, L_OUT), equal(SPARE, STEPS - YIELDED)),
        all_of(at_least(STEPS, L_OUT), equal(SPARE, L_OUT - YIELDED)),
    )
    return (
        most_pending(RUNNING, DELAY),
        ("what is left of a prefill is not negative", at_least(LEFT, 0)),
        ("the last request has yielded no more than its limit", between(0, YIELDED, L_OUT)),
        ("spare is how far it lags behind one token a step", all_of(lagging, at_least(SPARE, 0))),
        ("the invariant holds before", depth(TRUE_COUNTER, LEFT, SPARE, SO_FAR)),
    )


def _admission() -> tuple[Named, ...]:
    """What an admission computes at once, and what it leaves for later steps [M2, M3]."""
    sizes = all_of(between(1, EXTEND, WHOLE), at_most(WHOLE, RECOMPUTED))
    return (("at most the longest recomputation is to be computed, some of it at once", sizes),)


def _after(transition: Transition, path: Path[State]) -> Formula:
    """The invariant where ``path`` ends: an admission of the client starts the count anew."""
    if path.result is None:
        return FALSE
    state = path.result[F]
    true = state.deficit - PENDING
    if transition.visited is not None and state.running != BEFORE[F].running:
        return depth(true, WHOLE - EXTEND, Poly.constant(0), Poly.constant(0))
    return depth(true, LEFT, SPARE, SO_FAR)


def obligations(ledger: type[LateByTwo] = LateByTwo) -> Iterator[Obligation]:
    """The depth since the last admission is an inductive invariant, and implies the floor."""
    hypotheses = (*PARAMETERS, *sums())
    known = _known()
    given = (*hypotheses, *known)
    start = depth(Poly.constant(0), Poly.constant(0), Poly.constant(0), SO_FAR)
    yield claim("all counters start at 0, which is deep enough", hypotheses, start, PRODUCTS)
    algorithm = Algorithm(ledger)
    for transition in transitions(algorithm, Memory.ANY):
        contract = _admission() if transition.visited is not None else ()
        assumed = (*hypotheses, *transition.contract, *contract, *known)
        yield from keeps(transition, assumed, partial(_after, transition), PRODUCTS)
    yield from chunk(ledger, given, lambda true, left: depth(true, left, SPARE, SO_FAR), PRODUCTS)
    yield from _forward(given)
    gone = depth(TRUE_COUNTER, Poly.constant(0), Poly.constant(0), SO_FAR)
    yield claim("a request that leaves leaves less to come", given, gone, PRODUCTS)
    yield from floor_holds(given, FLOOR, PRODUCTS)
    yield possible("the hypotheses can hold", given, all_of(at_least(PENDING, 1), at_least(SPARE, 1)), SAMPLE_ENGINE)
    yield from charged_late(ledger, algorithm)


def _forward(given: tuple[Named, ...]) -> Iterator[Obligation]:
    """A forward step that takes w_q a token of the true counter [`late_forward`], with what memory allows to run."""
    running = OTHERS + RUNS
    fits = all_of(at_most(running * (STEPS + ONE) + ONE, M), at_most(running, B))
    contract = (
        ("requests are counted", all_of(at_least(OTHERS, 0), between(0, RUNS, 1), between(0, YIELDS, RUNS))),
        (
            "each that runs holds a token for each step, and all fit into M [M2, M3]",
            implies(at_least(running, 1), fits),
        ),
        ("others have yielded a token in each step", implies(at_least(OTHERS, 1), at_most(STEPS + ONE, L_OUT))),
        ("the last one yields no more than its limit", at_most(YIELDED + YIELDS, L_OUT)),
    )
    assumed = (*given, *contract)
    true = TRUE_COUNTER - W_Q * (OTHERS + YIELDS)
    early, late = at_most(STEPS + ONE, L_OUT), at_least(STEPS, L_OUT)
    gone = equal(RUNS, 0)
    spare_early = SPARE + ONE - YIELDS
    kept = all_of(
        implies(all_of(early, Not(gone)), depth(true, LEFT, spare_early, NEXT)),
        implies(all_of(late, Not(gone)), depth(true, LEFT, SPARE - YIELDS, SO_FAR)),
        implies(all_of(gone, at_least(OTHERS, 1)), depth(true, Poly.constant(0), Poly.constant(0), NEXT)),
        implies(all_of(gone, at_most(OTHERS, 0)), depth(true, Poly.constant(0), Poly.constant(0), SO_FAR)),
    )
    yield claim("a forward step keeps the invariant", assumed, kept, PRODUCTS)
    lag = all_of(
        implies(early, equal(spare_early, STEPS + ONE - YIELDED - YIELDS)),
        implies(late, all_of(equal(SPARE - YIELDS, L_OUT - YIELDED - YIELDS), at_least(SPARE - YIELDS, 0))),
    )
    yield claim("spare goes on being how far the last one lags", assumed, lag)
    yield claim("a step adds nothing negative, so S never shrinks", given, at_least(NEXT, SO_FAR), PRODUCTS)
    together = all_of(at_least(OTHERS, 1), equal(RUNS, 1), at_least(LEFT, 1), at_least(PENDING, 1))
    yield possible("a forward step can happen", assumed, together, SAMPLE_ENGINE)
