"""Event logs of real runs of the reference, as plain JSON objects that a test can change."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
from hypothesis import assume
from hypothesis import strategies as st

from dlpm.errors import InputError
from dlpm.event_codec import encode_event, encode_header
from dlpm.events import Event, Header, Limits
from dlpm.jsonl import JsonValue
from dlpm.request import Request
from dlpm_engine.conformance import Report, check_log
from tests.reference.lockstep import CLIENTS, MEMORIES, Shape, real_worker, shapes
from tests.reference.naive_worker import Rules

Line = dict[str, JsonValue]
Log = list[Line]
"""The header, then the events: ``log[k]`` is line k + 1."""

Plan = Sequence[Shape | int]
"""What happens to a worker: a request is submitted, or it does so many steps."""

KNOWN_POLICIES = ("dlpm", "vtc", "lpm", "fcfs")


def header_of(rules: Rules, *, full: bool = True) -> Header:
    """The header of a run under ``rules``; the limits on input and output are those of `shapes`."""
    return Header(
        engine="reference under test",
        policy=rules.policy,
        extend_weight=rules.extend_weight,
        output_weight=rules.output_weight,
        default_quantum=rules.quantum if rules.policy == "dlpm" else None,
        quanta=rules.quanta if rules.policy == "dlpm" else {},
        limits=Limits(kv_tokens=rules.kv_tokens, max_running=rules.max_running),
        memory=rules.memory,
        visibility=rules.visibility,
        block_size=rules.block_size,
        watermark=rules.watermark if rules.memory == "optimistic" else None,
        level="full" if full else "decisions",
    )


def record(rules: Rules, plan: Plan, *, full: bool = True) -> Log:
    """Run a worker through ``plan`` and then until it is idle: the log of that."""
    events: list[Event] = []
    worker = real_worker(rules, events, full_log=full)
    submitted = 0
    for item in plan:
        if isinstance(item, int):
            for _ in range(item):
                worker.step()
        else:
            submitted += 1
            submit(worker.submit, item.request(f"r{submitted}", rules.block_size))
    while not worker.idle():
        worker.step()
    return [encode_header(header_of(rules, full=full)), *map(encode_event, events)]


def submit(take: object, request: Request) -> None:
    """Submit a request that may be too large for the memory of the worker."""
    assert callable(take)
    try:
        take(request, 0)
    except InputError:
        return


def as_bytes(log: Sequence[Line]) -> list[bytes]:
    """The lines of a log."""
    return [orjson.dumps(line) + b"\n" for line in log]


def check(log: Sequence[Line], *, every: bool = True) -> Report:
    """Check a log; by default for all violations."""
    return check_log(as_bytes(log), all_violations=every)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Up to thirty requests, now and then a few steps between."""
    return draw(st.lists(st.one_of(shapes(), shapes(), st.integers(1, 3)), min_size=1, max_size=40))


@st.composite
def run_rules(draw: st.DrawFn, policies: Sequence[str], memories: Sequence[str]) -> Rules:
    """Memory for one to four requests of `shapes`, every block size up to 4, quanta from far too small to ample."""
    return Rules(
        policy=draw(st.sampled_from(policies)),
        kv_tokens=draw(st.integers(12, 40)),
        memory=draw(st.sampled_from(memories)),
        visibility=draw(st.sampled_from(("at_admission", "after_forward"))),
        block_size=draw(st.integers(1, 4)),
        watermark=draw(st.integers(0, 3)),
        max_running=draw(st.one_of(st.none(), st.integers(1, 3))),
        extend_weight=draw(st.integers(1, 3)),
        output_weight=draw(st.integers(1, 3)),
        quantum=draw(st.integers(1, 9)),
        quanta=draw(st.one_of(st.just({}), st.dictionaries(st.sampled_from(CLIENTS), st.integers(1, 9), max_size=2))),
    )


@st.composite
def recorded_logs(
    draw: st.DrawFn,
    policies: Sequence[str] = KNOWN_POLICIES,
    memories: Sequence[str] = MEMORIES,
    *,
    full: bool | None = None,
) -> Log:
    """Logs of runs of the reference, with at least one event."""
    rules = draw(run_rules(policies, memories))
    log = record(rules, draw(plans()), full=draw(st.booleans()) if full is None else full)
    assume(len(log) > 1)
    return log
