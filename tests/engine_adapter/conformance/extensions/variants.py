"""Logs of the reference's extensions, stated in their headers, and one way to test all their rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from dlpm.batch import WorkerConfig
from dlpm.cost import CostModel
from dlpm.event_codec import encode_event, encode_header
from dlpm.events import Event, EventSink
from dlpm.jsonl import JsonValue
from dlpm.ledger import Quanta
from dlpm.memory import Optimistic, Reserving
from dlpm.worker import Worker
from dlpm_engine.conformance import Report
from tests.engine_adapter.conformance.logs import Log, Plan, check, header_of, submit
from tests.engine_adapter.conformance.samples import SEEDS, sample_plan, sample_rules
from tests.engine_adapter.conformance.wording import assert_well_described
from tests.reference.naive_worker import Rules

Extensions = Mapping[str, Mapping[str, JsonValue]]
Places = Iterator[tuple[Log, int]]
"""Changed logs, each with the line (from 1) at which its fault must be found."""

PLACES_PER_LOG = 6


def config_of(rules: Rules) -> WorkerConfig:
    """The worker's limits under ``rules``."""
    memory = Reserving() if rules.memory == Reserving.kind else Optimistic(rules.watermark)
    return WorkerConfig(rules.kv_tokens, memory, rules.block_size, rules.visibility, rules.max_running)


def quanta_and_cost(rules: Rules) -> tuple[Quanta, CostModel]:
    """What a ledger under ``rules`` is made of."""
    return Quanta(rules.quantum, rules.quanta), CostModel(rules.extend_weight, rules.output_weight)


def record_variant(
    rules: Rules,
    plan: Plan,
    build: Callable[[Rules, EventSink], Worker],
    extensions: Extensions,
    *,
    most_steps: int = 500,
) -> Log:
    """Run the worker that ``build`` makes through ``plan`` and on until it is idle: its log, stating ``extensions``."""
    events: list[Event] = []
    worker = build(rules, events.append)
    submitted = 0
    for item in plan:
        if isinstance(item, int):
            for _ in range(item):
                worker.step()
        else:
            submitted += 1
            submit(worker.submit, item.request(f"r{submitted}", rules.block_size))
    while not worker.idle() and worker.step_number < most_steps:
        worker.step()
    return [encode_header(replace(header_of(rules), extensions=extensions)), *map(encode_event, events)]


def sample_logs(build: Callable[[Rules, EventSink], Worker], extensions: Extensions, **changes: Any) -> list[Log]:
    """Logs of fixed runs of a variant; ``changes`` are made to the rules of the samples."""
    return [
        record_variant(replace(sample_rules("dlpm", seed), **changes), sample_plan(seed), build, extensions)
        for seed in SEEDS
    ]


def stating(log: Log, extensions: Extensions) -> Log:
    """The same log with other extensions in its header, or none."""
    header = {name: value for name, value in log[0].items() if name != "extensions"}
    if extensions:
        header["extensions"] = {name: dict(options) for name, options in extensions.items()}
    return [header, *log[1:]]


@dataclass(frozen=True)
class Fault:
    """A change to sound logs that the checker must find at its line, and call by ``rule``."""

    rule: str
    places: Callable[[Log], Places]


def found_exactly(fault: Fault, logs: Sequence[Log]) -> None:
    """Assert that at every place tried, the first violation is the right one, and that there is a place at all."""
    tried = 0
    for log in logs:
        for changed, line in islice(fault.places(log), PLACES_PER_LOG):
            tried += 1
            violations = check(changed, every=False).violations
            first = [(violation.rule, violation.line) for violation in violations]
            assert first == [(fault.rule, line)], f"expected {fault.rule} at line {line}, found {first}"
            assert_well_described(changed, violations[0])
    assert tried, "no log has a place for this fault"


def rules_broken(report: Report) -> set[str]:
    """The rules that a report names."""
    return {violation.rule for violation in report.violations}
