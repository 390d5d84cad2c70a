"""The transitions of Algorithm 2, run symbolically on the router's own methods.

One client is looked at, beside a bystander whose counters must not move. Of the client we know, for each worker, its
credit, how many of its requests are dispatched there and not finished, and how many output tokens they will be charged
for; what it was paid and charged since the beginning. What the prefix directory answers, and how long the queues are,
is left open. ``while no worker has credit`` is cut at its refills: a dispatch is run from every state in which some
worker has credit, or will have it after one refill, and a refill from every state in which none has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from dlpm.cost import CostModel
from dlpm.dispatch.d2lpm import D2LPM, refill
from dlpm.dispatch.directory import PrefixDirectory
from dlpm.request import BlockKey, Request
from dlpm_proofs.postcondition import postcondition
from dlpm_proofs.solve import Named, Obligation, possible
from dlpm_proofs.symbolic import Exploration, SymInt
from dlpm_proofs.terms import TRUE, Formula, Poly, Products, all_of, any_of, at_least, at_most, between, equal, poly
from dlpm_proofs.transitions import EXTEND, L_IN, L_OUT, OUTPUT, W_E, W_Q

CLIENT, BYSTANDER = "f", "bystander"
Q_W, CAP = Poly.unknown("Q_w"), Poly.unknown("c")
PAID = Poly.unknown("paid")

ROUTER_PARAMETERS: tuple[Named, ...] = (
    ("the weights are positive", all_of(at_least(W_E, 1), at_least(W_Q, 1))),
    ("the worker quantum is positive", at_least(Q_W, 1)),
    ("the limits are positive", all_of(at_least(L_IN, 1), at_least(L_OUT, 1), at_least(CAP, 1))),
)

SIZES: tuple[Named, ...] = (
    ("an input has between 1 and L_in tokens", between(1, EXTEND, L_IN)),
    ("an output has between 1 and L_out tokens", between(1, OUTPUT, L_OUT)),
)

ROUTER_SAMPLE = {"w_e": 1, "w_q": 2, "L_in": 3, "L_out": 4, "c": 2, "Q_w": 5}
"""Parameters small enough to look at."""


@dataclass(frozen=True, slots=True)
class Account:
    """One client at one worker, as the router sees it: credit, requests in flight, outputs still to be charged."""

    credit: Poly
    in_flight: Poly
    outputs: Poly
    charged: Poly


State = tuple[Account, ...]
Invariant = Callable[[State, Poly], Formula]
"""What holds of the accounts at all workers, the second argument being what each of them was paid."""


def before(workers: int) -> State:
    """All that is known before a transition: names."""
    return tuple(
        Account(*(Poly.unknown(f"{name}_{worker}") for name in ("q", "n", "O", "charged"))) for worker in range(workers)
    )


def router_products(workers: int) -> Products:
    """Products of a weight and a count, and of the cost of a longest output and a number of requests."""
    counts = {"e", "o", "L_in", "L_out", "c"} | {f"{name}_{worker}" for name in "nO" for worker in range(workers)}
    return Products((W_E, W_Q, W_Q * L_OUT), frozenset(counts))


class _OpaqueDirectory(PrefixDirectory):
    """Any workers may hold the longest prefix."""

    def __init__(self, exploration: Exploration, workers: int) -> None:
        super().__init__()
        self._exploration = exploration
        self._workers = workers

    def longest_match_workers(self, blocks: Sequence[BlockKey]) -> tuple[tuple[int, ...], int]:
        """Some of the workers."""
        holders = tuple(w for w in range(self._workers) if self._exploration.flag(f"worker {w} holds the prefix"))
        return holders, 1 if holders else 0


class Routing:
    """Runs the transitions of one router class, and asks an invariant of each."""

    def __init__(self, router: type[D2LPM], workers: int, invariant: Invariant) -> None:
        """``invariant`` must hold before and after."""
        self._router = router
        self._workers = workers
        self._invariant = invariant
        self._before = before(workers)
        self._products = router_products(workers)

    def obligations(self, hypotheses: Sequence[Named]) -> Iterator[Obligation]:
        """Every transition keeps the invariant, and no path is left out."""
        credited = any_of(*(at_least(account.credit, 1) for account in self._before))
        nobody = all_of(*(at_most(account.credit, 0) for account in self._before))
        one_more = any_of(*(at_least(account.credit + Q_W, 1) for account in self._before))
        assumed = (*ROUTER_PARAMETERS, *hypotheses, ("the invariant holds before", self._invariant(self._before, PAID)))
        yield from self._dispatch("a dispatch with credit", (*assumed, ("a worker has credit", credited)), PAID)
        one_refill: tuple[Named, ...] = (("no worker has credit", nobody), ("one refill is enough", one_more))
        yield from self._dispatch("a dispatch after one refill", (*assumed, *one_refill), PAID + Q_W)
        yield from self._refill((*assumed, ("no worker has credit", nobody)))
        for worker in range(self._workers):
            yield from self._finish(worker, assumed)

    def _explore(self, assumed: Sequence[Named]) -> Exploration:
        return Exploration([formula for _, formula in assumed])

    def _build(self, exploration: Exploration) -> D2LPM:
        """The router, with the client's counters as they are before the transition."""
        cost = CostModel(SymInt(exploration, W_E), SymInt(exploration, W_Q))
        router = self._router(self._workers, SymInt(exploration, Q_W), cost)
        router.directory = _OpaqueDirectory(exploration, self._workers)
        router.queues.sizes = [SymInt(exploration, Poly.unknown(f"s_{w}")) for w in range(self._workers)]
        router.credit[CLIENT] = [SymInt(exploration, account.credit) for account in self._before]
        router.credit[BYSTANDER] = [SymInt(exploration, Poly.unknown(f"b_{w}")) for w in range(self._workers)]
        return router

    def _request(self, exploration: Exploration) -> Request:
        tokens, output = SymInt(exploration, EXTEND), SymInt(exploration, OUTPUT)
        return Request("r", CLIENT, 0, tokens, output, output)

    def _after(self, router: D2LPM, state: State, paid: Poly) -> Formula:
        """The invariant on the counters that the router has now; the bystander's must be what they were."""
        now = tuple(
            replace(account, credit=poly(credit)) for account, credit in zip(state, router.credit[CLIENT], strict=True)
        )
        untouched = all_of(
            *(equal(poly(value), Poly.unknown(f"b_{w}")) for w, value in enumerate(router.credit[BYSTANDER]))
        )
        return all_of(self._invariant(now, paid), untouched)

    def _dispatch(self, name: str, assumed: Sequence[Named], paid: Poly) -> Iterator[Obligation]:
        """A request arrives. That its worker is below the cap is part of the question: the choice comes first."""
        contract = (*assumed, *SIZES)
        exploration = self._explore(contract)

        def body() -> Formula:
            router = self._build(exploration)
            decision = router.dispatch(self._request(exploration), ())
            mine = self._before[decision.worker]
            state = list(self._before)
            state[decision.worker] = Account(
                mine.credit, mine.in_flight + Poly.constant(1), mine.outputs + OUTPUT, mine.charged + W_E * EXTEND
            )
            over_the_cap = at_least(mine.in_flight, CAP)
            return any_of(over_the_cap, self._after(router, tuple(state), paid))

        yield from postcondition(f"{name} keeps the invariant", contract, exploration, body, self._products)
        yield possible(f"{name} can happen", contract, TRUE, ROUTER_SAMPLE)

    def _refill(self, assumed: Sequence[Named]) -> Iterator[Obligation]:
        """One round of refills: the invariant holds, and every counter is nearer to credit."""
        exploration = self._explore(assumed)

        def body() -> Formula:
            router = self._build(exploration)
            refill(router.credit[CLIENT], router.worker_quantum)
            nearer = all_of(
                *(
                    at_least(poly(now), account.credit + Poly.constant(1))
                    for now, account in zip(router.credit[CLIENT], self._before, strict=True)
                )
            )
            return all_of(nearer, self._after(router, self._before, PAID + Q_W))

        yield from postcondition("a refill keeps the invariant", assumed, exploration, body, self._products)
        yield possible("a refill can happen", assumed, TRUE, ROUTER_SAMPLE)

    def _finish(self, worker: int, assumed: Sequence[Named]) -> Iterator[Obligation]:
        """One request of the client finishes at ``worker``."""
        mine = self._before[worker]
        rest = mine.in_flight - Poly.constant(1)
        contract = (
            *assumed,
            ("an output has between 1 and L_out tokens", between(1, OUTPUT, L_OUT)),
            ("a request is in flight there", at_least(rest, 0)),
            ("the others will yield at most L_out each", between(0, mine.outputs - OUTPUT, rest * L_OUT)),
        )
        exploration = self._explore(contract)

        def body() -> Formula:
            router = self._build(exploration)
            router.finished(self._request(exploration), worker)
            state = list(self._before)
            state[worker] = Account(mine.credit, rest, mine.outputs - OUTPUT, mine.charged + W_Q * OUTPUT)
            return self._after(router, tuple(state), PAID)

        name = f"a finish at worker {worker} keeps the invariant"
        yield from postcondition(name, contract, exploration, body, self._products)
        yield possible(f"{name}: it can happen", contract, TRUE, ROUTER_SAMPLE)
