"""T2 and T2*: how deep a deficit counter can fall under reserving memory, as printed and exactly.

The idea of the proof. When a request is let in, its client's counter is positive. From then on the counter falls by the
extend tokens of that request, and by one output token for each token that the client's running requests have
*reserved*. So ``q - w_q * R`` falls at admissions only; and there it cannot fall below ``1 - U*``, because extend
tokens and reservations share the memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from dlpm import bounds
from dlpm_proofs import mutants
from dlpm_proofs.deepest import CLIENT, Limits
from dlpm_proofs.definitions import Definition, cost, define, tight_unit
from dlpm_proofs.scenario import OneByOne
from dlpm_proofs.solve import Obligation, claim
from dlpm_proofs.terms import Formula, Poly, Products, all_of, at_least, at_most, less
from dlpm_proofs.theorem import Theorem, Verdict
from dlpm_proofs.transitions import (
    BEFORE,
    CLIENTS,
    COMPARED_WEIGHTS,
    COUNTS,
    EXTEND,
    L_IN,
    L_OUT,
    PARAMETERS,
    REFERENCE,
    W_Q,
    Algorithm,
    B,
    F,
    M,
    Memory,
    State,
    transitions,
)
from dlpm_proofs.witness import Demonstration, Setting


def accounts(state: State) -> Formula:
    """What is reserved for a client is never negative, and at most ``L_out`` for each of its running requests."""
    return all_of(
        *(
            all_of(
                at_least(state[client].running, 0),
                at_least(state[client].reserved, 0),
                at_most(state[client].reserved, state[client].running * L_OUT),
            )
            for client in CLIENTS
        )
    )


def floor(*, limited: bool) -> Definition:
    """The floor that `dlpm.bounds` computes from ``U*``."""
    unit = tight_unit(limited=limited).symbol
    return define("floor", lambda symbol: bounds.deficit_floor(symbol(unit)))


FLOOR = Poly.unknown("floor")

LIMITED_PRODUCTS = Products(
    (*COMPARED_WEIGHTS.factors, L_OUT, W_Q * L_OUT),
    COUNTS,
    # Where memory begins to squeeze the reservation of the costliest request: see `bounds.tight_unit`.
    (EXTEND - M + L_OUT, EXTEND - M + Poly.constant(1) + B * L_OUT),
)


def invariant(state: State) -> Formula:
    """``q_f - w_q * R_f >= 1 - U*``: even when all that is reserved has been decoded, the floor holds."""
    return all_of(accounts(state), at_least(state[F].deficit - W_Q * state[F].reserved, FLOOR))


def obligations(algorithm: Algorithm = REFERENCE, *, limited: bool = False) -> Iterator[Obligation]:
    """The invariant holds at the start, every transition keeps it, and it implies the floor."""
    unit = tight_unit(limited=limited)
    hypotheses = (*PARAMETERS, unit.meaning, floor(limited=limited).meaning)
    products = LIMITED_PRODUCTS if limited else COMPARED_WEIGHTS
    yield unit.total
    yield claim("all counters start at 0, which is not below", hypotheses, at_most(FLOOR, 0), products)
    for transition in transitions(algorithm, Memory.RESERVING):
        yield from transition.obligations(hypotheses, invariant, products)
    given = (*hypotheses, ("the invariant holds", invariant(BEFORE)))
    yield claim("no counter is below the floor", given, at_least(BEFORE[F].deficit, FLOOR), products)


def printed_obligations(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """The printed floor lies below the tight one."""
    yield from obligations(algorithm)
    printed = define(
        "printed floor", lambda symbol: bounds.deficit_floor_as_printed(cost(symbol), symbol(L_IN), symbol(M))
    )
    hypotheses = (*PARAMETERS, tight_unit(limited=False).meaning, floor(limited=False).meaning, printed.meaning)
    yield claim("-U lies below the tight floor", hypotheses, less(printed.symbol, FLOOR), COMPARED_WEIGHTS)


# -- the floor is reached, and not passed ------------------------------------------------------------------------------

TWO_REQUESTS = OneByOne(Setting(kv_tokens=8, quantum=5), max_input=4, max_output=7, rounds=2)
LOWEST = bounds.deficit_floor(bounds.tight_unit(TWO_REQUESTS.setting.cost(), 4, 8))

LIMITED = (
    Limits(1, 2, quantum=5, max_input=4, max_output=4, kv_tokens=8, max_running=3),
    Limits(1, 2, quantum=5, max_input=6, max_output=2, kv_tokens=12, max_running=3),
    Limits(5, 1, quantum=7, max_input=4, max_output=2, kv_tokens=10, max_running=2),
    Limits(4, 6, quantum=10, max_input=3, max_output=4, kv_tokens=9, max_running=1),
    # Inputs beyond memory: the longest that can run leaves room for one output token.
    Limits(5, 1, quantum=7, max_input=10, max_output=2, kv_tokens=8, max_running=1),
)


def tight_obligations(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """The tight floor, and all runs of two requests from the beginning: one ends on it, none ends below it."""
    yield from obligations(algorithm)
    yield TWO_REQUESTS.can_end_at(LOWEST, algorithm)
    yield TWO_REQUESTS.cannot_end_at(LOWEST - 1, algorithm)


def floor_reached() -> tuple[Demonstration, ...]:
    """Replay the run of two requests that a solver finds."""
    run = TWO_REQUESTS.solved(LOWEST)
    if run is None:
        return (Demonstration("the floor is reached", ("no run was found",), confirmed=False),)
    lowest = min(run.counters(CLIENT))
    story = (
        f"One client; M = 8, L_in = 4, weights 1 and 2, quantum 5: U* = {1 - LOWEST}, so the floor is {LOWEST}.",
        "The solver sizes a first request so that the counter stands at exactly 1 when the second is let in.",
        f"That one reserves all memory that its extend tokens leave; when it has decoded, the counter is {lowest}.",
    )
    return (Demonstration("the floor is reached", story, lowest == LOWEST, run),)


def limited_floor_reached() -> tuple[Demonstration, ...]:
    """Replay the constructed run for each of some limits."""
    shown = []
    for limits in LIMITED:
        run = limits.deepest_run()
        lowest = min(run.counters(CLIENT)) if run else None
        story = (
            f"M = {limits.kv_tokens}, L_in = {limits.max_input}: the counter falls to {lowest} = {limits.unit()} - U*."
        )
        name = f"the floor is reached with L_out = {limits.max_output} and B = {limits.max_running}"
        shown.append(Demonstration(name, (story,), lowest == limits.floor(), run))
    return tuple(shown)


T2_RESERVING = Theorem(
    id="T2/reserving",
    title="Deficit floor as printed",
    source="[DLPM App. A.1 eq. 2]",
    statement="Under reserving memory a client's deficit counter stays above -U, where U = w_e L_in + w_q M.",
    hypotheses=("reserving memory: extend and all reserved output tokens share M",),
    expected=Verdict.PROVED,
    checked="It follows from the tight floor of T2*, which is proved along with it.",
    argued="Three clients stand for any number (N1); memory keeps its contract (M1).",
    obligations=printed_obligations,
    mutants=mutants.to_be_noticed(printed_obligations, "no-gate", "double-outputs", "charge-before-gate"),
)

T2_TIGHT = Theorem(
    id="T2*/reserving",
    title="Tight deficit floor",
    source="ours, for [DLPM App. A.1 eq. 2]",
    statement="Under reserving memory q_i >= 1 - U*, U* = max(w_e + w_q (M-1), w_e L + w_q (M-L)), L = min(L_in, M-1).",
    hypotheses=("reserving memory: extend and all reserved output tokens share M", "every request computes a token"),
    expected=Verdict.PROVED,
    checked="q_i - w_q R_i >= 1 - U* is an inductive invariant of every transition, R_i being what is reserved.",
    argued="Three clients stand for any number (N1); memory keeps its contract (M1).",
    obligations=tight_obligations,
    demonstrations=floor_reached,
    mutants=mutants.to_be_noticed(tight_obligations, "gate-at-zero", "charge-input", "double-outputs"),
)

limited_obligations = partial(obligations, limited=True)

T2_LIMITED = Theorem(
    id="T2*/limits",
    title="Tight deficit floor with limits on outputs and batch",
    source="ours, for [DLPM App. A.1 eq. 2]",
    statement="Where outputs end at L_out and batches at B requests, q_i >= 1 - U* with the U* of these limits.",
    hypotheses=("reserving memory", "no output is longer than L_out", "no batch is larger than B"),
    expected=Verdict.PROVED,
    checked="The invariant of T2*, with R_i <= n_i L_out and n_i <= B beside it.",
    argued="As for T2*.",
    obligations=limited_obligations,
    demonstrations=limited_floor_reached,
    mutants=mutants.to_be_noticed(limited_obligations, "gate-at-zero", "double-outputs"),
)
