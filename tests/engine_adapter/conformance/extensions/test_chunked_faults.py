"""Chunked prefill: faults planted in logs of the chunked worker are each found at their line, by their rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from dlpm.batch import RunningRequest
from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.events import EventSink
from dlpm.extensions.chunked_prefill import ChunkedDLPM, ChunkedPrefill, ChunkedWorker
from dlpm.extensions.late_accounting import LateLedger
from dlpm.extensions.late_accounting import stated as late_stated
from dlpm.extensions.recompute import Payer, Recompute, Victim
from dlpm.extensions.recompute import stated as recompute_stated
from dlpm.ledger import Ledger, Quanta
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from tests.engine_adapter.conformance.edits import dropped, inserted, replaced
from tests.engine_adapter.conformance.extensions.test_chunked_prefill import (
    AT_ADMISSION,
    CAPPED,
    EACH,
    ONCE,
    lines,
    samples,
    weight,
)
from tests.engine_adapter.conformance.extensions.variants import (
    Fault,
    Places,
    config_of,
    found_exactly,
    quanta_and_cost,
    rules_broken,
    sample_logs,
    stating,
)
from tests.engine_adapter.conformance.logs import Log, check
from tests.engine_adapter.conformance.samples import kind
from tests.reference.naive_worker import Rules


def halves(log: Log) -> Iterator[tuple[int, Mapping[str, int]]]:
    """Before each line: what is left of each prompt that is half computed."""
    left: dict[str, int] = {}
    for index, line in enumerate(log):
        yield index, {name: tokens for name, tokens in left.items() if tokens}
        any_line: Any = line
        match kind(line):
            case "admit":
                left[any_line["request"]] = any_line["extend"] - any_line.get("chunk", any_line["extend"])
            case "chunk":
                left[any_line["request"]] -= any_line["tokens"]
            case "finish" | "preempt":
                left.pop(any_line["request"], None)


def a_chunk_is_larger_than_the_budget(log: Log) -> Places:
    for index, left in halves(log):
        line: Any = log[index]
        if kind(line) == "chunk" and left[line["request"]] > line["tokens"]:
            more = line["tokens"] + 1
            yield replaced(log, index, tokens=more, deficit=line["deficit"] - weight(log)), index + 1


def a_first_chunk_is_larger_than_the_budget(log: Log) -> Places:
    for index, line in lines(log, "admit"):
        if line.get("chunk", line["extend"]) + 1 < line["extend"]:
            yield replaced(log, index, chunk=line["chunk"] + 1, deficit=line["deficit"] - weight(log)), index + 1


def a_chunk_is_a_token_short(log: Log) -> Places:
    for index, line in lines(log, "chunk"):
        if line["tokens"] > 1:
            yield replaced(log, index, tokens=line["tokens"] - 1, deficit=line["deficit"] + weight(log)), index + 1


def a_first_chunk_is_a_token_short(log: Log) -> Places:
    for index, line in lines(log, "admit"):
        first = line.get("chunk", line["extend"])
        if first > 1:
            yield replaced(log, index, chunk=first - 1, deficit=line["deficit"] + weight(log)), index + 1


def a_last_chunk_is_larger_than_what_is_left(log: Log) -> Places:
    for index, left in halves(log):
        line: Any = log[index]
        if kind(line) == "chunk" and left[line["request"]] == line["tokens"]:
            more = line["tokens"] + 1
            yield replaced(log, index, tokens=more, deficit=line["deficit"] - weight(log)), index + 1


def a_request_that_decodes_gets_a_chunk(log: Log) -> Places:
    decoding: set[str] = set()
    for index, line in enumerate(log):
        any_line: Any = line
        if kind(line) == "output":
            for name in decoding & any_line["tokens"].keys():
                chunk = {"event": "chunk", "step": any_line["step"], "time_us": any_line["time_us"], "request": name}
                yield inserted(log, index, {**chunk, "tokens": 1, "deficit": 0}), index + 1
            decoding |= any_line["tokens"].keys()
        elif kind(line) in ("finish", "preempt"):
            decoding.discard(any_line["request"])


def a_queued_request_gets_a_chunk(log: Log) -> Places:
    for index, line in lines(log, "arrive"):
        chunk = {"event": "chunk", "step": line["step"], "request": line["request"], "tokens": 1, "deficit": 0}
        yield inserted(log, index + 1, {**chunk, "time_us": line["time_us"]}), index + 2


def a_chunk_is_logged_twice(log: Log) -> Places:
    for index, left in halves(log):
        line: Any = log[index]
        if kind(line) == "chunk" and left[line["request"]] > line["tokens"]:
            again = line["deficit"] - weight(log) * line["tokens"]
            yield inserted(log, index + 1, {**line, "deficit": again}), index + 2


def a_chunk_comes_after_an_admission(log: Log) -> Places:
    """Of another client, so that no counter but the chunk's own is out of order."""
    owners = {line["request"]: line["client"] for _, line in lines(log, "arrive")}
    for index, line in lines(log, "chunk"):
        place = next(k for k in range(index + 1, len(log)) if kind(log[k]) not in ("order", "evict"))
        admit: Any = log[place]
        if kind(admit) == "admit" and owners[admit["request"]] != owners[line["request"]]:
            yield [*log[:index], *log[index + 1 : place + 1], line, *log[place + 1 :]], place


def a_chunk_is_left_out(log: Log) -> Places:
    for index, left in halves(log):
        line: Any = log[index]
        following: Any = log[index + 1] if index + 1 < len(log) else {}
        if kind(line) == "chunk" and kind(following) == "output" and following["tokens"] and left[line["request"]]:
            yield dropped(log, index), index + 1


def half_a_prompt_yields(log: Log) -> Places:
    for index, left in halves(log):
        line: Any = log[index]
        if kind(line) == "output" and left:
            yield replaced(log, index, tokens={**line["tokens"], next(iter(left)): 1}), index + 1


def a_chunk_costs_a_token_more(log: Log) -> Places:
    for index, line in lines(log, "chunk"):
        yield replaced(log, index, deficit=line["deficit"] - 1), index + 1


def a_chunk_is_free(log: Log) -> Places:
    for index, line in lines(log, "chunk"):
        yield replaced(log, index, deficit=line["deficit"] + weight(log) * line["tokens"]), index + 1


def a_chunk_is_paid_again(log: Log) -> Places:
    for index, line in lines(log, "chunk"):
        yield replaced(log, index, deficit=line["deficit"] - weight(log) * line["tokens"]), index + 1


def the_whole_prompt_is_paid_at_admission(log: Log) -> Places:
    for index, line in lines(log, "admit"):
        if "chunk" in line:
            unpaid = line["extend"] - line["chunk"]
            yield replaced(log, index, deficit=line["deficit"] - weight(log) * unpaid), index + 1


def a_refill_before_a_chunk_is_left_out(log: Log) -> Places:
    for index, line in lines(log, "refill"):
        following: Any = log[index + 1]
        if kind(following) == "chunk":
            name = next(
                other["client"] for _, other in lines(log, "arrive") if other["request"] == following["request"]
            )
            before = line["deficits"].get(name)
            if before is not None and following["deficit"] + weight(log) * following["tokens"] == before:
                yield dropped(log, index), index + 1


FAULTS = (
    *(
        (chunks, Fault(rule, places))
        for rule, places in (
            ("chunk-budget", a_chunk_is_larger_than_the_budget),
            ("chunk-budget", a_first_chunk_is_larger_than_the_budget),
            ("chunk-size", a_chunk_is_a_token_short),
            ("chunk-size", a_first_chunk_is_a_token_short),
            ("chunk-left", a_request_that_decodes_gets_a_chunk),
            ("chunk-left", a_queued_request_gets_a_chunk),
            ("chunk-left", a_last_chunk_is_larger_than_what_is_left),
            ("chunk-once", a_chunk_is_logged_twice),
            ("prefill-first", half_a_prompt_yields),
            ("charge-chunk", a_chunk_costs_a_token_more),
            ("charge-chunk", a_chunk_is_free),
            ("charge-chunk", a_chunk_is_paid_again),
            ("charge-extend", the_whole_prompt_is_paid_at_admission),
        )
        for chunks in (ONCE, EACH)
    ),
    (AT_ADMISSION, Fault("charge-chunk", a_chunk_is_paid_again)),
    (CAPPED, Fault("chunk-size", a_chunk_is_a_token_short)),
    (CAPPED, Fault("chunk-order", a_chunk_comes_after_an_admission)),
    (ONCE, Fault("chunk-due", a_chunk_is_left_out)),
    (CAPPED, Fault("chunk-due", a_chunk_is_left_out)),
    (EACH, Fault("chunk-gate", a_refill_before_a_chunk_is_left_out)),
)


@pytest.mark.parametrize(
    ("chunks", "fault"),
    FAULTS,
    ids=lambda value: value.places.__name__ if isinstance(value, Fault) else f"{value.gate.value}-{value.most}",
)
def test_exactly_the_right_rule_fires_first(chunks: ChunkedPrefill, fault: Fault) -> None:
    found_exactly(fault, samples(chunks))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({}, "extensions.chunked_prefill.budget"),
        ({"budget": 0}, "extensions.chunked_prefill.budget"),
        ({"budget": 4, "gate": "always"}, "extensions.chunked_prefill.gate"),
        ({"budget": 4, "charge": "later"}, "extensions.chunked_prefill.charge"),
        ({"budget": 4, "most": 0}, "extensions.chunked_prefill.most"),
        ({"budget": 4, "gate": "chunk", "charge": "admission"}, "extensions.chunked_prefill.charge"),
        ({"budget": 4, "chunks": 2}, "extensions.chunked_prefill.chunks"),
    ],
)
def test_options_that_are_not_known_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        check(stating(samples(ONCE)[0], {"chunked_prefill": options}))
    assert caught.value.field == field


LATE, CHUNKS = late_stated(1), ONCE.stated()


@pytest.mark.parametrize(
    ("stated", "field"),
    [
        ({**EACH.stated(), **LATE}, "chunked_prefill.gate"),
        ({**EACH.stated(), **recompute_stated(Recompute())}, "chunked_prefill.gate"),
        ({**CHUNKS, **LATE, **recompute_stated(Recompute(Victim.FEWEST_OUTPUTS))}, "recompute.victim"),
        ({**CHUNKS, **recompute_stated(Recompute(payer=Payer.SYSTEM))}, "recompute.payer"),
        ({**CHUNKS, "late": {"steps": -1}}, "late.steps"),
    ],
)
def test_what_has_no_rules_beside_chunks_is_refused(stated: dict[str, dict[str, Any]], field: str) -> None:
    log = stating(samples(ONCE)[0], stated)
    log[0]["memory"] = "optimistic"
    with pytest.raises(InputError) as caught:
        check(log)
    assert caught.value.field == f"extensions.{field}"


class FirstOut(ChunkedWorker):
    """Preempts who has run longest, if that one has yielded."""

    def _victim(self) -> RunningRequest:
        return next((run for run in self.running if run.computed), self.running[-1])


class WaitsTooLong(LateLedger):
    """Hears of outputs a step later than it says."""

    def __init__(self, quanta: Quanta, cost: CostModel) -> None:
        super().__init__(quanta, cost, lambda _: 2)


class ForgetsAChunk(LateLedger):
    """The third charge of extend tokens is lost."""

    def __init__(self, quanta: Quanta, cost: CostModel) -> None:
        super().__init__(quanta, cost, lambda _: 1)
        self.charges = 0

    def charge_extend(self, client: str, tokens: int) -> None:
        self.charges += 1
        super().charge_extend(client, 0 if self.charges == 3 else tokens)


@pytest.mark.parametrize(
    ("worker", "ledger", "rules"),
    [
        (ChunkedWorker, Ledger, set()),
        (FirstOut, Ledger, {"preempt-victim"}),
        (ChunkedWorker, WaitsTooLong, {"charge-output"}),
        (ChunkedWorker, ForgetsAChunk, {"charge-chunk", "charge-extend"}),
    ],
)
def test_a_whole_engine_that_does_otherwise_than_it_says_is_found(
    worker: type[ChunkedWorker], ledger: Callable[[Quanta, CostModel], Ledger], rules: set[str]
) -> None:
    def build(run: Rules, sink: EventSink) -> Worker:
        policy = ChunkedDLPM(ledger(*quanta_and_cost(run)))
        return worker(config_of(run), policy, FixedStep(1), ONCE, sink, full_log=True)

    stated = {**LATE, **CHUNKS, **recompute_stated(Recompute())}
    logs = sample_logs(build, stated, memory="optimistic", kv_tokens=20)
    assert set().union(*(rules_broken(check(log, every=False)) for log in logs)) == rules
