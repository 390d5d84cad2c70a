"""The transitions of VTC on one worker, run symbolically on the reference's own functions.

As for DLPM (`transitions.py`): ``f`` and ``g`` are whom theorems speak about, ``other`` stands for whoever of the rest
matters in this transition: who has the least counter in the queue, or who left it last. A client that was never seen
is one with counter 0. ``m`` is the least counter in the queue, as it was when it last mattered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import dlpm.policies.vtc as vtc_policy
from dlpm.cost import CostModel
from dlpm.policies.vtc import VTC, VirtualCounters
from dlpm.request import ClientId
from dlpm_proofs.definitions import tight_unit
from dlpm_proofs.solve import Named
from dlpm_proofs.symbolic import Exploration, Path, SymInt
from dlpm_proofs.terms import Flag, Formula, Poly, Products, all_of, at_least, at_most, between, implies, poly
from dlpm_proofs.transitions import CLIENTS, COUNTS, FITS, L_IN, PARAMETERS, W_E, W_Q, F, G, M

INPUT, OUTPUT, LEVEL = (Poly.unknown(name) for name in ("input", "o", "m"))
UNIT = tight_unit(limited=False).symbol
GIVEN_BACK = {client: Poly.unknown(f"given back by {client}") for client in CLIENTS}
PRODUCTS = Products(
    (W_E, W_Q, W_E - W_Q),
    COUNTS | {"input"} | {name for value in GIVEN_BACK.values() for name in value.names()},
)

Visit = Callable[[VirtualCounters, Iterable[ClientId], Callable[[ClientId], int | None]], ClientId | None]


@dataclass(frozen=True, slots=True)
class Counting:
    """VTC's functions under proof; mutants put something else in their place."""

    counters: type[VirtualCounters] = VirtualCounters
    visit: Visit = field(default_factory=lambda: vtc_policy.visit)


@dataclass(frozen=True, slots=True)
class Account:
    """One client: its counter, output tokens reserved, service since t1, and whether it is queued."""

    counter: Poly
    reserved: Poly
    served: Poly
    waits: bool


@dataclass(frozen=True, slots=True)
class World:
    """All clients, the level m, and who left the queue last."""

    accounts: Mapping[ClientId, Account]
    level: Poly
    last: ClientId | None


def counter(client: ClientId) -> Poly:
    """The client's counter before a transition."""
    return Poly.unknown(f"c_{client}")


def reserved(client: ClientId) -> Poly:
    """The output tokens reserved for it."""
    return Poly.unknown(f"R_{client}")


def invariant(world: World) -> Formula:
    """No queued counter is below m, none with its reservations more than U* above; who left last is not below."""
    everything = Poly.constant(0)
    parts: list[Formula] = []
    for client, account in world.accounts.items():
        everything += account.reserved
        parts.append(at_least(account.reserved, 0))
        if client in (F, G):
            parts.append(at_most(account.counter + W_Q * account.reserved, world.level + UNIT))
        if account.waits or (client == world.last and not any(other.waits for other in world.accounts.values())):
            parts.append(at_least(account.counter, world.level))
    return all_of(*parts, at_most(everything, M - Poly.constant(1)))


class _Runner:
    """Runs one transition of VTC on open counters."""

    def __init__(self, counting: Counting, contract: tuple[Named, ...]) -> None:
        """Explore under ``contract``."""
        self.counting = counting
        self.contract = contract
        self.exploration = Exploration([formula for _, formula in (*PARAMETERS, *contract)])

    def symbol(self, value: Poly) -> SymInt:
        """``value`` as an integer that code can compute with."""
        return SymInt(self.exploration, value)

    def before(self) -> World:
        """Any state: who waits and who left last is open."""
        accounts = {
            client: Account(
                counter(client),
                reserved(client),
                Poly.unknown(f"W_{client}"),
                self.exploration.flag(f"{client} is queued"),
            )
            for client in CLIENTS
        }
        last = next((client for client in CLIENTS if self.exploration.flag(f"{client} left last")), CLIENTS[-1])
        return World(accounts, LEVEL, last)

    def policy(self, world: World) -> VTC:
        """VTC in that state."""
        policy = VTC(CostModel(self.symbol(W_E), self.symbol(W_Q)))
        policy.counters = self.counting.counters(policy.counters.cost)
        policy.counters.counters.update({client: self.symbol(a.counter) for client, a in world.accounts.items()})
        policy.counters.last_to_leave = world.last
        return policy


def _queue(world: World) -> list[ClientId]:
    """The queued clients."""
    return [client for client, account in world.accounts.items() if account.waits]


def _settled(policy: VTC, world: World) -> World:
    """``world`` with the counters as the policy has them."""
    counters = policy.counters
    accounts = {
        client: replace(account, counter=poly(counters.counters[client])) for client, account in world.accounts.items()
    }
    return replace(world, accounts=accounts, last=counters.last_to_leave)


def _visit(runner: _Runner) -> tuple[World, World]:
    """One turn of the admission loop; the level rises to the least counter in the queue."""
    world = runner.before()
    policy = runner.policy(world)
    accounts = dict(world.accounts)

    def try_add(client: ClientId) -> int | None:
        if not runner.exploration.flag(FITS):
            return None
        mine = accounts[client]
        accounts[client] = replace(
            mine,
            reserved=mine.reserved + OUTPUT,
            served=mine.served + W_E * INPUT,
            waits=runner.exploration.flag("more"),
        )
        return runner.symbol(INPUT)

    served = runner.counting.visit(policy.counters, _queue(world), try_add)
    if served is not None and not accounts[served].waits:
        policy.leave(served)
    level = world.accounts[served].counter if served is not None else world.level
    return world, _settled(policy, World(accounts, level, world.last))


def _forward(runner: _Runner) -> tuple[World, World]:
    """One forward step: each running request yields a token out of its reservation."""
    world = runner.before()
    policy = runner.policy(world)
    tokens = {client: runner.symbol(Poly.unknown(f"n_{client}")) for client in CLIENTS}
    policy.charge_outputs(tokens)
    accounts = {
        client: replace(
            account,
            reserved=account.reserved - tokens[client].poly,
            served=account.served + W_Q * tokens[client].poly,
        )
        for client, account in world.accounts.items()
    }
    return world, _settled(policy, replace(world, accounts=accounts))


def _finish(runner: _Runner) -> tuple[World, World]:
    """A request of anybody leaves with the rest of its reservation."""
    world = runner.before()
    accounts = {
        client: replace(account, reserved=account.reserved - GIVEN_BACK[client])
        for client, account in world.accounts.items()
    }
    return world, replace(world, accounts=accounts)


def _arrival(client: ClientId, runner: _Runner) -> tuple[World, World]:
    """A request of ``client`` arrives: the level rises to the least counter in the queue that it joins."""
    world = runner.before()
    policy = runner.policy(world)
    waiting = _queue(world)
    policy.arrive(client, waiting)
    joined = {**world.accounts, client: replace(world.accounts[client], waits=True)}
    after = _settled(policy, replace(world, accounts=joined))
    others = [after.accounts[other].counter for other in waiting if other != client]
    level = after.accounts[client].counter if not waiting else world.level
    if others and client not in waiting:
        level = poly(min(runner.symbol(value) for value in others))
    return world, replace(after, level=level)


def _admission() -> tuple[Named, ...]:
    """What theorem M1 says: a whole prompt, its output and all that is reserved share ``M``."""
    everything = INPUT + OUTPUT
    for client in CLIENTS:
        everything += reserved(client)
    return (
        ("a request has a prompt within L_in and an output", all_of(between(1, INPUT, L_IN), at_least(OUTPUT, 1))),
        ("only what fits beside all that is reserved is admitted [M1]", implies(Flag(FITS), at_most(everything, M))),
    )


def _reserved_tokens() -> tuple[Named, ...]:
    """A forward step takes what is reserved [M1]."""
    each = (between(0, Poly.unknown(f"n_{client}"), reserved(client)) for client in CLIENTS)
    return (("every running request has a token reserved [M1]", all_of(*each)),)


def _given_back() -> tuple[Named, ...]:
    """Nobody gives back more than was reserved."""
    each = (between(0, GIVEN_BACK[client], reserved(client)) for client in CLIENTS)
    return (("who leaves gives back what was reserved", all_of(*each)),)


def transitions(counting: Counting) -> Iterator[tuple[str, tuple[Named, ...], list[Path[tuple[World, World]]]]]:
    """Everything that can happen."""
    bodies: list[tuple[str, tuple[Named, ...], Callable[[_Runner], tuple[World, World]]]] = [
        ("a turn of the admission loop", _admission(), _visit),
        ("a forward step", _reserved_tokens(), _forward),
        ("a finish", _given_back(), _finish),
        *((f"an arrival of {client}", (), partial(_arrival, client)) for client in CLIENTS),
    ]
    for name, contract, body in bodies:
        runner = _Runner(counting, contract)
        yield name, contract, runner.exploration.paths(partial(body, runner))
