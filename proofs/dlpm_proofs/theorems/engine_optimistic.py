"""ENGINE: how deep a counter falls where chunks, optimistic memory, recomputation and lateness come together.

The idea of the proof is that of T2*/optimistic, with two debts more. Let ``true`` be the counter less what is pending
[E8]. At a client's last admission the gate saw a positive counter, so ``true >= 1 - w_q R d``, where R requests run at
most. From then on three things are charged: what is left of that request's extend tokens, chunk by chunk; its outputs,
at most ``L_out``; and the outputs of the client's other requests. Those have finished their prefill (a request that has
not takes all of the token budget, so nobody is let in beside it) and yield a token in every step, so ``s`` steps later
each holds ``s`` output tokens: at most ``(M - 1) / s`` of them do.

Without chunks the request let in last is one of the others.
"""

from __future__ import annotations

from collections.abc import Iterator

from dlpm import bounds, bounds_engine
from dlpm.cost import CostModel
from dlpm.ledger import Quanta
from dlpm_proofs.definitions import Definition, cost, define
from dlpm_proofs.postcondition import postcondition
from dlpm_proofs.solve import Named, Obligation, claim, possible
from dlpm_proofs.symbolic import Exploration, Path, SymInt, covering
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
    poly,
)
from dlpm_proofs.theorems.e8_late import CHECKED_DELAYS, DELAY, LateByTwo, late_forward, paid_alike_though_late
from dlpm_proofs.theorems.t2_optimistic import STEPS
from dlpm_proofs.transitions import (
    BEFORE,
    CLIENTS,
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
    arrival_of,
    departure_of,
    finish_of,
    visit_of,
)

ONE = Poly.constant(1)
PENDING, LEFT, YET, YIELDS, OTHERS, WHOLE, CHUNK = (
    Poly.unknown(name)
    for name in (
        "p",
        "extend tokens left",
        "outputs to come",
        "the last one yields",
        "others running",
        "all its extend tokens",
        "chunk",
    )
)
SO_FAR, NEXT, ALL = (Poly.unknown(name) for name in ("S(s)", "S(s+1)", "S(last)"))
MOST_NEXT, FITTING = Poly.unknown("most others in step s+1"), Poly.unknown("(M - 1) div (s + 1)")
RECOMPUTED, RUNNING, LAST, FLOOR = (Poly.unknown(name) for name in ("E", "R", "outputs of the last", "floor"))

PRODUCTS = Products(
    (W_E, W_Q, W_Q * RUNNING, STEPS + ONE),
    COUNTS
    | {"d"}
    | {
        name
        for value in (LEFT, YET, YIELDS, OTHERS, WHOLE, CHUNK, STEPS, SO_FAR, NEXT, ALL, MOST_NEXT, FITTING)
        for name in value.names()
    }
    | {"E", "R", "outputs of the last"},
    (FITTING + ONE, OTHERS - FITTING - ONE, OTHERS - MOST_NEXT),
)
SAMPLE_ENGINE = {**SAMPLE, "d": 2, "s": 1}


def sums(*, chunked: bool) -> tuple[Named, ...]:
    """What `dlpm.bounds_engine` computes with, one step of the harmonic sum at a time, and the floor made of it."""
    positive = (
        *PARAMETERS,
        ("a step is counted, and the delay is one", all_of(at_least(STEPS, 0), at_least(DELAY, 0))),
    )
    least = Poly.constant(1) if chunked else Poly.constant(0)
    parts: list[Definition] = [
        define(
            "most others in step s+1",
            lambda symbol: min(symbol(B - least), bounds.requests_that_fit(symbol(M), symbol(STEPS + ONE))),
            positive,
        ),
        define("E", lambda symbol: bounds.longest_recomputation(symbol(L_IN), symbol(M), symbol(L_OUT))),
        define("R", lambda symbol: bounds_engine.most_running(symbol(M), symbol(B))),
        define("outputs of the last", lambda symbol: bounds_engine.outputs_of_the_last(symbol(M), symbol(L_OUT))),
        define(
            "floor",
            lambda symbol: bounds.deficit_floor(
                bounds_engine.optimistic_engine_unit(
                    cost(symbol),
                    symbol(RECOMPUTED),
                    symbol(LAST + ALL) if chunked else symbol(ALL),
                    symbol(DELAY),
                    symbol(RUNNING),
                )
            ),
        ),
    ]
    return (
        positive[-1],
        *(part.meaning for part in parts),
        ("S grows by what one more step can yield", equal(NEXT, SO_FAR + MOST_NEXT)),
        ("S starts at 0 and never shrinks", all_of(at_least(SO_FAR, 0), at_least(ALL, SO_FAR))),
    )


def depth(true: Poly, left: Poly, yet: Poly, outputs: Poly, *, chunked: bool) -> Formula:
    """How far the true counter has fallen since the gate last saw it positive, all that is left to come included."""
    last = LAST if chunked else Poly.constant(0)
    deepest = ONE - W_Q * RUNNING * DELAY - W_E * RECOMPUTED - W_Q * last - W_Q * outputs
    return at_least(true - W_E * left - W_Q * yet, deepest)


TRUE_COUNTER = BEFORE[F].deficit - PENDING
"""What the client has, less what it will still be charged."""


def _known(*, chunked: bool) -> tuple[Named, ...]:
    """What holds of the state before a transition."""
    to_come = between(0, YET, LAST) if chunked else equal(YET, 0)
    prefill = at_least(LEFT, 0) if chunked else equal(LEFT, 0)
    return (
        ("what is pending is not negative, and at most d full steps [E8]", between(0, PENDING, W_Q * RUNNING * DELAY)),
        ("what is to come of the last request is not negative, nor above its limit", all_of(prefill, to_come)),
        ("the invariant holds before", depth(TRUE_COUNTER, LEFT, YET, SO_FAR, chunked=chunked)),
    )


def _admission(*, chunked: bool) -> tuple[Named, ...]:
    """What an admission computes at once, and what it leaves for later steps [M2, M3]."""
    at_once = between(1, EXTEND, WHOLE) if chunked else equal(EXTEND, WHOLE)
    return (("at most the longest recomputation is to be computed", all_of(at_once, at_most(WHOLE, RECOMPUTED))),)


def _after(transition: Transition, path: Path[State], *, chunked: bool) -> Formula:
    """The invariant where ``path`` ends: an admission of the client starts the count anew."""
    if path.result is None:
        return FALSE
    state = path.result[F]
    true = state.deficit - PENDING
    if transition.visited is not None and state.running != BEFORE[F].running:
        yet = LAST if chunked else Poly.constant(0)
        return depth(true, WHOLE - EXTEND, yet, Poly.constant(0), chunked=chunked)
    return depth(true, LEFT, YET, SO_FAR, chunked=chunked)


def obligations(ledger: type[LateByTwo] = LateByTwo, *, chunked: bool = True) -> Iterator[Obligation]:
    """The depth since the last admission is an inductive invariant, and implies the floor."""
    hypotheses = (*PARAMETERS, *sums(chunked=chunked))
    known = _known(chunked=chunked)
    start = depth(Poly.constant(0), Poly.constant(0), Poly.constant(0), SO_FAR, chunked=chunked)
    yield claim("all counters start at 0, which is deep enough", hypotheses, start, PRODUCTS)
    algorithm = Algorithm(ledger)
    for transition in _transitions(algorithm):
        contract = _admission(chunked=chunked) if transition.visited is not None else ()
        assumed = (*hypotheses, *transition.contract, *contract, *known)
        broken = any_of(
            *(all_of(path.condition(), Not(_after(transition, path, chunked=chunked))) for path in transition.paths)
        )
        yield claim(f"{transition.name} keeps the invariant", assumed, Not(broken), PRODUCTS)
        plain = (*PARAMETERS, *transition.contract)
        yield claim(f"{transition.name}: no path is left out", plain, covering(transition.paths))
    if chunked:
        yield from _chunk(ledger, (*hypotheses, *known))
    yield from _forward((*hypotheses, *known), chunked=chunked)
    gone = depth(TRUE_COUNTER, Poly.constant(0), Poly.constant(0), SO_FAR, chunked=chunked)
    yield claim("a request that leaves leaves less to come", (*hypotheses, *known), gone, PRODUCTS)
    yield claim("no true counter is below the floor", (*hypotheses, *known), at_least(TRUE_COUNTER, FLOOR), PRODUCTS)
    seen = at_least(BEFORE[F].deficit, FLOOR)
    yield claim("nor is the counter that the gate sees", (*hypotheses, *known), seen, PRODUCTS)
    yield possible("the hypotheses can hold", (*hypotheses, *known), at_least(PENDING, 1), SAMPLE_ENGINE)
    for delay in CHECKED_DELAYS:
        for unaccounted in range(delay + 1):
            yield from late_forward(ledger, delay, unaccounted)
    yield from paid_alike_though_late(algorithm)


def _transitions(algorithm: Algorithm) -> Iterator[Transition]:
    """Everything but chunks and forward steps."""
    for client in CLIENTS:
        yield visit_of(client, algorithm, Memory.ANY)
        yield arrival_of(client, algorithm)
        yield departure_of(client, algorithm)
        yield finish_of(client, algorithm, Memory.ANY)


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
        true = poly(ledger.deficits[F]) - PENDING
        return depth(true, LEFT - CHUNK, YET, SO_FAR, chunked=True)

    yield from postcondition("a chunk keeps the invariant", assumed, exploration, body, PRODUCTS)


def _forward(assumed: tuple[Named, ...], *, chunked: bool) -> Iterator[Obligation]:
    """A forward step that takes w_q a token of the true counter [`late_forward`], with what memory allows to run."""
    fits = all_of(
        at_most(STEPS + ONE, L_OUT),
        at_most(OTHERS * (STEPS + ONE) + ONE, M),
        at_most(OTHERS, B - ONE if chunked else B),
    )
    contract = (
        ("others hold a token for each step, and fit into M [M2, M3]", implies(at_least(OTHERS, 1), fits)),
        ("others are counted", at_least(OTHERS, 0)),
        ("the last request yields what it may", all_of(between(0, YIELDS, 1), at_most(YIELDS, YET))),
    )
    true = TRUE_COUNTER - W_Q * (OTHERS + YIELDS)
    runs = at_least(OTHERS, 1)
    kept = all_of(
        implies(runs, depth(true, LEFT, YET - YIELDS, NEXT, chunked=chunked)),
        implies(Not(runs), depth(true, LEFT, YET - YIELDS, SO_FAR, chunked=chunked)),
    )
    yield claim("a forward step keeps the invariant", (*assumed, *contract), kept, PRODUCTS)
    yield claim("a step adds nothing negative, so S never shrinks", assumed, at_least(NEXT, SO_FAR), PRODUCTS)
    yield possible(
        "a forward step can happen", (*assumed, *contract), all_of(runs, at_least(PENDING, 1)), SAMPLE_ENGINE
    )
