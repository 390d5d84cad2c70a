"""What vLLM does, all at once: chunks, late outputs, optimistic memory and recomputation, beside a naive model."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, run_state_machine_as_test

from dlpm import events as ev
from dlpm.bounds_engine import for_engine
from dlpm.cost import CostModel
from dlpm.engine_profile import EngineProfile
from dlpm.extensions.chunked_prefill import Charge, ChunkedPrefill, Gate
from dlpm.extensions.late_accounting import LateLedger
from dlpm.quanta import Quanta
from tests.reference.extensions.machine import VariantMachine
from tests.reference.extensions.naive_chunks import NaiveChunks
from tests.reference.extensions.test_chunked_prefill import ChunkedLockstep, chunkings
from tests.reference.extensions.test_late_accounting import NaiveLateness
from tests.reference.lockstep import PROMPTS, all_rules
from tests.reference.naive_worker import Rules

LONGEST_PROMPT, LONGEST_OUTPUT = max(map(len, PROMPTS)), 11


class NaiveLateChunks(NaiveLateness, NaiveChunks):
    """Chunks are paid for as they are computed, outputs when they are heard of."""

    def __init__(self, rules: Rules, chunks: ChunkedPrefill, lags: tuple[int, ...]) -> None:
        NaiveChunks.__init__(self, rules, chunks)
        self.begin_lateness(lags, late_extends=False)


class LateChunksLockstep(ChunkedLockstep):
    """Both models with chunks, and outputs that come late."""

    def __init__(self, rules: Rules, chunks: ChunkedPrefill, lags: tuple[int, ...]) -> None:
        cost = CostModel(rules.extend_weight, rules.output_weight)
        self.ledger = LateLedger(Quanta(rules.quantum, rules.quanta), cost, lambda step: lags[step % len(lags)])
        self.late = NaiveLateChunks(rules, chunks, lags)
        super().__init__(rules, chunks, self.ledger, self.late)


class LateChunks(VariantMachine):
    """Submit and step: both agree, everybody ends, and the true counters keep the floor that is proven of it all."""

    def __init__(self) -> None:
        super().__init__()
        self.pair: LateChunksLockstep | None = None
        self.floor: int | None = None

    @initialize(
        rules=all_rules(("dlpm",), ("reserving", "optimistic")),
        chunks=chunkings(),
        lags=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    )
    def start(self, rules: Rules, chunks: ChunkedPrefill, lags: list[int]) -> None:
        self.pair = LateChunksLockstep(rules, chunks, tuple(lags))
        if chunks.gate is Gate.REQUEST and chunks.charge is Charge.CHUNK and chunks.largest_chunk() == chunks.budget:
            profile = EngineProfile(
                engine="drawn",
                cost=self.pair.ledger.cost,
                quanta=self.pair.ledger.quanta,
                memory=rules.memory,
                kv_tokens=rules.kv_tokens,
                max_input=LONGEST_PROMPT,
                max_output=LONGEST_OUTPUT,
                max_running=rules.max_running,
                chunk_budget=chunks.budget,
                late_steps=max(lags),
            )
            self.floor = for_engine(profile).floor

    @invariant()
    def agree(self) -> None:
        if self.pair is None:
            return
        self.pair.compare_state()
        self.pair.check_memory()
        for client in self.pair.late.counters:
            true_counter = self.pair.late.true_counter(client)
            assert self.pair.ledger.true_deficit(client) == true_counter
            assert self.floor is None or true_counter >= self.floor

    def teardown(self) -> None:
        if self.pair is None:
            return
        for _ in range(3000):
            if self.pair.real.idle():
                break
            self.pair.step()
        finished = [event.request for event in self.pair.log if isinstance(event, ev.Finish)]
        arrived = [event.request for event in self.pair.log if isinstance(event, ev.Arrive)]
        assert sorted(finished) == sorted(arrived)


def test_the_chunked_worker_on_a_late_ledger_and_the_naive_model_do_the_same() -> None:
    run_state_machine_as_test(LateChunks, settings=settings(max_examples=80, stateful_step_count=20))
