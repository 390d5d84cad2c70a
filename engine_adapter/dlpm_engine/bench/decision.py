"""How long one step of a scheduler takes while so many requests wait."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from dlpm.jsonl import JsonValue
from dlpm.ledger import Ledger
from dlpm.policies.dlpm import DLPM
from dlpm.request import Request
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_engine.adapter import EngineConfig
from dlpm_engine.bench.families import Families

KV_TOKENS = 400_000
MAX_RUNNING = 256
QUANTUM = 20_000

_SEED = 7
_LEAST_STEPS = 5
_NANOSECONDS_A_MICROSECOND = 1000


class Stepper(Protocol):
    """A scheduler as the clock sees it."""

    def submit(self, request: Request) -> None:
        """A request joins the queue."""

    def step(self) -> None:
        """One step."""

    def waiting(self) -> int:
        """Requests in the queue."""


class ReferenceStepper:
    """The reference worker under DLPM, without an event log."""

    def __init__(self, config: EngineConfig) -> None:
        """An empty worker."""
        self._worker = Worker(config.worker(), DLPM(Ledger(config.quanta_table(), config.cost())), FixedStep(1))

    def submit(self, request: Request) -> None:
        """See `Stepper`."""
        self._worker.submit(request, 0)

    def step(self) -> None:
        """See `Stepper`."""
        self._worker.step()

    def waiting(self) -> int:
        """See `Stepper`."""
        return len(self._worker.waiting())


class TensorStepper:
    """The incremental tensor scheduler, without events."""

    def __init__(self, config: EngineConfig) -> None:
        """An empty scheduler."""
        from dlpm_engine.tensor.scheduler import TensorScheduler

        self._scheduler = TensorScheduler(config)

    def submit(self, request: Request) -> None:
        """See `Stepper`."""
        self._scheduler.submit(request)

    def step(self) -> None:
        """See `Stepper`."""
        self._scheduler.step()

    def waiting(self) -> int:
        """See `Stepper`."""
        return len(self._scheduler.queue)


STEPPERS: dict[str, Callable[[EngineConfig], Stepper]] = {"reference": ReferenceStepper, "tensor": TensorStepper}
"""By name."""


@dataclass(frozen=True, slots=True)
class DecisionTime:
    """Times of steps in the steady state, in microseconds of processor time of the one thread that runs.

    ``submit_us`` is the mean time to take in one new request; ``admissions`` the mean number of them a step.
    """

    engine: str
    waiting: int
    block_size: int
    steps: int
    median_us: float
    mean_us: float
    p99_us: float
    submit_us: float
    admissions: float

    def to_json(self) -> dict[str, JsonValue]:
        """As `dlpm bench --json` writes it."""
        return {
            "engine": self.engine,
            "waiting": self.waiting,
            "block_size": self.block_size,
            "steps": self.steps,
            "median_us": round(self.median_us, 1),
            "mean_us": round(self.mean_us, 1),
            "p99_us": round(self.p99_us, 1),
            "submit_us": round(self.submit_us, 1),
            "admissions_per_step": round(self.admissions, 3),
        }


def measure(engine: str, waiting: int, block_size: int, *, warm_steps: int, steps: int, seconds: float) -> DecisionTime:
    """Fill a queue, run until memory turns over, then time steps; what is admitted is replaced.

    At most ``steps`` steps in ``seconds`` seconds, `_LEAST_STEPS` in any case. Warming up stops after as many seconds.
    """
    config = EngineConfig(quantum=QUANTUM, kv_tokens=KV_TOKENS, block_size=block_size, max_running=MAX_RUNNING)
    stepper = STEPPERS[engine](config)
    requests = Families(_SEED, block_size)
    _fill(stepper, requests, waiting)
    started = time.monotonic()
    for _ in range(warm_steps):
        stepper.step()
        _fill(stepper, requests, waiting)
        if time.monotonic() - started > seconds:
            break
    gc.collect()
    gc.freeze()
    times: list[int] = []
    submitting = admissions = 0
    started = time.monotonic()
    while len(times) < _LEAST_STEPS or (len(times) < steps and time.monotonic() - started < seconds):
        before = time.thread_time_ns()
        stepper.step()
        times.append(time.thread_time_ns() - before)
        admissions += waiting - stepper.waiting()
        submitting += _fill(stepper, requests, waiting)
    gc.unfreeze()
    scaled = sorted(nanoseconds / _NANOSECONDS_A_MICROSECOND for nanoseconds in times)
    return DecisionTime(
        engine=engine,
        waiting=waiting,
        block_size=block_size,
        steps=len(times),
        median_us=median(scaled),
        mean_us=sum(scaled) / len(scaled),
        p99_us=scaled[min(len(scaled) - 1, len(scaled) * 99 // 100)],
        submit_us=submitting / _NANOSECONDS_A_MICROSECOND / max(1, admissions),
        admissions=admissions / len(times),
    )


def _fill(stepper: Stepper, requests: Families, waiting: int) -> int:
    """Submit until ``waiting`` requests wait; returns the nanoseconds that took, without making the requests."""
    made = [next(requests) for _ in range(waiting - stepper.waiting())]
    before = time.thread_time_ns()
    for request in made:
        stepper.submit(request)
    return time.thread_time_ns() - before
