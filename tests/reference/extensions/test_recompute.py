"""Preemption by recomputation: the worker beside a naive model, and what each rule means."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, run_state_machine_as_test

from dlpm import bounds
from dlpm.batch import WorkerConfig
from dlpm.bounds_recompute import causer_paid_unit, system_paid_unit
from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.events import Admit, Event, Preempt
from dlpm.extensions.recompute import Payer, Recompute, RecomputeDLPM, RecomputeWorker, Victim, stated
from dlpm.ledger import Ledger, Quanta
from dlpm.memory import Optimistic, Reserving
from dlpm.request import Request
from dlpm.timing import FixedStep, StepTimer
from tests.reference.extensions.machine import VariantMachine
from tests.reference.lockstep import ONE_MICROSECOND, Lockstep, Shape, all_rules, real_worker, shapes
from tests.reference.naive_state import Runner, Waiter
from tests.reference.naive_worker import NaiveWorker, Rules

RULES = st.builds(Recompute, st.sampled_from(Victim), st.sampled_from(Payer))


class NaiveRecompute(NaiveWorker):
    """Sorts the whole batch for a victim, and writes down who is to pay for it."""

    def __init__(self, rules: Rules, recompute: Recompute) -> None:
        super().__init__(rules)
        self.recompute = recompute
        self.blamed: dict[str, str] = {}

    def worst(self) -> Runner:
        def fate(place: int) -> tuple[int, ...]:
            waiter = self.running[place].waiter
            if self.recompute.victim is Victim.FEWEST_OUTPUTS:
                return -waiter.generated, waiter.request.input_tokens, place
            if self.recompute.victim is Victim.MOST_OUTPUT_LEFT:
                return waiter.request.max_output - waiter.generated, place
            return (place,)

        return self.running[sorted(range(len(self.running)), key=fate)[-1]]

    def preempt_until_outputs_fit(self) -> None:
        while len(self.running) > self.free_tokens():
            victim = self.worst()
            self.running.remove(victim)
            if not victim.computed:
                self.cached = [block for block in self.cached if block.prefix not in victim.own_blocks]
            self.queue.append(victim.waiter)
            client = victim.client()
            self.events.append(("preempt", victim.waiter.request.id, "recompute", self.counter(client)))
            owners = [runner.client() for runner in self.running]
            most = max(owners.count(owner) for owner in owners)
            self.blamed[victim.waiter.request.id] = next(owner for owner in owners if owners.count(owner) == most)
        self.evict_until_it_fits(more=len(self.running))

    def admit(self, waiter: Waiter) -> None:
        super().admit(waiter)
        causer = self.blamed.pop(waiter.request.id, None)
        if causer is None or self.recompute.payer is Payer.CLIENT:
            return
        last: Any = self.events.pop()
        *event, _, free = last
        price = self.rules.extend_weight * event[3]
        self.counters[waiter.client()] += price
        paid: tuple[Any, ...] = ()
        if self.recompute.payer is Payer.CAUSER:
            self.counters[causer] -= price
            paid = (causer, self.counters[causer])
        self.events.append((*event, self.counters[waiter.client()], free, *paid))


def worker_of(
    rules: Rules,
    recompute: Recompute,
    log: list[Event],
    timer: StepTimer = ONE_MICROSECOND,
    index: int | None = None,
) -> RecomputeWorker:
    """The worker under test."""
    config = WorkerConfig(
        rules.kv_tokens, Optimistic(rules.watermark), rules.block_size, rules.visibility, rules.max_running
    )
    ledger = Ledger(Quanta(rules.quantum, rules.quanta), CostModel(rules.extend_weight, rules.output_weight))
    return RecomputeWorker(config, RecomputeDLPM(ledger), timer, recompute, log.append, index=index, full_log=True)


class RecomputeLockstep(Lockstep):
    """Both models with the same rules for victims and payers."""

    def __init__(self, rules: Rules, recompute: Recompute) -> None:
        super().__init__(rules)
        self.real = worker_of(rules, recompute, self.log, self.timer, self.index)
        self.naive = NaiveRecompute(rules, recompute)


class Recomputing(VariantMachine):
    """Submit and step: both agree on everything, and the floors hold where clients pay for what they caused at most."""

    def __init__(self) -> None:
        super().__init__()
        self.pair: RecomputeLockstep | None = None

    @initialize(rules=all_rules(("dlpm",), ("optimistic",)), recompute=RULES)
    def start(self, rules: Rules, recompute: Recompute) -> None:
        self.pair = RecomputeLockstep(rules, recompute)

    @invariant()
    def agree(self) -> None:
        if self.pair is None:
            return
        self.pair.compare_state()
        naive, rules = self.pair.naive, self.pair.rules
        assert isinstance(naive, NaiveRecompute)
        cost = CostModel(rules.extend_weight, rules.output_weight)
        outputs = bounds.outputs_after_admission(rules.kv_tokens, None, rules.max_running)
        again = bounds.longest_recomputation(rules.kv_tokens - 1, rules.kv_tokens)
        if naive.recompute.payer is not Payer.CAUSER:
            unit = bounds.optimistic_unit(cost, again, outputs)
            assert all(counter >= bounds.deficit_floor(unit) for counter in naive.counters.values())


def test_the_worker_and_the_naive_model_do_the_same() -> None:
    run_state_machine_as_test(Recomputing, settings=settings(max_examples=120, stateful_step_count=25))


@given(rules=all_rules(("dlpm",), ("optimistic",)), several=st.lists(shapes(), min_size=1, max_size=8))
def test_with_the_plain_rules_the_events_are_those_of_the_plain_worker(rules: Rules, several: list[Shape]) -> None:
    plain_log: list[Event] = []
    log: list[Event] = []
    workers = (real_worker(rules, plain_log), worker_of(rules, Recompute(), log))
    for worker in workers:
        for place, shape in enumerate(several):
            request = shape.request(f"r{place}", rules.block_size)
            if request.input_tokens + request.max_output <= rules.kv_tokens:
                worker.submit(request, 0)
        for _ in range(40):
            worker.step()
    assert log == plain_log


def call(name: str, client: str, prompt: tuple[int, ...], output: int, most: int | None = None) -> Request:
    """A request due at once."""
    return Request(name, client, 0, len(prompt), output, most or output, prompt=prompt)


def run(recompute: Recompute, requests: list[Request], kv_tokens: int, steps: int) -> list[Event]:
    """What happens to ``requests``."""
    log: list[Event] = []
    rules = Rules(policy="dlpm", memory="optimistic", kv_tokens=kv_tokens, quantum=100)
    worker = worker_of(rules, recompute, log)
    for request in requests:
        worker.submit(request, 0)
    for _ in range(steps):
        worker.step()
    return log


@pytest.mark.parametrize(
    ("victim", "expected"), [(Victim.LAST, "c"), (Victim.FEWEST_OUTPUTS, "b"), (Victim.MOST_OUTPUT_LEFT, "a")]
)
def test_each_rule_finds_its_own_victim(victim: Victim, expected: str) -> None:
    # All have generated as much; b has the longest input, and a may generate most.
    requests = [call("a", "A", (1,), 4, 8), call("b", "B", (2, 3, 4), 4), call("c", "C", (5,), 4)]
    preempted = [event.request for event in run(Recompute(victim), requests, 13, 4) if isinstance(event, Preempt)]
    assert preempted[0] == expected


def test_the_causer_is_who_has_most_running() -> None:
    requests = [call("a1", "A", (1,), 4), call("a2", "A", (2,), 4), call("b", "B", (3,), 4), call("c", "C", (4,), 4)]
    log = run(Recompute(payer=Payer.CAUSER), requests, 13, 8)
    again = [event for event in log if isinstance(event, Admit) and event.payer is not None]
    assert again and {event.payer for event in again} == {"A"}


def test_a_free_readmission_leaves_the_counter_as_it_was() -> None:
    requests = [call("a", "A", (1,), 6), call("b", "B", (2, 3), 6)]
    log = run(Recompute(payer=Payer.SYSTEM), requests, 9, 12)
    before = next(event.deficit for event in log if isinstance(event, Preempt))
    again = [event for event in log if isinstance(event, Admit)][2]
    assert again.request == "b" and again.extend > 1
    assert again.deficit == before


def test_memory_that_reserves_is_refused() -> None:
    config = WorkerConfig(10, Reserving())
    policy = RecomputeDLPM(Ledger(Quanta(5), CostModel(1, 2)))
    with pytest.raises(InputError, match="expected optimistic"):
        RecomputeWorker(config, policy, FixedStep(1), Recompute())


def test_the_bounds_say_what_an_admission_costs() -> None:
    cost = CostModel(3, 2)
    assert system_paid_unit(cost, 7, 20, 11) == 3 * 7 + 2 * 11
    assert system_paid_unit(cost, 70, 20, 11) == 3 * 19 + 2 * 11
    assert causer_paid_unit(cost, 9, 11, 0) == bounds.optimistic_unit(cost, 9, 11)
    assert causer_paid_unit(cost, 9, 11, 4) == 3 * 45 + 2 * 11


def test_a_log_says_both_rules() -> None:
    rules = Recompute(Victim.FEWEST_OUTPUTS, Payer.SYSTEM)
    assert stated(rules) == {"recompute": {"victim": "fewest_outputs", "payer": "system"}}
