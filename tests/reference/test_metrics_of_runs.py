"""The metrics of real runs of the reference worker: they agree with its ledger, and stay within the proven bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dlpm.batch import WorkerConfig
from dlpm.bounds import deficit_floor, service_gap, tight_unit
from dlpm.cost import CostModel
from dlpm.events import Event, Refill
from dlpm.ledger import Ledger, Quanta
from dlpm.memory import Reserving
from dlpm.metrics import RunMetrics
from dlpm.policies.dlpm import DLPM
from dlpm.policies.fcfs import FCFS
from dlpm.request import Request, Workload
from dlpm.simulate import simulate
from dlpm.timing import FixedStep, preset
from dlpm.worker import Worker

COST = CostModel()
KV_TOKENS = 40


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Up to a dozen requests of three clients with many shared prefixes, most of them sent close together."""
    requests = []
    for index in range(draw(st.integers(min_value=1, max_value=12))):
        prompt = tuple(draw(st.lists(st.integers(min_value=0, max_value=1), min_size=1, max_size=12)))
        output = draw(st.integers(min_value=1, max_value=6))
        requests.append(
            Request(
                id=f"r{index}",
                client=draw(st.sampled_from("ABC")),
                arrival_us=draw(st.integers(min_value=0, max_value=60)),
                input_tokens=len(prompt),
                output_tokens=output,
                max_output=draw(st.integers(min_value=output, max_value=8)),
                prompt=prompt,
            )
        )
    return Workload(block_size=1, requests=tuple(requests))


@given(workload=workloads(), quantum=st.integers(min_value=1, max_value=20))
def test_under_dlpm_the_gaps_stay_within_the_bound_and_service_is_what_the_ledger_paid(
    workload: Workload, quantum: int
) -> None:
    metrics = RunMetrics(COST)
    paid: dict[str, int] = {}

    def watch(event: Event) -> None:
        metrics.on_event(event)
        if isinstance(event, Refill):
            for client in event.deficits:
                paid[client] = paid.get(client, 0) + quantum

    ledger = Ledger(Quanta(quantum), COST)
    worker = Worker(WorkerConfig(KV_TOKENS, Reserving()), DLPM(ledger), FixedStep(7), watch)
    assert simulate(workload, worker) == len(workload.requests)
    summary = metrics.summary()

    assert summary.finished == summary.requests == len(workload.requests)
    for name, client in summary.clients.items():
        assert client.service == paid[name] - ledger.deficits[name]
        assert client.perceived_service == sum(
            COST.service(request.input_tokens, request.output_tokens)
            for request in workload.requests
            if request.client == name
        )

    longest = max(request.input_tokens for request in workload.requests)
    bound = service_gap(quantum, deficit_floor(tight_unit(COST, longest, KV_TOKENS)))
    assert summary.gaps_at_refills is not None
    for gaps in (summary.gaps_in_queue, summary.gaps_at_refills):
        for gap in (gaps.between_backlogged, gaps.over_backlogged):
            assert gap is None or gap.amount <= bound


@given(workload=workloads())
def test_latency_counts_from_the_moment_of_sending_in_a_real_run(workload: Workload) -> None:
    """Each forward step takes 7 us: a request is there for at least as many as it has output tokens."""
    metrics = RunMetrics(COST)
    simulate(workload, Worker(WorkerConfig(KV_TOKENS, Reserving()), FCFS(), FixedStep(7), metrics.on_event))
    summary = metrics.summary()
    assert summary.gaps_at_refills is None, "first come, first served never refills"
    assert summary.start_us == min(request.arrival_us for request in workload.requests)
    assert summary.ttft is not None
    assert summary.latency is not None
    assert summary.ttft.count == summary.latency.count == len(workload.requests)
    for name, client in summary.clients.items():
        sent = [request for request in workload.requests if request.client == name]
        assert client.ttft_us[0] >= 7
        assert client.latency_us[-1] >= 7 * max(request.output_tokens for request in sent)


def test_a_flood_ahead_in_the_queue_opens_a_gap_under_fcfs_that_dlpm_keeps_within_its_bound() -> None:
    """A's 50 long prompts stand before B's 50, and each costs 26 + 2 * 2 = 30; memory holds one at a time.

    First come, first served: when A's last leaves the queue, A has had 49 * 30 of service and B nothing.
    """
    requests = tuple(
        Request(
            id=f"{client}{index}",
            client=client,
            arrival_us=0,
            input_tokens=26,
            output_tokens=2,
            max_output=2,
            prompt=tuple(range(start + 26 * index, start + 26 * index + 26)),
        )
        for client, start in (("A", 0), ("B", 10_000))
        for index in range(50)
    )
    workload = Workload(block_size=1, requests=requests)

    def largest_gap(policy: FCFS | DLPM) -> int:
        metrics = RunMetrics(COST)
        simulate(workload, Worker(WorkerConfig(KV_TOKENS, Reserving()), policy, preset("a10g"), metrics.on_event))
        gap = metrics.summary().gaps_in_queue.between_backlogged
        return gap.amount if gap else 0

    quantum = 10
    bound = service_gap(quantum, deficit_floor(tight_unit(COST, 26, KV_TOKENS)))
    assert largest_gap(FCFS()) == 49 * 30
    assert largest_gap(DLPM(Ledger(Quanta(quantum), COST))) <= bound < 49 * 30
