"""Run one router and one local policy on a cluster, and gather what came of it as for one worker."""

from __future__ import annotations

import time
from collections.abc import Callable

from dlpm.cluster import Cluster
from dlpm.events import EventSink
from dlpm.metrics import RunMetrics
from dlpm.policies.dlpm_literal import EndlessLoopError
from dlpm.simulate import StalledError
from dlpm.speed import AtSpeed
from dlpm.worker import Worker
from dlpm_engine.run.build import make_policy
from dlpm_engine.run.cluster_options import ClusterOptions, make_router
from dlpm_engine.run.compare import GapCurve, Setup, both_sinks
from dlpm_engine.run.options import PolicyChoice
from dlpm_engine.run.result import RunResult


def run_cluster(
    setup: Setup,
    choice: PolicyChoice,
    options: ClusterOptions,
    *,
    log: EventSink | None = None,
    full_log: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> RunResult:
    """Run the whole workload on the cluster that ``options`` describe, behind the router of ``choice``.

    As `dlpm_engine.run.compare.run_policy` does for one worker. No bound is judged: the one for several workers
    speaks of clients that are backlogged on every one of them, which the gaps of a run do not ask for.
    """
    assert choice.dispatch is not None
    metrics = RunMetrics(setup.cost)
    sink = metrics.on_event if log is None else both_sinks(metrics.on_event, log)
    workers = [
        Worker(
            setup.config,
            make_policy(choice, setup.cost),
            AtSpeed(setup.timer, options.speeds[index]) if options.speeds else setup.timer,
            sink,
            index=index,
            full_log=full_log,
        )
        for index in range(options.workers)
    ]
    router = make_router(choice.dispatch, options.workers, setup.config, setup.cost)
    cluster = Cluster(workers, router, sink, notice_delay=options.notice_delay)
    curve = GapCurve(metrics, lambda: cluster.time_us, len(setup.workload.requests))

    def progress(finished: int) -> None:
        curve.follow(finished)
        if on_progress is not None:
            on_progress(finished)

    failure = None
    started = time.perf_counter()
    try:
        cluster.run(setup.workload, progress)
    except (StalledError, EndlessLoopError) as error:
        failure = str(error)
    summary = metrics.summary(curve_points=2)
    wall_seconds = time.perf_counter() - started
    return RunResult(
        choice=choice,
        summary=summary,
        steps=cluster.steps,
        bound=None,
        gap_curve=curve.ended(),
        wall_seconds=wall_seconds,
        failure=failure,
    )
