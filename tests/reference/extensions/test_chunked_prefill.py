"""Chunked prefill: the chunked worker beside a naive model, and what chunks must never do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from dlpm import events as ev
from dlpm.batch import WorkerConfig
from dlpm.bounds_chunked import chunk_gated_unit, extends_of_several
from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.extensions.chunked_prefill import Charge, ChunkedDLPM, ChunkedPrefill, ChunkedWorker, Gate
from dlpm.ledger import Ledger, Quanta
from dlpm.memory import Optimistic, Reserving
from dlpm.request import Request
from dlpm.timing import FixedStep
from tests.reference.extensions.naive_chunks import NaiveChunks
from tests.reference.lockstep import Lockstep, Shape, all_rules, shapes
from tests.reference.naive_worker import Rules


class ChunkedLockstep(Lockstep):
    """Both models with chunks; ``ledger`` and ``naive`` are the plain ones unless given."""

    def __init__(
        self, rules: Rules, chunks: ChunkedPrefill, ledger: Ledger | None = None, naive: NaiveChunks | None = None
    ) -> None:
        super().__init__(rules)
        memory = Reserving() if rules.memory == "reserving" else Optimistic(rules.watermark)
        config = WorkerConfig(rules.kv_tokens, memory, rules.block_size, rules.visibility, rules.max_running)
        if ledger is None:
            ledger = Ledger(Quanta(rules.quantum, rules.quanta), CostModel(rules.extend_weight, rules.output_weight))
        self.real = ChunkedWorker(
            config, ChunkedDLPM(ledger), self.timer, chunks, self.log.append, index=self.index, full_log=True
        )
        self.chunked = self.naive = naive if naive is not None else NaiveChunks(rules, chunks)

    def waiting_clients(self) -> set[str]:
        """Also those whose next chunk is gated; between steps nobody has had one."""
        self.chunked.now = {}
        return super().waiting_clients() | {runner.client() for runner in self.chunked.gated()}


@st.composite
def chunkings(draw: st.DrawFn) -> ChunkedPrefill:
    """Small budgets, both gates, both times of charging."""
    gate = draw(st.sampled_from(Gate))
    charge = draw(st.sampled_from(Charge)) if gate is Gate.REQUEST else Charge.CHUNK
    return ChunkedPrefill(draw(st.integers(1, 7)), gate, charge, draw(st.one_of(st.none(), st.integers(1, 4))))


class Chunks(RuleBasedStateMachine):
    """Submit and step: both agree, memory is in order, and at the end everybody has all of its output."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Lockstep(Rules())
        self.submitted = 0

    @initialize(rules=all_rules(("dlpm",), ("reserving", "optimistic")), chunks=chunkings())
    def start(self, rules: Rules, chunks: ChunkedPrefill) -> None:
        self.pair = ChunkedLockstep(rules, chunks)

    @rule(several=st.lists(shapes(), min_size=1, max_size=4))
    def submit(self, several: list[Shape]) -> None:
        for shape in several:
            self.submitted += 1
            self.pair.submit(shape.request(f"r{self.submitted}", self.pair.rules.block_size))

    @rule(times=st.integers(1, 6))
    def step(self, times: int) -> None:
        for _ in range(times):
            self.pair.step()

    @invariant()
    def agree(self) -> None:
        self.pair.compare_state()
        self.pair.check_memory()

    def teardown(self) -> None:
        for _ in range(3000):
            if self.pair.real.idle():
                break
            self.pair.step()
        finished = [event.request for event in self.pair.log if isinstance(event, ev.Finish)]
        arrived = [event.request for event in self.pair.log if isinstance(event, ev.Arrive)]
        assert sorted(finished) == sorted(arrived)


def test_the_chunked_worker_and_the_naive_model_do_the_same() -> None:
    run_state_machine_as_test(Chunks, settings=settings(max_examples=100, stateful_step_count=20))


@pytest.mark.parametrize(
    ("options", "field", "expected"),
    [
        ({"budget": 0}, "budget", "expected an integer > 0, found 0"),
        ({"budget": 4, "most": -1}, "most", "expected an integer > 0, found -1"),
        (
            {"budget": 4, "gate": Gate.CHUNK, "charge": Charge.ADMISSION},
            "charge",
            "expected chunk: each chunk is gated",
        ),
    ],
)
def test_options_under_which_nothing_is_computed_or_gated_are_refused(
    options: dict[str, Any], field: str, expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        ChunkedPrefill(**options)
    assert (caught.value.field, caught.value.expected) == (f"chunked_prefill.{field}", expected)


def test_the_largest_chunk_is_the_budget_or_the_cap() -> None:
    assert [ChunkedPrefill(4, most=most).largest_chunk() for most in (None, 3, 4, 5)] == [4, 3, 4, 4]
    assert ChunkedPrefill(1, most=1).largest_chunk() == 1


def test_a_header_states_what_is_not_as_by_default() -> None:
    assert ChunkedPrefill(4).stated() == {"chunked_prefill": {"budget": 4, "gate": "request"}}
    assert ChunkedPrefill(4, Gate.CHUNK, most=2).stated() == {
        "chunked_prefill": {"budget": 4, "gate": "chunk", "most": 2}
    }
    assert ChunkedPrefill(4, charge=Charge.ADMISSION).stated() == {
        "chunked_prefill": {"budget": 4, "gate": "request", "charge": "admission"}
    }


class WholeAtOnce(RuleBasedStateMachine):
    """The plain worker beside one with chunks whose budget never ends: not one event differs."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Lockstep(Rules())
        self.other = self.pair
        self.submitted = 0

    @initialize(rules=all_rules(("dlpm",), ("reserving", "optimistic")), gate=st.sampled_from(Gate))
    def start(self, rules: Rules, gate: Gate) -> None:
        self.pair = Lockstep(rules)
        self.other = ChunkedLockstep(rules, ChunkedPrefill(1000, gate))

    @rule(several=st.lists(shapes(), min_size=1, max_size=4))
    def submit(self, several: list[Shape]) -> None:
        for shape in several:
            self.submitted += 1
            for pair in (self.pair, self.other):
                pair.submit(shape.request(f"r{self.submitted}", pair.rules.block_size))

    @rule(times=st.integers(1, 5))
    def step(self, times: int) -> None:
        for _ in range(times):
            self.pair.step()
            self.other.step()

    @invariant()
    def same(self) -> None:
        assert self.pair.log == self.other.log


def test_without_a_limit_chunks_change_nothing() -> None:
    run_state_machine_as_test(WholeAtOnce, settings=settings(max_examples=60, stateful_step_count=15))


def steps(chunks: ChunkedPrefill, *requests: Request, kv_tokens: int = 40, quantum: int = 100) -> list[ev.Event]:
    """All events of a run of these requests, which are there from the beginning, up to the last finish."""
    log: list[ev.Event] = []
    ledger = Ledger(Quanta(quantum), CostModel(1, 2))
    worker = ChunkedWorker(WorkerConfig(kv_tokens, Reserving()), ChunkedDLPM(ledger), FixedStep(1), chunks, log.append)
    for request in requests:
        worker.submit(request, 0)
    while not worker.idle():
        worker.step()
    return log


def prompt(name: str, client: str, first: int, tokens: int, output: int) -> Request:
    """A request that shares nothing with one whose tokens begin elsewhere."""
    return Request(name, client, 0, tokens, output, output, prompt=tuple(range(first, first + tokens)))


def told(log: list[ev.Event]) -> list[tuple[object, ...]]:
    """Chunks, outputs and charges, step by step."""
    found: list[tuple[object, ...]] = []
    for event in log:
        match event:
            case ev.Admit():
                found.append((event.step, event.request, event.chunk or event.extend, event.deficit))
            case ev.Chunk():
                found.append((event.step, event.request, event.tokens, event.deficit))
            case ev.Output():
                found.append((event.step, dict(event.tokens)))
    return found


def test_decodes_take_their_tokens_first_and_the_first_output_comes_with_the_last_chunk() -> None:
    log = steps(ChunkedPrefill(4), prompt("a", "A", 0, 3, 4), prompt("b", "B", 100, 7, 1))
    assert told(log) == [
        (1, "a", 3, 97),  # 3 of 4 tokens
        (1, "b", 1, 99),  # the fourth
        (1, {"a": 1}),
        (2, "b", 3, 96),  # a decodes: 1 of 4 tokens
        (2, {"a": 1}),
        (3, "b", 3, 93),  # 1 + 3 + 3 = 7
        (3, {"a": 1, "b": 1}),
        (4, {"a": 1}),
    ]


def test_charged_at_admission_later_chunks_are_free() -> None:
    chunks = ChunkedPrefill(4, charge=Charge.ADMISSION)
    assert told(steps(chunks, prompt("b", "B", 100, 10, 1))) == [
        (1, "b", 4, 90),
        (1, {}),
        (2, "b", 4, 90),
        (2, {}),
        (3, "b", 2, 90),
        (3, {"b": 1}),
    ]


def test_the_order_of_the_queue_and_free_memory_are_logged_only_if_asked_for() -> None:
    log = steps(ChunkedPrefill(4), prompt("a", "A", 0, 3, 4), prompt("b", "B", 100, 7, 1))
    assert not any(isinstance(event, ev.Order) for event in log)
    assert {event.free for event in log if isinstance(event, ev.Admit)} == {None}


def test_a_gated_prompt_waits_until_those_with_credit_have_been_served() -> None:
    chunks = ChunkedPrefill(4, Gate.CHUNK)
    log = steps(chunks, prompt("a", "A", 0, 8, 1), prompt("b", "B", 100, 2, 1), quantum=4)
    assert told(log) == [
        (1, "a", 4, 0),  # A's credit is spent, and so is the budget
        (1, {}),
        (2, "b", 2, 2),  # A is gated, and B has credit
        (2, "a", 2, 2),  # nobody else waits now: A is refilled, 0 + 4 - 2 for what is left of the budget
        (2, {"b": 1}),
        (3, "a", 2, 0),
        (3, {"a": 1}),
    ]


def test_a_stall_ends_with_a_chunk_on_debt() -> None:
    chunks = ChunkedPrefill(4, Gate.CHUNK)
    log = steps(chunks, prompt("a", "A", 0, 9, 1), prompt("b", "B", 100, 8, 1), kv_tokens=12, quantum=4)
    assert told(log)[:6] == [
        (1, "a", 4, 0),  # B has 4 of credit, and no room: nobody is refilled
        (1, {}),
        (2, "a", 4, -4),  # on debt
        (2, {}),
        (3, "a", 1, -5),  # the rest
        (3, {"a": 1}),
    ]


@pytest.mark.parametrize(
    ("cost", "max_input", "chunk", "kv_tokens", "limits"),
    [
        (CostModel(w_e, w_q), max_input, chunk, kv_tokens, limits)
        for w_e, w_q in ((1, 2), (5, 1))
        for max_input in (2, 6)
        for chunk in (1, 3, 9)
        for kv_tokens in (5, 12)
        for limits in ({"max_output": None, "max_running": None}, {"max_output": 2, "max_running": 3})
    ],
)
def test_the_unit_of_gated_chunks_is_the_costliest_chunk_with_all_that_can_be_reserved_beside_it(
    cost: CostModel, max_input: int, chunk: int, kv_tokens: int, limits: dict[str, int | None]
) -> None:
    most, batch = limits["max_output"], limits["max_running"]
    costliest = 0
    for tokens in range(1, min(chunk, max_input, kv_tokens - 1) + 1):
        alone = kv_tokens - tokens if most is None else min(most, kv_tokens - tokens)
        room = kv_tokens - 1 - tokens
        together = room if most is None or batch is None else min(most * batch, room)
        costliest = max(costliest, cost.service(tokens, alone), cost.service(tokens, together))
    found = chunk_gated_unit(cost, max_input, chunk, kv_tokens, max_output=most, max_running=batch)
    assert found == costliest


@pytest.mark.parametrize("budget", range(1, 9))
@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_unpaid_extend_tokens_are_those_of_as_many_prompts_as_one_step_can_hold(budget: int, most: int) -> None:
    """Deal the budget out as a worker does, to prompts as long as can be, until the last one is let in."""
    longest = 6
    left, unpaid = budget, 0
    while left > most:
        left -= min(most, longest)
        unpaid += longest - min(most, longest)
    assert extends_of_several(longest, budget, most) == unpaid + longest
