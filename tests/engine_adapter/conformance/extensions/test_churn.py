"""Churn: logs of an engine that forgets idle clients hold in their mode, and one that forgets otherwise is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dlpm.events import EventSink
from dlpm.extensions.churn import FORGET, KEEP_DEBT, ChurnDLPM, DebtKeepingLedger, NaiveForgettingLedger, stated
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_engine.conformance import RULES
from tests.engine_adapter.conformance.edits import events, quantum, replaced
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
from tests.engine_adapter.conformance.views import View, views
from tests.reference.naive_worker import Rules

LEDGERS = {KEEP_DEBT: DebtKeepingLedger, FORGET: NaiveForgettingLedger}


def forgetting(ledger: type[DebtKeepingLedger]) -> Callable[[Rules, EventSink], Worker]:
    def build(rules: Rules, sink: EventSink) -> Worker:
        policy = ChurnDLPM(ledger(*quanta_and_cost(rules)))
        return Worker(config_of(rules), policy, FixedStep(1), sink, full_log=True)

    return build


@cache
def samples(rule: str) -> list[Log]:
    return sample_logs(forgetting(LEDGERS[rule]), stated(rule))


@given(run_rules(["dlpm"], ["reserving", "optimistic"]), plans(), st.sampled_from((KEEP_DEBT, FORGET)))
def test_every_log_of_a_forgetting_worker_holds(rules: Rules, plan: Plan, rule: str) -> None:
    log = record_variant(rules, plan, forgetting(LEDGERS[rule]), stated(rule))
    assume(len(log) > 1)
    report = check(log)
    assert all(RULES[violation.rule].theorem and violation.unmet_hypothesis for violation in report.violations)
    if rules.memory == "reserving":
        assert report.violations == ()
    unchecked = {rule for group in report.not_checked for rule in group.rules}
    assert unchecked == (set() if rule == KEEP_DEBT else {"gap-backlogged", "gap-any"})


def test_the_plain_mode_still_reports_whoever_is_forgotten() -> None:
    for rule in LEDGERS:
        broken = [rules_broken(check(stating(log, {}), every=False)) for log in samples(rule)]
        assert set().union(*broken)
        counters_are_gone = {"refill-forgot", "refill-due", "refill-amount", "charge-extend", "admit-in-order"}
        assert set().union(*broken) <= counters_are_gone


class ForgetsAtNight(DebtKeepingLedger):
    """Keeps debts, but for those of more than one quantum."""

    def rest(self, client: str) -> None:
        if self.deficits[client] < -self.quanta.of(client):
            del self.deficits[client]
        else:
            super().rest(client)


class KeepsCredit(DebtKeepingLedger):
    """An idle client keeps its credit."""

    def rest(self, client: str) -> None:
        if self.deficits[client] < 0:
            self.debtors.add(client)


class PaysTheForgotten(DebtKeepingLedger):
    """A client whose debt is paid is kept, and gets refills."""

    def rest(self, client: str) -> None:
        if self.deficits[client] < 0:
            self.debtors.add(client)
        elif self.deficits[client] > 0:
            self.deficits[client] = 0


class GiftOnReturn(DebtKeepingLedger):
    """Who comes back has one token of credit."""

    def register(self, client: str) -> None:
        new = client not in self.deficits
        super().register(client)
        if new:
            self.deficits[client] = 1


@pytest.mark.parametrize(
    ("ledger", "says", "rules"),
    [
        (NaiveForgettingLedger, KEEP_DEBT, {"refill-forgot", "refill-amount", "refill-twice"}),
        (ForgetsAtNight, KEEP_DEBT, {"refill-forgot", "refill-amount", "refill-twice"}),
        (DebtKeepingLedger, FORGET, {"refill-idle", "refill-amount", "charge-extend"}),
        (KeepsCredit, KEEP_DEBT, {"refill-idle", "refill-forgot", "gate", "refill-due", "fixpoint-refill"}),
        (PaysTheForgotten, KEEP_DEBT, {"refill-idle"}),
        (GiftOnReturn, KEEP_DEBT, {"gate", "fixpoint-refill"}),
    ],
)
def test_a_ledger_that_forgets_otherwise_than_it_says_is_found(
    ledger: type[DebtKeepingLedger], says: str, rules: set[str]
) -> None:
    logs = sample_logs(forgetting(ledger), stated(says), quantum=2)
    found = set().union(*(rules_broken(check(log, every=False)) for log in logs))
    assert found
    assert found <= rules


def idle_at_refills(log: Log) -> Iterator[tuple[int, Any, View, list[str]]]:
    """Every refill, with the clients of which nothing is queued, running, or in the latest forward step."""
    served: set[str] = set()
    owners: Any = {line["request"]: line["client"] for line in log if kind(line) == "arrive"}
    for index, view in enumerate(views(log)):
        line: Any = log[index]
        if kind(line) == "output":
            served = {owners[name] for name in line["tokens"]}
        if kind(line) == "refill":
            busy = {*view.queued.values(), *view.running.values(), *served}
            yield index, line, view, [client for client in view.counters if client not in busy]


def a_forgotten_client_is_paid(log: Log) -> Places:
    for index, line, _, idle in idle_at_refills(log):
        for client in idle:
            if client not in line["deficits"]:
                yield replaced(log, index, deficits={**line["deficits"], client: quantum(log)}), index + 1


def a_resting_debtor_is_not_paid(log: Log) -> Places:
    for index, line, _, idle in idle_at_refills(log):
        for client in idle:
            if client in line["deficits"] and len(line["deficits"]) > 1:
                left = {name: after for name, after in line["deficits"].items() if name != client}
                yield replaced(log, index, deficits=left), index + 1


def the_debt_of_a_resting_client_is_pardoned(log: Log) -> Places:
    for index, line, _, idle in idle_at_refills(log):
        for client in idle:
            if client in line["deficits"] and line["deficits"][client] % quantum(log):
                yield replaced(log, index, deficits={**line["deficits"], client: quantum(log)}), index + 1


def a_queued_client_is_taken_for_idle(log: Log) -> Places:
    for index, line, view in events(log, "refill"):
        for client in view.queued_clients():
            if len(line["deficits"]) > 1:
                left = {name: after for name, after in line["deficits"].items() if name != client}
                yield replaced(log, index, deficits=left), index + 1


def who_comes_back_has_credit(log: Log) -> Places:
    for index, line, view in events(log, "admit"):
        if view.counters[view.queued[line["request"]]] > 0:
            yield replaced(log, index, deficit=line["deficit"] + 1), index + 1


FAULTS = (
    Fault("refill-idle", a_forgotten_client_is_paid),
    Fault("refill-forgot", a_resting_debtor_is_not_paid),
    Fault("refill-amount", the_debt_of_a_resting_client_is_pardoned),
    Fault("refill-forgot", a_queued_client_is_taken_for_idle),
    Fault("charge-extend", who_comes_back_has_credit),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.places.__name__)
def test_exactly_the_right_rule_fires_first(fault: Fault) -> None:
    found_exactly(fault, samples(KEEP_DEBT))


def test_a_resting_debtor_that_is_paid_is_found_where_debts_are_forgotten() -> None:
    for log in samples(KEEP_DEBT):
        for index, line, _, idle in idle_at_refills(log):
            if any(client in line["deficits"] for client in idle):
                broken = check(stating(log, stated(FORGET)), every=False).violations
                assert [violation.line <= index + 1 for violation in broken] == [True]
                break


def test_a_forgotten_client_that_is_paid_is_reported_once_and_what_it_has_then_is_believed() -> None:
    for log in samples(KEEP_DEBT):
        for changed, line in islice(a_forgotten_client_is_paid(log), 3):
            (first, *others) = check(changed).violations
            assert (first.rule, first.line) == ("refill-idle", line)
            assert not any(violation.line == line for violation in others)
