"""Late accounting: logs of the late ledger hold whatever the delays, and charges that are wrong or too late do not."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import cache

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dlpm.events import EventSink
from dlpm.extensions.late_accounting import LateLedger, stated
from dlpm.policies.dlpm import DLPM
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_engine.conformance import RULES
from tests.engine_adapter.conformance.edits import events, inserted, quantum, replaced, stamp
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
from tests.reference.naive_worker import Rules

STEPS = 2


def varying(most: int, seed: int) -> Callable[[int], int]:
    """Delays from 0 to ``most`` steps, another after each forward step."""
    return lambda step: random.Random(f"{seed}/{step}").randint(0, most)


def late(
    lag: Callable[[int], int], *, late_extends: bool = False, ledger: type[LateLedger] = LateLedger
) -> Callable[[Rules, EventSink], Worker]:
    def build(rules: Rules, sink: EventSink) -> Worker:
        policy = DLPM(ledger(*quanta_and_cost(rules), lag, late_extends=late_extends))
        return Worker(config_of(rules), policy, FixedStep(1), sink, full_log=True)

    return build


@cache
def samples() -> list[Log]:
    return sample_logs(late(lambda _: STEPS), stated(STEPS))


@given(run_rules(["dlpm"], ["reserving", "optimistic"]), plans(), st.integers(0, 3), st.integers(0, 99))
def test_every_log_with_varying_delays_holds(rules: Rules, plan: Plan, most: int, seed: int) -> None:
    log = record_variant(rules, plan, late(varying(most, seed)), stated(most))
    assume(len(log) > 1)
    report = check(log)
    assert report.violations == ()
    assert {rule for group in report.not_checked for rule in group.rules} == {
        "deficit-floor",
        "deficit-floor-proven",
        "gap-backlogged",
        "gap-any",
    }


@given(run_rules(["dlpm"], ["reserving", "optimistic"]), plans())
def test_a_log_without_delay_holds_as_late_by_none(rules: Rules, plan: Plan) -> None:
    log = record_variant(rules, plan, late(lambda _: 0), stated(0))
    assume(len(log) > 1)
    assert check(log).violations == ()
    assert all(RULES[violation.rule].theorem for violation in check(stating(log, {})).violations)


def test_the_plain_mode_still_reports_late_charges() -> None:
    for log in samples():
        assert rules_broken(check(stating(log, {}), every=False)) == {"charge-output"}


def test_a_delay_that_is_stated_too_short_is_found() -> None:
    broken = [rules_broken(check(stating(log, stated(STEPS - 1)), every=False)) for log in samples()]
    assert set().union(*broken) == {"charge-output"}
    assert all(broken)


def test_late_extend_tokens_are_found() -> None:
    logs = sample_logs(late(lambda _: STEPS, late_extends=True), stated(STEPS))
    assert all(rules_broken(check(log, every=False)) == {"charge-extend"} for log in logs)


class ForgetsAStep(LateLedger):
    """The fifth forward step is never charged."""

    def charge_outputs(self, tokens: Mapping[str, int]) -> None:
        super().charge_outputs(tokens if self._forwards != 5 else dict.fromkeys(tokens, 0))


class ChargesTwice(LateLedger):
    """The fifth forward step is charged twice."""

    def charge_outputs(self, tokens: Mapping[str, int]) -> None:
        super().charge_outputs(
            tokens if self._forwards != 5 else {client: 2 * count for client, count in tokens.items()}
        )


class NewestFirst(LateLedger):
    """What came last is charged first."""

    def charge_outputs(self, tokens: Mapping[str, int]) -> None:
        if self.unaccounted:
            self.unaccounted.append(self.unaccounted.popleft())
        super().charge_outputs(tokens)


class EachClientOnItsOwn(LateLedger):
    """One client is charged at once, the others late."""

    def charge_outputs(self, tokens: Mapping[str, int]) -> None:
        first = {client: count for client, count in tokens.items() if client == "A"}
        super().charge_outputs({client: count for client, count in tokens.items() if client != "A"})
        for client, count in first.items():
            self.deficits[client] -= self.cost.output(count)


@pytest.mark.parametrize("ledger", [ForgetsAStep, ChargesTwice, NewestFirst, EachClientOnItsOwn])
def test_a_faulty_ledger_is_found_by_its_charges(ledger: type[LateLedger]) -> None:
    logs = sample_logs(late(lambda _: STEPS, ledger=ledger), stated(STEPS))
    found = set().union(*(rules_broken(check(log, every=False)) for log in logs))
    assert "charge-output" in found
    assert found <= {"charge-output", "refill-amount"}, "a client that runs nothing shows its counter at a refill"


class LooksAhead(LateLedger):
    """The gate sees what has not been heard of, the log does not."""

    def has_credit(self, client: str) -> bool:
        return self.true_deficit(client) > 0


class GateAtZero(LateLedger):
    """A seen counter of 0 still is credit."""

    def has_credit(self, client: str) -> bool:
        return self.deficits[client] >= 0


@pytest.mark.parametrize(
    ("ledger", "rules"), [(LooksAhead, {"fixpoint-fit", "refill-due", "admit-in-order"}), (GateAtZero, {"gate"})]
)
def test_a_gate_that_sees_something_else_is_found(ledger: type[LateLedger], rules: set[str]) -> None:
    logs = sample_logs(late(lambda _: STEPS, ledger=ledger), stated(STEPS))
    found = set().union(*(rules_broken(check(log, every=False)) for log in logs))
    assert found
    assert found <= rules


def an_admission_is_free(log: Log) -> Places:
    for index, line, _ in events(log, "admit"):
        yield replaced(log, index, deficit=line["deficit"] + line["extend"]), index + 1


def a_refill_pays_one_less(log: Log) -> Places:
    for index, line, _ in events(log, "refill"):
        client = next(iter(line["deficits"]))
        yield replaced(log, index, deficits={**line["deficits"], client: line["deficits"][client] - 1}), index + 1


def a_refill_pays_twice(log: Log) -> Places:
    for index, line, _ in events(log, "refill"):
        client = next(iter(line["deficits"]))
        after = line["deficits"][client] + quantum(log)
        yield replaced(log, index, deficits={**line["deficits"], client: after}), index + 1


def a_refill_forgets_a_client(log: Log) -> Places:
    for index, line, _ in events(log, "refill"):
        if len(line["deficits"]) > 1:
            client = next(iter(line["deficits"]))
            left = {name: after for name, after in line["deficits"].items() if name != client}
            yield replaced(log, index, deficits=left), index + 1


def a_counter_rises_in_a_forward_step(log: Log) -> Places:
    for index, line, _ in events(log, "output"):
        client = next(iter(line["deficits"]))
        yield replaced(log, index, deficits={**line["deficits"], client: line["deficits"][client] + 1}), index + 1


def a_counter_is_left_out(log: Log) -> Places:
    for index, line, _ in events(log, "output"):
        client = next(iter(line["deficits"]))
        left = {name: after for name, after in line["deficits"].items() if name != client}
        yield replaced(log, index, deficits=left), index + 1


def a_refill_with_nobody_queued(log: Log) -> Places:
    for index, line, view in events(log, "output"):
        if not view.queued and kind(log[index - 1]) == "finish":
            yield inserted(log, index, {"event": "refill", **stamp(line), "deficits": {}}), index + 1


FAULTS = (
    Fault("charge-extend", an_admission_is_free),
    Fault("refill-amount", a_refill_pays_one_less),
    Fault("refill-twice", a_refill_pays_twice),
    Fault("refill-forgot", a_refill_forgets_a_client),
    Fault("charge-output", a_counter_rises_in_a_forward_step),
    Fault("charge-output", a_counter_is_left_out),
    Fault("refill-due", a_refill_with_nobody_queued),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.places.__name__)
def test_exactly_the_right_rule_fires_first(fault: Fault) -> None:
    found_exactly(fault, samples())
