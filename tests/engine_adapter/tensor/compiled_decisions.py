"""The kernel of the batched scheduler, as it is compiled for a launch, leaves every tensor as tensor operations do.

Run by `test_compiled_kernel.py`, in a process where kernels are compiled.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
import torch
import triton

from dlpm.request import Request
from dlpm_engine.adapter import EngineConfig
from dlpm_engine.differential.case import Case
from dlpm_engine.differential.corpus import corpus
from dlpm_engine.differential.generate import PROFILES, from_shape
from dlpm_engine.tensor.batched.kernel import entry
from dlpm_engine.tensor.batched.kernel import scheduler as kernel_scheduler
from dlpm_engine.tensor.batched.kernel.dialect import interpreted
from dlpm_engine.tensor.batched.kernel.scheduler import KernelScheduler
from dlpm_engine.tensor.batched.scheduler import BatchedScheduler
from dlpm_engine.tensor.batched.view import View
from tests.engine_adapter.tensor.absent_gpu import AbsentGPU
from tests.engine_adapter.tensor.test_kernel import SHORT, loaded, tensors
from tests.engine_adapter.tensor.test_kernel_limits import LANES, beyond_a_block
from tests.engine_adapter.tensor.ttir_launch import InPlaceOfLaunch

assert not interpreted()
triton.runtime.driver.set_active(AbsentGPU(90))

CPU = torch.device("cpu")
EVERYTHING = {"Refill", "Admit", "Preempt", "Evict", "Output", "Finish"}
# One for all tests, as a process has one kernel: what it was compiled for once, it is not compiled for again.
LAUNCH = InPlaceOfLaunch(entry.step, seed=0)


@pytest.fixture(autouse=True)
def launch(monkeypatch: pytest.MonkeyPatch) -> InPlaceOfLaunch:
    """The compiled kernel is executed in place of every launch, on the CPU."""
    monkeypatch.setattr(entry, "step", LAUNCH)
    monkeypatch.setattr(kernel_scheduler, "interpreted", lambda: True)
    LAUNCH.launches = LAUNCH.accesses = LAUNCH.fences = 0
    return LAUNCH


def both(configs: list[EngineConfig]) -> tuple[BatchedScheduler, KernelScheduler]:
    """A scheduler by tensor operations, and one by the kernel."""
    return BatchedScheduler(configs, CPU), KernelScheduler(configs, CPU)


def after_a_step(by_operations: BatchedScheduler, by_kernel: KernelScheduler, number: int) -> Counter[str]:
    """A step of both: all tensors and events are equal after it. Counts the kinds of events."""
    by_operations.step()
    with torch.inference_mode():
        # What a step finds in its working space is nothing to rely on.
        for space in (by_kernel._need, by_kernel._frozen_order, by_kernel._counts):
            space.random_()
    by_kernel.step()
    expected, found = tensors(by_operations), tensors(by_kernel)
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    happened: Counter[str] = Counter()
    for place in range(len(by_operations.layout)):
        events = View(by_operations).events(place, number)
        assert View(by_kernel).events(place, number) == events
        happened.update(type(event).__name__ for event in events)
    return happened


def drawn(profiles: list[str], seed: int, requests: int) -> list[Case]:
    """A case of each profile, of so many requests at most."""
    return [
        from_shape(replace(PROFILES[name], requests=(1, requests)), Random(f"{name} {seed}"), name) for name in profiles
    ]


def test_the_compiled_kernel_decides_the_corpus_as_operations_do(launch: InPlaceOfLaunch) -> None:
    cases = [corpus()[name] for name in SHORT]
    by_operations, by_kernel = both([case.config for case in cases])
    loaded(by_operations, cases)
    loaded(by_kernel, cases)
    happened: Counter[str] = Counter()
    for number in range(10):
        happened += after_a_step(by_operations, by_kernel, number)
    assert set(happened) == EVERYTHING
    assert launch.launches >= 10
    assert launch.accesses > 10_000
    assert launch.fences > 1_000


@pytest.mark.parametrize(("seed", "spare"), [(1, 64), (2, 3), (3, 8), (4, 4)])
def test_the_compiled_kernel_decides_what_is_submitted_between_steps_as_operations_do(
    launch: InPlaceOfLaunch, monkeypatch: pytest.MonkeyPatch, seed: int, spare: int
) -> None:
    monkeypatch.setattr(kernel_scheduler, "_SPARE_EVENTS", spare)
    draw = Random(seed)
    cases = drawn(list(PROFILES), seed, 12)
    by_operations, by_kernel = both([case.config for case in cases])
    waiting = [(place, request) for place, case in enumerate(cases) for request in case.requests]
    draw.shuffle(waiting)
    steps = 16
    happened: Counter[str] = Counter()
    for number in range(steps):
        now = len(waiting) // 3 if number < steps - 1 else len(waiting)
        arriving = [each for each in waiting[:now] if fits(by_operations, *each)]
        waiting = waiting[now:]
        by_operations.submit(arriving)
        by_kernel.submit(arriving)
        happened += after_a_step(by_operations, by_kernel, number)
    assert set(happened) == EVERYTHING
    assert happened.total() > 300
    # Where the tape is tight, the rest of a step follows in another launch.
    assert (launch.launches > steps) == (spare < 64)


def fits(scheduler: BatchedScheduler, place: int, request: Request) -> bool:
    """Whether an instance takes a request."""
    return request.input_tokens + request.max_output <= scheduler.parameters.configs[place].kv_tokens


def test_what_one_block_does_not_hold_and_what_one_holds_easily(
    launch: InPlaceOfLaunch, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, requests = beyond_a_block()
    kinds: dict[int, set[str]] = {}
    for block in (LANES, 256):
        monkeypatch.setattr(kernel_scheduler, "block_of", lambda slots, block=block: block)
        by_operations, by_kernel = both([config])
        for scheduler in (by_operations, by_kernel):
            scheduler.submit([(0, request) for request in requests])
        happened: Counter[str] = Counter()
        for number in range(5):
            happened += after_a_step(by_operations, by_kernel, number)
        kinds[block] = set(happened)
        assert min(by_kernel.phase.shape[1], by_kernel.deficits.shape[1], by_kernel.layout.paths.shape[2]) > LANES
    assert all(found >= EVERYTHING - {"Preempt"} for found in kinds.values())
    assert len({program.source for program in launch.programs}) == 2
