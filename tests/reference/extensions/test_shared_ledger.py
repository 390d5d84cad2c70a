"""The ledger that workers share, against a naive model that remembers every charge and every payment."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dlpm.batch import WorkerConfig
from dlpm.cluster import Cluster
from dlpm.cost import CostModel
from dlpm.dispatch.d2lpm import D2LPM
from dlpm.dispatch.moving import MovingD2LPM
from dlpm.errors import InputError
from dlpm.events import Event
from dlpm.extensions.shared_cluster import MovableWorker, SharedCluster
from dlpm.extensions.shared_ledger import SharedDLPM, SharedLedger
from dlpm.ledger import Ledger, Quanta
from dlpm.memory import Optimistic, Reserving
from dlpm.policies.dlpm import DLPM
from dlpm.request import Request, Workload
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm.workload.fuzz import random_workload

COST = CostModel(1, 2)
CLIENTS = ("f", "g", "h")
WORKERS = 3
LATE = 2
QUANTUM = 7


class SharedLedgerAgainstNaive(RuleBasedStateMachine):
    """Whatever workers charge and the keeper pays, everybody knows exactly what has been delivered to them."""

    def __init__(self) -> None:
        """Nothing happened yet."""
        super().__init__()
        self.shared = SharedLedger(WORKERS, Quanta(QUANTUM), COST, LATE)
        # For each worker, its updates in order: charges, and the client whose request was admitted; how many are out.
        self.sent: list[list[tuple[dict[str, int], str | None]]] = [[] for _ in range(WORKERS)]
        self.delivered = [0] * WORKERS
        self.paid = dict.fromkeys(CLIENTS, 0)
        self.arrived: list[str] = []

    def _publish(self, worker: int, charges: dict[str, int], admitted: str | None) -> None:
        self.sent[worker].append((charges, admitted))
        self.delivered[worker] = max(self.delivered[worker], len(self.sent[worker]) - LATE)

    def _charged(self, worker: int, client: str, upto: int) -> int:
        return sum(charges.get(client, 0) for charges, _ in self.sent[worker][:upto])

    def _known(self, client: str) -> int:
        """The keeper's counter: all payments less all deliveries."""
        return self.paid[client] - sum(self._charged(w, client, self.delivered[w]) for w in range(WORKERS))

    def _queued(self) -> set[str]:
        """Clients with more arrivals than admissions delivered."""
        heard = [who for w in range(WORKERS) for _, who in self.sent[w][: self.delivered[w]] if who]
        return {client for client in CLIENTS if self.arrived.count(client) > heard.count(client)}

    def _waiting(self, client: str) -> int:
        """Arrivals less admissions, delivered or not."""
        return self.arrived.count(client) - sum(who == client for sent in self.sent for _, who in sent)

    @rule(client=st.sampled_from(CLIENTS))
    def arrive(self, client: str) -> None:
        """A request reaches the router."""
        self.shared.arrived(client)
        self.arrived.append(client)

    @rule(worker=st.integers(0, WORKERS - 1), client=st.sampled_from(CLIENTS), tokens=st.integers(1, 9))
    def admit(self, worker: int, client: str, tokens: int) -> None:
        """A worker lets in a waiting request, if its gate is open."""
        view = self.shared.views[worker]
        view.register(client)
        if self._waiting(client) and view.has_credit(client):
            view.charge_extend(client, tokens)
            self._publish(worker, {client: tokens}, client)

    @rule(worker=st.integers(0, WORKERS - 1), tokens=st.dictionaries(st.sampled_from(CLIENTS), st.integers(1, 4)))
    def forward(self, worker: int, tokens: dict[str, int]) -> None:
        """A forward step of clients that the worker knows."""
        known = {client: n for client, n in tokens.items() if client in self.shared.views[worker].deficits}
        known = {client: n for client, n in known.items() if client in self.arrived}
        self.shared.views[worker].charge_outputs(known)
        self._publish(worker, {client: 2 * n for client, n in known.items()}, None)

    @rule(worker=st.integers(0, WORKERS - 1))
    def rest(self, worker: int) -> None:
        """A worker comes to rest."""
        self.shared.flush(worker)
        self.delivered[worker] = len(self.sent[worker])

    @rule(worker=st.integers(0, WORKERS - 1))
    def ask(self, worker: int) -> None:
        """A worker asks for a refill."""
        due = not any(self._known(client) > 0 for client in self._queued())
        expected = {client for client in set(self.arrived) if due and self._known(client) <= 0}
        for client in expected:
            self.paid[client] += QUANTUM
        assert set(self.shared.views[worker].check_refill(())) == expected

    @invariant()
    def everybody_knows_what_was_delivered(self) -> None:
        """Views and keeper, recomputed from all that ever happened."""
        for client in CLIENTS:
            assert self.shared.keeper.deficits.get(client, 0) == self._known(client)
            for worker, view in enumerate(self.shared.views):
                others = sum(self._charged(w, client, self.delivered[w]) for w in range(WORKERS) if w != worker)
                own = self._charged(worker, client, len(self.sent[worker]))
                assert view.deficits.get(client, 0) == self.paid[client] - own - others

    @invariant()
    def nobody_lacks_more_than_the_agreed_number_of_updates(self) -> None:
        """At most ``late`` updates of each worker are on their way."""
        for worker in range(WORKERS):
            assert len(self.shared.on_the_way(worker)) == len(self.sent[worker]) - self.delivered[worker] <= LATE

    @invariant()
    def no_true_counter_exceeds_the_quantum(self) -> None:
        """Payments less all charges, delivered or not."""
        for client in CLIENTS:
            charged = sum(self._charged(w, client, len(self.sent[w])) for w in range(WORKERS))
            assert self.paid[client] - charged <= QUANTUM


TestSharedLedgerAgainstNaive = SharedLedgerAgainstNaive.TestCase


def run_shared(
    workload: Workload, workers: int, late: int, *, moving: bool = True, tokens: int = 64, worker_quantum: int = 5
) -> tuple[list[Event], SharedCluster, int]:
    """A run of equal workers that share a ledger."""
    events: list[Event] = []
    ledger = SharedLedger(workers, Quanta(QUANTUM), COST, late)
    config = WorkerConfig(tokens, Reserving(), block_size=workload.block_size)
    replicas = [
        MovableWorker(config, SharedDLPM(ledger.views[index]), FixedStep(1 + index), events.append, index=index)
        for index in range(workers)
    ]
    cluster = SharedCluster(replicas, MovingD2LPM(workers, worker_quantum, COST), ledger, events.append, moving=moving)
    return events, cluster, cluster.run(workload)


@given(seed=st.integers(0, 10_000))
def test_one_worker_with_nothing_late_is_plain_dlpm(seed: int) -> None:
    workload = random_workload(Random(seed), span_us=9)
    tokens = max(request.input_tokens + request.max_output for request in workload.requests) + 8
    plain: list[Event] = []
    config = WorkerConfig(tokens, Reserving(), block_size=workload.block_size)
    worker = Worker(config, DLPM(Ledger(Quanta(QUANTUM), COST)), FixedStep(1), plain.append, index=0)
    Cluster([worker], D2LPM(1, 5, COST), plain.append).run(workload)
    shared, cluster, _ = run_shared(workload, 1, 0, tokens=tokens)
    assert [replace(event, step=0) for event in shared] == [replace(event, step=0) for event in plain]
    assert cluster.moves == 0


@given(seed=st.integers(0, 10_000), workers=st.integers(2, 4), late=st.integers(0, 3), moving=st.booleans())
def test_every_request_finishes_and_everybody_ends_with_the_same_counters(
    seed: int, workers: int, late: int, moving: bool
) -> None:
    workload = random_workload(Random(seed), span_us=9)
    tokens = max(request.input_tokens + request.max_output for request in workload.requests) + 8
    _, cluster, finished = run_shared(workload, workers, late, moving=moving, tokens=tokens)
    assert finished == len(workload.requests)
    ledger = cluster.ledger
    for view in ledger.views:
        assert {client: value for client, value in view.deficits.items() if value} == {
            client: value for client, value in ledger.keeper.deficits.items() if value
        }


@pytest.mark.parametrize("moving", [True, False])
def test_a_worker_without_credited_requests_takes_one_over_unless_requests_stay(moving: bool) -> None:
    # All prompts begin alike, so the router sends them to one worker, whose memory holds one at a time.
    requests = tuple(Request(f"h{k}", "h", 0, 3, 4, 4, prompt=(1, 2, k + 3)) for k in range(4))
    _, cluster, finished = run_shared(Workload(1, requests), 2, 0, tokens=8, moving=moving, worker_quantum=1_000)
    assert finished == 4
    assert (cluster.moves > 0) == moving


def test_a_shared_ledger_refuses_memory_that_preempts() -> None:
    ledger = SharedLedger(1, Quanta(5), COST, 0)
    worker = MovableWorker(WorkerConfig(8, Optimistic()), SharedDLPM(ledger.views[0]), FixedStep(1), index=0)
    with pytest.raises(InputError, match="reserving"):
        SharedCluster([worker], MovingD2LPM(1, 5, COST), ledger)


def test_updates_cannot_be_early() -> None:
    with pytest.raises(InputError, match=">= 0"):
        SharedLedger(2, Quanta(5), COST, -1)
