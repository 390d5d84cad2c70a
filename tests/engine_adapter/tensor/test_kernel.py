"""The kernel, interpreted on the CPU, decides what the reference decides; and threads of it do not race."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
# Before Triton itself, which reads how kernels are run when it is imported.
pytest.importorskip("dlpm_engine.tensor.batched.kernel.dialect")

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dlpm.errors import InputError
from dlpm_engine.bench import batched
from dlpm_engine.differential.case import Case
from dlpm_engine.differential.corpus import corpus
from dlpm_engine.differential.coverage import Coverage
from dlpm_engine.differential.engines import Batched
from dlpm_engine.differential.generate import generate
from dlpm_engine.differential.hunt import Settings
from dlpm_engine.differential.kinds import KINDS
from dlpm_engine.differential.report import report
from dlpm_engine.differential.together import compare_together
from dlpm_engine.tensor.batched.kernel import cache_ops, entry, ledger_ops, queue_ops, step
from dlpm_engine.tensor.batched.kernel import scheduler as kernel_scheduler
from dlpm_engine.tensor.batched.kernel.dialect import interpreted, jit, tl
from dlpm_engine.tensor.batched.kernel.scheduler import KernelScheduler
from dlpm_engine.tensor.batched.means import KERNEL as BY_KERNEL
from dlpm_engine.tensor.batched.means import OPERATIONS
from dlpm_engine.tensor.batched.scheduler import BatchedScheduler
from dlpm_engine.tensor.batched.view import View
from tests.engine_adapter.tensor.races import RaceError, watched

KERNEL = Settings("tensor-kernel", case_seconds=120)
CPU = torch.device("cpu")
COMPILE = "tests.engine_adapter.tensor.compile_kernel"
needs_interpreter = pytest.mark.skipif(not interpreted(), reason="kernels are compiled here")
WORKING_SPACE = {"_need", "_frozen_order", "_counts", "_resume", "_unfinished"}


def small_corpus(requests: int = 12) -> list[Case]:
    """Cases of the corpus with few requests."""
    return [case for case in corpus().values() if len(case.requests) <= requests]


def tensors(scheduler: BatchedScheduler) -> dict[str, torch.Tensor]:
    """All state of a scheduler."""
    found = {}
    for part in (scheduler, scheduler.caches, scheduler.layout):
        for name, value in vars(part).items():
            if isinstance(value, torch.Tensor) and name not in WORKING_SPACE:
                found[f"{type(part).__mro__[-2].__name__}.{name}"] = value
    return found


def loaded(scheduler: BatchedScheduler, cases: list[Case]) -> None:
    """Submit what the cases' instances do not refuse, everything at once."""
    for place, case in enumerate(cases):
        for request in case.requests:
            try:
                scheduler.check(place, request)
            except InputError:
                continue
            scheduler.submit([(place, request)])


def compared(cases: list[Case]) -> tuple[list[str], set[str]]:
    """Compare the kernel with the reference on cases all at once: reports of divergences, and kinds of decision."""
    coverages = [Coverage(case.config, case.requests) for case in cases]
    outcomes = compare_together(cases, Batched("cpu", is_kernel=True), KERNEL, coverages)
    reports = [
        report(case, outcome.divergence, "tensor-kernel")
        for case, outcome in zip(cases, outcomes, strict=True)
        if outcome.divergence is not None
    ]
    return reports, set().union(*(coverage.reached for coverage in coverages))


# Together they reach every kind of decision in few steps, for an interpreted step takes a twentieth of a second.
SHORT = (
    "equal matches of two clients go by arrival",
    "families that share a prefix, visible after the forward",
    "weights near 2^62, out of range",
    "a reply that leaves a partial block of its prompt behind, hashed in blocks of 3, partial blocks too",
    "a watermark holds a batch back, but never the first request",
    "a prompt evicted by the admission before its own",
    "an admission that gives memory back, because a longer prompt has cached its last block",
)
GENERATED = (5, 12, 38, 41)


@needs_interpreter
def test_the_kernel_decides_what_as_many_references_decide() -> None:
    cases = [*(corpus()[name] for name in SHORT), *(generate(5, place, 6) for place in GENERATED)]
    reports, reached = compared(cases)
    assert reports == []
    assert reached == KINDS.keys()


@needs_interpreter
def test_after_every_step_the_kernel_leaves_every_tensor_as_operations_do() -> None:
    cases = [corpus()["preemption of the youngest, again and again"], *(generate(6, place, 6) for place in range(6))]
    by_operations = BatchedScheduler([case.config for case in cases], CPU)
    by_kernel = KernelScheduler([case.config for case in cases], CPU)
    loaded(by_operations, cases)
    loaded(by_kernel, cases)
    happened = 0
    for number in range(12):
        by_operations.step()
        with torch.inference_mode():
            # What a step finds in its working space is nothing to rely on.
            for space in (by_kernel._need, by_kernel._frozen_order, by_kernel._counts):
                space.random_()
        by_kernel.step()
        expected, found = tensors(by_operations), tensors(by_kernel)
        assert expected.keys() == found.keys()
        assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
        for place in range(len(cases)):
            events = View(by_operations).events(place, number)
            assert View(by_kernel).events(place, number) == events
            happened += len(events)
    assert happened > 100


class Counts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What torch is asked to do, but for other looks at the same memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        if not func.is_view:
            self.operations[str(func)] += 1
        return func(*args, **(kwargs or {}))


class Launches:
    """Stands where the kernel is launched, and counts."""

    def __init__(self) -> None:
        self.programs: list[int] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        self.programs.append(grid[0])
        return lambda *arguments, **options: None


@needs_interpreter
def test_a_step_is_one_launch_three_fills_and_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    case = corpus()["preemption of the youngest, again and again"]
    scheduler = KernelScheduler([case.config] * 5, CPU)
    loaded(scheduler, [case] * 5)
    scheduler.step()
    launches = Launches()
    monkeypatch.setattr(entry, "step", launches)
    with Counts() as counts:
        scheduler.step()
    assert launches.programs == [5]
    # The count of events, where instances go on, and how many are not over; and the read of the last.
    assert counts.operations == {"aten.zero_.default": 3, "aten.item.default": 1}


@needs_interpreter
def test_a_step_with_more_events_than_the_tape_has_room_for_goes_on_in_another_launch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = corpus()["debt of many quanta takes many refills"]
    launches = 0
    launch = KernelScheduler._launch

    def counted(scheduler: KernelScheduler) -> None:
        nonlocal launches
        launches += 1
        launch(scheduler)

    monkeypatch.setattr(KernelScheduler, "_launch", counted)
    monkeypatch.setattr(kernel_scheduler, "_SPARE_EVENTS", 8)
    paused, roomy = KernelScheduler([case.config], CPU), BatchedScheduler([case.config], CPU)
    loaded(paused, [case])
    loaded(roomy, [case])
    steps = 0
    while not bool((roomy.phase == 3).all()):
        steps += 1
        paused.step()
        roomy.step()
        assert View(paused).events(0, steps) == View(roomy).events(0, steps)
    assert launches > steps


@needs_interpreter
def test_a_case_that_takes_too_long_is_given_up_and_not_an_error() -> None:
    case = corpus()["debt of many quanta takes many refills"]
    (outcome,) = compare_together(
        [case], Batched("cpu", is_kernel=True), Settings("tensor-kernel", case_seconds=0.2), [None]
    )
    assert outcome.unfinished


@needs_interpreter
def test_the_benchmark_counts_the_same_steps_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batched, "LEAST_CASES", 2)
    by_operations, by_kernel = (batched.measure_batched(2, "cpu", means) for means in (OPERATIONS, BY_KERNEL))
    assert by_kernel.instance_steps == by_operations.instance_steps > 2
    assert (by_kernel.means, by_kernel.steps) == (BY_KERNEL, by_operations.steps)


@needs_interpreter
def test_threads_and_programs_do_not_race_and_stay_within_their_tensors() -> None:
    cases = [*(corpus()[name] for name in SHORT if "2^62" not in name), *(generate(7, place, 6) for place in range(3))]
    scheduler = KernelScheduler([case.config for case in cases], CPU)
    loaded(scheduler, cases)
    with watched(lambda: everything(scheduler)) as watch:
        for _ in range(4):
            scheduler.step()
    assert watch.accesses > 10_000
    assert watch.fences > 1_000


def everything(scheduler: KernelScheduler) -> list[torch.Tensor]:
    """All tensors that the kernel may touch."""
    parts = (scheduler, scheduler.caches, scheduler.layout, scheduler.parameters, scheduler.tape)
    return [value for part in parts for value in vars(part).values() if isinstance(value, torch.Tensor)]


def nothing() -> None:
    """A fence that is not there."""


@needs_interpreter
@pytest.mark.parametrize("module", [cache_ops, ledger_ops, queue_ops, step], ids=["cache", "ledger", "queue", "step"])
def test_without_the_fences_of_one_file_a_race_is_seen(monkeypatch: pytest.MonkeyPatch, module: object) -> None:
    cases = [corpus()["preemption of the youngest, again and again"]]
    scheduler = KernelScheduler([case.config for case in cases], CPU)
    loaded(scheduler, cases)
    monkeypatch.setattr(module, "fence", nothing)
    with watched(lambda: everything(scheduler)), pytest.raises(RaceError):
        for _ in range(4):
            scheduler.step()


@jit
def takes_the_latest_of_a_tie(
    wanted: tl.tensor,
    slot: tl.tensor,
    order: tl.tensor,
    rank: tl.tensor,
    best: tl.tensor,
    best_order: tl.tensor,
    best_rank: tl.tensor,
) -> tuple[tl.tensor, ...]:
    """`queue_ops.first_of` with the tie the wrong way round."""
    longest = tl.max(tl.where(wanted, order, -1))
    here = wanted & (order == longest)
    latest = tl.max(tl.where(here, rank, -1))
    its_slot = tl.max(tl.where(here & (rank == latest), slot, -1))
    better = (longest > best_order) | ((longest == best_order) & (latest < best_rank))
    return tl.where(better, its_slot, best), tl.where(better, longest, best_order), tl.where(better, latest, best_rank)


@jit
def never_too_low(values: tl.tensor, weight: tl.tensor, counts: tl.tensor) -> tl.tensor:
    """`ledger_ops.too_low` that lets counters wrap."""
    return counts > tl.maximum(values, counts) + weight * 0


@jit
def stands_still(cache: tl.tensor, blocks: tl.tensor) -> tl.tensor:
    """`cache_ops.tick` of a clock that stands still."""
    return tl.load(cache.clock) + blocks * 0


@jit
def keeps_the_watermark_always(
    worker: tl.tensor,
    cache: tl.tensor,
    requests: tl.tensor,
    BLOCK: tl.constexpr,  # noqa: N803
) -> tl.tensor:
    """`queue_ops.room` that asks for the watermark of an empty batch, too."""
    return worker.kv_tokens - tl.load(cache.locked) - tl.load(worker.set_aside) - worker.watermark


@needs_interpreter
@pytest.mark.parametrize(
    ("module", "name", "fault"),
    [
        (queue_ops, "first_of", takes_the_latest_of_a_tie),
        (ledger_ops, "too_low", never_too_low),
        (cache_ops, "tick", stands_still),
        (step, "room", keeps_the_watermark_always),
    ],
    ids=["tie", "overflow", "clock", "watermark"],
)
def test_a_fault_in_the_kernel_is_found(
    monkeypatch: pytest.MonkeyPatch, module: object, name: str, fault: object
) -> None:
    monkeypatch.setattr(module, name, fault)
    reports, _ = compared([corpus()[short] for short in SHORT])
    assert reports


@pytest.mark.slow
def test_the_kernel_compiles_for_a_gpu_that_is_not_here(repository: Path, tmp_path: Path) -> None:
    """As a launch would compile it, of one request and of many. Whether it runs there is another matter."""
    done = subprocess.run(
        [sys.executable, "-m", COMPILE, "90", "1", "700"],
        cwd=repository,
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [(each["block"], each["threads"]) for each in results] == [(32, 32), (1024, 256)]
    fences = sum(inspect.getsource(module).count("fence()") for module in (cache_ops, ledger_ops, queue_ops, step))
    for each in results:
        # No register is spilled, every fence became a barrier, and no load takes the path for what never changes.
        assert each["stack"] == each["local"] == 0
        assert each["reg"] * each["threads"] <= 65536
        assert each["barriers"] >= fences > 30
        assert each["loads"] > 100
        assert each["loads_of_what_never_changes"] == 0
