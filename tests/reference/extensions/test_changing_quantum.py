"""A changing quantum: the worker beside a naive model that pays from a list, and the gap over every interval."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from dlpm import bounds, bounds_extensions
from dlpm import events as ev
from dlpm.batch import WorkerConfig
from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.extensions.changing_quantum import ChangingLedger, IndividualLedger, ListedQuanta, QuantumRange
from dlpm.memory import Reserving
from dlpm.policies.dlpm import DLPM
from dlpm.worker import Worker
from tests.reference.lockstep import CLIENTS, Lockstep, Shape, real_worker, shapes
from tests.reference.naive_worker import NaiveWorker, Rules

KV_TOKENS, LONGEST = 14, 13


class NaiveChanging(NaiveWorker):
    """Looks the quantum of a refill up by how many refills there were."""

    def __init__(self, rules: Rules, schedule: tuple[int, ...]) -> None:
        super().__init__(rules)
        self.schedule = schedule
        self.refills = 0

    def check_refill(self) -> bool:
        for waiter in self.queue:
            if self.counters[waiter.client()] > 0:
                return False
        quantum = self.schedule[self.refills] if self.refills < len(self.schedule) else self.schedule[-1]
        self.refills += 1
        poor = [client for client in self.counters if self.counters[client] <= 0]
        for client in poor:
            self.counters[client] += quantum
        self.events.append(("refill", {client: self.counters[client] for client in poor}))
        return True


class ChangingLockstep(Lockstep):
    """Both models with a schedule of quanta."""

    def __init__(self, rules: Rules, schedule: tuple[int, ...]) -> None:
        super().__init__(rules)
        cost = CostModel(rules.extend_weight, rules.output_weight)
        self.ledger = ChangingLedger(QuantumRange(min(schedule), max(schedule)), cost, ListedQuanta(schedule))
        config = WorkerConfig(rules.kv_tokens, Reserving(), rules.block_size, rules.visibility, rules.max_running)
        self.real = Worker(config, DLPM(self.ledger), self.timer, self.log.append, index=self.index, full_log=True)
        self.naive = NaiveChanging(rules, schedule)


class Changing(RuleBasedStateMachine):
    """Submit and step: both agree, counters keep their range, and every pair its gap."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule: tuple[int, ...] = (1,)
        self.pair: ChangingLockstep | None = None
        self.submitted = 0
        self.read = 0
        self.waiting: dict[str, int] = dict.fromkeys(CLIENTS, 0)
        self.served: dict[str, int] = dict.fromkeys(CLIENTS, 0)
        self.leads: dict[tuple[str, str], list[int]] = {}

    @initialize(schedule=st.lists(st.integers(1, 40), min_size=1, max_size=12))
    def start(self, schedule: list[int]) -> None:
        self.schedule = tuple(schedule)
        self.pair = ChangingLockstep(Rules(kv_tokens=KV_TOKENS), self.schedule)

    @rule(several=st.lists(shapes(), min_size=1, max_size=6))
    def submit(self, several: list[Shape]) -> None:
        assert self.pair is not None
        for shape in several:
            self.submitted += 1
            self.pair.submit(shape.request(f"r{self.submitted}", 1))

    @rule(times=st.integers(1, 8))
    def step(self, times: int) -> None:
        assert self.pair is not None
        for _ in range(times):
            self.pair.step()

    @invariant()
    def agree_and_keep_the_bounds(self) -> None:
        if self.pair is None:
            return
        self.pair.compare_state()
        rules = self.pair.rules
        cost = CostModel(rules.extend_weight, rules.output_weight)
        floor = bounds.deficit_floor(bounds.tight_unit(cost, LONGEST, KV_TOKENS))
        gap = bounds_extensions.changing_gap(max(self.schedule), floor)
        assert all(floor <= deficit <= max(self.schedule) for deficit in self.pair.ledger.deficits.values())
        clients = {event.request: event.client for event in self.pair.log if isinstance(event, ev.Arrive)}
        for event in self.pair.log[self.read :]:
            if isinstance(event, ev.Arrive):
                self.waiting[event.client] += 1
            elif isinstance(event, ev.Admit):
                self.waiting[clients[event.request]] -= 1
                self.served[clients[event.request]] += rules.extend_weight * event.extend
            elif isinstance(event, ev.Output):
                for request, tokens in event.tokens.items():
                    self.served[clients[request]] += rules.output_weight * tokens
            for behind in CLIENTS:
                for ahead in CLIENTS:
                    leads = self.leads.setdefault((behind, ahead), [])
                    leads.append(self.served[ahead] - self.served[behind])
                    assert leads[-1] - min(leads) <= gap
                    if not self.waiting[behind]:
                        leads.clear()
        self.read = len(self.pair.log)


def test_the_worker_and_the_naive_model_do_the_same_and_keep_the_bounds() -> None:
    run_state_machine_as_test(Changing, settings=settings(max_examples=60, stateful_step_count=20))


@given(quantum=st.integers(1, 9), several=st.lists(shapes(), min_size=1, max_size=15))
def test_a_range_of_one_quantum_logs_what_the_plain_ledger_logs(quantum: int, several: list[Shape]) -> None:
    rules = Rules(kv_tokens=KV_TOKENS, quantum=quantum)
    logs: list[list[ev.Event]] = [[], []]
    workers = [real_worker(rules, log) for log in logs]
    cost = CostModel(rules.extend_weight, rules.output_weight)
    workers[1].policy = DLPM(ChangingLedger(QuantumRange(quantum, quantum), cost, ListedQuanta((quantum,))))
    for worker in workers:
        for number, shape in enumerate(several):
            request = shape.request(f"r{number}", rules.block_size)
            if request.input_tokens + request.max_output <= KV_TOKENS:
                worker.submit(request, 0)
            worker.step()
        while not worker.idle():
            worker.step()
    assert logs[0] == logs[1]
    assert logs[0] or not any(len(shape.prompt) + shape.output + shape.spare_output <= KV_TOKENS for shape in several)


class Asked:
    """Counts how often it is asked."""

    def __init__(self, quantum: int) -> None:
        self.quantum = quantum
        self.times = 0

    def next_quantum(self) -> int:
        self.times += 1
        return self.quantum


def ledger_of(source: Asked) -> ChangingLedger:
    ledger = ChangingLedger(QuantumRange(3, 7), CostModel(1, 2), source)
    ledger.register("A")
    ledger.register("B")
    return ledger


def test_the_source_is_asked_once_for_each_refill_that_fires_and_for_no_other() -> None:
    source = Asked(5)
    ledger = ledger_of(source)
    assert ledger.check_refill(["A"]) == {"A": 5, "B": 5}
    assert source.times == 1
    assert ledger.check_refill(["A"]) == {}, "A has credit"
    assert ledger.check_refill([]) == {}, "nobody is at or below 0"
    ledger.deficits["B"] = 0
    assert ledger.check_refill(["B", "A"]) == {}, "B is to be paid, but A has credit"
    assert source.times == 1
    assert ledger.check_refill(["B"]) == {"B": 5}
    assert source.times == 2


@pytest.mark.parametrize("quantum", [2, 8])
def test_a_quantum_outside_the_range_is_refused_and_nobody_is_paid(quantum: int) -> None:
    ledger = ledger_of(Asked(quantum))
    with pytest.raises(InputError, match="expected a quantum from 3 to 7"):
        ledger.check_refill(["A", "B"])
    assert ledger.deficits == {"A": 0, "B": 0}


@pytest.mark.parametrize(("least", "most", "field"), [(0, 5, "least"), (6, 5, "most")])
def test_a_range_is_from_at_least_one_up(least: int, most: int, field: str) -> None:
    with pytest.raises(InputError, match=f"quantum_range.{field}"):
        QuantumRange(least, most)


def test_a_schedule_needs_a_quantum() -> None:
    with pytest.raises(InputError, match="one quantum or more"):
        ListedQuanta(())


@given(st.lists(st.tuples(st.integers(3, 7), st.integers(3, 7)), min_size=1, max_size=30))
def test_with_a_quantum_each_the_gap_grows_by_at_most_the_width_of_the_range(paid: list[tuple[int, int]]) -> None:
    quanta: dict[str, int] = {}
    ledger = IndividualLedger(QuantumRange(3, 7), CostModel(1, 2), quanta.__getitem__)
    ledger.register("A")
    ledger.register("B")
    served = {"A": 0, "B": 0}
    for refills, (of_a, of_b) in enumerate(paid, start=1):
        quanta.update(A=of_a, B=of_b)
        assert ledger.check_refill(["A", "B"]) == ledger.deficits
        for client in served:
            while ledger.has_credit(client):
                ledger.charge_extend(client, 2)
                served[client] += 2
        # A request costs 2: the floor is -1.
        assert abs(served["A"] - served["B"]) <= bounds_extensions.individual_gap(3, 7, -1, refills)


def test_a_quantum_of_its_own_outside_the_range_is_refused() -> None:
    ledger = IndividualLedger(QuantumRange(3, 7), CostModel(1, 2), lambda _: 8)
    ledger.register("A")
    with pytest.raises(InputError, match="expected a quantum from 3 to 7"):
        ledger.check_refill(["A"])


def test_the_bounds_are_those_of_the_definition() -> None:
    # Ceilings 10 and 2, floor -14: the ranges are 24 and 16.
    assert bounds_extensions.changing_gap(10, -14) == 24 + 24
    assert bounds_extensions.shrunk_gap(10, 2, -14) == 24 + 16
    assert bounds_extensions.shrunk_gap(10, 10, -14) == bounds_extensions.changing_gap(10, -14)
    assert bounds_extensions.individual_gap(2, 10, -14, 5) == 48 + 5 * 8
