"""Shared prefixes: the sharing worker beside a naive one that keeps rows, and what each rule for the payer promises."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, run_state_machine_as_test

from dlpm import bounds
from dlpm import events as ev
from dlpm.batch import WorkerConfig
from dlpm.bounds_extensions import split_ceiling, split_gap
from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.extensions.shared_prefixes import (
    ALONE,
    FIRST,
    SPLIT,
    RefundingLedger,
    SharedPrefixDLPM,
    charged_alone,
    join,
    path_to,
)
from dlpm.extensions.shared_prefixes_worker import SharingWorker
from dlpm.ledger import Ledger, Quanta
from dlpm.memory import Optimistic, Reserving
from dlpm.policies.dlpm import DLPM
from dlpm.request import Request
from dlpm.timing import FixedStep, StepTimer
from dlpm.worker import Worker
from tests.reference.extensions.machine import VariantMachine
from tests.reference.extensions.naive_sharing import NaiveSharing
from tests.reference.lockstep import ONE_MICROSECOND, Lockstep, Shape, all_rules, shapes, walk
from tests.reference.naive_worker import Rules

LONGEST_PROMPT, LONGEST_OUTPUT = 11, 11


def sharing_worker(
    rules: Rules, payer: str, log: list[ev.Event], timer: StepTimer = ONE_MICROSECOND, index: int | None = None
) -> SharingWorker:
    """A sharing worker under ``rules``."""
    ledger = RefundingLedger(Quanta(rules.quantum, rules.quanta), CostModel(rules.extend_weight, rules.output_weight))
    memory = Reserving() if rules.memory == "reserving" else Optimistic(rules.watermark)
    config = WorkerConfig(rules.kv_tokens, memory, rules.block_size, rules.visibility, rules.max_running)
    policy = SharedPrefixDLPM(ledger)
    return SharingWorker(config, policy, timer, payer, log.append, index=index, full_log=True)


class SharingLockstep(Lockstep):
    """Both models with the same payer."""

    def __init__(self, rules: Rules, payer: str) -> None:
        super().__init__(rules)
        self.worker = sharing_worker(rules, payer, self.log, self.timer, self.index)
        self.real = self.worker
        self.sharing = NaiveSharing(rules, payer)
        self.naive = self.sharing

    def compare_settlements(self) -> None:
        """What was charged and given back, and who holds what."""
        settled = [
            (event.request, event.extend if event.charged is None else event.charged, dict(event.refunds or {}))
            for event in self.log
            if isinstance(event, ev.Admit)
        ]
        assert settled == self.sharing.settled
        names = {node: prefix for prefix, node in walk(self.worker.cache.root, (), self.rules.block_size)}
        held = {
            (names[node], client): tokens
            for node, shares in self.worker.holdings.shares.items()
            for client, tokens in shares.items()
        }
        assert held == {(row.prefix, row.client): row.tokens for row in self.sharing.rows}


class Sharing(VariantMachine):
    """Submit and step: both agree, and floor, ceiling and charges are what the theorems say."""

    def __init__(self) -> None:
        super().__init__()
        self.pair: SharingLockstep | None = None
        self.payer = FIRST

    @initialize(rules=all_rules(("dlpm",), ("reserving", "optimistic")), payer=st.sampled_from((ALONE, SPLIT, SPLIT)))
    def start(self, rules: Rules, payer: str) -> None:
        self.pair = SharingLockstep(rules, payer)
        self.payer = payer

    @invariant()
    def agree(self) -> None:
        if self.pair is None:
            return
        self.pair.compare_state()
        self.pair.compare_settlements()
        rules, counters = self.pair.rules, self.pair.naive.counters
        cost = CostModel(rules.extend_weight, rules.output_weight)
        for client, counter in counters.items():
            assert counter >= floor_of(rules, cost)
            ceiling = quantum = rules.quantum_of(client)
            if self.payer == SPLIT:
                room = rules.kv_tokens + (rules.memory == "optimistic")
                ceiling = split_ceiling(cost, quantum, room, len(counters))
            assert counter <= ceiling
        for run in self.pair.worker.running:
            assert all(run.queued.client in self.pair.worker.holdings.shares[node] for node in path_to(run.node))
        for event in self.pair.log:
            if isinstance(event, ev.Admit):
                assert event.charged is not None
                assert event.extend <= event.charged <= event.matched + event.extend
                if self.payer == SPLIT:
                    assert event.charged - sum((event.refunds or {}).values()) == event.extend


def floor_of(rules: Rules, cost: CostModel) -> int:
    """The floor of the plain algorithm."""
    if rules.memory == "reserving":
        unit = bounds.tight_unit(
            cost, LONGEST_PROMPT, rules.kv_tokens, max_output=LONGEST_OUTPUT, max_running=rules.max_running
        )
    else:
        recomputation = bounds.longest_recomputation(LONGEST_PROMPT, rules.kv_tokens, LONGEST_OUTPUT)
        outputs = bounds.outputs_after_admission(rules.kv_tokens, LONGEST_OUTPUT, rules.max_running)
        unit = bounds.optimistic_unit(cost, recomputation, outputs)
    return bounds.deficit_floor(unit)


def test_the_sharing_worker_and_the_naive_model_do_the_same() -> None:
    run_state_machine_as_test(Sharing, settings=settings(max_examples=80, stateful_step_count=20))


# -- runs --------------------------------------------------------------------------------------------------------------


def run(worker: Worker, requests: Sequence[Request]) -> None:
    """Submit everything, and step until all is done."""
    for request in requests:
        worker.submit(request, 0)
    while not worker.idle():
        worker.step()


def request(name: str, client: str, prompt: Sequence[int], output: int = 1, reply: Sequence[int] = ()) -> Request:
    return Request(name, client, 0, len(prompt), output, output, prompt=tuple(prompt), reply=tuple(reply))


def admissions(log: Sequence[ev.Event]) -> list[ev.Admit]:
    return [event for event in log if isinstance(event, ev.Admit)]


@given(all_rules(("dlpm",), ("reserving", "optimistic")), st.lists(shapes(), min_size=1, max_size=25))
@settings(max_examples=60)
def test_where_the_first_pays_the_log_is_that_of_the_plain_worker(rules: Rules, several: list[Shape]) -> None:
    fitting = [shape for shape in several if len(shape.prompt) + shape.output + shape.spare_output <= rules.kv_tokens]
    requests = [shape.request(f"r{k}", rules.block_size) for k, shape in enumerate(fitting)]
    plain_log: list[ev.Event] = []
    ledger = Ledger(Quanta(rules.quantum, rules.quanta), CostModel(rules.extend_weight, rules.output_weight))
    log: list[ev.Event] = []
    sharing = sharing_worker(rules, FIRST, log)
    run(Worker(sharing.config, DLPM(ledger), FixedStep(1), plain_log.append, full_log=True), requests)
    run(sharing, requests)
    assert log == plain_log


@given(st.lists(shapes(), min_size=1, max_size=15), st.integers(1, 4))
@settings(max_examples=60)
def test_alone_a_client_is_charged_what_a_worker_of_its_own_would_compute(several: list[Shape], block: int) -> None:
    """Requests one after another in a memory that holds them all: nothing is evicted, and company changes nothing."""
    rules = Rules(kv_tokens=1000, block_size=block, quantum=1000)
    requests = [shape.request(f"r{k}", block) for k, shape in enumerate(several)]
    log: list[ev.Event] = []
    shared = sharing_worker(rules, ALONE, log)
    for one in requests:
        run(shared, [one])
    owners = {one.id: one.client for one in requests}
    for client in set(owners.values()):
        own: list[ev.Event] = []
        ledger = Ledger(Quanta(1000), CostModel(1, 2))
        private = Worker(shared.config, DLPM(ledger), FixedStep(1), own.append)
        for one in requests:
            if one.client == client:
                run(private, [one])
        charged = [event.charged for event in admissions(log) if owners[event.request] == client]
        assert charged == [event.extend for event in admissions(own)]


@given(st.lists(shapes(), min_size=1, max_size=15), st.integers(1, 4))
@settings(max_examples=60)
def test_alone_all_together_pay_at_most_once_a_client_for_what_was_computed(several: list[Shape], block: int) -> None:
    log: list[ev.Event] = []
    sharing = sharing_worker(Rules(kv_tokens=40, block_size=block, quantum=7), ALONE, log)
    run(sharing, [shape.request(f"r{k}", block) for k, shape in enumerate(several)])
    clients = len({shape.client for shape in several})
    computed = sum(event.extend for event in admissions(log))
    assert computed <= sum(event.charged or 0 for event in admissions(log)) <= clients * computed


def test_of_two_each_pays_half_and_of_three_each_a_third() -> None:
    log: list[ev.Event] = []
    worker = sharing_worker(Rules(kv_tokens=100, quantum=1000), SPLIT, log)
    prompt = list(range(12))
    for client in "ABC":
        run(worker, [request(client, client, [*prompt, 90 + ord(client)])])
    paid = [(event.charged, dict(event.refunds or {})) for event in admissions(log)]
    # Each has one token of its own. B pays 6 of 12 back to A; then C pays 4, of which A and B get 2 each.
    assert paid == [(13, {}), (7, {"A": 6}), (5, {"A": 2, "B": 2})]


def test_who_holds_a_prefix_already_joins_nothing() -> None:
    log: list[ev.Event] = []
    worker = sharing_worker(Rules(kv_tokens=100, quantum=1000), SPLIT, log)
    for name, client in (("a", "A"), ("b", "B"), ("again", "B")):
        run(worker, [request(name, client, [1, 2, 3, 4, ord(name[0])])])
    assert [(event.charged, event.refunds) for event in admissions(log)][-1] == (1, None)


@pytest.mark.parametrize(("payer", "charged"), [(SPLIT, 3), (ALONE, 7)])
def test_nobody_owes_anything_for_what_was_generated(payer: str, charged: int) -> None:
    """Alone, the other client would have had to compute the reply, and pays for that."""
    log: list[ev.Event] = []
    worker = sharing_worker(Rules(kv_tokens=100, block_size=4, quantum=1000), payer, log)
    run(worker, [request("a", "A", [1], 3, (2, 3, 4))])
    run(worker, [request("b", "B", [1, 2, 3, 4, 5, 6, 7])])
    last = admissions(log)[-1]
    assert (last.matched, last.charged, last.refunds) == (4, charged, None)


def test_at_least_one_token_is_charged_alone() -> None:
    assert [charged_alone(5, held) for held in (0, 3, 4, 5)] == [5, 2, 1, 1]


def test_fractions_of_a_token_stay_with_those_who_came_before() -> None:
    blocks = [{"A": 1}, {"A": 1}, {"A": 1}]
    assert join(blocks, "B") == {"A": 1}
    assert blocks == [{"A": 1, "B": 0}, {"A": 0, "B": 1}, {"A": 1, "B": 0}]


def test_an_unknown_payer_is_refused() -> None:
    with pytest.raises(InputError, match="expected one of first, alone, split, found 'nobody'"):
        sharing_worker(Rules(), "nobody", [])


def test_the_ceiling_and_gap_of_a_split_are_what_their_sentences_say() -> None:
    # Two clients, M = 10: of 9 tokens half is given back, which is 4 whole ones.
    assert split_ceiling(CostModel(1, 2), 5, 10, 2) == 5 + 4
    assert split_ceiling(CostModel(3, 2), 5, 10, 2) == 5 + 12
    assert split_ceiling(CostModel(1, 2), 5, 10, 1) == 5
    assert split_gap(9, -6) == 30
