"""The transitions of DLPM on a worker that computes prompts in chunks, beside those of `transitions.py`.

Of a client we also know ``p``: the extend tokens of its half computed prompts that are neither computed nor paid for.
What the worker and its memory answer is symbolic, within the contract that `chunk_worker.py` proves of the worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from dlpm.extensions.chunked_prefill import ChunkedDLPM
from dlpm.request import ClientId
from dlpm_proofs.solve import Named
from dlpm_proofs.terms import Flag, Poly, all_of, any_of, at_least, at_most, between, equal, implies
from dlpm_proofs.transitions import (
    BEFORE,
    CLIENTS,
    COUNTS,
    EXTEND,
    FITS,
    HELD,
    OTHER,
    OUTPUT,
    SAMPLE,
    W_E,
    W_Q,
    Algorithm,
    B,
    ClientState,
    F,
    M,
    Memory,
    Runner,
    State,
    Transition,
    admission,
    arrival_of,
    departure_of,
    finish_of,
    visit_adding,
    with_deficits,
)

CHUNK, LARGEST, UNPAID = Poly.unknown("c"), Poly.unknown("C"), Poly.unknown("X")
YIELDED = {client: Poly.unknown(f"yielded_{client}") for client in CLIENTS}
PENDING = {client: Poly.unknown(f"p_{client}") for client in CLIENTS}

CHUNK_COUNTS = COUNTS | {"c", "C", "X"} | {str(of[client]) for of in (YIELDED, PENDING) for client in CLIENTS}
FLOOR_CLIENTS = (F, OTHER)
"""Whose transitions the floor of f is held to: f's own, and those of anybody else."""

SAMPLE_CHUNKS = {**SAMPLE, "C": 2, "X": 6}


@dataclass(frozen=True, slots=True)
class ChunkedState(ClientState):
    """A client with ``pending`` extend tokens, not computed and not charged."""

    pending: Poly


def pending(state: State, client: ClientId) -> Poly:
    """The client's pending extend tokens; a transition that says nothing of them leaves them as they were."""
    mine = state[client]
    return mine.pending if isinstance(mine, ChunkedState) else PENDING[client]


def with_pending(mine: ClientState, tokens: Poly) -> ChunkedState:
    """The client with so many pending tokens."""
    return ChunkedState(mine.deficit, mine.reserved, mine.running, mine.paid, mine.served, tokens)


# -- what can happen ---------------------------------------------------------------------------------------------------


def _reserved() -> Poly:
    """All output tokens that are reserved."""
    total = Poly.constant(0)
    for state in BEFORE.values():
        total += state.reserved
    return total


@cache
def chunked_visit(client: ClientId, algorithm: Algorithm, *, several: bool = False) -> Transition:
    """One visit of a queued request: it may be let in with its first chunk, which alone is charged now.

    ``several``: its client may have other prompts half computed, which hold memory.
    """
    unpaid = PENDING[client] + EXTEND
    contract = (
        *admission(Memory.RESERVING),
        ("the first chunk has between 1 token and all of them", between(1, CHUNK, EXTEND)),
        (
            "what is pending and what is let in are no more than X, and share M",
            implies(Flag(FITS), all_of(at_most(unpaid, UNPAID), at_most(unpaid + HELD + _reserved() + OUTPUT, M))),
        )
        if several
        else ("who is let in has nothing pending [worker]", implies(Flag(FITS), equal(PENDING[client], 0))),
    )

    def added(mine: ClientState) -> ClientState:
        after = replace(
            mine,
            reserved=mine.reserved + OUTPUT,
            running=mine.running + Poly.constant(1),
            served=mine.served + W_E * CHUNK,
        )
        return with_pending(after, (PENDING[client] if several else Poly.constant(0)) + EXTEND - CHUNK)

    name = f"a visit of {client}, with {'several prompts in ' if several else ''}chunks"
    return visit_adding(name, client, algorithm, contract, CHUNK, added)


def _chunk_contract(client: ClientId) -> tuple[Named, ...]:
    """A half computed prompt holds the memory of its pending tokens, beside all that is reserved [worker]."""
    running = Poly.constant(0)
    for state in BEFORE.values():
        running += state.running
    return (
        (
            "a half computed request runs, and its output is reserved",
            all_of(at_least(BEFORE[client].running, 1), at_least(BEFORE[client].reserved, 1)),
        ),
        ("a chunk is part of what is pending", between(1, CHUNK, PENDING[client])),
        ("prompts of others hold memory", all_of(at_least(HELD, 0), any_of(at_most(running, 1), at_least(HELD, 1)))),
        (
            "chunks and all that is reserved share M",
            all_of(at_most(CHUNK + HELD + _reserved(), M), at_most(running, B)),
        ),
    )


def _took(mine: ClientState, client: ClientId) -> ClientState:
    """The client after a chunk."""
    return with_pending(replace(mine, served=mine.served + W_E * CHUNK), PENDING[client] - CHUNK)


@cache
def gated_chunk(client: ClientId, algorithm: Algorithm) -> Transition:
    """One visit of a half computed request that waits for its next chunk."""
    return visit_adding(
        f"a visit of a half computed request of {client}",
        client,
        algorithm,
        _chunk_contract(client),
        CHUNK,
        lambda mine: _took(mine, client),
    )


@cache
def ungated_chunk(client: ClientId, algorithm: Algorithm) -> Transition:
    """A chunk of a request that passed the gate when it was let in, or one on debt."""
    runner = Runner(algorithm, _chunk_contract(client))

    def body() -> State:
        ledger = runner.ledger()
        ChunkedDLPM(ledger).charge_chunk(client, runner.symbol(CHUNK))
        return with_deficits(ledger, {**BEFORE, client: _took(BEFORE[client], client)})

    return runner.transition(f"a chunk of {client}", body)


@cache
def chunked_forward(algorithm: Algorithm) -> Transition:
    """One forward step: those whose prompt is computed get a token each, of those reserved [worker]."""
    contract = tuple(
        (
            f"some requests of {client} get a token that was reserved",
            all_of(
                at_least(YIELDED[client], 0),
                at_most(YIELDED[client], mine.running),
                at_most(YIELDED[client], mine.reserved),
            ),
        )
        for client, mine in BEFORE.items()
    )
    runner = Runner(algorithm, contract)

    def body() -> State:
        ledger = runner.ledger()
        batch = {}
        state = {}
        for client, mine in BEFORE.items():
            count = runner.symbol(YIELDED[client])
            if count > 0:
                batch[client] = count
            state[client] = replace(
                mine, reserved=mine.reserved - YIELDED[client], served=mine.served + W_Q * YIELDED[client]
            )
        ChunkedDLPM(ledger).charge_outputs(batch)
        return with_deficits(ledger, state)

    return runner.transition("a forward step with chunks", body)


def others(algorithm: Algorithm) -> Iterator[Transition]:
    """What chunks do not change, for f and for everybody else."""
    for client in FLOOR_CLIENTS:
        yield arrival_of(client, algorithm)
        yield departure_of(client, algorithm)
        yield finish_of(client, algorithm, Memory.RESERVING)
