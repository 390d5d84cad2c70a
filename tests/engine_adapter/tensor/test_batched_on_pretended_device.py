"""The batched scheduler on a pretended CUDA device: its decisions, and exactly when the host waits for the device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")

from dlpm.batch import AFTER_FORWARD, AT_ADMISSION
from dlpm.events import Admit, Event, Preempt, Refill
from dlpm.request import ClientId, Request, RequestId
from dlpm_engine.adapter import EngineConfig, Snapshot
from dlpm_engine.differential.case import Case
from dlpm_engine.differential.corpus import corpus
from dlpm_engine.differential.coverage import Coverage
from dlpm_engine.differential.generate import generate
from dlpm_engine.differential.hunt import Settings
from dlpm_engine.differential.kinds import KINDS
from dlpm_engine.differential.lockstep import Outcome
from dlpm_engine.differential.record import StepRecord
from dlpm_engine.differential.report import report
from dlpm_engine.differential.together import compare_together
from dlpm_engine.tensor.batched.parameters import Parameters
from dlpm_engine.tensor.batched.scheduler import BatchedScheduler
from dlpm_engine.tensor.batched.tape import Tape
from dlpm_engine.tensor.batched.view import View
from dlpm_engine.tensor.exact import too_low
from tests.engine_adapter.tensor.pretended_device import (
    Account,
    MixedDevicesError,
    Wait,
    pretended_device,
)

CUDA = torch.device("cuda")
SETTINGS = Settings("tensor-batched", case_seconds=60)
INSERTIONS_AND_FINISHES = 2
NOTHING = {"_admission_phase": 1, "_make_room_for_outputs": 1, "_most": INSERTIONS_AND_FINISHES}
"""What a step asks of the device if there is nothing to do: of each loop, once, whether it is to be entered."""


def admission_turns(order: Sequence[RequestId], events: Sequence[Event]) -> int:
    """Turns of the loop over the admission phase of one instance, from what the reference did in the step.

    A turn is a visit, which refills or admits or both, or the end of a pass. The end of a pass that did anything leads
    to another; so the last pass is one turn, its end.
    """
    place = {request: number for number, request in enumerate(order)}
    waiting = set(order)
    turns, cursor = 0, -1
    refilled: RequestId | None = None
    for event in events:
        if isinstance(event, Refill):
            # While nobody has credit every waiting request is visited, and the first of them refills.
            ahead = [request for request in order if request in waiting and place[request] > cursor]
            refilled = (ahead or [request for request in order if request in waiting])[0]
            visited = refilled
        elif isinstance(event, Admit):
            waiting.remove(event.request)
            visited = event.request
            if visited == refilled:
                refilled = None
                continue
        else:
            continue
        turns += 1 if place[visited] > cursor else 2
        cursor = place[visited]
    return turns + (2 if turns else 1)


@dataclass(slots=True)
class Loops:
    """How often the loops go round that ask before each turn: the most that an instance needs."""

    admission: int = 0
    preemptions: int = 0

    def add(self, record: StepRecord) -> None:
        """An instance did this in the step, the reference says."""
        events = record.events
        order = record.order()
        preempted = [event.request for event in events if isinstance(event, Preempt)]
        # The reference gives no order where it knows that nothing can happen.
        if order is not None and order.requests:
            self.admission = max(self.admission, admission_turns(order.requests, events))
        elif set(record.after.queue) - set(preempted):
            self.admission = max(self.admission, 1)
        self.preemptions = max(self.preemptions, len(preempted))

    def reads(self) -> Counter[str]:
        """How often the host asks: before each turn of these loops and to leave them; how long the two others are."""
        return Counter(
            {
                "_admission_phase": 1 + self.admission,
                "_make_room_for_outputs": 1 + self.preemptions,
                "_most": INSERTIONS_AND_FINISHES,
            }
        )


class Watch(Coverage):
    """Sees what the reference does in each step of one case."""

    def __init__(self, case: Case) -> None:
        super().__init__(case.config, case.requests)
        self.steps: list[StepRecord] = []

    def stepped(self, before: Snapshot, record: StepRecord) -> None:
        super().stepped(before, record)
        self.steps.append(record)


@dataclass
class Together:
    """Many cases at once on the device."""

    cases: list[Case]
    watches: list[Watch]
    outcomes: list[Outcome] = field(default_factory=list)
    waits: list[Counter[tuple[Wait, str]]] = field(default_factory=list)
    """What each step cost: why the host waited, and in which function."""
    operations: list[Counter[str]] = field(default_factory=list)
    """Which operations each step launched."""


def costs(account: Account, since: int) -> Counter[tuple[Wait, str]]:
    """Why and in which function the host waited, without the first ``since`` waits."""
    return Counter((each.wait, each.place.rpartition(".")[2]) for each in account.waits[since:])


def run_together(cases: list[Case]) -> Together:
    """Cases, each with a reference of its own, beside one scheduler on the device."""
    run = Together(cases, [Watch(case) for case in cases])
    step = BatchedScheduler.step
    with pytest.MonkeyPatch.context() as patch, pretended_device() as account:

        def counted(scheduler: BatchedScheduler) -> None:
            since, before = len(account.waits), account.operations.copy()
            step(scheduler)
            run.waits.append(costs(account, since))
            run.operations.append(account.operations - before)

        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(BatchedScheduler, "step", counted)
        run.outcomes = compare_together(cases, "cuda", SETTINGS, run.watches)
    return run


@pytest.fixture(scope="module")
def together() -> Together:
    """Small cases, without those that leave int64: such an instance goes on, and its reference does not."""
    cases = [case for name, case in corpus().items() if len(case.requests) < 100 and "out of range" not in name]
    cases += [case for case in (generate(9, number, 10) for number in range(40)) if "huge weights" not in case.name]
    return run_together(cases)


def test_decisions_on_the_device_are_those_of_the_reference(together: Together) -> None:
    for case, outcome in zip(together.cases, together.outcomes, strict=True):
        assert outcome.divergence is None, report(case, outcome.divergence, "tensor-batched")
        assert not outcome.unfinished
        assert not outcome.out_of_range
    assert sum(outcome.tally.decisions() for outcome in together.outcomes) > 2000
    reached = set().union(*(watch.reached for watch in together.watches))
    assert KINDS.keys() - reached <= {
        "batch full",
        "left int64",
        "match shrank in the step",
        "several preemptions in a step",
    }


def test_a_step_waits_where_a_loop_of_its_slowest_instance_goes_on_and_nowhere_else(together: Together) -> None:
    check_waits(together)


@pytest.mark.parametrize(
    "name",
    [
        "a refill in the middle of a pass goes on from where it fired",
        "preempted in the step of its admission, its blocks discarded",
        "families that share a prefix, visible after the forward",
    ],
)
def test_a_step_of_one_instance_waits_where_its_loops_go_on_and_nowhere_else(name: str) -> None:
    check_waits(run_together([corpus()[name]]))


def test_many_instances_cost_the_device_no_more_operations_than_one() -> None:
    case = corpus()["credit of exactly zero is no credit"]
    alone, among = run_together([case]), run_together([case] * 5)
    assert sum(operations.total() for operations in alone.operations) > 0
    assert among.operations == alone.operations
    assert among.waits == alone.waits


def check_waits(together: Together) -> None:
    """The waits of all steps are those that the reference's events account for."""
    steps = list(zip_longest(*(watch.steps for watch in together.watches)))
    assert len(steps) == len(together.waits)
    for records, waits in zip(steps, together.waits, strict=True):
        loops = Loops()
        for record in records:
            if record is not None:
                loops.add(record)
        assert waits == Counter({(Wait.READ, place): asked for place, asked in loops.reads().items()})


def request(name: str, client: ClientId, prompt: Sequence[int], output: int = 2) -> tuple[int, Request]:
    """A request to the first instance."""
    return 0, Request(name, client, 0, len(prompt), output, output, prompt=tuple(prompt))


def lonely(account: Account, config: EngineConfig, steps: int = 3) -> list[Counter[tuple[Wait, str]]]:
    """What each step costs on which one request, of two output tokens, is alone."""
    scheduler = BatchedScheduler([config], CUDA)
    scheduler.submit([request("only", "A", [1, 1, 1])])
    spent = []
    for _ in range(steps):
        since = len(account.waits)
        scheduler.step()
        spent.append(costs(account, since))
    assert View(scheduler).state(0).queue == View(scheduler).state(0).running == ()
    return spent


def reads(**more: int) -> Counter[tuple[Wait, str]]:
    """A step with nothing to do, and so many questions more."""
    return Counter({(Wait.READ, place): asked + more.get(place, 0) for place, asked in NOTHING.items()})


LONELY = [reads(_admission_phase=3), reads(), reads()]
"""Refilled and admitted in one visit, the end of that pass, and a pass that does nothing; finished; gone."""
PLAIN = EngineConfig(quantum=10, kv_tokens=100)


@pytest.mark.parametrize("visibility", [AT_ADMISSION, AFTER_FORWARD])
def test_the_steps_of_a_lonely_request_cost_what_they_do(visibility: str) -> None:
    with pretended_device() as account:
        assert lonely(account, EngineConfig(quantum=10, kv_tokens=100, visibility=visibility)) == LONELY


def test_a_step_in_which_nothing_can_happen_costs_the_same_whatever_waits() -> None:
    """The one that runs fills the memory; the others have credit and do not fit: one pass, which only ends."""
    for waiting in (1, 12):
        with pretended_device() as account:
            scheduler = BatchedScheduler([EngineConfig(quantum=1000, kv_tokens=60)], CUDA)
            scheduler.submit([request("large", "A", [0] * 10, 50)])
            scheduler.step()
            scheduler.submit([request(str(number), "AB"[number % 2], [number] * 3) for number in range(waiting)])
            scheduler.step()
            since = len(account.waits)
            scheduler.step()
            assert costs(account, since) == reads(_admission_phase=1)


def test_a_submit_copies_to_the_device_and_reads_nothing() -> None:
    with pretended_device() as account:
        scheduler = BatchedScheduler([PLAIN] * 2, CUDA)
        assert account.kinds() == Counter({Wait.COPY_IN: 8})  # The parameters.
        since = len(account.waits)
        scheduler.submit([request("first", "A", [1, 2, 3]), request("second", "B", [1, 4])])
        # Owners, slots, facts, paths, sequences, new prefixes; and what the scheduler itself keeps.
        assert account.kinds(since) == Counter({Wait.COPY_IN: 7})
        since = len(account.waits)
        scheduler.submit([request("again", "C", [1, 2])])
        assert account.kinds(since) == Counter({Wait.COPY_IN: 6})  # No prefix is new.


def test_a_view_copies_each_tensor_once_and_then_asks_no_more() -> None:
    with pretended_device() as account:
        scheduler = BatchedScheduler([PLAIN], CUDA)
        scheduler.submit([request("only", "A", [1, 1, 1])])
        scheduler.step()
        since = len(account.waits)
        view = View(scheduler)
        assert view.state(0).running == ("only",)
        assert len(view.events(0, 1)) == 3
        # Of the tape how many, their fields, deficits, whom they concern; and seven tensors of the state.
        assert costs(account, since) == Counter({(Wait.COPY_BACK, "read"): 4, (Wait.COPY_BACK, "__init__"): 7})


# -- faults planted in the scheduler -----------------------------------------------------------------------------------


def _first_on_the_host(count: torch.Tensor, paths: torch.Tensor) -> torch.Tensor:
    return torch.arange(paths.shape[1]) < count.unsqueeze(1)


def _numbers_on_the_host(self: object, values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def _resident_of_the_host(self: BatchedScheduler) -> torch.Tensor:
    return self.layout.facts[1].cpu() + self._generated


MIXES = {
    "an arange without a device": (BatchedScheduler, "_first", staticmethod(_first_on_the_host)),
    "parameters that stay on the host": (
        Parameters,
        "_numbers",
        _numbers_on_the_host,
    ),
    "facts brought to the host": (BatchedScheduler, "_resident", _resident_of_the_host),
}


@pytest.mark.parametrize("name", MIXES)
def test_a_planted_mix_is_caught(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    owner, attribute, fault = MIXES[name]
    monkeypatch.setattr(owner, attribute, fault)
    with pretended_device() as account, pytest.raises(MixedDevicesError):
        lonely(account, PLAIN)


def _asks_each_time(self: BatchedScheduler, where: torch.Tensor) -> bool:
    return bool(where.any())


def _spends_by_mask(self: BatchedScheduler, counts: torch.Tensor, weight: torch.Tensor) -> None:
    beyond = too_low(self.deficits, weight.unsqueeze(1), counts)
    self.out_of_range |= beyond.any(1)
    self.deficits[~beyond] -= (counts * weight.unsqueeze(1))[~beyond]


_write = Tape.write


def _writes_a_number(
    self: Tape, where: torch.Tensor, kind: int, deficits: torch.Tensor, **values: torch.Tensor
) -> None:
    place = torch.where(where, self._count, self._events.shape[2] - 1)
    self._events[0, self._everyone, place] = kind
    _write(self, where, kind, deficits, **values)


WAITS = {
    "asking whether anybody is concerned": (BatchedScheduler, "_may_be_any", _asks_each_time, Wait.READ),
    "a mask as an index": (BatchedScheduler, "_spend", _spends_by_mask, Wait.SIZE),
    "a number of the host written by index": (Tape, "write", _writes_a_number, Wait.HIDDEN_COPY),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_planted_wait_is_caught(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    owner, attribute, fault, kind = WAITS[name]
    monkeypatch.setattr(owner, attribute, fault)
    with pretended_device() as account:
        spent = lonely(account, PLAIN)
    assert spent != LONELY
    for found, expected in zip(spent, LONELY, strict=True):
        assert {wait for wait, _ in found - expected} <= {kind}
        assert not expected - found
