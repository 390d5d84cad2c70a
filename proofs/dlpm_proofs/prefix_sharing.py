"""The steps of shared prefixes, run symbolically on the reference's own functions.

*Settling*: what the real worker charges and gives back for a request whose match is a path of a few blocks, of symbolic
sizes and shares. *Letting in*: the whole `try_admit` in the world of M1. *Joining visits*: the transitions of
`transitions.py`, where letting in another client's request may give f something back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from dlpm.batch import AT_ADMISSION, QueuedRequest, WorkerConfig
from dlpm.extensions.shared_prefixes import RefundingLedger, SharedPrefixDLPM, Shares
from dlpm.extensions.shared_prefixes_worker import SharingWorker
from dlpm.memory import Reserving
from dlpm.policies.base import Policy
from dlpm.prefix_cache import Match, Node
from dlpm.request import ClientId, Request
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_proofs.opaque import CACHED, LOCKED, UNLOCKED, Meter, OpaqueCache, OpaqueWorker, Running, books, sum_of
from dlpm_proofs.postcondition import postcondition
from dlpm_proofs.solve import Named, Obligation
from dlpm_proofs.symbolic import Exploration, SymInt
from dlpm_proofs.terms import (
    FALSE,
    TRUE,
    Flag,
    Formula,
    Poly,
    all_of,
    any_of,
    at_least,
    at_most,
    between,
    equal,
    implies,
    poly,
)
from dlpm_proofs.theorems import m1_memory as m1
from dlpm_proofs.transitions import (
    BEFORE,
    CLIENTS,
    FITS,
    L_IN,
    L_OUT,
    OTHER,
    OUTPUT,
    QUANTUM,
    W_E,
    Algorithm,
    B,
    ClientState,
    F,
    G,
    M,
    Memory,
    Runner,
    State,
    Transition,
    arrival_of,
    departure_of,
    finish_of,
    forward,
    queued,
    with_deficits,
)

ONE = Poly.constant(1)
RESIDENT, CHARGED, BACK, N = (Poly.unknown(name) for name in ("resident", "c", "b", "n"))

Worlds = type[SharingWorker]


class SharingMeter(Meter):
    """A policy that keeps what it is told to give back."""

    def __init__(self) -> None:
        """Nothing charged, nothing given back."""
        super().__init__()
        self.back: dict[ClientId, int] = {}

    def refund(self, tokens: Mapping[ClientId, int]) -> None:
        """Keep it."""
        self.back.update(tokens)


# -- settling ----------------------------------------------------------------------------------------------------------

Holders = tuple[ClientId, ...]

PATHS: tuple[tuple[Holders, ...], ...] = (
    (),
    ((G,),),
    ((G,), (G,)),
    ((F, G), (G,)),
    ((G, OTHER), (G, OTHER)),
    ((F, G, OTHER), (G, OTHER), (G,)),
)
"""Who holds each block of a match, from the root. Who holds a block holds all above it."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What the real worker made of one request of f: of each block the shares before and after, and the bill."""

    matched: Poly
    held: Poly
    charged: Poly
    refunds: Mapping[ClientId, Poly]
    before: tuple[Mapping[ClientId, Poly], ...]
    after: tuple[Mapping[ClientId, Poly], ...]

    def given(self, client: ClientId) -> Poly:
        """What ``client`` gets back, in tokens."""
        return self.refunds.get(client, Poly.constant(0))

    def back(self) -> Poly:
        """What all get back."""
        return sum_of(self.refunds.values())

    def stretches(self) -> list[list[int]]:
        """The blocks that f joins, those with equally many holders together."""
        found: list[list[int]] = []
        for place, shares in enumerate(self.before):
            if F in shares or F not in self.after[place]:
                continue
            if found and len(self.before[found[-1][-1]]) == len(shares):
                found[-1].append(place)
            else:
                found.append([place])
        return found


def _tokens(place: int) -> Poly:
    return Poly.unknown(f"tokens of block {place}")


def _share(place: int, client: ClientId) -> Poly:
    return Poly.unknown(f"share of {client} in block {place}")


def settling(
    payer: str,
    holders: Sequence[Holders],
    meets: Callable[[Settled], Formula],
    worker: Worlds = SharingWorker,
) -> Iterator[Obligation]:
    """Whatever the sizes and shares, what the worker settles ``meets`` what is asked of it."""
    blocks = range(len(holders))
    assumed: tuple[Named, ...] = (
        ("blocks have tokens", all_of(*(at_least(_tokens(place), 1) for place in blocks))),
        (
            "shares are what was paid for a block: its tokens, or nothing if it was generated",
            all_of(*(_sound_shares(place, clients) for place, clients in enumerate(holders))),
        ),
        (
            "the match is part of what the request needs",
            all_of(at_least(RESIDENT, 1), at_most(sum_of(_tokens(place) for place in blocks), RESIDENT)),
        ),
    )
    exploration = Exploration([formula for _, formula in assumed])

    def body() -> Formula:
        return meets(_settle(exploration, payer, holders, worker))

    name = f"payer {payer}, held by {' / '.join(' '.join(clients) for clients in holders) or 'nobody'}: the bill"
    yield from postcondition(name, assumed, exploration, body)


def _sound_shares(place: int, clients: Holders) -> Formula:
    shares = [_share(place, client) for client in clients]
    total = sum_of(shares)
    return all_of(*(at_least(share, 0) for share in shares), any_of(equal(total, _tokens(place)), equal(total, 0)))


def _settle(exploration: Exploration, payer: str, holders: Sequence[Holders], worker: Worlds) -> Settled:
    """Run the real `matched` and `_settle` once."""

    def symbol(value: Poly) -> SymInt:
        return SymInt(exploration, value)

    real = worker(WorkerConfig(1, Reserving(), 1, AT_ADMISSION), SharingMeter(), FixedStep(1), payer)
    node = real.cache.root
    shares: list[Shares] = []
    held = Poly.constant(0)
    for place, clients in enumerate(holders):
        node = Node(place, node, symbol(_tokens(place)))
        real.holdings.shares[node] = {client: symbol(_share(place, client)) for client in clients}
        shares.append(real.holdings.shares[node])
        if F in clients:
            held += _tokens(place)
    before = tuple({client: poly(share) for client, share in of_block.items()} for of_block in shares)
    request = Request("r", F, 0, 1, 1, 1, prompt=(0,))
    waiting = QueuedRequest("r", F, request, 1, (), Match(node, len(holders)), symbol(RESIDENT))
    matched = real.matched(waiting)
    charged, refunds = real._settle(waiting, matched)
    return Settled(
        poly(matched),
        held,
        poly(charged),
        {client: poly(tokens) for client, tokens in refunds.items()},
        before,
        tuple({client: poly(share) for client, share in of_block.items()} for of_block in shares),
    )


# -- letting in --------------------------------------------------------------------------------------------------------


def lets_in(payer: str, visibility: str, running: Sequence[Running], holders: Holders) -> Iterator[Obligation]:
    """`try_admit` of a request of f whose match ``holders`` hold: what is charged shares ``M`` with what is reserved.

    If f runs something already, a token of that is in memory beside what is charged.
    """
    own = [one for one in running if one.client == F]
    apart = TRUE if F in holders else all_of(*(at_most(one.path + CACHED - UNLOCKED, LOCKED) for one in own))
    assumed = (
        *m1.hypotheses(running),
        *m1.arrival(),
        ("who runs on a block holds it: what f locks is apart from what it does not hold", apart),
    )

    def make(config: WorkerConfig, policy: Policy) -> Worker:
        return SharingWorker(config, SharingMeter(), FixedStep(1), payer)

    world = OpaqueWorker([formula for _, formula in assumed], Reserving(), visibility, make)
    reserved = sum_of(one.most - one.generated for one in running)

    def body() -> Formula:
        worker = world.build(running)
        assert isinstance(worker, SharingWorker)
        assert isinstance(worker.cache, OpaqueCache)
        share = world.symbol(CACHED)
        paid = {client: share if client == holders[0] else 0 for client in holders}
        worker.holdings.shares[worker.cache.matched_end] = paid
        waiting = world.queued(m1.NEW)
        worker._enqueue(waiting)
        charged = worker.try_admit(waiting)
        if charged is None:
            return TRUE if running else FALSE
        return all_of(
            between(1, charged, L_IN),
            at_most(poly(charged) + m1.MOST + reserved + (ONE if own else Poly.constant(0)), M),
            at_most(len(worker.running), B),
            books(worker),
        )

    name = (
        f"payer {payer}, visible {visibility}, held by {' '.join(holders)}: what a request of f is charged beside"
        f" {' '.join(one.client for one in running) or 'nobody'} shares M with all that is reserved"
    )
    yield from postcondition(name, assumed, world.exploration, body)


# -- joining visits ----------------------------------------------------------------------------------------------------


def admission(client: ClientId, memory: Memory) -> tuple[Named, ...]:
    """What `lets_in` and `settling` prove of the charge ``c`` of ``client``; under any memory that it is positive."""
    if memory is Memory.ANY:
        return (("at least a token is charged", at_least(CHARGED, 1)),)
    reserved = OUTPUT + sum_of(state.reserved for state in BEFORE.values())
    running = ONE + sum_of(state.running for state in BEFORE.values())
    mine = BEFORE[client].running
    fits = all_of(
        at_most(CHARGED + reserved, M),
        any_of(at_most(mine, 0), at_most(CHARGED + ONE + reserved, M)),
        at_most(running, B),
    )
    return (
        ("between 1 and L_in tokens are charged", between(1, CHARGED, L_IN)),
        ("an output has between 1 and L_out tokens", between(1, OUTPUT, L_OUT)),
        ("what is charged shares M with all that is reserved", implies(Flag(FITS), fits)),
    )


Refunder = Callable[[RefundingLedger], SharedPrefixDLPM]
"""Makes the policy under proof."""


@cache
def joining_visit(
    client: ClientId, algorithm: Algorithm, memory: Memory, policy: Refunder = SharedPrefixDLPM
) -> Transition:
    """One visit of ``client``: if it is let in, it is charged ``c``, and f gets ``b`` tokens back unless it is f."""
    contract: tuple[Named, ...] = (
        ("the visited client is queued", queued(client)),
        ("what is given back is not negative", at_least(BACK, 0)),
        *admission(client, memory),
    )
    runner = Runner(algorithm, contract)

    def body() -> State:
        ledger = runner.ledger()
        assert isinstance(ledger, RefundingLedger)
        state = dict(BEFORE)

        def try_add() -> int | None:
            if not runner.holds(FITS):
                return None
            if client != F and F in ledger.deficits:
                policy(ledger).refund({F: runner.symbol(BACK)})
                state[F] = replace(state[F], served=state[F].served - W_E * BACK)
            state[client] = _let_in(state[client])
            return runner.symbol(CHARGED)

        def record_refill(deficits: Mapping[ClientId, int]) -> None:
            for paid in deficits:
                state[paid] = replace(state[paid], paid=state[paid].paid + QUANTUM[paid])

        algorithm.visit(ledger, client, runner.queued_clients(), try_add, record_refill)
        return with_deficits(ledger, state)

    return runner.transition(f"a visit of {client} that may join what f paid for", body, client)


def _let_in(mine: ClientState) -> ClientState:
    return replace(
        mine, reserved=mine.reserved + OUTPUT, running=mine.running + ONE, served=mine.served + W_E * CHARGED
    )


def joining_visits(algorithm: Algorithm, memory: Memory, policy: Refunder = SharedPrefixDLPM) -> Iterator[Transition]:
    """A visit of each client."""
    for client in CLIENTS:
        yield joining_visit(client, algorithm, memory, policy)


def sharing_transitions(
    algorithm: Algorithm, memory: Memory, policy: Refunder = SharedPrefixDLPM
) -> Iterator[Transition]:
    """Everything that can happen to f's counter on a worker with shared prefixes: the rest touches nobody's, or g's."""
    yield from joining_visits(algorithm, memory, policy)
    yield forward(algorithm, memory)
    yield arrival_of(F, algorithm)
    yield departure_of(F, algorithm)
    yield finish_of(F, algorithm, memory)
