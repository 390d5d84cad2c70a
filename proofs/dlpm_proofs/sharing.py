"""The transitions of a shared ledger with late updates (E9), run symbolically on the reference's own methods.

Three workers stand for any number: ``a`` acts, ``b`` is any other, ``r`` is all the rest taken together. Of each client
we know its *true* counter ``q``, which nobody sees: what it was paid less what it was served. What is proved is how far
the views of a and b and the keeper's counter are from it, and what that means for gate and refill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dlpm.cost import CostModel
from dlpm.extensions.shared_ledger import SharedDLPM, SharedLedger, Update
from dlpm.ledger import Quanta
from dlpm.policies.dlpm import visit
from dlpm.request import ClientId
from dlpm_proofs.postcondition import postcondition
from dlpm_proofs.solve import Named, Obligation, possible
from dlpm_proofs.symbolic import Exploration, SymInt
from dlpm_proofs.terms import (
    TRUE,
    Formula,
    Not,
    Poly,
    Products,
    all_of,
    at_least,
    at_most,
    between,
    equal,
    implies,
    poly,
)
from dlpm_proofs.transitions import (
    CLIENTS,
    EXTEND,
    FITS,
    L_IN,
    LEFT_OVER,
    OUTPUT,
    PARAMETERS,
    QUANTUM,
    W_E,
    W_Q,
    F,
    G,
    M,
    queued,
    registered,
)

A, B, REST = 0, 1, 2
"""The acting worker, any other one, and the rest."""

WORKERS, ELSEWHERE = Poly.unknown("N"), Poly.unknown("X")
LATE, LARGEST = Poly.unknown("d"), Poly.unknown("C")
ROOM = M - Poly.constant(1)
HEARD = {client: Poly.unknown(f"heard_{client}") for client in CLIENTS}


@dataclass(frozen=True, slots=True)
class Shared:
    """One client: its true counter, what views and keeper show, what is on its way, reserved and running, its books.

    ``on_the_way`` are charges by a, b and the rest that others have not heard of; ``rest`` is the weighted output that
    the rest has reserved.
    """

    true: Poly
    view_a: Poly
    view_b: Poly
    keeper: Poly
    on_the_way: tuple[Poly, Poly, Poly]
    reserved_a: Poly
    reserved_b: Poly
    rest: Poly
    running: Poly
    paid: Poly
    served: Poly


State = Mapping[ClientId, Shared]


def _before(client: ClientId) -> Shared:
    """Names."""

    def name(kind: str) -> Poly:
        return Poly.unknown(f"{kind}_{client}")

    on_the_way = (name("Pa"), name("Pb"), name("Pr"))
    return Shared(
        name("q"),
        name("Va"),
        name("Vb"),
        name("K"),
        on_the_way,
        *(name(kind) for kind in ("Ra", "Rb", "Sr", "n", "P", "W")),
    )


BEFORE: State = {client: _before(client) for client in CLIENTS}

SHARED_COUNTS = frozenset(
    {"e", "o", "r", "L_in", "M", "B", "d", "N"}
    | {f"{name}_{client}" for name in ("Ra", "Rb", "n") for client in CLIENTS}
)
SHARED_PRODUCTS = Products((W_E, W_Q, W_E - W_Q, LARGEST, ELSEWHERE), SHARED_COUNTS)


def surroundings() -> tuple[Named, ...]:
    """What memory and the medium keep: see M1 for memory; the medium holds at most d updates of each worker back."""
    at_rest = []
    for client, state in BEFORE.items():
        values = (state.true, state.view_a, state.view_b, state.keeper, *state.on_the_way, state.reserved_a)
        nothing = all_of(*(equal(value, 0) for value in (*values, state.reserved_b, state.rest, state.running)))
        at_rest.append(implies(Not(registered(client)), all_of(Not(queued(client)), nothing)))
    everyone = tuple(BEFORE.values())
    return (
        *PARAMETERS,
        ("there are other workers", at_least(WORKERS, 2)),
        ("updates are late by d, each charges at most C", all_of(at_least(LATE, 0), at_least(LARGEST, 1))),
        ("an unregistered client has nothing", all_of(*at_rest)),
        ("a and b share M between prompts and reservations [M1]", all_of(*(
            all_of(between(0, state.reserved_a, ROOM), between(0, state.reserved_b, ROOM))
            for state in everyone
        ))),
        ("at most d updates of b are on their way", all_of(*(
            between(0, state.on_the_way[B], LATE * LARGEST) for state in everyone
        ))),
        ("each of the rest is like b", all_of(*(
            all_of(
                at_least(state.rest, 0),
                at_least(state.on_the_way[REST], 0),
                at_most(state.rest + state.on_the_way[REST], WORKERS * ELSEWHERE - ELSEWHERE - ELSEWHERE),
            )
            for state in everyone
        ))),
        ("no client runs less than no request", all_of(*(at_least(state.running, 0) for state in everyone))),
    )  # fmt: skip


SHARED_SAMPLE = {
    "w_e": 1, "w_q": 2, "L_in": 3, "L_out": 4, "M": 8, "B": 3, "N": 3, "d": 1, "C": 6,
    "Q_f": 5, "Q_g": 5, "Q_other": 5,
}  # fmt: skip
"""Parameters small enough to look at."""


class Sharing:
    """Runs the transitions of one shared ledger, and asks an invariant of each."""

    def __init__(
        self,
        ledger: type[SharedLedger],
        hypotheses: Sequence[Named],
        invariant: Callable[[State], Formula],
        backlogged: Sequence[ClientId] = (),
    ) -> None:
        """``backlogged`` clients are queued somewhere whenever the keeper may pay."""
        self._type = ledger
        self._invariant = invariant
        self._always = tuple((f"{client} is queued somewhere", queued(client)) for client in backlogged)
        self._assumed: tuple[Named, ...] = (
            *surroundings(),
            *hypotheses,
            ("the invariant holds before", invariant(BEFORE)),
        )

    def obligations(self) -> Iterator[Obligation]:
        """Everything that worker a, the keeper and the medium can do."""
        for sender, name in ((A, "a"), (B, "b"), (REST, "the rest")):
            yield from self._delivery(sender, name)
        yield from self._forward()
        yield from self._refill()
        for client in CLIENTS:
            yield from self._visit(client)
            yield from self._finish(client)
            yield from self._arrival(client)

    def _build(self, exploration: Exploration) -> SharedLedger:
        """Keeper and views as they are before the transition; nothing that was published now is delivered yet."""

        def symbol(value: Poly) -> SymInt:
            return SymInt(exploration, value)

        quanta = Quanta(symbol(QUANTUM["other"]), {client: symbol(QUANTUM[client]) for client in (F, G)})
        shared = self._type(3, quanta, CostModel(symbol(W_E), symbol(W_Q)), late=8)
        for client, state in BEFORE.items():
            if not exploration.flag(registered(client).name):
                continue
            if exploration.flag(queued(client).name):
                shared.arrived(client)
            shared.keeper.deficits[client] = symbol(state.keeper)
            shared.views[A].deficits[client] = symbol(state.view_a)
            shared.views[B].deficits[client] = symbol(state.view_b)
            shared.views[REST].deficits[client] = 0
        return shared

    def _after(self, shared: SharedLedger, state: State, sent: int | None = A) -> Formula:
        """The invariant, on what the real objects hold now and on the books that the transition should have kept."""
        now = {}
        for client, values in state.items():
            published = Poly.constant(0)
            for update in shared.on_the_way(A) if sent is not None else ():
                published += poly(update.charges.get(client, 0))
            on_the_way = (values.on_the_way[A] + published, *values.on_the_way[1:])
            now[client] = replace(
                values,
                view_a=poly(shared.views[A].deficits.get(client, 0)),
                view_b=poly(shared.views[B].deficits.get(client, 0)),
                keeper=poly(shared.keeper.deficits.get(client, 0)),
                on_the_way=on_the_way,
            )
        return self._invariant(now)

    def _run(
        self, name: str, contract: Sequence[Named], body: Callable[[Exploration], Formula]
    ) -> Iterator[Obligation]:
        """One transition under everything assumed."""
        assumed = (*self._assumed, *contract)
        exploration = Exploration([formula for _, formula in assumed])
        yield from postcondition(name, assumed, exploration, lambda: body(exploration), SHARED_PRODUCTS)
        yield possible(f"{name}: it can happen", assumed, TRUE, SHARED_SAMPLE)

    def _visit(self, client: ClientId) -> Iterator[Obligation]:
        """A visit of a queued request of ``client`` at a."""
        mine = BEFORE[client]
        contract: tuple[Named, ...] = (
            *self._always,
            ("the visited client is queued", all_of(queued(client), registered(client))),
            ("an extend has between 1 and L_in tokens", between(1, EXTEND, L_IN)),
            ("what is reserved and computed fits into M [M1]", at_most(EXTEND + OUTPUT + mine.reserved_a, M)),
            ("an output has at least 1 token", at_least(OUTPUT, 1)),
        )

        def body(exploration: Exploration) -> Formula:
            shared = self._build(exploration)
            state = dict(BEFORE)

            def try_add() -> int | None:
                if not exploration.flag(FITS):
                    return None
                cost = W_E * EXTEND
                now = state[client]
                state[client] = replace(
                    now,
                    true=now.true - cost,
                    served=now.served + cost,
                    reserved_a=now.reserved_a + OUTPUT,
                    running=now.running + Poly.constant(1),
                )
                return SymInt(exploration, EXTEND)

            def record(deficits: Mapping[ClientId, int]) -> None:
                _pay(state, deficits)

            visit(shared.views[A], client, (client,), try_add, record)
            return self._after(shared, state)

        yield from self._run(f"a visit of {client} keeps the invariant", contract, body)

    def _forward(self) -> Iterator[Obligation]:
        """A forward step at a."""
        reserve = all_of(*(at_most(state.running, state.reserved_a) for state in BEFORE.values()))

        def body(exploration: Exploration) -> Formula:
            shared = self._build(exploration)
            state = {}
            batch = {}
            for client, values in BEFORE.items():
                count = SymInt(exploration, values.running)
                if count > 0:
                    batch[client] = count
                cost = W_Q * values.running
                state[client] = replace(
                    values,
                    true=values.true - cost,
                    served=values.served + cost,
                    reserved_a=values.reserved_a - values.running,
                )
            SharedDLPM(shared.views[A]).charge_outputs(batch)
            return self._after(shared, state)

        contract = (("every running request has a token reserved [M1]", reserve),)
        yield from self._run("a forward step keeps the invariant", contract, body)

    def _refill(self) -> Iterator[Obligation]:
        """The keeper may pay."""

        def body(exploration: Exploration) -> Formula:
            shared = self._build(exploration)
            state = dict(BEFORE)
            _pay(state, shared.check_refill())
            return self._after(shared, state)

        yield from self._run("a refill keeps the invariant", self._always, body)

    def _finish(self, client: ClientId) -> Iterator[Obligation]:
        """A request of ``client`` leaves a, with the rest of its reservation."""
        mine = BEFORE[client]

        def body(exploration: Exploration) -> Formula:
            left = replace(mine, reserved_a=mine.reserved_a - LEFT_OVER, running=mine.running - Poly.constant(1))
            return self._after(self._build(exploration), {**BEFORE, client: left})

        contract = (("it gives back what was reserved for it", between(0, LEFT_OVER, mine.reserved_a)),)
        yield from self._run(f"a finish of {client} keeps the invariant", contract, body)

    def _arrival(self, client: ClientId) -> Iterator[Obligation]:
        """A request of ``client`` arrives at a."""

        def body(exploration: Exploration) -> Formula:
            shared = self._build(exploration)
            shared.arrived(client)
            SharedDLPM(shared.views[A]).arrive(client, ())
            return self._after(shared, BEFORE)

        yield from self._run(f"an arrival of {client} keeps the invariant", (), body)

    def _delivery(self, sender: int, name: str) -> Iterator[Obligation]:
        """An update of one worker reaches the keeper and all others."""
        some = all_of(*(between(0, HEARD[c], BEFORE[c].on_the_way[sender]) for c in CLIENTS))
        known = all_of(*(implies(Not(registered(c)), equal(HEARD[c], 0)) for c in CLIENTS))

        def body(exploration: Exploration) -> Formula:
            shared = self._build(exploration)
            charges = {
                client: SymInt(exploration, HEARD[client])
                for client in CLIENTS
                if exploration.flag(registered(client).name)
            }
            shared.send(sender, Update(charges))
            shared.flush(sender)
            state = {}
            for client, values in BEFORE.items():
                rest = list(values.on_the_way)
                rest[sender] = rest[sender] - HEARD[client]
                state[client] = replace(values, on_the_way=(rest[A], rest[B], rest[REST]))
            return self._after(shared, state, None)

        contract = (("it is part of what is on its way", all_of(some, known)),)
        yield from self._run(f"a delivery from {name} keeps the invariant", contract, body)


def _pay(state: dict[ClientId, Shared], clients: Mapping[ClientId, int]) -> None:
    """The keeper paid these clients: their true counters and their books."""
    for client in clients:
        now = state[client]
        state[client] = replace(now, true=now.true + QUANTUM[client], paid=now.paid + QUANTUM[client])
