"""How long one step of a scheduler takes while so many requests wait."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from dlpm.jsonl import JsonValue
from dlpm_engine.adapter import EngineConfig
from dlpm_engine.bench.families import MAX_OUTPUT, Families
from dlpm_engine.bench.steppers import Stepper, make_stepper
from dlpm_engine.bench.threads import torch_threads

KV_TOKENS = 400_000
MAX_RUNNING = 256
QUANTUM = 20_000

_SEED = 7
_LEAST_STEPS = 5
_NANOSECONDS_A_MICROSECOND = 1000


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: a scheduler, where its tensors are, with how many threads of torch, and its parameters."""

    engine: str
    waiting: int
    block_size: int
    threads: int = 1
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class DecisionTime:
    """Times of steps in the steady state, in microseconds.

    ``median_us``, ``mean_us`` and ``p99_us`` are processor time of the whole process, all its threads together;
    ``wall_us`` is the median by the clock on the wall. ``submit_us`` is the mean processor time to take in one new
    request; ``admissions`` the mean number of them a step, which is how many join in the steady state, too.
    """

    subject: Subject
    steps: int
    median_us: float
    mean_us: float
    p99_us: float
    wall_us: float
    submit_us: float
    admissions: float

    def with_submits_us(self) -> float:
        """Processor time of a step (median) and of taking in what it needs to keep the queue as long. O(1)."""
        return self.median_us + self.admissions * self.submit_us

    def to_json(self) -> dict[str, JsonValue]:
        """As `dlpm bench --json` writes it."""
        return {
            "engine": self.subject.engine,
            "device": self.subject.device,
            "threads": self.subject.threads,
            "waiting": self.subject.waiting,
            "block_size": self.subject.block_size,
            "steps": self.steps,
            "median_us": round(self.median_us, 1),
            "mean_us": round(self.mean_us, 1),
            "p99_us": round(self.p99_us, 1),
            "wall_us": round(self.wall_us, 1),
            "submit_us": round(self.submit_us, 1),
            "admissions_per_step": round(self.admissions, 3),
            "with_submits_us": round(self.with_submits_us(), 1),
        }


def summed_up(
    subject: Subject,
    processor_us: Sequence[float],
    wall_us: Sequence[float],
    submit_us: float = 0.0,
    admissions: float = 0.0,
) -> DecisionTime:
    """What is told of the times of all steps. O(n log n)."""
    ordered = sorted(processor_us)
    return DecisionTime(
        subject=subject,
        steps=len(ordered),
        median_us=median(ordered),
        mean_us=fmean(ordered),
        p99_us=ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
        wall_us=median(wall_us),
        submit_us=submit_us,
        admissions=admissions,
    )


def measure(subject: Subject, *, steps: int, seconds: float) -> DecisionTime:
    """Fill a queue, run until memory turns over, then time steps; what is admitted is replaced.

    At most ``steps`` steps in ``seconds`` seconds, `_LEAST_STEPS` in any case. Before them go `MAX_OUTPUT` steps: all
    that the first one admits has finished then, and steps that admit nothing, because nothing finishes, are over.

    Raises:
        InputError: there is no such device here.
    """
    config = EngineConfig(quantum=QUANTUM, kv_tokens=KV_TOKENS, block_size=subject.block_size, max_running=MAX_RUNNING)
    stepper = make_stepper(subject.engine, config, subject.device)
    with torch_threads(subject.threads):
        return _measure(subject, stepper, steps, seconds)


def _measure(subject: Subject, stepper: Stepper, steps: int, seconds: float) -> DecisionTime:
    """Time the steps of an empty scheduler once it is full."""
    requests = Families(_SEED, subject.block_size)
    _fill(stepper, requests, subject.waiting)
    for _ in range(MAX_OUTPUT):
        stepper.step()
        _fill(stepper, requests, subject.waiting)
    gc.collect()
    gc.freeze()
    processor: list[float] = []
    wall: list[float] = []
    submitting = 0.0
    admissions = 0
    started = time.monotonic()
    while len(wall) < _LEAST_STEPS or (len(wall) < steps and time.monotonic() - started < seconds):
        wall_before, before = time.perf_counter_ns(), time.process_time_ns()
        stepper.step()
        processor.append((time.process_time_ns() - before) / _NANOSECONDS_A_MICROSECOND)
        wall.append((time.perf_counter_ns() - wall_before) / _NANOSECONDS_A_MICROSECOND)
        admissions += subject.waiting - stepper.waiting()
        submitting += _fill(stepper, requests, subject.waiting)
    gc.unfreeze()
    return summed_up(subject, processor, wall, submitting / max(1, admissions), admissions / len(wall))


def _fill(stepper: Stepper, requests: Families, waiting: int) -> float:
    """Submit until ``waiting`` requests wait; returns the microseconds that took, without making the requests."""
    made = [next(requests) for _ in range(waiting - stepper.waiting())]
    before = time.process_time_ns()
    stepper.submit(made)
    return (time.process_time_ns() - before) / _NANOSECONDS_A_MICROSECOND
