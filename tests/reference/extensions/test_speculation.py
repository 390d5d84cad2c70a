"""Several tokens a step: the speculative worker beside the naive model, whose forward step is its own."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from dlpm import events as ev
from dlpm.batch import WorkerConfig
from dlpm.bounds_extensions import speculative_unit
from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.extensions.speculation import SeededAcceptance, SpeculativeWorker
from dlpm.memory import Optimistic, Reserving
from dlpm.policies.fcfs import FCFS
from dlpm.request import Request
from dlpm.timing import FixedStep
from tests.reference.lockstep import Lockstep, Shape, all_rules, real_policy, shapes
from tests.reference.naive_worker import NaiveWorker, Rules


class NaiveSpeculation(NaiveWorker):
    """The naive model with a forward step that hands out tokens one at a time, until a request ends."""

    def __init__(self, rules: Rules, acceptance: SeededAcceptance, *, charge_surplus: bool) -> None:
        super().__init__(rules)
        self.acceptance = acceptance
        self.charge_surplus = charge_surplus

    def forward(self) -> None:
        given: dict[str, int] = {}
        for runner in self.running:
            request = runner.waiter.request
            given[request.id] = 0
            for _ in range(self.acceptance(request, runner.waiter.generated)):
                wanted = runner.waiter.generated < request.output_tokens
                if wanted:
                    runner.waiter.generated += 1
                    given[request.id] += 1
                if wanted or self.charge_surplus:
                    self.counters[request.client] -= self.rules.output_weight
            if not runner.computed and self.rules.visibility == "after_forward":
                self.show(runner)
            runner.computed = True
        counters = {runner.client(): self.counters[runner.client()] for runner in self.running}
        self.events.append(("output", given, counters))


class SpeculativeLockstep(Lockstep):
    """Both models with several tokens a step."""

    def __init__(self, rules: Rules, acceptance: SeededAcceptance, *, charge_surplus: bool) -> None:
        super().__init__(rules)
        config = WorkerConfig(rules.kv_tokens, Reserving(), rules.block_size, rules.visibility, rules.max_running)
        self.real = SpeculativeWorker(
            config,
            real_policy(rules),
            self.timer,
            acceptance,
            self.log.append,
            charge_surplus=charge_surplus,
            index=self.index,
            full_log=True,
        )
        self.naive = NaiveSpeculation(rules, acceptance, charge_surplus=charge_surplus)


class Speculation(RuleBasedStateMachine):
    """Submit and step: both agree, and no request gets more than it asked for or more than k tokens a step."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 1
        self.pair = Lockstep(Rules())
        self.requests: dict[str, Request] = {}

    @initialize(
        rules=all_rules(("dlpm",), ("reserving",)),
        most=st.integers(1, 5),
        seed=st.integers(0, 9),
        surplus=st.booleans(),
    )
    def start(self, rules: Rules, most: int, seed: int, surplus: bool) -> None:
        self.most = most
        self.pair = SpeculativeLockstep(rules, SeededAcceptance(most, seed), charge_surplus=surplus)

    @rule(several=st.lists(shapes(), min_size=1, max_size=4))
    def submit(self, several: list[Shape]) -> None:
        for shape in several:
            request = shape.request(f"r{len(self.requests) + 1}", self.pair.rules.block_size)
            self.requests[request.id] = request
            self.pair.submit(request)

    @rule(times=st.integers(1, 5))
    def step(self, times: int) -> None:
        for _ in range(times):
            self.pair.step()

    @invariant()
    def agree(self) -> None:
        self.pair.compare_state()
        self.pair.check_memory()

    def teardown(self) -> None:
        """Run to the end: everybody got exactly its output."""
        while not self.pair.real.idle():
            self.pair.step()
        got = dict.fromkeys(self.requests, 0)
        for event in self.pair.log:
            if isinstance(event, ev.Output):
                for request, tokens in event.tokens.items():
                    assert 1 <= tokens <= self.most
                    got[request] += tokens
        finished = {event.request for event in self.pair.log if isinstance(event, ev.Finish)}
        arrived = {event.request for event in self.pair.log if isinstance(event, ev.Arrive)}
        assert finished == arrived
        assert all(got[name] == self.requests[name].output_tokens for name in finished)


def test_the_speculative_worker_and_the_naive_model_do_the_same() -> None:
    run_state_machine_as_test(Speculation, settings=settings(max_examples=60, stateful_step_count=20))


def test_speculation_refuses_memory_that_does_not_reserve() -> None:
    with pytest.raises(InputError, match="memory"):
        SpeculativeWorker(WorkerConfig(8, Optimistic()), FCFS(), FixedStep(1), SeededAcceptance(2))


def test_the_surplus_of_a_batch_is_all_but_one_accepted_token_of_each_request() -> None:
    # U* = 17, and each of 3 requests may accept 4 tokens of weight 2 when it needs one.
    assert speculative_unit(CostModel(1, 2), 17, 4, 3) == 17 + 2 * 3 * 3
    assert speculative_unit(CostModel(1, 2), 17, 1, 3) == 17
