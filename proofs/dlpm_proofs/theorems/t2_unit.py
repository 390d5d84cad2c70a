"""T2*/unit: what the quantum does to the floor: counters are multiples of what divides both weights and the quantum.

The idea of the proof. A counter starts at 0 and changes by quanta, by multiples of w_e and by multiples of w_q. If d
divides all three, it divides the counter; so a counter that is positive is at least d, and the floor lies d - 1 higher.
"""

from __future__ import annotations

from collections.abc import Iterator

from dlpm import bounds
from dlpm_proofs import mutants
from dlpm_proofs.definitions import define, tight_unit
from dlpm_proofs.solve import Named, Obligation, claim
from dlpm_proofs.terms import FALSE, Formula, Poly, Products, all_of, at_least, equal, implies
from dlpm_proofs.theorem import Theorem, Verdict
from dlpm_proofs.theorems.t2_floor import FLOOR, accounts
from dlpm_proofs.transitions import (
    BEFORE,
    COMPARED_WEIGHTS,
    COUNTS,
    PARAMETERS,
    QUANTUM,
    REFERENCE,
    SAMPLE,
    W_E,
    W_Q,
    Algorithm,
    F,
    Memory,
    State,
    Transition,
    transitions,
)

UNIT, COUNTER, REFILL = (Poly.unknown(name) for name in ("d", "q_f / d", "Q_f / d"))
PARTS = {"w_e": Poly.unknown("w_e / d"), "w_q": Poly.unknown("w_q / d"), "q_f": COUNTER, "Q_f": REFILL}
"""What each weighted quantity is, in units."""

ONE = Poly.constant(1)
PRODUCTS = Products(
    (*COMPARED_WEIGHTS.factors, UNIT),
    COUNTS | COUNTER.names() | REFILL.names(),
    (COUNTER, COUNTER - ONE, COUNTER + REFILL, COUNTER + REFILL - ONE),
)


GIVEN = {
    **SAMPLE,
    "w_e": 2,
    "w_q": 4,
    "Q_f": 6,
    "L_out": 7,
    "d": 2,
    "w_e / d": 1,
    "w_q / d": 2,
    "Q_f / d": 3,
}
"""An example in which the unit is not 1."""


def multiples() -> tuple[Named, ...]:
    """The unit is positive, and divides f's counter and quantum."""
    return (
        ("the unit is positive", at_least(UNIT, 1)),
        ("f's counter is a multiple of the unit", equal(BEFORE[F].deficit, UNIT * COUNTER)),
        ("f's quantum is a multiple of the unit", equal(QUANTUM[F], UNIT * REFILL)),
    )


def invariant(state: State) -> Formula:
    """The floor of T2*, higher by what a positive counter has above 1."""
    return all_of(accounts(state), at_least(state[F].deficit - W_Q * state[F].reserved, FLOOR))


def stays_a_multiple(transition: Transition) -> Obligation:
    """With weights, quantum and counter in units, every counter that comes out is a polynomial times d."""
    goals = []
    for path in transition.paths:
        after = path.result[F].deficit if path.result is not None else ONE
        in_units = after.replaced({name: UNIT * part for name, part in PARTS.items()})
        quotient = in_units.divided_by("d")
        goals.append(implies(path.condition(), FALSE if quotient is None else equal(in_units, UNIT * quotient)))
    name = f"after {transition.name} the counter is a multiple of the unit"
    return claim(name, (*PARAMETERS, *transition.contract), all_of(*goals))


def obligations(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """Counters stay multiples, and the floor with the unit is inductive."""
    unit = tight_unit(limited=False)
    floor = define("floor", lambda symbol: bounds.deficit_floor(symbol(unit.symbol), symbol(UNIT)))
    hypotheses = (*PARAMETERS, unit.meaning, floor.meaning, *multiples())
    for transition in transitions(algorithm, Memory.RESERVING):
        yield stays_a_multiple(transition)
        yield from transition.obligations(hypotheses, invariant, PRODUCTS, GIVEN)
    given = (*hypotheses, ("the invariant holds", invariant(BEFORE)))
    yield claim("no counter is below the floor", given, at_least(BEFORE[F].deficit, FLOOR), PRODUCTS)
    weights = all_of(at_least(W_E, UNIT), at_least(W_Q, UNIT))
    start = (*hypotheses, ("the unit divides the weights, so it is no larger", weights))
    yield claim("all counters start at 0, which is not below", start, at_least(0, FLOOR), PRODUCTS)


T2_UNIT = Theorem(
    id="T2*/unit",
    title="Tight deficit floor, and what the quantum does to it",
    source="ours, for [DLPM App. A.1 eq. 2]",
    statement="If d divides w_e, w_q and the client's quantum, then q_i >= d - U*; else the quantum plays no part.",
    hypotheses=("those of T2*", "d divides w_e, w_q and Q_i"),
    expected=Verdict.PROVED,
    checked="Divisibility by algebra on the polynomials that come out of the code; the floor as in T2*.",
    argued="As for T2*. That the floor is reached, with d = gcd(w_e, w_q, Q_i), is tested for all small parameters.",
    obligations=obligations,
    mutants=mutants.to_be_noticed(obligations, "gate-at-zero", "double-outputs", given=GIVEN),
)
