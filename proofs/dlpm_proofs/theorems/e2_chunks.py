"""E2: how deep a counter falls when prompts are computed, and paid for, in chunks.

The idea of the proof. Let ``p`` be the extend tokens of a client's half computed prompts. Where the gate is asked once
a request, ``q - w_e p - w_q R`` falls at admissions only, as in T2*: what is charged later was counted then. At an
admission nothing of the client is pending, because a step has budget left only when every prompt before is computed.
Where the gate is asked for every chunk, ``p`` need not be counted: it is gated itself, and ``q - w_q R`` falls by a
chunk at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache

from dlpm import bounds, bounds_chunked
from dlpm.request import ClientId
from dlpm_proofs.chunk_transitions import (
    CHUNK,
    CHUNK_COUNTS,
    FLOOR_CLIENTS,
    LARGEST,
    PENDING,
    SAMPLE_CHUNKS,
    UNPAID,
    chunked_forward,
    chunked_visit,
    gated_chunk,
    others,
    pending,
    ungated_chunk,
)
from dlpm_proofs.definitions import Definition, cost, define, tight_unit
from dlpm_proofs.solve import Named, Obligation, claim
from dlpm_proofs.terms import Formula, Poly, Products, all_of, at_least, at_most, between
from dlpm_proofs.theorems import t2_floor
from dlpm_proofs.theorems.t3_t4_gap import SAME_QUANTUM, balanced, paid_alike
from dlpm_proofs.transitions import (
    BEFORE,
    CLIENTS,
    EXTEND,
    L_IN,
    L_OUT,
    PARAMETERS,
    REFERENCE,
    W_E,
    W_Q,
    WEIGHTED,
    Algorithm,
    B,
    F,
    G,
    M,
    Memory,
    State,
    Transition,
    queued,
    visit_of,
)

PRODUCTS = Products(t2_floor.LIMITED_PRODUCTS.factors, CHUNK_COUNTS, t2_floor.LIMITED_PRODUCTS.cuts)

CHUNK_PRODUCTS = Products(
    PRODUCTS.factors,
    CHUNK_COUNTS,
    (CHUNK - M + L_OUT, CHUNK - M + Poly.constant(1) + B * L_OUT),
)

SEVERAL_PRODUCTS = Products(
    PRODUCTS.factors,
    CHUNK_COUNTS,
    (
        *PRODUCTS.cuts,
        PENDING[F] + EXTEND - M + L_OUT,
        PENDING[F] + EXTEND - M + Poly.constant(1) + B * L_OUT,
    ),
)

# -- the gate asked once a request -------------------------------------------------------------------------------------


def invariant(state: State) -> Formula:
    """The floor holds even when all that is pending is charged, and all that is reserved has been decoded."""
    to_come = W_E * pending(state, F) + W_Q * state[F].reserved
    return all_of(
        t2_floor.accounts(state),
        *(at_least(pending(state, client), 0) for client in CLIENTS),
        at_least(state[F].deficit - to_come, t2_floor.FLOOR),
    )


def _kept(
    transitions: Sequence[Transition],
    hypotheses: Sequence[Named],
    invariant_of: Callable[[State], Formula],
    products: Products = PRODUCTS,
) -> Iterator[Obligation]:
    """``invariant_of`` survives. What the floor is matters at visits of f; else it is enough that 0 is not below it."""
    for transition in transitions:
        given = hypotheses if transition.visited == F else (*PARAMETERS, BELOW_START)
        yield from transition.obligations(given, invariant_of, products, SAMPLE_CHUNKS)


BELOW_START: Named = ("the floor is not above 0, where counters start", at_most(t2_floor.FLOOR, 0))


def _floor_claims(hypotheses: Sequence[Named], holds: Formula) -> Iterator[Obligation]:
    """The floor is below the start, and the invariant implies it."""
    yield claim("all counters start at 0, which is not below", hypotheses, at_most(t2_floor.FLOOR, 0), PRODUCTS)
    given = (*hypotheses, ("the invariant holds", holds))
    yield claim("no counter is below the floor", given, at_least(BEFORE[F].deficit, t2_floor.FLOOR), PRODUCTS)


def _books(transitions: Sequence[Transition]) -> Iterator[Obligation]:
    """The books of T3: they balance, and where both wait both are paid alike; so the gap is that of this floor."""
    backlogged = tuple((f"{client} is backlogged", queued(client)) for client in (F, G))
    for transition in transitions:
        if transition.visited is None:
            yield from transition.obligations(PARAMETERS, balanced, BOOKS, SAMPLE_CHUNKS)
        else:
            assumed = (*PARAMETERS, SAME_QUANTUM, *backlogged)
            yield from transition.obligations(assumed, paid_alike, BOOKS, SAMPLE_CHUNKS)


BOOKS = Products(WEIGHTED.factors, CHUNK_COUNTS)


def obligations(algorithm: Algorithm = REFERENCE, *, gated: bool = False) -> Iterator[Obligation]:
    """The invariant survives everything; ``gated``: also chunks that wait for credit, and those on debt."""
    unit = tight_unit(limited=True)
    hypotheses = (*PARAMETERS, unit.meaning, t2_floor.floor(limited=True).meaning)

    def chunks(clients: Sequence[ClientId]) -> list[Transition]:
        gates = [gated_chunk(client, algorithm) for client in clients] if gated else []
        visits = (chunked_visit(client, algorithm) for client in clients)
        return [chunked_forward(algorithm), *visits, *(ungated_chunk(client, algorithm) for client in clients), *gates]

    yield from _kept((*chunks(FLOOR_CLIENTS), *others(algorithm)), hypotheses, invariant)
    yield from _floor_claims(hypotheses, invariant(BEFORE))
    yield from _books(chunks(CLIENTS))


# -- all charged at admission ------------------------------------------------------------------------------------------


def early_obligations(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """Extend tokens are charged when a request is let in, whenever they are computed: T2* with a slower forward."""
    forward = chunked_forward(algorithm)
    yield from forward.obligations((*PARAMETERS, BELOW_START), t2_floor.invariant, PRODUCTS, SAMPLE_CHUNKS)
    yield from t2_floor.limited_obligations(algorithm)
    yield from _books([forward])


# -- the gate asked for every chunk ------------------------------------------------------------------------------------


@cache
def chunk_unit() -> Definition:
    """``U*`` with the chunk in place of ``L_in``."""
    return define(
        "U* of chunks",
        lambda symbol: bounds_chunked.chunk_gated_unit(
            cost(symbol), symbol(L_IN), symbol(LARGEST), symbol(M), max_output=symbol(L_OUT), max_running=symbol(B)
        ),
        (*PARAMETERS, LARGEST_CHUNK),
    )


LARGEST_CHUNK: Named = ("the largest chunk is part of a prompt", between(1, LARGEST, L_IN))


def strict_invariant(state: State) -> Formula:
    """The floor holds even when all that is reserved has been decoded; what is pending is gated itself."""
    return all_of(t2_floor.accounts(state), at_least(state[F].deficit - W_Q * state[F].reserved, t2_floor.FLOOR))


def strict_obligations(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """No chunk without credit: the floor of the chunk."""
    unit = chunk_unit()
    floor = define("floor", lambda symbol: bounds.deficit_floor(symbol(unit.symbol)))
    first = ("no first chunk is larger than C", at_most(EXTEND, LARGEST))
    within = ("no chunk is larger than C", at_most(CHUNK, LARGEST))
    hypotheses = (*PARAMETERS, LARGEST_CHUNK, unit.meaning, floor.meaning)
    yield unit.total
    forward = chunked_forward(algorithm)
    # What is let in has room for its first chunk, which is the extend of a visit here: what is pending is gated itself.
    visits = (visit_of(client, algorithm, Memory.RESERVING) for client in FLOOR_CLIENTS)
    yield from _kept((forward, *visits, *others(algorithm)), (*hypotheses, first), strict_invariant, PRODUCTS)
    chunks = [gated_chunk(client, algorithm) for client in FLOOR_CLIENTS]
    yield from _kept(chunks, (*hypotheses, within), strict_invariant, CHUNK_PRODUCTS)
    yield from _floor_claims(hypotheses, strict_invariant(BEFORE))


# -- several prompts half computed at a time ---------------------------------------------------------------------------


@cache
def several_unit() -> Definition:
    """``U*`` with X in place of ``L_in``: the most extend tokens that a client let in has yet to pay for."""
    return define(
        "U* of several",
        lambda symbol: bounds.tight_unit(
            cost(symbol), symbol(UNPAID), symbol(M), max_output=symbol(L_OUT), max_running=symbol(B)
        ),
        (*PARAMETERS, SOMETHING_UNPAID),
    )


SOMETHING_UNPAID: Named = ("who is let in has a token to pay for", at_least(UNPAID, 1))


def several_obligations(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """The invariant of the gate asked once a request, where other prompts of the client may be half computed."""
    unit = several_unit()
    floor = define("floor", lambda symbol: bounds.deficit_floor(symbol(unit.symbol)))
    hypotheses = (*PARAMETERS, SOMETHING_UNPAID, unit.meaning, floor.meaning)
    yield unit.total

    def chunks(clients: Sequence[ClientId]) -> list[Transition]:
        visits = (chunked_visit(client, algorithm, several=True) for client in clients)
        return [chunked_forward(algorithm), *visits, *(ungated_chunk(client, algorithm) for client in clients)]

    yield from _kept((*chunks(FLOOR_CLIENTS), *others(algorithm)), hypotheses, invariant, SEVERAL_PRODUCTS)
    yield from _floor_claims(hypotheses, invariant(BEFORE))
    yield from _books(chunks(CLIENTS))
