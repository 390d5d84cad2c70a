"""The transitions of DLPM on one worker, run symbolically on the reference's own functions.

The state is what three clients stand at: ``f`` and ``g``, whom theorems speak about, and ``other``, who stands for
everybody else (`theorems/n1_many_clients.py` says why one is enough). Of a client we know its deficit ``q``, the output
tokens ``R`` still reserved for its running requests, how many requests ``n`` it has running, and whether it is
registered yet. A transition is one arrival, one visit of a queued request, one forward step, one finish, or one
client's queue running empty. What memory answers is symbolic, within the contract that `theorems/m1_memory.py` proves
of the worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache

import dlpm.policies.dlpm as dlpm_policy
from dlpm.cost import CostModel
from dlpm.ledger import Ledger, Quanta
from dlpm.policies.dlpm import DLPM, Visit
from dlpm.request import ClientId
from dlpm_proofs.solve import Named, Obligation, claim, possible
from dlpm_proofs.symbolic import Exploration, Path, SymInt, covering
from dlpm_proofs.terms import (
    NO_PRODUCTS,
    Flag,
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

F, G, OTHER = "f", "g", "other"
CLIENTS = (F, G, OTHER)

TryAdd = Callable[[], int | None]
RecordRefill = Callable[[Mapping[ClientId, int]], None]
VisitFunction = Callable[[Ledger, ClientId, Iterable[ClientId], TryAdd, RecordRefill], Visit]


@dataclass(frozen=True, slots=True)
class Algorithm:
    """The functions under proof. The default is the reference; mutants put something else in its place."""

    ledger: type[Ledger] = Ledger
    visit: VisitFunction = field(default_factory=lambda: dlpm_policy.visit)


REFERENCE = Algorithm()

W_E, W_Q, L_IN, L_OUT, M, B = (Poly.unknown(name) for name in ("w_e", "w_q", "L_in", "L_out", "M", "B"))
EXTEND, OUTPUT, HELD, LEFT_OVER = (Poly.unknown(name) for name in ("e", "o", "held", "r"))
QUANTUM = {client: Poly.unknown(f"Q_{client}") for client in CLIENTS}

PARAMETERS: tuple[Named, ...] = (
    ("the weights are positive", all_of(at_least(W_E, 1), at_least(W_Q, 1))),
    ("quanta are positive", all_of(*(at_least(quantum, 1) for quantum in QUANTUM.values()))),
    ("the limits are positive", all_of(at_least(L_IN, 1), at_least(L_OUT, 1), at_least(B, 1))),
    ("memory holds one input and one output token", at_least(M, 2)),
)

FITS = "memory can hold the request"

COUNTS = frozenset(
    {"e", "o", "held", "r", "L_in", "L_out", "M", "B"} | {f"{name}_{client}" for name in "Rn" for client in CLIENTS}
)
"""Unknowns that count tokens or requests: weights multiply these."""

WEIGHTED = Products((W_E, W_Q), COUNTS)
"""Products of a weight and a count."""

COMPARED_WEIGHTS = Products((W_E, W_Q, W_E - W_Q), COUNTS)
"""The same where it matters which weight is larger."""

SAMPLE: Mapping[str, int] = {
    "w_e": 1,
    "w_q": 2,
    "L_in": 4,
    "L_out": 4,
    "M": 8,
    "B": 3,
    **{f"Q_{client}": 5 for client in CLIENTS},
}
"""Parameters small enough to look at, used where an example must exist: examples need real products."""


@dataclass(frozen=True, slots=True)
class ClientState:
    """One client: deficit, reserved output tokens, running requests; what it was paid and served since some time."""

    deficit: Poly
    reserved: Poly
    running: Poly
    paid: Poly
    served: Poly


State = Mapping[ClientId, ClientState]


def _state_before() -> dict[ClientId, ClientState]:
    """All that is known of the clients before a transition: names."""
    return {
        client: ClientState(*(Poly.unknown(f"{name}_{client}") for name in ("q", "R", "n", "P", "W")))
        for client in CLIENTS
    }


BEFORE: State = _state_before()


def registered(client: ClientId) -> Flag:
    """``client`` has a counter."""
    return Flag(f"{client} is registered")


def queued(client: ClientId) -> Flag:
    """``client`` has a request in the queue."""
    return Flag(f"{client} is queued")


@dataclass(frozen=True, slots=True)
class Transition:
    """One kind of transition: what is assumed of its surroundings, and every path through the code."""

    name: str
    contract: tuple[Named, ...]
    paths: tuple[Path[State], ...]
    visited: ClientId | None = None

    def obligations(
        self,
        hypotheses: Sequence[Named],
        invariant: Callable[[State], Formula],
        products: Products = NO_PRODUCTS,
        sample: Mapping[str, int] = SAMPLE,
    ) -> tuple[Obligation, ...]:
        """The invariant survives every path, no path was left out, and with ``sample`` the transition can happen."""
        assumptions = (*hypotheses, *self.contract, ("the invariant holds before", invariant(BEFORE)))
        broken = any_of(*(all_of(path.condition(), Not(_after(path, invariant))) for path in self.paths))
        happens = Flag(FITS) if self.visited is not None else all_of()
        return (
            claim(f"{self.name} keeps the invariant", assumptions, Not(broken), products),
            claim(f"{self.name}: no path is left out", (*PARAMETERS, *self.contract), covering(self.paths)),
            possible(f"{self.name} can happen", assumptions, happens, sample),
        )


def _after(path: Path[State], invariant: Callable[[State], Formula]) -> Formula:
    """The invariant where ``path`` ends; a path that ends in an exception keeps nothing."""
    return invariant(path.result) if path.result is not None else any_of()


class Memory(StrEnum):
    """What is assumed of the memory: that it reserves outputs, or nothing at all."""

    RESERVING = "reserving"
    ANY = "any"


def admission(memory: Memory) -> tuple[Named, ...]:
    """What an admission finds. Under reserving memory extend and reserved tokens share ``M`` [theorem M1].

    ``held`` are tokens of other running requests' prompts: at least one, if any other runs.
    """
    if memory is Memory.ANY:
        return (("an extend has at least 1 token", at_least(EXTEND, 1)),)
    reserved = OUTPUT
    running = Poly.constant(1)
    for state in BEFORE.values():
        reserved += state.reserved
        running += state.running
    return (
        ("an extend has between 1 and L_in tokens", between(1, EXTEND, L_IN)),
        ("an output has between 1 and L_out tokens", between(1, OUTPUT, L_OUT)),
        ("prompts of others hold memory", all_of(at_least(HELD, 0), any_of(at_most(running, 1), at_least(HELD, 1)))),
        (
            "only what fits beside all that is reserved is admitted",
            implies(Flag(FITS), all_of(at_most(EXTEND + HELD + reserved, M), at_most(running, B))),
        ),
    )


def _surroundings() -> tuple[Named, ...]:
    """What is true of any three clients at any time."""
    nobody = all_of(
        *(
            implies(
                Not(registered(client)),
                all_of(
                    Not(queued(client)), *(equal(value, 0) for value in (state.deficit, state.reserved, state.running))
                ),
            )
            for client, state in BEFORE.items()
        )
    )
    sizes = all_of(*(at_least(state.running, 0) for state in BEFORE.values()))
    return (("an unregistered client has nothing", nobody), ("no client runs less than no request", sizes))


class Runner:
    """Runs one transition of an algorithm on a fresh symbolic ledger."""

    def __init__(self, algorithm: Algorithm, contract: Sequence[Named]) -> None:
        """Explore under the parameters' hypotheses and ``contract``."""
        self.contract = (*_surroundings(), *contract)
        self._algorithm = algorithm
        self._exploration = Exploration([formula for _, formula in (*PARAMETERS, *self.contract)])

    def symbol(self, value: Poly) -> SymInt:
        """``value`` as an integer that code can compute with."""
        return SymInt(self._exploration, value)

    def holds(self, name: str) -> bool:
        """Fork on the flag ``name``."""
        return self._exploration.flag(name)

    def ledger(self) -> Ledger:
        """A ledger in the state before the transition."""
        quanta = Quanta(self.symbol(QUANTUM[OTHER]), {client: self.symbol(QUANTUM[client]) for client in (F, G)})
        ledger = self._algorithm.ledger(quanta, CostModel(self.symbol(W_E), self.symbol(W_Q)))
        for client in CLIENTS:
            if self.holds(registered(client).name):
                ledger.deficits[client] = self.symbol(BEFORE[client].deficit)
        return ledger

    def queued_clients(self) -> list[ClientId]:
        """Some of the clients."""
        return [client for client in CLIENTS if self.holds(queued(client).name)]

    def transition(self, name: str, body: Callable[[], State], visited: ClientId | None = None) -> Transition:
        """All paths through ``body``."""
        return Transition(name, self.contract, tuple(self._exploration.paths(body)), visited)


def with_deficits(ledger: Ledger, state: State) -> dict[ClientId, ClientState]:
    """``state`` with the counters of ``ledger``; an unregistered client counts as 0."""
    return {
        client: replace(values, deficit=Poly.constant(0) + _poly(ledger.deficits.get(client, 0)))
        for client, values in state.items()
    }


def _poly(value: int) -> Poly:
    """The polynomial of a counter."""
    return value.poly if isinstance(value, SymInt) else Poly.constant(value)


@cache
def visit_of(client: ClientId, algorithm: Algorithm, memory: Memory) -> Transition:
    """One visit of a queued request of ``client``: gate, check-refill, admit, charge."""

    def added(mine: ClientState) -> ClientState:
        return replace(
            mine,
            reserved=mine.reserved + OUTPUT,
            running=mine.running + Poly.constant(1),
            served=mine.served + W_E * EXTEND,
        )

    return visit_adding(f"a visit of {client}", client, algorithm, admission(memory), EXTEND, added)


def visit_adding(
    name: str,
    client: ClientId,
    algorithm: Algorithm,
    contract: Sequence[Named],
    charged: Poly,
    added: Callable[[ClientState], ClientState],
) -> Transition:
    """One visit of ``client``: if memory agrees, ``charged`` extend tokens are to be paid now.

    ``added`` says what else becomes of the client then.
    """
    runner = Runner(algorithm, (("the visited client is queued", queued(client)), *contract))

    def body() -> State:
        ledger = runner.ledger()
        state = dict(BEFORE)

        def try_add() -> int | None:
            if not runner.holds(FITS):
                return None
            state[client] = added(state[client])
            return runner.symbol(charged)

        def record_refill(deficits: Mapping[ClientId, int]) -> None:
            for paid in deficits:
                state[paid] = replace(state[paid], paid=state[paid].paid + QUANTUM[paid])

        algorithm.visit(ledger, client, runner.queued_clients(), try_add, record_refill)
        return with_deficits(ledger, state)

    return runner.transition(name, body, client)


@cache
def forward(algorithm: Algorithm, memory: Memory) -> Transition:
    """One forward step: each running request yields one token, taken from what is reserved for it [theorem M1]."""
    reserve = all_of(*(at_most(state.running, state.reserved) for state in BEFORE.values()))
    contract = (("every running request has a token reserved", reserve),) if memory is Memory.RESERVING else ()
    runner = Runner(algorithm, contract)

    def body() -> State:
        ledger = runner.ledger()
        batch = {}
        state = {}
        for client, values in BEFORE.items():
            count = runner.symbol(values.running)
            if count > 0:
                batch[client] = count
            state[client] = replace(
                values, reserved=values.reserved - values.running, served=values.served + W_Q * values.running
            )
        DLPM(ledger).charge_outputs(batch)
        return with_deficits(ledger, state)

    return runner.transition("a forward step", body)


@cache
def finish_of(client: ClientId, algorithm: Algorithm, memory: Memory) -> Transition:
    """One request of ``client`` leaves the batch, with the rest of its reservation."""
    mine = BEFORE[client]
    others_reserve = at_most(mine.reserved - LEFT_OVER, (mine.running - Poly.constant(1)) * L_OUT)
    reservation = (
        ("it gives back what was reserved for it", between(0, LEFT_OVER, mine.reserved)),
        ("no other has more than L_out reserved", others_reserve),
    )
    runner = Runner(
        algorithm,
        (
            ("a request of the client runs", at_least(mine.running, 1)),
            *(reservation if memory is Memory.RESERVING else ()),
        ),
    )

    def body() -> State:
        after = replace(mine, reserved=mine.reserved - LEFT_OVER, running=mine.running - Poly.constant(1))
        return with_deficits(runner.ledger(), {**BEFORE, client: after})

    return runner.transition(f"a finish of {client}", body)


@cache
def arrival_of(client: ClientId, algorithm: Algorithm) -> Transition:
    """A request of ``client`` joins the queue: the client is new, comes back, or never left."""
    runner = Runner(algorithm, ())

    def body() -> State:
        ledger = runner.ledger()
        DLPM(ledger).arrive(client, runner.queued_clients())
        return with_deficits(ledger, BEFORE)

    return runner.transition(f"an arrival of {client}", body)


@cache
def departure_of(client: ClientId, algorithm: Algorithm) -> Transition:
    """The last queued request of ``client`` has left the queue."""
    runner = Runner(algorithm, (("the client is registered", registered(client)),))

    def body() -> State:
        ledger = runner.ledger()
        DLPM(ledger).leave(client)
        return with_deficits(ledger, BEFORE)

    return runner.transition(f"the queue of {client} running empty", body)


def transitions(algorithm: Algorithm, memory: Memory) -> Iterator[Transition]:
    """Everything that can happen on a worker, each run when it is asked for."""
    for client in CLIENTS:
        yield visit_of(client, algorithm, memory)
    yield forward(algorithm, memory)
    for client in CLIENTS:
        yield arrival_of(client, algorithm)
        yield departure_of(client, algorithm)
        yield finish_of(client, algorithm, memory)
