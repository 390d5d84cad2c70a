"""T12: the router's credit: its ceiling, the floor that it lacks as printed, and the floor under a cap.

The idea of the proof. A dispatch needs credit of at least 1 and charges the input; everything else that the requests in
flight will be charged is known in advance: at most ``L_out`` tokens each. So ``q - w_q O``, ``O`` being the output
tokens still to be charged, falls at dispatches only, and a cap on the requests in flight keeps ``O`` small. Without the
cap nothing does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from dlpm import bounds_cluster
from dlpm.cost import CostModel
from dlpm.dispatch.d2lpm import D2LPM
from dlpm_proofs.cluster_witness import ClusterSetting, replay_cluster
from dlpm_proofs.definitions import Definition, cost, define
from dlpm_proofs.routing import (
    CAP,
    PAID,
    Q_W,
    ROUTER_PARAMETERS,
    ROUTER_SAMPLE,
    Account,
    Routing,
    State,
    before,
    router_products,
)
from dlpm_proofs.routing_mutants import to_be_noticed
from dlpm_proofs.solve import Named, Obligation, claim, possible
from dlpm_proofs.terms import TRUE, Formula, Poly, absolute_at_most, all_of, at_least, at_most, between, equal
from dlpm_proofs.theorem import Theorem, Verdict
from dlpm_proofs.transitions import L_IN, L_OUT, W_Q
from dlpm_proofs.witness import Demonstration, call

WORKERS = (2, 3)

CEILING = define("ceiling", lambda symbol: bounds_cluster.router_credit_ceiling(symbol(Q_W)), ROUTER_PARAMETERS)
FLOOR = define(
    "floor",
    lambda symbol: bounds_cluster.router_credit_floor(cost(symbol), symbol(L_IN), symbol(L_OUT), symbol(CAP)),
    ROUTER_PARAMETERS,
)


def spread() -> Definition:
    """How much more one worker can be charged than another, from ceiling and floor."""
    return define(
        "spread", lambda symbol: bounds_cluster.router_spread(symbol(Q_W), symbol(FLOOR.symbol)), ROUTER_PARAMETERS
    )


def below_ceiling(state: State, paid: Poly) -> Formula:
    """``q_{i,w} <= Q^w`` at every worker; the books balance."""
    return all_of(*(at_most(account.credit, CEILING.symbol) for account in state), balanced(state, paid))


def above_floor(state: State, paid: Poly) -> Formula:
    """``q - w_q O >= floor``, with at most ``c`` requests in flight that yield at most ``L_out`` tokens each."""
    return all_of(balanced(state, paid), *(_capped(account) for account in state))


def balanced(state: State, paid: Poly) -> Formula:
    """Every worker's counter is what was paid, the same for all workers, less what was charged there."""
    return all_of(*(equal(account.credit, paid - account.charged) for account in state))


def _capped(account: Account) -> Formula:
    return all_of(
        between(0, account.in_flight, CAP),
        between(0, account.outputs, account.in_flight * L_OUT),
        at_least(account.credit - W_Q * account.outputs, FLOOR.symbol),
    )


def ceiling_obligations(router: type[D2LPM] = D2LPM) -> Iterator[Obligation]:
    """The ceiling holds at the start, and every transition keeps it."""
    yield CEILING.total
    for workers in WORKERS:
        yield claim(
            "counters start at 0, which is not above",
            (*ROUTER_PARAMETERS, CEILING.meaning),
            at_least(CEILING.symbol, 0),
        )
        yield from Routing(router, workers, below_ceiling).obligations((CEILING.meaning,))


def floor_obligations(router: type[D2LPM] = D2LPM) -> Iterator[Obligation]:
    """The capped floor holds at the start, every transition keeps it, and it bounds the spread between workers."""
    yield FLOOR.total
    yield spread().total
    hypotheses: Sequence[Named] = (CEILING.meaning, FLOOR.meaning)
    for workers in WORKERS:
        products = router_products(workers)
        start = tuple(Account(*(Poly.constant(0),) * 4) for _ in range(workers))
        yield claim(
            f"{workers} empty workers are above the floor",
            (*ROUTER_PARAMETERS, *hypotheses),
            above_floor(start, Poly.constant(0)),
            products,
        )
        yield from Routing(router, workers, above_floor).obligations(hypotheses)
        given = (
            *ROUTER_PARAMETERS,
            *hypotheses,
            spread().meaning,
            (
                "ceiling and floor hold",
                all_of(below_ceiling(before(workers), PAID), above_floor(before(workers), PAID)),
            ),
        )
        yield possible("all this can hold", given, TRUE, {**ROUTER_SAMPLE, "ceiling": 5, "floor": -18})
        first, second = before(workers)[:2]
        for account in before(workers):
            yield claim("no counter is below the floor", given, at_least(account.credit, FLOOR.symbol), products)
        yield claim(
            "what two workers are charged differs by at most Q_w - floor",
            given,
            absolute_at_most(first.charged - second.charged, spread().symbol),
            products,
        )


# -- replays -----------------------------------------------------------------------------------------------------------

IN_FLIGHT = (4, 16, 64, 256)
COST = CostModel(1, 2)


def _burst(requests: int) -> Demonstration:
    """Many requests of one client, all in flight before the first finishes."""
    setting = ClusterSetting(kv_tokens=40, quantum=10, router="d2lpm", worker_quantum=4, step_us=(1, 1))
    run, router = replay_cluster(setting, [call(f"r{k}", "f", [k], 4) for k in range(requests)], f"burst-{requests}")
    lowest = min(router.lowest.values())
    story = (
        f"Two workers, weights 1 and 2, Q^w = 4. {requests} requests with 1 input and 4 output tokens arrive at once.",
        f"Each dispatch charges 1, and refills when no worker has credit: every request is sent. {requests // 2}"
        " requests finish at each worker, and each is then charged 8 more.",
        f"The counter falls to {lowest}.",
    )
    # Each worker gets half of them: charges 1 each, paid 4 whenever it is spent; then 8 for each that finishes.
    half = requests // 2
    rounds = -(-half // 4)
    expected = 4 * rounds - half - 8 * half
    return Demonstration(f"{requests} requests in flight: counter {lowest}", story, lowest == expected, run)


def no_floor() -> tuple[Demonstration, ...]:
    """Twice the requests in flight, twice as deep."""
    return tuple(_burst(requests) for requests in IN_FLIGHT)


def floor_reached() -> tuple[Demonstration, ...]:
    """Runs in which the counter ends exactly at the floor of their cap."""
    return tuple(_deepest(*numbers) for numbers in ((1, 5, 6), (2, 5, 6), (3, 5, 6), (5, 9, 7)))


def _deepest(cap: int, longest: int, most: int) -> Demonstration:
    """``cap`` requests of one prefix, the last let through by a credit of exactly 1."""
    quantum = cap
    setting = ClusterSetting(kv_tokens=1_000, quantum=1_000, router="d2lpm", worker_quantum=quantum, step_us=(1, 1))
    # The first goes to worker 0, and the others follow its prefix: c - 1 inputs of one token spend Q^w - 1.
    requests = [call(f"r{k}", "f", [1], most) for k in range(cap - 1)]
    requests.append(call(f"r{cap}", "f", [1, *range(2, longest + 1)], most))
    run, router = replay_cluster(setting, requests, f"cap-{cap}")
    floor = bounds_cluster.router_credit_floor(COST, longest, most, cap)
    lowest = min(router.lowest.values())
    story = (
        f"Q^w = {quantum}; {cap - 1} requests of one token leave a credit of 1 at worker 0; one of {longest} tokens"
        " with the same prefix follows them.",
        f"When all {cap} have yielded {most} tokens, the counter is {lowest}; the floor is {floor}.",
    )
    reached = lowest == floor and router.most_in_flight == cap
    return Demonstration(f"the floor {floor} of cap {cap} is reached", story, reached, run)


T12_CEILING = Theorem(
    id="T12/ceiling",
    title="Router credit: ceiling",
    source="[DLPM Alg. 2 ll. 3-8]",
    statement="A router's counter of a client at a worker never exceeds Q^w; all workers' counters are paid alike.",
    hypotheses=("weights and worker quantum are positive",),
    expected=Verdict.PROVED,
    checked="An inductive invariant of dispatch, refill and finish with 2 and 3 workers; a bystander stays put.",
    argued="More workers: each is asked and paid alone, so any two are two of two. Many refills come one by one.",
    obligations=ceiling_obligations,
    mutants=to_be_noticed(ceiling_obligations, "refill-with-credit", "refill-of-one-worker", "charge-everybody"),
)

T12_PRINTED = Theorem(
    id="T12/floor-as-printed",
    title="Router credit: a floor",
    source="[DLPM Alg. 2 ll. 16, 22]",
    statement="A router's counter has a lower bound that depends on the parameters only.",
    hypotheses=("Algorithm 2 as printed: nothing limits how many requests are dispatched",),
    expected=Verdict.REFUTED,
    checked="Replayed bursts: k requests in flight at two workers take the counter below -3 k.",
    argued="The same for every k: a request in flight at a worker costs 1 when it is sent and 8 when it finishes.",
    obligations=tuple,
    demonstrations=no_floor,
)

T12_FLOOR = Theorem(
    id="T12/floor-capped",
    title="Router credit: floor under a cap on requests in flight",
    source="ours, for [DLPM Alg. 2]",
    statement="With at most c requests of a client in flight at a worker, q_{i,w} >= 1 - w_e L_in - c w_q L_out; any"
    " two workers are charged alike up to Q^w minus that.",
    hypotheses=("a client has at most c requests dispatched to one worker and not finished", "outputs end at L_out"),
    expected=Verdict.PROVED,
    checked="q - w_q O >= floor is an inductive invariant, O being output tokens still to be charged; 2 and 3 workers.",
    argued="As for T12/ceiling.",
    obligations=floor_obligations,
    demonstrations=floor_reached,
    mutants=to_be_noticed(
        partial(floor_obligations), "credit-at-zero", "sticky", "double-charge", "free-outputs", "charge-first-worker"
    ),
)
