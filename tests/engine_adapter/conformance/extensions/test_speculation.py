"""Several tokens a step: what the speculative worker logs holds, and a log that says otherwise does not."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dlpm.events import EventSink
from dlpm.extensions.speculation import SeededAcceptance, SpeculativeWorker
from dlpm.ledger import Ledger
from dlpm.policies.dlpm import DLPM
from dlpm.timing import FixedStep
from dlpm.worker import Worker
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
from tests.engine_adapter.conformance.mutations import events, replaced
from tests.reference.naive_worker import Rules

MOST = 3
STATED = {"speculation": {"most_accepted": MOST}}


def speculative(most: int, seed: int) -> Callable[[Rules, EventSink], Worker]:
    def build(rules: Rules, sink: EventSink) -> Worker:
        policy = DLPM(Ledger(*quanta_and_cost(rules)))
        return SpeculativeWorker(
            config_of(rules), policy, FixedStep(1), SeededAcceptance(most, seed), sink, full_log=True
        )

    return build


@cache
def samples() -> list[Log]:
    return sample_logs(speculative(MOST, 0), STATED)


@given(run_rules(["dlpm"], ["reserving"]), plans(), st.integers(1, 4), st.integers(0, 99))
def test_every_log_of_the_speculative_worker_holds(rules: Rules, plan: Plan, most: int, seed: int) -> None:
    log = record_variant(rules, plan, speculative(most, seed), {"speculation": {"most_accepted": most}})
    assume(len(log) > 1)
    report = check(log)
    assert report.violations == ()
    assert report.not_checked == ()
    assert check(stating(log, {})).violations == (), "clients pay for what they get: the plain rules hold as well"


def several_at_once(log: Log) -> Places:
    """One request gets one more than can be accepted, and its client pays for it."""
    for index, line, view in events(log, "output"):
        for name, count in line["tokens"].items():
            if count == MOST and view.generated[name] + count < view.arrived[name]["max_output"]:
                client = view.running[name]
                yield (
                    replaced(
                        log,
                        index,
                        tokens={**line["tokens"], name: count + 1},
                        deficits={**line["deficits"], client: line["deficits"][client] - 2},
                    ),
                    index + 1,
                )


def accepted_tokens_are_free(log: Log) -> Places:
    """A client pays for one token a request, not for those accepted with it."""
    for index, line, view in events(log, "output"):
        for name, count in line["tokens"].items():
            if count > 1:
                client = view.running[name]
                deficits = {**line["deficits"], client: line["deficits"][client] + 2 * (count - 1)}
                yield replaced(log, index, deficits=deficits), index + 1


def draft_tokens_are_charged(log: Log) -> Places:
    """A client pays for what was drafted, accepted or not."""
    for index, line, view in events(log, "output"):
        for name, count in line["tokens"].items():
            if count < MOST:
                client = view.running[name]
                deficits = {**line["deficits"], client: line["deficits"][client] - 2 * (MOST - count)}
                yield replaced(log, index, deficits=deficits), index + 1


def nothing_is_accepted(log: Log) -> Places:
    """A running request gets nothing in a step."""
    for index, line, view in events(log, "output"):
        for name, count in line["tokens"].items():
            client = view.running[name]
            deficits = {**line["deficits"], client: line["deficits"][client] + 2 * count}
            yield replaced(log, index, tokens={**line["tokens"], name: 0}, deficits=deficits), index + 1


def the_surplus_is_delivered(log: Log) -> Places:
    """A request gets more than its maximum output: nobody cuts off what was accepted beyond its end."""
    for index, line, view in events(log, "output"):
        for name, count in line["tokens"].items():
            left = view.arrived[name]["max_output"] - view.generated[name]
            if count == left < MOST:
                client = view.running[name]
                changed: dict[str, Any] = {
                    "tokens": {**line["tokens"], name: left + 1},
                    "deficits": {**line["deficits"], client: line["deficits"][client] - 2},
                }
                yield replaced(log, index, **changed), index + 1


FAULTS = (
    Fault("accepted-limit", several_at_once),
    Fault("charge-output", accepted_tokens_are_free),
    Fault("charge-output", draft_tokens_are_charged),
    Fault("output-complete", nothing_is_accepted),
    Fault("output-in-limit", the_surplus_is_delivered),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.places.__name__)
def test_exactly_the_right_rule_fires_first(fault: Fault) -> None:
    found_exactly(fault, samples())


def test_a_limit_that_is_stated_too_low_is_found() -> None:
    reports = [check(stating(log, {"speculation": {"most_accepted": MOST - 1}})) for log in samples()]
    assert {violation.rule for report in reports for violation in report.violations} == {"accepted-limit"}
