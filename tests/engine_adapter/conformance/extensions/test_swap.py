"""Preemption by swap: what the swapping worker logs holds, and a log that says otherwise does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dlpm.errors import InputError
from dlpm.events import EventSink
from dlpm.extensions.swap.config import SwapConfig
from dlpm.extensions.swap.worker import SwapWorker
from dlpm.jsonl import JsonValue
from dlpm.ledger import Ledger
from dlpm.policies.dlpm import DLPM
from dlpm.swap_timing import FixedCopy
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from tests.engine_adapter.conformance.edits import inserted, replaced
from tests.engine_adapter.conformance.extensions.variants import (
    Fault,
    Places,
    config_of,
    found_exactly,
    quanta_and_cost,
    record_variant,
    sample_logs,
    stating,
)
from tests.engine_adapter.conformance.logs import Log, Plan, check, plans, run_rules
from tests.engine_adapter.conformance.samples import kind, sample_rules
from tests.reference.lockstep import Shape
from tests.reference.naive_worker import Rules

STEP_US = 3


def swapping(swap: SwapConfig, copy_us: int) -> Callable[[Rules, EventSink], Worker]:
    def build(rules: Rules, sink: EventSink) -> Worker:
        policy = DLPM(Ledger(*quanta_and_cost(rules)))
        return SwapWorker(config_of(rules), policy, FixedStep(STEP_US), swap, FixedCopy(copy_us), sink, full_log=True)

    return build


FIRST = SwapConfig(200)
ASIDE = SwapConfig(200, asynchronous=True)


@cache
def samples() -> list[Log]:
    return [
        *sample_logs(swapping(FIRST, 2), FIRST.stated(), memory="optimistic", block_size=1, kv_tokens=18),
        *sample_logs(swapping(ASIDE, 2), ASIDE.stated(), memory="optimistic", block_size=1, kv_tokens=18),
        *(long_outputs(client) for client in ("A", "B")),
    ]


def long_outputs(client: str) -> Log:
    """Two requests of one prompt token each, which together yield more tokens than there is memory."""
    rules = replace(sample_rules("dlpm", 0), memory="optimistic", block_size=1, kv_tokens=18)
    plan = [Shape(who, (place,), 14, 0, (), False, False) for place, who in enumerate(("A", client))]
    return record_variant(rules, plan, swapping(ASIDE, 2), ASIDE.stated())


@given(
    run_rules(["dlpm"], ["optimistic"]),
    plans(),
    st.builds(
        SwapConfig,
        st.sampled_from((0, 4, 200)),
        group_blocks=st.sampled_from((1, 3)),
        asynchronous=st.booleans(),
        resume_first=st.booleans(),
    ),
    st.integers(0, 5),
)
def test_every_log_of_the_swapping_worker_holds(rules: Rules, plan: Plan, swap: SwapConfig, copy_us: int) -> None:
    assume(rules.block_size == 1)
    log = record_variant(rules, plan, swapping(swap, copy_us), swap.stated())
    assume(len(log) > 1)
    assert [violation for violation in check(log).violations if not violation.unmet_hypothesis] == []


def test_the_samples_swap_and_hold() -> None:
    for log in samples():
        assert check(log).violations == ()
    assert sum(kind(line) == "resume" for log in samples() for line in log) >= 10


def _indexes(log: Log, wanted: str) -> list[int]:
    return [index for index, line in enumerate(log) if kind(line) == wanted]


def _swaps(log: Log) -> list[int]:
    return [index for index in _indexes(log, "preempt") if log[index]["kind"] == "swap"]


def pays_for_leaving(log: Log) -> Places:
    """Who is swapped out is charged for it."""
    for index in _swaps(log):
        yield replaced(log, index, deficit=int(str(log[index]["deficit"])) - 1), index + 1


def pays_for_coming_back(log: Log) -> Places:
    """Who comes back is charged for the tokens that were copied."""
    for index in _indexes(log, "resume"):
        yield replaced(log, index, deficit=int(str(log[index]["deficit"])) - int(str(log[index]["copied"]))), index + 1


def comes_back_twice(log: Log) -> Places:
    """A request comes back although it was not away."""
    for index in _indexes(log, "resume"):
        yield inserted(log, index + 1, dict(log[index])), index + 2


def copied_back_too_soon(log: Log) -> Places:
    """The copy-in begins before the copy-out is done."""
    done = {}
    for index, line in enumerate(log):
        if kind(line) == "preempt" and line["kind"] == "swap":
            done[line["request"]] = int(str(line["copied_us"]))
        elif kind(line) == "resume" and done[line["request"]] > 0:
            yield replaced(log, index, began_us=done[line["request"]] - 1), index + 1


def decodes_too_soon(log: Log) -> Places:
    """A copy-in is done only after the step in which its request gets a token."""
    for index in _indexes(log, "resume"):
        output = next(later for later in _indexes(log, "output") if later > index)
        yield replaced(log, index, copied_us=int(str(log[output]["time_us"])) + 1), output + 1


def copies_more_than_there_is(log: Log) -> Places:
    """More tokens are copied than the request has."""
    for wanted in (_swaps(log), _indexes(log, "resume")):
        for index in wanted:
            yield replaced(log, index, copied=1_000), index + 1


def overfills_cpu_memory(log: Log) -> Places:
    """The same log of an engine with one token of CPU memory."""
    held: dict[object, int] = {}
    generated: dict[object, int] = {}
    for index, line in enumerate(log):
        if kind(line) == "output":
            tokens = line["tokens"]
            assert isinstance(tokens, dict)
            for name in tokens:
                generated[name] = generated.get(name, 0) + 1
        elif kind(line) == "resume":
            held.pop(line["request"])
        elif kind(line) == "preempt" and line["kind"] == "swap":
            held[line["request"]] = generated.get(line["request"], 0)
            if sum(held.values()) > 1:
                yield stating(log, {"swap": {"cpu_tokens": 1, "resume": "first"}}), index + 1
                return


def admits_beside_who_is_away(log: Log) -> Places:
    """A request is admitted in the step in which another is still away."""
    away: set[object] = set()
    for index, line in enumerate(log):
        if kind(line) == "preempt" and line["kind"] == "swap":
            away.add(line["request"])
        elif kind(line) == "resume":
            away.discard(line["request"])
            following = log[index + 1 : index + 3]
            if not away and [kind(one) for one in following] == ["order", "admit"]:
                swapped = [*log[:index], *following, line, *log[index + 3 :]]
                yield swapped, index + 2


def copied_out_for_ever(log: Log) -> Places:
    """A copy-out that is said to take for ever: others fill the memory that it still reads."""
    held: dict[object, int] = {}
    limits = log[0]["limits"]
    assert isinstance(limits, dict)
    memory = int(str(limits["kv_tokens"]))
    for index, line in enumerate(log):
        if kind(line) == "output":
            tokens = line["tokens"]
            assert isinstance(tokens, dict)
            held |= {name: held.get(name, 0) + 1 for name in tokens}
        elif kind(line) == "finish":
            held.pop(line["request"])
        elif kind(line) == "preempt" and line["kind"] == "swap":
            place = _overfilled(log, index, held, memory)
            if place is not None:
                yield replaced(log, index, copied_us=10**9), place + 1


def _overfilled(log: Log, index: int, held: dict[object, int], memory: int) -> int | None:
    """The output after the preemption at ``index`` with which too much is held, if nobody comes back before."""
    away = log[index]["request"]
    leaving, running = held[away], {name: tokens for name, tokens in held.items() if name != away}
    for place, line in enumerate(log[index + 1 :], start=index + 1):
        if kind(line) in ("resume", "preempt"):
            return None
        if kind(line) == "finish":
            running.pop(line["request"])
        elif kind(line) == "output":
            tokens = line["tokens"]
            assert isinstance(tokens, dict)
            running |= {name: running.get(name, 0) + 1 for name in tokens}
            if leaving + sum(running[name] for name in tokens) + 1 > memory:
                return place
    return None


FAULTS = (
    Fault("swap-charge", pays_for_leaving),
    Fault("swap-charge", pays_for_coming_back),
    Fault("resume-swapped", comes_back_twice),
    Fault("copy-order", copied_back_too_soon),
    Fault("decode-after-copy", decodes_too_soon),
    Fault("copied-tokens", copies_more_than_there_is),
    Fault("cpu-memory", overfills_cpu_memory),
    Fault("resume-first", admits_beside_who_is_away),
    Fault("copied-memory", copied_out_for_ever),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.places.__name__)
def test_exactly_the_right_rule_names_a_fault(fault: Fault) -> None:
    found_exactly(fault, samples())


@pytest.mark.parametrize(
    ("options", "field"),
    [({"cpu_tokens": 4}, "resume"), ({"resume": "first"}, "cpu_tokens"), ({"cpu_tokens": 4, "resume": "x"}, "resume")],
)
def test_options_that_are_not_what_they_must_be_are_refused(options: dict[str, JsonValue], field: str) -> None:
    with pytest.raises(InputError, match=field):
        check(stating(samples()[0], {"swap": options}))
