"""Late accounting: the worker on a late ledger beside a naive model that works its counters out from the whole past."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, run_state_machine_as_test

from dlpm import bounds
from dlpm.batch import WorkerConfig
from dlpm.bounds_extensions import late_unit
from dlpm.cost import CostModel
from dlpm.extensions.late_accounting import LateLedger
from dlpm.ledger import Quanta
from dlpm.memory import Reserving
from dlpm.policies.dlpm import DLPM
from dlpm.worker import Worker
from tests.reference.extensions.machine import VariantMachine
from tests.reference.lockstep import CLIENTS, Lockstep, all_rules
from tests.reference.naive_state import Waiter
from tests.reference.naive_worker import NaiveWorker, Rules

LONGEST_PROMPT, LONGEST_OUTPUT = 10, 11


class NaiveLateness(NaiveWorker):
    """Keeps every charge with the forward step after which it counts, and takes back what does not count yet."""

    def __init__(self, rules: Rules, lags: tuple[int, ...], *, late_extends: bool) -> None:
        super().__init__(rules)
        self.begin_lateness(lags, late_extends=late_extends)

    def begin_lateness(self, lags: tuple[int, ...], *, late_extends: bool) -> None:
        """Nothing is late yet. What a model that is late and more calls, instead of `__init__`."""
        self.lags = lags
        self.late_extends = late_extends
        self.forwards = 0
        self.accounted = 0
        self.late: list[tuple[int, str, int]] = []

    def admit(self, waiter: Waiter) -> None:
        """Charge as ever; if that is late, give it back for now."""
        cost = self.rules.extend_weight * (waiter.resident() - self.matched(waiter))
        super().admit(waiter)
        if self.late_extends:
            self.counters[waiter.client()] += cost
            self.late.append((self.forwards + 1, waiter.client(), cost))
            name, request, matched, extend, _, free = self.events[-1]
            self.events[-1] = (name, request, matched, extend, self.counters[waiter.client()], free)

    def forward(self) -> None:
        """Charge as ever, give it all back, then charge what is due."""
        self.forwards += 1
        before = dict(self.counters)
        super().forward()
        for client, counter in before.items():
            self.late.append((self.forwards, client, counter - self.counters[client]))
        self.counters = before
        lag = self.lags[self.forwards % len(self.lags)]
        self.accounted = max(self.accounted, self.forwards - lag)
        for _, client, cost in [charge for charge in self.late if charge[0] <= self.accounted]:
            self.counters[client] -= cost
        self.late = [charge for charge in self.late if charge[0] > self.accounted]
        name, tokens, charged = self.events[-1]
        assert isinstance(charged, dict)
        self.events[-1] = (name, tokens, {client: self.counters[client] for client in charged})

    def true_counter(self, client: str) -> int:
        return self.counters[client] - sum(cost for _, late, cost in self.late if late == client)


class LateLockstep(Lockstep):
    """Both models with charges that come late."""

    def __init__(self, rules: Rules, lags: tuple[int, ...], *, late_extends: bool) -> None:
        super().__init__(rules)
        self.ledger = LateLedger(
            Quanta(rules.quantum, rules.quanta),
            CostModel(rules.extend_weight, rules.output_weight),
            lambda step: lags[step % len(lags)],
            late_extends=late_extends,
        )
        config = WorkerConfig(rules.kv_tokens, Reserving(), rules.block_size, rules.visibility, rules.max_running)
        self.real = Worker(config, DLPM(self.ledger), self.timer, self.log.append, index=self.index, full_log=True)
        self.late = NaiveLateness(rules, lags, late_extends=late_extends)
        self.naive = self.late


class Lateness(VariantMachine):
    """Submit and step: both agree, and with outputs late the true counter keeps its floor."""

    def __init__(self) -> None:
        super().__init__()
        self.pair: LateLockstep | None = None
        self.delay = 0
        self.late_extends = False

    @initialize(
        rules=all_rules(("dlpm",), ("reserving",)),
        lags=st.lists(st.integers(0, 4), min_size=1, max_size=3),
        late_extends=st.booleans(),
    )
    def start(self, rules: Rules, lags: list[int], late_extends: bool) -> None:
        self.delay = max(lags)
        self.late_extends = late_extends
        self.pair = LateLockstep(rules, tuple(lags), late_extends=late_extends)

    @invariant()
    def agree(self) -> None:
        if self.pair is None:
            return
        self.pair.compare_state()
        for client in CLIENTS:
            if client in self.pair.late.counters:
                true_counter = self.pair.late.true_counter(client)
                assert self.pair.ledger.true_deficit(client) == true_counter
                assert self.late_extends or true_counter >= self.floor(self.pair.rules)

    def floor(self, rules: Rules) -> int:
        cost = CostModel(rules.extend_weight, rules.output_weight)
        running = rules.max_running or rules.kv_tokens
        tight = bounds.tight_unit(
            cost, LONGEST_PROMPT, rules.kv_tokens, max_output=LONGEST_OUTPUT, max_running=rules.max_running
        )
        return bounds.deficit_floor(late_unit(cost, tight, self.delay, running))


def test_the_worker_on_a_late_ledger_and_the_naive_model_do_the_same() -> None:
    run_state_machine_as_test(Lateness, settings=settings(max_examples=60, stateful_step_count=20))


def test_without_lag_a_late_ledger_is_the_plain_one() -> None:
    late = LateLedger(Quanta(5), CostModel(1, 2), lambda _: 0)
    late.register("A")
    late.charge_outputs({"A": 3})
    assert late.deficits == {"A": -6}
    assert late.pending("A") == 0


def test_what_is_late_is_a_full_batch_for_every_step() -> None:
    # U* = 17; in each of 3 steps 4 requests may have yielded a token of weight 2.
    assert late_unit(CostModel(1, 2), 17, 3, 4) == 17 + 2 * 4 * 3
