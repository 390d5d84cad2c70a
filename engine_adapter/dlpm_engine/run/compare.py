"""Run policies one after the other on the same workload and engine, and gather what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from dlpm import bounds
from dlpm.batch import WorkerConfig
from dlpm.cost import CostModel
from dlpm.events import Event, EventSink
from dlpm.metrics import RunMetrics
from dlpm.policies.dlpm import DLPM
from dlpm.policies.dlpm_literal import EndlessLoopError
from dlpm.request import Workload
from dlpm.simulate import StalledError, simulate
from dlpm.timing import StepTimer
from dlpm.worker import Worker
from dlpm_engine.run.build import make_policy
from dlpm_engine.run.options import EngineOptions, PolicyChoice
from dlpm_engine.run.result import GapPoint, RunResult, amount

CURVE_POINTS = 200
"""About how often, evenly over the finished requests, a run's gap is looked at for pictures."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What all runs of a comparison have in common."""

    workload: Workload
    config: WorkerConfig
    timer: StepTimer
    cost: CostModel

    @staticmethod
    def of(workload: Workload, engine: EngineOptions) -> Setup:
        """The engine that ``engine`` describes, facing ``workload``. O(requests).

        Raises:
            InputError: an option is wrong, or a request could never fit.
        """
        return Setup(workload, engine.worker_config(workload), engine.timer(), engine.cost)


def run_policy(
    setup: Setup,
    choice: PolicyChoice,
    *,
    log: EventSink | None = None,
    full_log: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> RunResult:
    """Run the whole workload under one policy; the cost is that of `simulate` with `RunMetrics` listening.

    ``log`` is handed every event, at level `full` if ``full_log``. ``on_progress`` is told how many requests have
    finished. A policy that stops serving does not raise: the result says so in ``failure``.
    """
    metrics = RunMetrics(setup.cost)
    worker = Worker(
        setup.config,
        make_policy(choice, setup.cost),
        setup.timer,
        metrics.on_event if log is None else both_sinks(metrics.on_event, log),
        full_log=full_log,
    )
    curve = GapCurve(metrics, lambda: worker.time_us, len(setup.workload.requests))

    def progress(finished: int) -> None:
        curve.follow(finished)
        if on_progress is not None:
            on_progress(finished)

    failure = None
    started = time.perf_counter()
    try:
        simulate(setup.workload, worker, progress)
    except (StalledError, EndlessLoopError) as error:
        failure = str(error)
    summary = metrics.summary(curve_points=2)
    wall_seconds = time.perf_counter() - started
    return RunResult(
        choice=choice,
        summary=summary,
        steps=worker.step_number,
        bound=gap_bound(setup, choice),
        gap_curve=curve.ended(),
        wall_seconds=wall_seconds,
        failure=failure,
    )


def gap_bound(setup: Setup, choice: PolicyChoice) -> int | None:
    """The paper's bound on the service gap of two backlogged clients [DLPM Thm 4.1], for the policy that it is about.

    ``L_input`` is the longest input of the workload. O(requests).
    """
    if choice.quantum is None or choice.name != DLPM.name:
        return None
    longest = max(request.input_tokens for request in setup.workload.requests)
    return bounds.service_gap_as_printed(setup.cost, longest, setup.config.kv_tokens, choice.quantum)


def both_sinks(first: EventSink, second: EventSink) -> EventSink:
    """A sink that passes every event to two."""

    def sink(event: Event) -> None:
        first(event)
        second(event)

    return sink


class GapCurve:
    """Looks at the largest gap now and then while a run goes on."""

    def __init__(self, metrics: RunMetrics, clock: Callable[[], int], requests: int) -> None:
        """Follow the run whose events ``metrics`` gathers and whose time, in microseconds, ``clock`` tells."""
        self._metrics = metrics
        self._clock = clock
        self._every = max(1, requests // CURVE_POINTS)
        self._next = self._every
        self._points = [GapPoint(0, 0)]

    def follow(self, finished: int) -> None:
        """``finished`` requests have finished."""
        if finished >= self._next:
            self._next = finished + self._every
            self._look()

    def ended(self) -> tuple[GapPoint, ...]:
        """The curve, to the end of the run."""
        self._look()
        return tuple(self._points)

    def _look(self) -> None:
        """Take a point."""
        gap = amount(self._metrics.gaps_in_queue().between_backlogged)
        self._points.append(GapPoint(self._clock(), gap))
