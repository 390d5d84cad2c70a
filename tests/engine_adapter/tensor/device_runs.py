"""Runs of the batched scheduler on the pretended device, and what they cost by the reference's events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import pytest
import torch

from dlpm.events import Admit, Event, Preempt, Refill
from dlpm.request import ClientId, Request, RequestId
from dlpm_engine.adapter import EngineConfig, Snapshot
from dlpm_engine.differential.case import Case
from dlpm_engine.differential.coverage import Coverage
from dlpm_engine.differential.engines import Batched
from dlpm_engine.differential.hunt import Settings
from dlpm_engine.differential.lockstep import Outcome
from dlpm_engine.differential.record import StepRecord
from dlpm_engine.differential.together import compare_together
from dlpm_engine.tensor.batched.scheduler import BatchedScheduler
from dlpm_engine.tensor.batched.view import View
from tests.engine_adapter.tensor.pretended_device import (
    Account,
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
        run.outcomes = compare_together(cases, Batched("cuda", is_kernel=False), SETTINGS, run.watches)
    return run


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
