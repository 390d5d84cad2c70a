"""Two front ends before the same workers, and tenants that each come in at one of them: whose weights hold?

After a report from a production router (ai-dynamo/dynamo, "4:1 weights came out 163:162"): deficit round robin at each
front end is fair among the tenants that it sees, and with one tenant each there is nothing to be fair about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from dlpm.batch import WorkerConfig
from dlpm.cluster import Cluster
from dlpm.cost import CostModel
from dlpm.dispatch.base import Router
from dlpm.dispatch.d2lpm import D2LPM
from dlpm.dispatch.ingress import FrontEnd, Ingress
from dlpm.dispatch.least_loaded import LeastLoaded
from dlpm.dispatch.moving import MovingD2LPM
from dlpm.dispatch.split import SplitRouter
from dlpm.events import Admit, Event, EventSink, Finish, Output
from dlpm.extensions.shared_cluster import MovableWorker, SharedCluster
from dlpm.extensions.shared_ledger import SharedDLPM, SharedLedger
from dlpm.ledger import Ledger, Quanta
from dlpm.memory import Reserving
from dlpm.policies.dlpm import DLPM
from dlpm.policies.fcfs import FCFS
from dlpm.request import ClientId, Request, Workload
from dlpm.timing import FixedStep
from dlpm.worker import Worker

GOLD = "gold"
BRONZE = "bronze"
WEIGHTS = {GOLD: 4, BRONZE: 1}
COST = CostModel(1, 2)
WORKERS = 2
SLOTS = 8
QUANTUM = 200
WORKER_QUANTUM = 800
CONFIG = WorkerConfig(kv_tokens=8 * 96, memory=Reserving(), block_size=16, max_running=SLOTS)

Place = Callable[[Request], int]


def skewed(request: Request) -> int:
    """Every tenant has a front end of its own."""
    return 0 if request.client == GOLD else 1


def even(request: Request) -> int:
    """Every other request of a tenant comes in at the other front end."""
    return int(request.id.rpartition("-")[2]) % 2


def workload(requests: int = 200) -> Workload:
    """Two tenants who both always want more: ``requests`` each, all at once, with a system prompt each."""
    made = [
        Request(
            id=f"{client}-{number}",
            client=client,
            arrival_us=0,
            input_tokens=64,
            output_tokens=16,
            max_output=16,
            blocks=(first, first + 1, first + 10 + 2 * number, first + 11 + 2 * number),
        )
        for number in range(requests)
        for client, first in ((GOLD, 0), (BRONZE, 1_000_000))
    ]
    return Workload(block_size=16, requests=tuple(made), name="two tenants, two front ends")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What each tenant had when the first of them had nothing left to do: finished requests, and weighted tokens."""

    finished: dict[ClientId, int]
    service: dict[ClientId, int]


class _Tally:
    """Counts until the first tenant has all it asked for."""

    def __init__(self, total: Workload) -> None:
        self._client = {request.id: request.client for request in total.requests}
        self._left = {client: sum(1 for owner in self._client.values() if owner == client) for client in WEIGHTS}
        self.finished = dict.fromkeys(WEIGHTS, 0)
        self.service = dict.fromkeys(WEIGHTS, 0)

    def __call__(self, event: Event) -> None:
        if not all(self._left.values()):
            return
        if isinstance(event, Admit):
            self.service[self._client[event.request]] += COST.extend(event.extend)
        elif isinstance(event, Output):
            for request, tokens in event.tokens.items():
                self.service[self._client[request]] += COST.output(tokens)
        elif isinstance(event, Finish):
            client = self._client[event.request]
            self.finished[client] += 1
            self._left[client] -= 1


def fair_front_ends(place: Place, total: Workload, log: EventSink | None = None) -> Outcome:
    """Weighted deficit round robin at two front ends with half of the slots each; workers serve as it comes."""
    tally = _Tally(total)
    sink = _both(tally, log)
    quanta = Quanta(QUANTUM, {client: QUANTUM * weight for client, weight in WEIGHTS.items()})
    front_ends = [FrontEnd(WORKERS * SLOTS // 2, quanta, COST) for _ in range(2)]
    workers = [Worker(CONFIG, FCFS(), FixedStep(10_000), sink, index=index) for index in range(WORKERS)]
    Cluster(workers, LeastLoaded(WORKERS), sink, ingress=Ingress(front_ends, place)).run(total)
    return Outcome(tally.finished, tally.service)


def fair_workers(place: Place, total: Workload, log: EventSink | None = None) -> Outcome:
    """Two D2LPM routers that know nothing of each other, and weighted DLPM at the workers."""
    tally = _Tally(total)
    sink = _both(tally, log)
    quanta = {client: QUANTUM * weight for client, weight in WEIGHTS.items()}
    worker_quanta = {client: WORKER_QUANTUM * weight for client, weight in WEIGHTS.items()}
    routers: list[Router] = [D2LPM(WORKERS, WORKER_QUANTUM, COST, worker_quanta=worker_quanta) for _ in range(2)]
    workers = [
        Worker(CONFIG, DLPM(Ledger(Quanta(QUANTUM, quanta), COST)), FixedStep(10_000), sink, index=index)
        for index in range(WORKERS)
    ]
    Cluster(workers, SplitRouter(routers, place), sink).run(total)
    return Outcome(tally.finished, tally.service)


def one_ledger(place: Place, total: Workload, log: EventSink | None = None, *, late: int = 0) -> Outcome:
    """One D2LPM with the keeper of a ledger that all workers share (E9), updates up to ``late`` late.

    The keeper sits at the router, so there is one of it behind all front ends, and ``place`` is of no consequence.
    """
    del place
    tally = _Tally(total)
    sink = _both(tally, log)
    quanta = Quanta(QUANTUM, {client: QUANTUM * weight for client, weight in WEIGHTS.items()})
    worker_quanta = {client: WORKER_QUANTUM * weight for client, weight in WEIGHTS.items()}
    ledger = SharedLedger(WORKERS, quanta, COST, late)
    workers = [
        MovableWorker(CONFIG, SharedDLPM(ledger.views[index]), FixedStep(10_000), sink, index=index)
        for index in range(WORKERS)
    ]
    router = MovingD2LPM(WORKERS, WORKER_QUANTUM, COST, worker_quanta=worker_quanta)
    SharedCluster(workers, router, ledger, sink).run(total)
    return Outcome(tally.finished, tally.service)


def _both(first: EventSink, second: EventSink | None) -> EventSink:
    """One sink for two."""

    def sink(event: Event) -> None:
        first(event)
        if second is not None:
            second(event)

    return sink


def main() -> None:
    """Print the table, for a longer run than the bundled one."""
    total = workload(800)
    print("| fairness | ingress | finished gold : bronze | service gold : bronze | ratio |")
    print("|---|---|---|---|---|")
    for name, run in (
        ("deficit round robin at the front ends", fair_front_ends),
        ("D2LPM + DLPM", fair_workers),
        ("one ledger for all workers (E9), at once", one_ledger),
        ("the same, 8 updates late", partial(one_ledger, late=8)),
    ):
        for ingress, place in (("even", even), ("skewed", skewed)):
            outcome = run(place, total)
            finished, service = outcome.finished, outcome.service
            ratio = service[GOLD] / service[BRONZE]
            print(
                f"| {name} | {ingress} | {finished[GOLD]} : {finished[BRONZE]} "
                f"| {service[GOLD]:,} : {service[BRONZE]:,} | {ratio:.2f} |"
            )


if __name__ == "__main__":
    main()
