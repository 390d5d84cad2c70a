"""Churn: the forgetting worker beside a naive model that looks for idle clients at every turn."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from dlpm import bounds
from dlpm.batch import WorkerConfig
from dlpm.bounds_extensions import refills_until_forgotten, remembered_clients
from dlpm.cost import CostModel
from dlpm.extensions.churn import ChurnDLPM, DebtKeepingLedger, NaiveForgettingLedger
from dlpm.ledger import Quanta
from dlpm.memory import Optimistic, Reserving
from dlpm.request import Request
from dlpm.worker import Worker
from tests.reference.lockstep import Lockstep, Shape, all_rules, shapes
from tests.reference.naive_worker import NaiveWorker, Rules


class NaiveChurn(NaiveWorker):
    """Forgets who has nothing queued, nothing running and got nothing in the latest forward step."""

    def __init__(self, rules: Rules, *, keeps_debt: bool) -> None:
        super().__init__(rules)
        self.keeps_debt = keeps_debt
        self.served_last: list[str] = []

    def forget(self) -> None:
        active = [waiter.client() for waiter in self.queue] + [runner.client() for runner in self.running]
        for client in list(self.counters):
            idle = client not in active and client not in self.served_last
            if idle and (self.counters[client] >= 0 or not self.keeps_debt):
                del self.counters[client]

    def submit(self, request: Request) -> bool:
        if request.input_tokens + request.max_output <= self.rules.kv_tokens:
            self.forget()
        return super().submit(request)

    def admit_by_policy(self) -> None:
        self.forget()
        super().admit_by_policy()

    def check_refill(self) -> bool:
        """Whose debt this refill has paid is forgotten before anything else happens."""
        happened = super().check_refill()
        self.forget()
        return happened

    def forward(self) -> None:
        self.served_last = [runner.client() for runner in self.running]
        super().forward()


class ChurnLockstep(Lockstep):
    """Both models with the same rule for idle clients."""

    def __init__(self, rules: Rules, *, keeps_debt: bool) -> None:
        super().__init__(rules)
        rule_of = DebtKeepingLedger if keeps_debt else NaiveForgettingLedger
        quanta = Quanta(rules.quantum, rules.quanta)
        self.ledger = rule_of(quanta, CostModel(rules.extend_weight, rules.output_weight))
        memory = Reserving() if rules.memory == "reserving" else Optimistic(rules.watermark)
        config = WorkerConfig(rules.kv_tokens, memory, rules.block_size, rules.visibility, rules.max_running)
        self.real = Worker(config, ChurnDLPM(self.ledger), self.timer, self.log.append, index=self.index, full_log=True)
        self.naive = NaiveChurn(rules, keeps_debt=keeps_debt)


class Churn(RuleBasedStateMachine):
    """Submit and step, clients coming and going: both agree, and whoever is remembered idle has debt."""

    def __init__(self) -> None:
        super().__init__()
        self.pair: ChurnLockstep | None = None
        self.submitted = 0
        self.most_active = 0

    @initialize(rules=all_rules(("dlpm",), ("reserving", "optimistic")), keeps_debt=st.booleans())
    def start(self, rules: Rules, keeps_debt: bool) -> None:
        self.pair = ChurnLockstep(rules, keeps_debt=keeps_debt)

    @rule(several=st.lists(shapes(), min_size=1, max_size=3), guests=st.booleans())
    def submit(self, several: list[Shape], guests: bool) -> None:
        """Requests of the usual clients, or each of a client that is new."""
        assert self.pair is not None
        for shape in several:
            self.submitted += 1
            client = f"guest{self.submitted}" if guests else shape.client
            named = Shape(
                client,
                shape.prompt,
                shape.output,
                shape.spare_output,
                shape.reply,
                shape.hashed,
                shape.tail_hashed,
            )
            self.pair.submit(named.request(f"r{self.submitted}", self.pair.rules.block_size))
            self.count_active()

    @rule(times=st.integers(1, 6))
    def step(self, times: int) -> None:
        assert self.pair is not None
        for _ in range(times):
            self.pair.step()
            self.count_active()

    def count_active(self) -> None:
        assert self.pair is not None
        naive = self.pair.naive
        assert isinstance(naive, NaiveChurn)
        active = {w.client() for w in naive.queue} | {r.client() for r in naive.running} | set(naive.served_last)
        self.most_active = max(self.most_active, len(active))

    @invariant()
    def agree(self) -> None:
        if self.pair is None:
            return
        self.pair.compare_state()
        naive, rules = self.pair.naive, self.pair.rules
        assert isinstance(naive, NaiveChurn)
        if rules.memory == "reserving" and naive.keeps_debt:
            cost = CostModel(rules.extend_weight, rules.output_weight)
            floor = bounds.deficit_floor(bounds.tight_unit(cost, 10, rules.kv_tokens))
            assert all(counter >= floor for counter in naive.counters.values())
            smallest = min((rules.quantum, *rules.quanta.values()))
            assert len(naive.counters) <= remembered_clients(self.most_active, smallest, floor)


def test_the_forgetting_worker_and_the_naive_model_do_the_same() -> None:
    run_state_machine_as_test(Churn, settings=settings(max_examples=80, stateful_step_count=25))


def ledger_with(deficit: int) -> DebtKeepingLedger:
    ledger = DebtKeepingLedger(Quanta(5), CostModel(1, 2))
    ledger.deficits["A"] = deficit
    return ledger


@pytest.mark.parametrize("deficit", [0, 1, 5])
def test_credit_is_lost_at_once(deficit: int) -> None:
    ledger = ledger_with(deficit)
    ledger.rest("A")
    assert ledger.deficits == {}


@pytest.mark.parametrize(("deficit", "refills"), [(-1, 1), (-5, 1), (-6, 2), (-14, 3)])
def test_debt_is_kept_until_refills_have_paid_it(deficit: int, refills: int) -> None:
    ledger = ledger_with(deficit)
    ledger.rest("A")
    seen = 0
    while "A" in ledger.deficits:
        ledger.check_refill(())
        seen += 1
    assert seen == refills == refills_until_forgotten(5, deficit)
    assert ledger.debtors == set()


def test_a_debtor_that_returns_goes_on_with_its_debt() -> None:
    ledger = ledger_with(-7)
    ledger.rest("A")
    ledger.register("A")
    ledger.check_refill(("A",))
    ledger.check_refill(("A",))
    assert ledger.deficits == {"A": 3}


def test_a_running_client_is_not_idle() -> None:
    ledger = ledger_with(3)
    ledger.charge_extend("A", 1)
    ledger.rest_if_idle("A", ())
    assert ledger.deficits == {"A": 2}


def test_who_is_remembered_is_active_or_was_while_its_debt_is_paid() -> None:
    # 10 active clients, debts of at most 14, quantum 5: three refills pay any debt.
    assert remembered_clients(10, 5, -14) == 10 + 30
