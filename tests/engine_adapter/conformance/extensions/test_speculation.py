"""Several tokens a step: what the speculative worker logs holds, and a log that says otherwise does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dlpm.events import EventSink
from dlpm.extensions.speculation import SeededAcceptance, SpeculativeWorker, stated
from dlpm.ledger import Ledger
from dlpm.policies.dlpm import DLPM
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from tests.engine_adapter.conformance.edits import events, replaced
from tests.engine_adapter.conformance.extensions.variants import (
    Fault,
    Places,
    config_of,
    found_exactly,
    quanta_and_cost,
    record_variant,
    rules_broken,
    sample_logs,
    stating,
)
from tests.engine_adapter.conformance.logs import Log, Plan, check, plans, run_rules
from tests.engine_adapter.conformance.samples import kind
from tests.engine_adapter.conformance.views import View
from tests.reference.naive_worker import Rules

MOST = 3
STATED = stated(MOST)
CHARGED = stated(MOST, charge_surplus=True)


def speculative(most: int, seed: int, *, charge_surplus: bool = False) -> Callable[[Rules, EventSink], Worker]:
    def build(rules: Rules, sink: EventSink) -> Worker:
        policy = DLPM(Ledger(*quanta_and_cost(rules)))
        return SpeculativeWorker(
            config_of(rules),
            policy,
            FixedStep(1),
            SeededAcceptance(most, seed),
            sink,
            charge_surplus=charge_surplus,
            full_log=True,
        )

    return build


@cache
def samples() -> list[Log]:
    return sample_logs(speculative(MOST, 0), STATED)


@cache
def charged_samples() -> list[Log]:
    return sample_logs(speculative(MOST, 0, charge_surplus=True), CHARGED)


@given(run_rules(["dlpm"], ["reserving"]), plans(), st.integers(1, 4), st.integers(0, 99))
def test_every_log_of_the_speculative_worker_holds(rules: Rules, plan: Plan, most: int, seed: int) -> None:
    log = record_variant(rules, plan, speculative(most, seed), stated(most))
    assume(len(log) > 1)
    report = check(log)
    assert report.violations == ()
    assert report.not_checked == ()
    assert check(stating(log, {})).violations == (), "clients pay for what they get: the plain rules hold as well"


@given(run_rules(["dlpm"], ["reserving"]), plans(), st.integers(1, 4), st.integers(0, 99))
def test_every_log_of_charged_surplus_holds(rules: Rules, plan: Plan, most: int, seed: int) -> None:
    build = speculative(most, seed, charge_surplus=True)
    log = record_variant(rules, plan, build, stated(most, charge_surplus=True))
    assume(len(log) > 1)
    assert check(log).violations == ()


def test_the_plain_mode_still_reports_charged_surplus() -> None:
    for log in charged_samples():
        assert rules_broken(check(stating(log, {}), every=False)) == {"charge-output"}
        assert rules_broken(check(stating(log, STATED), every=False)) == {"charge-output"}


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


def with_surplus(log: Log) -> Iterator[tuple[int, Any, View, str, int]]:
    """Every output event with a surplus: its index, itself, the state before it, and one request with its surplus."""
    for index, line, view in events(log, "output"):
        for name, accepted in line.get("accepted", {}).items():
            yield index, line, view, name, accepted - line["tokens"][name]


def the_surplus_is_not_paid(log: Log) -> Places:
    for index, line, view, name, surplus in with_surplus(log):
        client = view.running[name]
        deficits = {**line["deficits"], client: line["deficits"][client] + 2 * surplus}
        yield replaced(log, index, deficits=deficits), index + 1


def the_surplus_is_paid_and_not_stated(log: Log) -> Places:
    for index, line, _, name, _ in with_surplus(log):
        left = {other: count for other, count in line["accepted"].items() if other != name}
        yield replaced(log, index, accepted=left), index + 1


def more_is_accepted_than_can_be(log: Log) -> Places:
    for index, line, view, name, surplus in with_surplus(log):
        client = view.running[name]
        more = MOST + 1 - line["tokens"][name] - surplus
        yield (
            replaced(
                log,
                index,
                accepted={**line["accepted"], name: MOST + 1},
                deficits={**line["deficits"], client: line["deficits"][client] - 2 * more},
            ),
            index + 1,
        )


def a_request_that_goes_on_has_a_surplus(log: Log) -> Places:
    """Found at the next forward step, in which it still runs."""
    outputs = list(events(log, "output"))
    for (index, line, view), (following, later, _) in pairwise(outputs):
        for name, count in line["tokens"].items():
            if count < MOST and name in later["tokens"]:
                client = view.running[name]
                changed = replaced(
                    log,
                    index,
                    accepted={**line.get("accepted", {}), name: count + 1},
                    deficits={**line["deficits"], client: line["deficits"][client] - 2},
                )
                between = log[index + 1 : following]
                if all(kind(other) in ("finish", "arrive", "order", "evict") for other in between):
                    yield changed, following + 1


def fewer_are_accepted_than_yielded(log: Log) -> Places:
    for index, line, _ in events(log, "output"):
        for name, count in line["tokens"].items():
            if count > 1:
                yield replaced(log, index, accepted={**line.get("accepted", {}), name: count - 1}), index + 1


CHARGED_FAULTS = (
    Fault("charge-output", the_surplus_is_not_paid),
    Fault("charge-output", the_surplus_is_paid_and_not_stated),
    Fault("accepted-limit", more_is_accepted_than_can_be),
    Fault("accepted-surplus", a_request_that_goes_on_has_a_surplus),
    Fault("accepted-surplus", fewer_are_accepted_than_yielded),
)


@pytest.mark.parametrize("fault", CHARGED_FAULTS, ids=lambda fault: fault.places.__name__)
def test_exactly_the_right_rule_fires_first_where_the_surplus_is_charged(fault: Fault) -> None:
    found_exactly(fault, charged_samples())


def test_a_limit_that_is_stated_too_low_is_found() -> None:
    reports = [check(stating(log, stated(MOST - 1))) for log in samples()]
    assert {violation.rule for report in reports for violation in report.violations} == {"accepted-limit"}
