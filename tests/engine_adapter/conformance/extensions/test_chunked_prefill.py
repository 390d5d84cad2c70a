"""Chunked prefill: logs of the chunked worker hold in their mode, and each fault is found by its rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dlpm.batch import QueuedRequest, RunningRequest
from dlpm.errors import InputError
from dlpm.events import EventSink
from dlpm.extensions.chunked_prefill import (
    Charge,
    ChunkedDLPM,
    ChunkedPrefill,
    ChunkedWorker,
    Gate,
    OnStall,
    Prefill,
)
from dlpm.extensions.late_accounting import LateLedger
from dlpm.extensions.late_accounting import stated as late_stated
from dlpm.extensions.recompute import Recompute
from dlpm.extensions.recompute import stated as recompute_stated
from dlpm.ledger import Ledger
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from tests.engine_adapter.conformance.extensions.test_late import varying
from tests.engine_adapter.conformance.extensions.variants import (
    config_of,
    quanta_and_cost,
    record_variant,
    rules_broken,
    sample_logs,
    stating,
)
from tests.engine_adapter.conformance.logs import Log, Plan, check, plans, run_rules
from tests.engine_adapter.conformance.samples import kind, sample_rules
from tests.reference.extensions.test_chunked_prefill import chunkings
from tests.reference.lockstep import Shape
from tests.reference.naive_worker import Rules

Build = Callable[[Rules, EventSink], Worker]

ONCE = ChunkedPrefill(4)
CAPPED = ChunkedPrefill(4, most=2)
EACH = ChunkedPrefill(4, Gate.CHUNK)
AT_ADMISSION = ChunkedPrefill(4, charge=Charge.ADMISSION)


def in_chunks(
    chunks: ChunkedPrefill,
    worker: type[ChunkedWorker] = ChunkedWorker,
    policy: type[ChunkedDLPM] = ChunkedDLPM,
    *,
    full: bool = True,
) -> Build:
    def build(rules: Rules, sink: EventSink) -> Worker:
        ledger = Ledger(*quanta_and_cost(rules))
        return worker(config_of(rules), policy(ledger), FixedStep(1), chunks, sink, full_log=full)

    return build


def in_late_chunks(chunks: ChunkedPrefill, lag: Callable[[int], int]) -> Build:
    def build(rules: Rules, sink: EventSink) -> Worker:
        policy = ChunkedDLPM(LateLedger(*quanta_and_cost(rules), lag))
        return ChunkedWorker(config_of(rules), policy, FixedStep(1), chunks, sink, full_log=True)

    return build


@cache
def samples(chunks: ChunkedPrefill) -> list[Log]:
    return sample_logs(in_chunks(chunks), chunks.stated())


def test_the_first_step_may_use_the_whole_budget_and_no_token_more() -> None:
    rules = replace(sample_rules("dlpm", 0), block_size=1, kv_tokens=18)
    chunks = ChunkedPrefill(4)
    plan = [Shape("A", tuple(range(9)), 1, 0, (), False, False)]
    log = record_variant(rules, plan, in_chunks(chunks), chunks.stated())
    (admitted,) = (line for _, line in lines(log, "admit"))
    assert admitted["chunk"] == 4
    assert check(log).violations == ()
    smaller = check(stating(log, ChunkedPrefill(3).stated()), every=False)
    assert [violation.rule for violation in smaller.violations] == ["chunk-budget"]


def lines(log: Log, event: str) -> Iterator[tuple[int, Any]]:
    """The lines of one kind of event."""
    for index, line in enumerate(log):
        if kind(line) == event:
            yield index, line


def weight(log: Log) -> int:
    """``w_e``."""
    header: Any = log[0]
    extend: int = header["weights"]["extend"]
    return extend


# -- sound logs --------------------------------------------------------------------------------------------------------


@given(run_rules(["dlpm"], ["reserving", "optimistic"]), plans(), chunkings(), st.booleans())
def test_every_log_of_the_chunked_worker_holds(rules: Rules, plan: Plan, chunks: ChunkedPrefill, full: bool) -> None:
    log = record_variant(rules, plan, in_chunks(chunks, full=full), chunks.stated(), most_steps=3000)
    assume(len(log) > 1)
    log[0]["level"] = "full" if full else "decisions"
    assert check(log).violations == ()


GATE_ONCE = chunkings().filter(lambda chunks: chunks.gate is Gate.REQUEST)


@given(run_rules(["dlpm"], ["reserving", "optimistic"]), plans(), GATE_ONCE, st.integers(0, 3), st.integers(0, 99))
def test_every_log_with_chunks_and_late_outputs_holds(
    rules: Rules, plan: Plan, chunks: ChunkedPrefill, most: int, seed: int
) -> None:
    stated = {**late_stated(most), **chunks.stated()}
    log = record_variant(rules, plan, in_late_chunks(chunks, varying(most, seed)), stated, most_steps=3000)
    assume(len(log) > 1)
    assert check(log).violations == ()


@given(run_rules(["dlpm"], ["optimistic"]), plans(), GATE_ONCE, st.integers(0, 3), st.integers(0, 99))
def test_every_log_of_chunks_and_late_outputs_that_says_who_is_preempted_holds(
    rules: Rules, plan: Plan, chunks: ChunkedPrefill, most: int, seed: int
) -> None:
    """What vLLM does, and without lateness as well."""
    stated = {**(late_stated(most) if most else {}), **chunks.stated(), **recompute_stated(Recompute())}
    log = record_variant(rules, plan, in_late_chunks(chunks, varying(most, seed)), stated, most_steps=3000)
    assume(len(log) > 1)
    report = check(log)
    assert report.violations == ()
    assert {"chunk-budget", "preempt-victim", "recompute-payer"} <= set(report.rules)
    proven = chunks.largest_chunk() == chunks.budget and chunks.charge is Charge.CHUNK
    assert ("extension-floor" in report.rules) is proven


def test_what_has_no_theorem_is_not_checked_and_says_why() -> None:
    """Gated chunks, a cap and payment at admission are proved under reserving memory alone."""
    optimistic = [{**samples(EACH)[0][0], "memory": "optimistic"}, *samples(EACH)[0][1:]]
    [group] = [group for group in check(optimistic).not_checked if "extension-floor" in group.rules]
    assert group.reason == "for these options there is a theorem under reserving memory alone"
    for chunks in (ONCE, CAPPED, EACH, AT_ADMISSION):
        report = check(samples(chunks)[0])
        assert {"extension-floor", "extension-gap"} <= set(report.rules)
        assert ("chunk-floor" in report.rules) is (chunks is EACH)
        assert ("chunk-order" in report.rules) is (chunks is not EACH)


# -- workers that do otherwise than their header says ------------------------------------------------------------------


class OverBudget(ChunkedWorker):
    """Takes chunks without counting them."""

    def _next_chunk(self, prefill: Prefill) -> int | None:
        budget = self._budget
        tokens = super()._next_chunk(prefill)
        self._budget = budget
        return tokens


class Sparing(ChunkedWorker):
    """Computes at most one token of a prompt in a step."""

    def _next_chunk(self, prefill: Prefill) -> int | None:
        budget, self._budget = self._budget, min(1, self._budget)
        tokens = super()._next_chunk(prefill)
        self._budget = budget - (tokens or 0)
        return tokens


class Uncapped(ChunkedWorker):
    """Takes no notice of the cap."""

    def _next_chunk(self, prefill: Prefill) -> int | None:
        stated, self.chunks = self.chunks, ChunkedPrefill(self.chunks.budget)
        tokens = super()._next_chunk(prefill)
        self.chunks = stated
        return tokens


class AdmitsFirst(ChunkedWorker):
    """Lets requests in before it goes on with those that are half computed."""

    def _continue_prefills(self) -> None:
        self._take_turn()
        for prefill in self._prefills.values():
            if not prefill.chunk:
                self._ungated_chunk(prefill)


class NewestFirst(ChunkedWorker):
    """Goes on with whom it let in last."""

    def _continue_prefills(self) -> None:
        for prefill in reversed(self._prefills.values()):
            self._ungated_chunk(prefill)


class Dozing(ChunkedWorker):
    """Goes on in every other step, if something else runs."""

    def _continue_prefills(self) -> None:
        if self.step_number % 2 or not self._yielding():
            super()._continue_prefills()


class EarlyOutput(ChunkedWorker):
    """Gives every running request a token, half computed or not."""

    def _yielding(self) -> list[RunningRequest]:
        return self.running


class SecondPrompt(ChunkedWorker):
    """Lets in a second prompt of a client whose first is half computed."""

    def _can_add(self, queued: QueuedRequest, free: int, extend: int) -> bool:
        return self._budget >= 1 and Worker._can_add(self, queued, free, extend)


class AsksOnce(ChunkedWorker):
    """Asks no gate for a later chunk, though the header says so."""

    def _start_budget(self) -> None:
        super()._start_budget()
        self._continue_prefills()


class FreeChunks(ChunkedDLPM):
    """Later chunks cost nothing."""

    def charge_chunk(self, client: str, tokens: int) -> None:
        pass


class DearChunks(ChunkedDLPM):
    """A later chunk costs a token more."""

    def charge_chunk(self, client: str, tokens: int) -> None:
        super().charge_chunk(client, tokens + 1)


@pytest.mark.parametrize(
    ("chunks", "worker", "policy", "rules"),
    [
        (ONCE, OverBudget, ChunkedDLPM, {"chunk-budget"}),
        (EACH, OverBudget, ChunkedDLPM, {"chunk-budget"}),
        (ONCE, Sparing, ChunkedDLPM, {"chunk-size"}),
        (EACH, Sparing, ChunkedDLPM, {"chunk-size"}),
        (CAPPED, Uncapped, ChunkedDLPM, {"chunk-size"}),
        (ONCE, AdmitsFirst, ChunkedDLPM, {"chunk-order"}),
        (CAPPED, NewestFirst, ChunkedDLPM, {"chunk-order"}),
        (ONCE, Dozing, ChunkedDLPM, {"chunk-due", "chunk-order"}),
        (ONCE, EarlyOutput, ChunkedDLPM, {"prefill-first"}),
        (EACH, EarlyOutput, ChunkedDLPM, {"prefill-first"}),
        (EACH, SecondPrompt, ChunkedDLPM, {"chunk-one"}),
        (EACH, AsksOnce, ChunkedDLPM, {"chunk-gate"}),
        (ONCE, ChunkedWorker, FreeChunks, {"charge-chunk"}),
        (ONCE, ChunkedWorker, DearChunks, {"charge-chunk"}),
    ],
)
def test_a_worker_that_does_otherwise_than_it_says_is_found(
    chunks: ChunkedPrefill, worker: type[ChunkedWorker], policy: type[ChunkedDLPM], rules: set[str]
) -> None:
    logs = sample_logs(in_chunks(chunks, worker, policy), chunks.stated())
    assert set().union(*(rules_broken(check(log, every=False)) for log in logs)) == rules


TIGHT = ChunkedPrefill(2, Gate.CHUNK, most=1)
"""With little memory beside it, several clients get half a prompt each, and stall."""


class EverybodyOnDebt(ChunkedWorker):
    """Where nothing can run, all go on."""

    def _stalled(self) -> None:
        super()._stalled()
        for prefill in self._prefills.values():
            if not prefill.chunk:
                self._ungated_chunk(prefill)


class YoungestOnDebt(ChunkedWorker):
    """Where nothing can run, who came last goes on."""

    def _stalled(self) -> None:
        self._budget = self.chunks.budget
        self._ungated_chunk(list(self._prefills.values())[-1])


@pytest.mark.parametrize(
    ("chunks", "worker", "rules"),
    [
        (TIGHT, ChunkedWorker, set()),
        (TIGHT, EverybodyOnDebt, {"chunk-gate"}),
        (TIGHT, YoungestOnDebt, {"chunk-gate"}),
        (ChunkedPrefill(2, Gate.CHUNK, most=1, on_stall=OnStall.REFILL), ChunkedWorker, {"refill-due"}),
    ],
)
def test_a_stall_ends_with_a_chunk_on_debt_of_the_oldest_and_nothing_else(
    chunks: ChunkedPrefill, worker: type[ChunkedWorker], rules: set[str]
) -> None:
    logs = sample_logs(in_chunks(chunks, worker), chunks.stated(), kv_tokens=24)
    assert set().union(*(rules_broken(check(log, every=False)) for log in logs)) == rules
    paid_before = [line["deficit"] + weight(log) * line["tokens"] for log in logs for _, line in lines(log, "chunk")]
    assert (min(paid_before) <= 0) is (chunks is TIGHT), "there are chunks on debt"


@pytest.mark.parametrize(
    ("does", "says", "rule"),
    [
        (ONCE, AT_ADMISSION, "charge-extend"),
        (AT_ADMISSION, ONCE, "charge-extend"),
        (ONCE, EACH, "chunk-gate"),
        (EACH, ONCE, "chunk-order"),
        (CAPPED, ONCE, "chunk-size"),
        (ONCE, CAPPED, "chunk-size"),
        (ONCE, ChunkedPrefill(3), "chunk-budget"),
        (ONCE, ChunkedPrefill(5), "chunk-size"),
    ],
)
def test_a_header_that_says_something_else_is_found(does: ChunkedPrefill, says: ChunkedPrefill, rule: str) -> None:
    found = set().union(*(rules_broken(check(stating(log, says.stated()), every=False)) for log in samples(does)))
    assert rule in found


def test_a_log_with_chunks_is_refused_where_the_header_states_none() -> None:
    with pytest.raises(InputError, match="expected a header that states the extension with chunk events"):
        for log in samples(ONCE):
            check(stating(log, {}))
