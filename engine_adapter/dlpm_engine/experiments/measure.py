"""One run of a cluster, and the numbers that the paper's figures show of it [DLPM §6.1, Metrics]."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from dlpm.cluster import Cluster
from dlpm.cost import CostModel
from dlpm.events import Event, Finish
from dlpm.metrics import RunMetrics
from dlpm.request import ClientId, RequestId, Workload
from dlpm.summary import MICROSECONDS, percentile, ttft_of
from dlpm.worker import Worker
from dlpm.workload.synthetic import HEAVY
from dlpm_engine.run.build import make_policy
from dlpm_engine.run.cluster_options import make_router
from dlpm_engine.run.options import EngineOptions, PolicyChoice

COST = CostModel(1, 2)
"""The weights of the paper's evaluation [DLPM §6.1]."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run gave.

    Attributes:
        service_rate: weighted input and output tokens a second, as clients see it [DLPM §6.1].
        jain: Jain index of that service while all clients were active; ``None`` if they never were together.
        hit_rate: share of prompt tokens that were cached.
        p50_s: mean over the well-behaved clients of their median latency in seconds.
        p99_s: the same of the 99th percentile.
        seconds: simulated.
        requests: how many finished.
        cpu_seconds: processor time of the simulation.
    """

    service_rate: float
    jain: float | None
    hit_rate: float
    p50_s: float
    p99_s: float
    seconds: float
    requests: int
    cpu_seconds: float


def measure(
    workload: Workload, engine: EngineOptions, choice: PolicyChoice, workers: int, *, first_tokens: bool = False
) -> Measured:
    """Run ``workload`` on ``workers`` equal workers behind the router of ``choice``.

    Latency is that of whole programs, from the arrival of the first call to the finish of the last [DLPM §6.1], or with
    ``first_tokens`` the time to first token of requests. The well-behaved are all clients but `HEAVY`.
    """
    assert choice.dispatch is not None
    metrics = RunMetrics(engine.cost, gap_clients=0)
    finished_us: dict[RequestId, int] = {}

    def sink(event: Event) -> None:
        metrics.on_event(event)
        if isinstance(event, Finish) and event.time_us is not None:
            finished_us[event.request] = event.time_us

    config = engine.worker_config(workload)
    timer = engine.timer()
    replicas = [Worker(config, make_policy(choice, engine.cost), timer, sink, index=index) for index in range(workers)]
    cluster = Cluster(replicas, make_router(choice.dispatch, workers, config, engine.cost), sink)
    started = time.process_time()
    cluster.run(workload)
    cpu_seconds = time.process_time() - started
    summary = metrics.summary(curve_points=2)
    behaved = [name for name in summary.clients if name != HEAVY]
    if first_tokens:
        latencies = [[ttft.p50, ttft.p99] for ttft in (ttft_of(summary, [name]) for name in behaved) if ttft]
    else:
        latencies = [program_latency(workload, finished_us, name) for name in behaved]
    return Measured(
        service_rate=float(summary.service_rate or 0),
        jain=None if summary.jain is None else float(summary.jain),
        hit_rate=float(summary.hit_rate or 0),
        p50_s=_mean(p50 for p50, _ in latencies) / MICROSECONDS,
        p99_s=_mean(p99 for _, p99 in latencies) / MICROSECONDS,
        seconds=(summary.duration_us or 0) / MICROSECONDS,
        requests=summary.finished,
        cpu_seconds=cpu_seconds,
    )


def program_latency(workload: Workload, finished_us: dict[RequestId, int], client: ClientId) -> list[int]:
    """Median and 99th percentile, in microseconds, of how long the programs of ``client`` took. O(requests log).

    The calls of the program ``name`` are ``name.0``, ``name.1``, ... (`dlpm.workload.programs`).
    """
    started: dict[str, int] = {}
    ended: dict[str, int] = {}
    for request in workload.requests:
        if request.client == client:
            program = request.id.rpartition(".")[0]
            started.setdefault(program, request.arrival_us)
            ended[program] = max(ended.get(program, 0), finished_us[request.id])
    latencies = sorted(ended[program] - start for program, start in started.items())
    return [percentile(latencies, 50), percentile(latencies, 99)]


def _mean(values: Iterable[int]) -> float:
    """The mean of one value or more."""
    listed = list(values)
    return sum(listed) / len(listed)
