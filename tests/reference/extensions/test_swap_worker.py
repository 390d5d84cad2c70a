"""Preemption by swap: the swapping worker beside a naive model with lists and a clock."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from dlpm import events as ev
from dlpm.batch import WorkerConfig
from dlpm.errors import InputError
from dlpm.extensions.swap.config import SwapConfig
from dlpm.extensions.swap.states import IllegalMoveError, State, States
from dlpm.extensions.swap.worker import SwapWorker
from dlpm.memory import Optimistic, Reserving
from dlpm.policies.fcfs import FCFS
from dlpm.request import Request
from dlpm.swap_timing import FixedCopy
from dlpm.timing import FixedStep
from tests.reference.extensions.naive_swap import NaiveSwap, SwapRules
from tests.reference.lockstep import Shape, all_rules, plain, real_policy, real_worker, shapes
from tests.reference.naive_worker import PlainEvent, Rules


def in_the_models_words(event: ev.Event) -> PlainEvent:
    """Events of a swapping worker."""
    match event:
        case ev.Resume():
            return ("resume", event.request, event.copied, event.began_us, event.copied_us, event.deficit)
        case ev.Preempt():
            return ("preempt", event.request, event.kind, event.deficit, event.copied, event.copied_us)
        case _:
            return plain(event)


def swapping_worker(rules: Rules, swap: SwapRules, log: list[ev.Event], group_blocks: int = 1) -> SwapWorker:
    """A swapping worker under these rules; copies block by block, steps of one microsecond a token."""
    config = WorkerConfig(
        rules.kv_tokens, Optimistic(rules.watermark), rules.block_size, rules.visibility, rules.max_running
    )
    options = SwapConfig(
        cpu_tokens=swap.cpu_blocks * rules.block_size,
        group_blocks=group_blocks,
        asynchronous=swap.asynchronous,
        ahead=swap.ahead,
        resume_first=swap.resume_first,
    )
    return SwapWorker(config, real_policy(rules), FixedStep(3), options, FixedCopy(swap.copy_us), log.append)


class SwapPair:
    """The real worker and the naive one, in lockstep; requests are told apart by content."""

    def __init__(self, rules: Rules, swap: SwapRules, group_blocks: int = 1) -> None:
        self.rules = rules
        self.log: list[ev.Event] = []
        self.real = swapping_worker(rules, swap, self.log, group_blocks)
        self.naive = NaiveSwap(rules, swap)
        self.evicted = 0
        self.stalled = 0

    def submit(self, request: Request) -> None:
        taken = True
        try:
            self.real.submit(request, self.real.time_us)
        except InputError:
            taken = False
        assert taken == self.naive.submit(request)
        self.compare_events()

    def step(self) -> None:
        self.naive.start = self.real.time_us
        ran = self.naive.begin_step()
        ends_us = self.real.begin_step()
        assert (ends_us is not None) == ran
        self.compare_events()
        if ends_us is not None:
            self.stalled += self.naive.now - self.real.time_us
            assert ends_us == self.naive.now + 3
            self.real.end_step(ends_us)
            self.naive.end_step()
            self.compare_events()
        assert self.real.traffic.stalled_us == self.stalled

    def compare_events(self) -> None:
        new = [event for event in self.log if not isinstance(event, ev.Evict | ev.Order)]
        self.evicted += sum(event.tokens or 0 for event in self.log if isinstance(event, ev.Evict))
        real = [in_the_models_words(event) for event in new]
        # Logs of level `decisions` carry no free memory.
        assert real == [(*event[:5], None) if event[0] == "admit" else event for event in self.naive.events]
        assert self.evicted == self.naive.evicted
        self.log.clear()
        self.naive.events.clear()

    def compare_state(self) -> None:
        real, naive = self.real, self.naive
        assert [run.queued.id for run in real.running] == [runner.waiter.request.id for runner in naive.running]
        words = {"out": State.SWAPPING_OUT, "there": State.SWAPPED, "back": State.SWAPPING_IN}
        assert {name: real.states.of(name) for name in real.away} == {
            gone.runner.waiter.request.id: words[gone.where] for gone in naive.gone
        }
        assert real.free_tokens() == naive.free_tokens()
        assert len(real.cpu.pool.held_blocks()) == len(naive.copied)
        for client in naive.counters:
            assert real.policy.counter(client) == naive.counter(client)

    def check_places(self) -> None:
        """Every block has one owner: a cached block, or a request on the GPU for its private tokens."""
        real = self.real
        size = self.rules.block_size
        runs = real.running + [a.run for a in real.away.values() if real.states.of(a.queued.id) is not State.SWAPPED]
        tables = [real.placement.table(run) for run in runs]
        for run, table in zip(runs, tables, strict=True):
            assert len(table) == -(-run.queued.resident // size)
            assert len(set(table)) == len(table)
        private = [block for run in runs for block in real.placement.private_blocks(run.queued.id)]
        assert len(set(private)) == len(private)
        held = real.placement.pool.held_blocks()
        assert set(private) <= held.keys()
        assert len(held) == len(private) + real.cache.total // size


class Swapping(RuleBasedStateMachine):
    """Submit and step: both agree, and nothing is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = SwapPair(Rules(memory="optimistic"), SwapRules())
        self.sent = 0

    @initialize(
        rules=all_rules(("dlpm", "fcfs", "lpm"), ("optimistic",)),
        limit=st.integers(2, 5),
        cpu_blocks=st.sampled_from((0, 2, 5, 9, 60)),
        copy_us=st.sampled_from((0, 1, 4)),
        ahead=st.sampled_from((None, 0, 3)),
        resume_first=st.booleans(),
        group_blocks=st.sampled_from((1, 3)),
    )
    def start(
        self,
        rules: Rules,
        limit: int,
        cpu_blocks: int,
        copy_us: int,
        ahead: int | None,
        resume_first: bool,
        group_blocks: int,
    ) -> None:
        limited = rules if rules.block_size == 1 else replace(rules, max_running=rules.max_running or limit)
        swap = SwapRules(cpu_blocks, copy_us, ahead is not None, ahead or 0, resume_first)
        self.pair = SwapPair(limited, swap, group_blocks)

    @rule(several=st.lists(shapes(), min_size=1, max_size=4))
    def submit(self, several: list[Shape]) -> None:
        for shape in several:
            self.sent += 1
            whole = replace(shape, tail_hashed=False)
            self.pair.submit(whole.request(f"r{self.sent}", self.pair.rules.block_size))

    @rule(times=st.integers(1, 5))
    def step(self, times: int) -> None:
        for _ in range(times):
            self.pair.step()

    @invariant()
    def agree(self) -> None:
        self.pair.compare_state()
        self.pair.check_places()

    def teardown(self) -> None:
        """Run to the end: everybody is served, and nothing is held."""
        steps = 0
        while not self.pair.real.idle():
            self.pair.step()
            steps += 1
            assert steps < 2_000
        real = self.pair.real
        assert real.free_tokens() == self.pair.rules.kv_tokens
        assert real.cpu.held == 0
        assert not real.placement.pool.spare_runs()
        assert real.traffic.swapped_in == real.traffic.swapped_out


def test_the_swapping_worker_and_the_naive_model_do_the_same() -> None:
    run_state_machine_as_test(Swapping, settings=settings(max_examples=120, stateful_step_count=20))


def two_long_ones(policy_rules: Rules, swap: SwapRules) -> tuple[SwapWorker, list[ev.Event]]:
    """Two requests that outgrow memory together, run to the end."""
    log: list[ev.Event] = []
    worker = swapping_worker(policy_rules, swap, log)
    for number, client in enumerate("AB"):
        request = Request(f"r{number}", client, 0, 2, 6, 6, prompt=(number, 7))
        worker.submit(request, 0)
    while not worker.idle():
        worker.step()
    return worker, log


@pytest.mark.parametrize("asynchronous", [False, True])
def test_nobody_pays_for_being_swapped(asynchronous: bool) -> None:
    """What is charged is one extend a token of the prompt and one output a token: as if memory had been larger."""
    rules = Rules(memory="optimistic", kv_tokens=10, quantum=50)
    worker, log = two_long_ones(rules, SwapRules(copy_us=2, asynchronous=asynchronous))
    assert worker.traffic.swapped_out >= 1
    assert worker.traffic.recomputed == 0
    for client in "AB":
        assert worker.policy.counter(client) == 50 - (1 * 2 + 2 * 6)
    assert sum(isinstance(event, ev.Admit) for event in log) == 2


def test_without_cpu_memory_the_log_is_that_of_the_plain_worker() -> None:
    """Every preemption falls back to recomputation, and not a byte differs."""
    rules = Rules(memory="optimistic", kv_tokens=10, quantum=50)
    worker, log = two_long_ones(rules, SwapRules(cpu_blocks=0))
    plain_log: list[ev.Event] = []
    plain_worker = real_worker(rules, plain_log, full_log=False, timer=FixedStep(3))
    for number, client in enumerate("AB"):
        plain_worker.submit(Request(f"r{number}", client, 0, 2, 6, 6, prompt=(number, 7)), 0)
    while not plain_worker.idle():
        plain_worker.step()
    assert worker.traffic.recomputed >= 1
    assert log == plain_log


def test_the_next_turn_of_a_conversation_copies_only_what_is_new() -> None:
    """A first turn is swapped out; the second begins with its prompt and reply, and finds them in CPU memory."""
    rules = Rules(memory="optimistic", kv_tokens=12, quantum=100, policy="fcfs")
    log: list[ev.Event] = []
    worker = swapping_worker(rules, SwapRules(), log)
    other = Request("other", "B", 0, 2, 6, 6, prompt=(8, 9))
    first = Request("first", "A", 0, 3, 4, 4, prompt=(1, 2, 3), reply=(4, 5, 6, 7))
    for request in (other, first):
        worker.submit(request, 0)
    while not worker.idle():
        worker.step()
    copied = [event.copied for event in log if isinstance(event, ev.Preempt)]
    assert copied == [3 + 3]  # after 3 steps 5 + 6 tokens are in memory, and 12 do not hold two more
    log.clear()
    worker.submit(Request("again", "B", 0, 2, 6, 6, prompt=(9, 9)), 0)
    worker.submit(Request("second", "A", 0, 5, 4, 4, prompt=(1, 2, 3, 4, 5)), 0)
    while not worker.idle():
        worker.step()
    [swap] = [event for event in log if isinstance(event, ev.Preempt)]
    assert (swap.request, swap.kind) == ("second", "swap")
    assert swap.copied == 2  # after 2 steps 4 + 7 tokens are in memory; 5 of the 7 are the first turn's
    assert worker.traffic.reused_tokens == 5


def test_a_request_moves_only_as_the_table_says() -> None:
    states = States()
    states.arrive("r")
    with pytest.raises(IllegalMoveError, match="waiting and cannot be swapped"):
        states.move("r", State.SWAPPED)
    states.move("r", State.RUNNING)
    states.move("r", State.SWAPPING_OUT)
    for forbidden in (State.RUNNING, State.SWAPPING_IN, State.FINISHED, State.WAITING):
        with pytest.raises(IllegalMoveError):
            states.move("r", forbidden)


@pytest.mark.parametrize(
    ("config", "options", "field"),
    [
        (WorkerConfig(8, Reserving()), SwapConfig(8), "memory"),
        (WorkerConfig(8, Optimistic(), block_size=2), SwapConfig(8), "max_running"),
    ],
)
def test_a_swapping_worker_refuses_what_it_cannot_do(config: WorkerConfig, options: SwapConfig, field: str) -> None:
    with pytest.raises(InputError) as error:
        SwapWorker(config, FCFS(), FixedStep(1), options, FixedCopy(1))
    assert error.value.field == field


def test_sizes_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match=r"swap\.cpu_tokens"):
        SwapConfig(-1)
    with pytest.raises(InputError, match=r"swap\.ahead"):
        SwapConfig(4, ahead=1)


def test_hashes_of_partly_filled_blocks_are_refused() -> None:
    worker = swapping_worker(Rules(memory="optimistic", block_size=2, max_running=2), SwapRules(), [])
    with pytest.raises(InputError, match="full blocks"):
        worker.submit(Request("r", "A", 0, 3, 1, 1, blocks=(5, 6)), 0)
