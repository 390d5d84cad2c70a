"""The kernel where one block of entries does not hold all, where int64 ends, and where only some instances go on."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

pytest.importorskip("torch")
# Before Triton itself, which reads how kernels are run when it is imported.
pytest.importorskip("dlpm_engine.tensor.batched.kernel.dialect")

import torch

from dlpm.batch import AFTER_FORWARD
from dlpm.events import Admit
from dlpm.request import Request
from dlpm_engine.adapter import OPTIMISTIC, EngineConfig
from dlpm_engine.differential.corpus import corpus
from dlpm_engine.differential.generate import generate
from dlpm_engine.tensor.batched.kernel import entry, ledger_ops
from dlpm_engine.tensor.batched.kernel import scheduler as kernel_scheduler
from dlpm_engine.tensor.batched.kernel.dialect import interpreted, kernel, tl
from dlpm_engine.tensor.batched.kernel.scheduler import KernelScheduler
from dlpm_engine.tensor.batched.scheduler import RUNNING, WAITING, BatchedScheduler
from dlpm_engine.tensor.batched.view import View
from dlpm_engine.tensor.exact import HIGHEST, LOWEST
from tests.engine_adapter.tensor.test_kernel import loaded, tensors

CPU = torch.device("cpu")
LANES = 32
DEBT = "debt of many quanta takes many refills"
pytestmark = pytest.mark.skipif(not interpreted(), reason="kernels are compiled here")


@kernel()
def too_low(values: tl.tensor, weights: tl.tensor, counts: tl.tensor, answers: tl.tensor, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """`ledger_ops.too_low` by program: one weight, and many values and counts."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    weight = tl.load(weights + tl.program_id(0))
    answer = ledger_ops.too_low(tl.load(values + at), weight, tl.load(counts + at))
    tl.store(answers + at, answer.to(tl.uint8))


def test_a_charge_is_too_low_exactly_where_the_true_result_is_no_int64() -> None:
    draw = Random(3)
    weights = [1, 2, 3, 7, 2**31, 2**61, 2**62 - 1, 2**62, HIGHEST - 1, HIGHEST]
    values: list[list[int]] = []
    counts: list[list[int]] = []
    for weight in weights:
        row, tokens = [], []
        for lane in range(LANES):
            # A value from which some number of tokens leads to the very end, or one that is anywhere.
            fitting = draw.randint(0, min(2**61, (HIGHEST - LOWEST) // weight))
            edge = LOWEST + weight * fitting + draw.choice((-1, 0, 1))
            value = min(max(edge, LOWEST), HIGHEST) if lane % 2 else draw.randint(LOWEST, HIGHEST)
            row.append(value)
            tokens.append(min(max((value - LOWEST) // weight + draw.choice((-1, 0, 1)), 0), 2**61))
        values.append(row)
        counts.append(tokens)
    answers = torch.zeros((len(weights), LANES), dtype=torch.uint8)
    too_low[(len(weights),)](torch.tensor(values), torch.tensor(weights), torch.tensor(counts), answers, BLOCK=LANES)
    expected = [
        [int(value - weight * count < LOWEST) for value, count in zip(row, tokens, strict=True)]
        for weight, row, tokens in zip(weights, values, counts, strict=True)
    ]
    assert answers.tolist() == expected
    assert {0, 1} <= {answer for row in expected for answer in row}


def beyond_a_block() -> tuple[EngineConfig, list[Request]]:
    """More clients, slots, prefixes and blocks of a path than a program handles at a time, and too little memory."""
    draw = Random(8)
    requests = []
    for number in range(35):
        prompt = (*range(20 if number % 3 else 33), 100 + number % 4, *(draw.randint(200, 202) for _ in range(3)))
        reply = (number, number + 1) if number % 2 else ()
        requests.append(Request(str(number), f"client {number % 33}", 0, len(prompt), 2, 3, prompt=prompt, reply=reply))
    config = EngineConfig(
        quantum=60, kv_tokens=44, block_size=1, memory=OPTIMISTIC, visibility=AFTER_FORWARD, max_running=2
    )
    return config, requests


def test_what_one_block_of_entries_does_not_hold_is_scheduled_as_operations_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_scheduler, "block_of", lambda slots: LANES)
    config, requests = beyond_a_block()
    one = EngineConfig(quantum=1, kv_tokens=4)
    by_operations, by_kernel = BatchedScheduler([config, one], CPU), KernelScheduler([config, one], CPU)
    for scheduler in (by_operations, by_kernel):
        scheduler.submit([(0, request) for request in requests[: LANES + 1]])
        # The tables double: the last entries that a program looks at are of no request.
        scheduler.submit([(0, request) for request in requests[LANES + 1 :]])
        scheduler.submit([(1, Request("only", "A", 0, 1, 1, 1, prompt=(1,)))])
    happened = set()
    for number in range(4):
        by_operations.step()
        by_kernel.step()
        expected, found = tensors(by_operations), tensors(by_kernel)
        assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
        for place in (0, 1):
            events = View(by_operations).events(place, number)
            assert View(by_kernel).events(place, number) == events
            happened |= {type(event).__name__ for event in events}
    assert min(by_kernel.phase.shape[1], by_kernel.deficits.shape[1], by_kernel.layout.paths.shape[2]) > LANES
    assert happened >= {"Refill", "Admit", "Evict", "Output", "Finish"}


def test_where_some_instances_need_more_room_the_others_do_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [corpus()[name] for name in (DEBT, "preemption of the youngest, again and again")]
    monkeypatch.setattr(kernel_scheduler, "_SPARE_EVENTS", 16)
    paused, roomy = (kind([case.config for case in cases], CPU) for kind in (KernelScheduler, BatchedScheduler))
    loaded(paused, cases)
    loaded(roomy, cases)
    stages: list[list[int]] = []
    launch = KernelScheduler._launch

    def counted(scheduler: KernelScheduler) -> None:
        launch(scheduler)
        stages.append(scheduler._resume[:, 0].tolist())

    monkeypatch.setattr(KernelScheduler, "_launch", counted)
    steps = 0
    while len(stages) == steps:
        steps += 1
        paused.step()
        roomy.step()
        for place in range(len(cases)):
            events = View(roomy).events(place, steps)
            assert View(paused).events(place, steps) == events
            assert events
    assert [entry.PAUSED.value, entry.OVER.value] in stages


def launches_of(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From here on: how many places are left on the fullest tape after each launch. One is, always."""
    left: list[int] = []
    launch = KernelScheduler._launch

    def noted(scheduler: KernelScheduler) -> None:
        launch(scheduler)
        left.append(scheduler.tape.room() - int(scheduler.tape.tensors()[3].max()))
        assert left[-1] > 0

    monkeypatch.setattr(KernelScheduler, "_launch", noted)
    return left


def test_a_pause_between_admissions_leaves_the_order_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first admission caches a token that the third request begins with; its place in the queue was settled before.
    requests = [
        Request(str(number), "A", 0, len(prompt), 1, 1, prompt=prompt)
        for number, prompt in enumerate([(1,), (2,), (1, 1), (3,)])
    ]
    config = EngineConfig(quantum=99, kv_tokens=99)
    monkeypatch.setattr(kernel_scheduler, "_SPARE_EVENTS", 3)
    paused, roomy = KernelScheduler([config], CPU), BatchedScheduler([config], CPU)
    for scheduler in (paused, roomy):
        scheduler.submit([(0, request) for request in requests])
    launches = launches_of(monkeypatch)
    paused.step()
    roomy.step()
    # The kernel paused after a refill and an admission.
    assert len(launches) == 2
    events = View(paused).events(0, 0)
    assert events == View(roomy).events(0, 0)
    assert [event.request for event in events if isinstance(event, Admit)] == ["0", "1", "2", "3"]


def test_a_pause_between_refills_goes_on_with_the_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [Request(str(number), "AB"[number % 2], 0, 4, 1, 1, prompt=(number,) * 4) for number in range(4)]
    # The first two leave their clients three tokens in debt, so that the second of two refills gives both credit. It
    # comes with the fourth request, after the third, and the fourth is admitted at once.
    config = EngineConfig(quantum=2, kv_tokens=99, output_weight=1)
    paused, roomy = KernelScheduler([config], CPU), BatchedScheduler([config], CPU)
    launches = launches_of(monkeypatch)
    for number, spare in enumerate((6, 2)):
        monkeypatch.setattr(kernel_scheduler, "_SPARE_EVENTS", spare)
        for scheduler in (paused, roomy):
            scheduler.submit([(0, request) for request in requests[2 * number : 2 * number + 2]])
            scheduler.step()
        assert View(paused).events(0, number) == View(roomy).events(0, number)
    assert len(launches) == 3
    kinds = [type(event).__name__ for event in View(paused).events(0, 1)]
    assert kinds[:3] == ["Refill", "Refill", "Admit"]
    assert [event.request for event in View(paused).events(0, 1) if isinstance(event, Admit)] == ["3", "2"]


def test_a_tape_is_filled_but_for_its_last_place(monkeypatch: pytest.MonkeyPatch) -> None:
    # One request, for which all that can follow an admission does: when it finishes, prompt and reply make one block,
    # which is another one than the part of it that the prompt was, and memory holds one of the two.
    request = Request("0", "A", 0, 2, 1, 1, blocks=(7,), reply_blocks=(8,))
    config = EngineConfig(quantum=99, kv_tokens=3, block_size=3)
    left: list[int] = []
    for spare in range(2, 8):
        monkeypatch.setattr(kernel_scheduler, "_SPARE_EVENTS", spare)
        scheduler = KernelScheduler([config], CPU)
        scheduler.submit([(0, request)])
        with monkeypatch.context() as patch:
            launches = launches_of(patch)
            scheduler.step()
        kinds = [type(event).__name__ for event in View(scheduler).events(0, 0)]
        assert kinds == ["Refill", "Admit", "Output", "Evict", "Finish"]
        left.append(launches[-1])
    assert min(left) == 1


def test_one_running_request_is_enough_for_the_watermark_to_hold_back_the_next() -> None:
    requests = [Request(str(number), "A", 0, 3 + number, 2, 2, prompt=(number,) * (3 + number)) for number in range(2)]
    for watermark, second in ((3, RUNNING), (4, WAITING)):
        config = EngineConfig(quantum=99, kv_tokens=10, memory=OPTIMISTIC, watermark=watermark)
        for scheduler in (KernelScheduler([config], CPU), BatchedScheduler([config], CPU)):
            scheduler.submit([(0, request) for request in requests])
            scheduler.step()
            # Of ten tokens the first takes three, and the second would take four of the seven left.
            assert scheduler.phase.tolist() == [[RUNNING, second]]


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(1, id="a request whose whole prompt is locked still needs one token"),
        pytest.param(32, id="a pass does not turn back to a longer match"),
    ],
)
def test_small_cases_that_few_others_stand_for_are_scheduled_as_operations_do(number: int) -> None:
    case = generate(5, number, 6)
    by_operations, by_kernel = BatchedScheduler([case.config], CPU), KernelScheduler([case.config], CPU)
    loaded(by_operations, [case])
    loaded(by_kernel, [case])
    for step in range(6):
        by_operations.step()
        by_kernel.step()
        assert View(by_kernel).events(0, step) == View(by_operations).events(0, step)


class Guard:
    """Stands where torch makes a device the current one, and notes which is, by number."""

    def __init__(self) -> None:
        self.current: list[int] = []

    def __call__(self, number: int) -> Guard:
        self.current.append(number)
        return self

    def __enter__(self) -> None:
        """From here on."""

    def __exit__(self, *error: object) -> None:
        self.current.pop()


def test_a_launch_is_on_the_device_of_the_tensors_whichever_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = Guard()
    launches: list[tuple[list[int], int]] = []

    class Launches:
        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            def launch(first: torch.Tensor, *arguments: object, **options: int) -> None:
                launches.append((list(guard.current), first.get_device()))

            return launch

    scheduler = KernelScheduler([EngineConfig(quantum=1, kv_tokens=4)], CPU)
    monkeypatch.setattr(torch.cuda, "device", guard)
    monkeypatch.setattr(entry, "step", Launches())
    scheduler.step()
    assert [current for current, _ in launches] == [[where] for _, where in launches]
    assert len(launches) == 1
