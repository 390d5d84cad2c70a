"""How many steps a second the batched scheduler takes, all instances together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from dlpm.jsonl import JsonValue
from dlpm_engine.bench.threads import torch_threads
from dlpm_engine.differential.case import Case
from dlpm_engine.differential.generate import PROFILES, from_shape

if TYPE_CHECKING:
    import torch

    from dlpm_engine.tensor.batched.scheduler import BatchedScheduler

ALONE = "one by one"
REQUESTS = 12
LEAST_CASES = 64
_SEED = 11
_DISTINCT = 256

# Bytes a second that vendors state for a device's memory; shares are given for these alone.
_BANDWIDTH = {"H200": 4_800_000_000_000, "H100": 3_350_000_000_000, "A100": 2_039_000_000_000}


@dataclass(frozen=True, slots=True)
class Throughput:
    """Steps of all instances together, until the last has nothing left to do.

    ``means`` is how a step is taken: by tensor operations, by a kernel, or, without a device, one instance after the
    other on the incremental scheduler. ``instance_steps`` counts only steps of instances that still had work.
    ``seconds`` are by the clock on the wall, ``processor_seconds`` those of all threads of the process. ``state_bytes``
    is the size of all tensors: the least that a step must move; ``bandwidth_share`` is what of the device's memory
    bandwidth that least takes.
    """

    device: str
    means: str
    threads: int
    instances: int
    steps: int
    instance_steps: int
    seconds: float
    processor_seconds: float
    state_bytes: int
    bandwidth_share: float | None

    def to_json(self) -> dict[str, JsonValue]:
        """As `dlpm bench --json` writes it."""
        return {
            "device": self.device,
            "means": self.means,
            "threads": self.threads,
            "instances": self.instances,
            "steps": self.steps,
            "instance_steps": self.instance_steps,
            "seconds": round(self.seconds, 4),
            "processor_seconds": round(self.processor_seconds, 4),
            "instance_steps_per_s": round(self.instance_steps / self.seconds, 1),
            "state_bytes": self.state_bytes,
            "bandwidth_share": self.bandwidth_share,
        }


def measure_batched(instances: int, device_name: str, means: str, threads: int = 1) -> Throughput:
    """Run cases of 12 requests each, all submitted at the start, to their end: ``instances`` of them at once.

    Where those are few, groups of as many follow one another until `LEAST_CASES` have run. ``means`` is `OPERATIONS`,
    `KERNEL`, or `ALONE`: then the incremental scheduler runs them one after the other. A first group goes before,
    untimed, where a device is to be warm and kernels are to be compiled. ``threads`` are those that torch may use.

    Raises:
        InputError: there is no such device here, or no Triton.
    """
    from dlpm_engine.tensor.batched.engine import CPU, torch_device

    groups = -(-LEAST_CASES // instances)
    cases = _cases(groups * instances)
    if means == ALONE:
        return _measure_alone(cases)
    device = torch_device(device_name)
    if device.type != CPU:
        _run(cases[:instances], device, means)
    with torch_threads(threads):
        runs = [_run(cases[first : first + instances], device, means) for first in range(0, len(cases), instances)]
    seconds, processor_seconds = sum(run.seconds for run in runs), sum(run.processor_seconds for run in runs)
    moved = sum(run.state_bytes * run.steps for run in runs)
    peak = _peak(device)
    return Throughput(
        device=device_name,
        means=means,
        threads=threads,
        instances=instances,
        steps=sum(run.steps for run in runs),
        instance_steps=sum(run.instance_steps for run in runs),
        seconds=seconds,
        processor_seconds=processor_seconds,
        state_bytes=max(run.state_bytes for run in runs),
        bandwidth_share=None if peak is None else moved / seconds / peak,
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """One group of instances, from its first step to its last."""

    steps: int
    instance_steps: int
    seconds: float
    processor_seconds: float
    state_bytes: int


def _run(cases: list[Case], device: torch.device, means: str) -> _Run:
    """Step one instance a case until none has work."""
    from dlpm_engine.tensor.batched.engine import batched_scheduler
    from dlpm_engine.tensor.batched.scheduler import DONE

    scheduler = batched_scheduler([case.config for case in cases], device, means)
    scheduler.submit([(place, request) for place, case in enumerate(cases) for request in case.requests])
    steps = instance_steps = 0
    clock = _clock(device)
    started, before = clock(), time.process_time()
    while unfinished := int(((scheduler.phase != DONE) & (scheduler.rank > 0)).any(1).sum()):
        scheduler.step()
        steps += 1
        instance_steps += unfinished
    seconds, processor_seconds = clock() - started, time.process_time() - before
    return _Run(steps, instance_steps, seconds, processor_seconds, _state_bytes(scheduler))


def _peak(device: torch.device) -> int | None:
    """The memory bandwidth of a device in bytes a second, where it is known."""
    import torch

    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((rate for model, rate in _BANDWIDTH.items() if model in name), None)


def _measure_alone(cases: list[Case]) -> Throughput:
    """The same with one incremental scheduler a case."""
    from dlpm_engine.tensor.scheduler import TensorScheduler

    schedulers = [TensorScheduler(case.config) for case in cases]
    for scheduler, case in zip(schedulers, cases, strict=True):
        for request in case.requests:
            scheduler.submit(request)
    instance_steps = 0
    started, before = time.perf_counter(), time.process_time()
    for scheduler in schedulers:
        while len(scheduler.queue) or len(scheduler.batch):
            scheduler.step()
            instance_steps += 1
    seconds, processor_seconds = time.perf_counter() - started, time.process_time() - before
    return Throughput("cpu", ALONE, 1, len(cases), 0, instance_steps, seconds, processor_seconds, 0, None)


def _cases(instances: int) -> list[Case]:
    """Cases of equal size, all requests at once and none of them refused; drawn with a seed, and repeated."""
    shape = replace(PROFILES["mixed"], requests=(REQUESTS, REQUESTS), span=(0, 0), parents=0.0)
    distinct: list[Case] = []
    draw = Random(_SEED)
    while len(distinct) < min(instances, _DISTINCT):
        case = from_shape(shape, draw, "mixed")
        if all(each.input_tokens + each.max_output <= case.config.kv_tokens for each in case.requests):
            distinct.append(case)
    return [distinct[place % len(distinct)] for place in range(instances)]


def _clock(device: torch.device) -> Callable[[], float]:
    """A clock that waits for the device."""
    import torch

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def _state_bytes(scheduler: BatchedScheduler) -> int:
    """Bytes of all tensors of a scheduler."""
    import torch

    parts = (scheduler, scheduler.caches, scheduler.layout)
    tensors = [value for part in parts for value in vars(part).values() if isinstance(value, torch.Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
