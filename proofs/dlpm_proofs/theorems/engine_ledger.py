"""What the two theorems about whole engines share: a ledger that is charged late, and chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dlpm.cost import CostModel
from dlpm.ledger import Quanta
from dlpm_proofs.postcondition import postcondition
from dlpm_proofs.solve import Named, Obligation, claim
from dlpm_proofs.symbolic import Exploration, Path, SymInt, covering
from dlpm_proofs.terms import Formula, Not, Poly, Products, all_of, any_of, at_least, between, poly
from dlpm_proofs.theorems.e8_late import CHECKED_DELAYS, LateByTwo, late_forward, paid_alike_though_late
from dlpm_proofs.transitions import (
    BEFORE,
    CLIENTS,
    PARAMETERS,
    W_E,
    W_Q,
    Algorithm,
    F,
    Memory,
    State,
    Transition,
    arrival_of,
    departure_of,
    finish_of,
    visit_of,
)

PENDING, LEFT, CHUNK = (Poly.unknown(name) for name in ("p", "extend tokens left", "chunk"))
TRUE_COUNTER = BEFORE[F].deficit - PENDING
"""What the client has, less what it will still be charged."""


def transitions(algorithm: Algorithm, at_finish: Memory) -> Iterator[Transition]:
    """Everything but chunks and forward steps. What memory lets in is for the theorem to say."""
    for client in CLIENTS:
        yield visit_of(client, algorithm, Memory.ANY)
        yield arrival_of(client, algorithm)
        yield departure_of(client, algorithm)
        yield finish_of(client, algorithm, at_finish)


def keeps(
    transition: Transition, assumed: tuple[Named, ...], after: Callable[[Path[State]], Formula], products: Products
) -> Iterator[Obligation]:
    """The invariant holds where each path of ``transition`` ends, as ``after`` says it; and no path is left out."""
    broken = any_of(*(all_of(path.condition(), Not(after(path))) for path in transition.paths))
    yield claim(f"{transition.name} keeps the invariant", assumed, Not(broken), products)
    plain = (*PARAMETERS, *transition.contract)
    yield claim(f"{transition.name}: no path is left out", plain, covering(transition.paths))


def chunk(
    ledger_type: type[LateByTwo],
    given: tuple[Named, ...],
    depth: Callable[[Poly, Poly], Formula],
    products: Products,
) -> Iterator[Obligation]:
    """One more chunk of the request let in last is charged at once.

    ``depth`` is the invariant for a true counter and what is left of the prefill.
    """
    assumed = (*given, ("a chunk is part of what is left", between(1, CHUNK, LEFT)))
    exploration = Exploration([formula for _, formula in PARAMETERS])

    def symbol(value: Poly) -> SymInt:
        return SymInt(exploration, value)

    def body() -> Formula:
        ledger = ledger_type(Quanta(1), CostModel(symbol(W_E), symbol(W_Q)))
        ledger.deficits[F] = symbol(BEFORE[F].deficit)
        ledger.charge_extend(F, symbol(CHUNK))
        return depth(poly(ledger.deficits[F]) - PENDING, LEFT - CHUNK)

    yield from postcondition("a chunk keeps the invariant", assumed, exploration, body, products)


def floor_holds(given: tuple[Named, ...], floor: Poly, products: Products) -> Iterator[Obligation]:
    """The invariant implies the floor, of what the client has and of what the gate sees."""
    yield claim("no true counter is below the floor", given, at_least(TRUE_COUNTER, floor), products)
    yield claim("nor is the counter that the gate sees", given, at_least(BEFORE[F].deficit, floor), products)


def charged_late(ledger: type[LateByTwo], algorithm: Algorithm) -> Iterator[Obligation]:
    """The ledger's own queue keeps its word: each forward step is charged once, in order, at most d steps late."""
    for delay in CHECKED_DELAYS:
        for unaccounted in range(delay + 1):
            yield from late_forward(ledger, delay, unaccounted)
    yield from paid_alike_though_late(algorithm)


def most_pending(tokens_a_step: Poly, delay: Poly) -> Named:
    """What E8 says of what is pending, where a step yields at most so many tokens."""
    bounded = between(0, PENDING, W_Q * tokens_a_step * delay)
    return ("what is pending is not negative, and at most d full steps [E8]", bounded)
