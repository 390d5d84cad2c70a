"""A changing quantum: logs of the ledger that asks for it hold, and a log or a ledger that departs from it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from functools import cache, partial
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.events import EventSink
from dlpm.extensions.changing_quantum import ChangingLedger, IndividualLedger, ListedQuanta, QuantumRange, stated
from dlpm.extensions.measured_quantum import MeasuredLedger
from dlpm.extensions.quantum_controller import AdditiveQuantum, Aim, FixedQuantum, ImplicitFtrl, QuantumController
from dlpm.ledger import Ledger
from dlpm.policies.dlpm import DLPM
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_engine.conformance import check_log
from dlpm_proofs.theorems.e10_runs import favoured_for_ever, gap_reached, hoard_reached, odd_quantum
from tests.engine_adapter.conformance.edits import events, replaced
from tests.engine_adapter.conformance.extensions.variants import (
    Fault,
    Places,
    config_of,
    found_exactly,
    record_variant,
    rules_broken,
    sample_logs,
    stating,
)
from tests.engine_adapter.conformance.logs import Log, Plan, as_bytes, check, plans, run_rules
from tests.engine_adapter.conformance.test_theorem_rules import unfair_log
from tests.reference.naive_worker import Rules

LEAST, MOST = 3, 11
SCHEDULE = (3, 11, 5, 4, 11, 3, 7, 10, 6)
RANGE = QuantumRange(LEAST, MOST)

Build = Callable[[Rules, EventSink], Worker]


def worker_on(ledger: Callable[[CostModel], Ledger], rules: Rules, sink: EventSink) -> Worker:
    cost = CostModel(rules.extend_weight, rules.output_weight)
    return Worker(config_of(rules), DLPM(ledger(cost)), FixedStep(1), sink, full_log=True)


def changing(schedule: tuple[int, ...], ledger: type[ChangingLedger] = ChangingLedger) -> Build:
    quantum_range = QuantumRange(min(schedule), max(schedule))
    return partial(worker_on, lambda cost: ledger(quantum_range, cost, ListedQuanta(schedule)))


@cache
def samples() -> list[Log]:
    return sample_logs(changing(SCHEDULE), stated(RANGE), quantum=MOST)


@given(run_rules(["dlpm"], ["reserving", "optimistic"]), plans(), st.lists(st.integers(1, 15), min_size=1, max_size=9))
def test_every_log_of_a_changing_quantum_holds(rules: Rules, plan: Plan, schedule: list[int]) -> None:
    quantum_range = QuantumRange(min(schedule), max(schedule))
    rules = Rules(**{**vars(rules), "quantum": quantum_range.most, "quanta": {}})
    log = record_variant(rules, plan, changing(tuple(schedule)), stated(quantum_range))
    assume(len(log) > 1)
    report = check(log)
    assert report.violations == ()
    assert {"refill-range", "refill-alike", "extension-floor", "extension-gap"} <= set(report.rules)


def controlled(controller: QuantumController, window: int) -> Build:
    return partial(worker_on, lambda cost: MeasuredLedger(RANGE, cost, controller, window))


CONTROLLERS: Mapping[str, Callable[[], QuantumController]] = {
    "fixed": lambda: FixedQuantum(LEAST),
    "additive": lambda: AdditiveQuantum(RANGE, Fraction(9, 10), 3),
    "implicit FTRL": lambda: ImplicitFtrl(RANGE, Aim(Fraction(9, 10), 3, 200)),
}


@given(
    run_rules(["dlpm"], ["reserving", "optimistic"]),
    plans(),
    st.sampled_from(sorted(CONTROLLERS)),
    st.integers(1, 25),
)
def test_every_log_of_a_quantum_that_a_controller_picks_holds(rules: Rules, plan: Plan, name: str, window: int) -> None:
    rules = Rules(**{**vars(rules), "quantum": MOST, "quanta": {}})
    log = record_variant(rules, plan, controlled(CONTROLLERS[name](), window), stated(RANGE))
    assume(len(log) > 1)
    assert check(log).violations == ()


def test_the_quanta_of_controllers_do_change_in_logs_and_a_range_that_is_too_narrow_is_noticed() -> None:
    for name in ("additive", "implicit FTRL"):
        logs = [
            log
            for window in (5, 20)
            for log in sample_logs(controlled(CONTROLLERS[name](), window), stated(RANGE), quantum=MOST)
        ]
        assert all(check(log).violations == () for log in logs)
        narrow = [stating(log, stated(QuantumRange(MOST, MOST))) for log in logs]
        assert "refill-range" in set().union(*(rules_broken(check(log)) for log in narrow))


def test_a_quantum_that_changes_breaks_the_rules_of_a_log_that_does_not_say_so() -> None:
    broken = set().union(*(rules_broken(check(stating(log, {}), every=False)) for log in samples()))
    assert broken == {"refill-amount"}


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_a_client_that_is_left_behind_is_found_when_the_gap_of_the_largest_quantum_is_passed() -> None:
    """U* = 15, the floor is -14, Q_max = 5: the gap is 38. The thirteenth round makes 37, then 39."""
    log = unfair_log(13, b_stays_queued=True)
    log[0]["quantum"] = {"default": 5}
    log = stating(log, stated(QuantumRange(1, 5)))
    [violation] = [v for v in check(log).violations if v.rule == "extension-gap"]
    assert violation.client == "A"
    assert "= 38 more" in violation.expected
    assert violation.found.startswith("'B' got 39 ")
    assert "extension-gap" not in rules_broken(check(log[:-2]))


def test_a_floor_that_no_quantum_moves_is_enforced() -> None:
    # B's logged counter sinks by 3 a round: below the floor of -14 in the fifth round.
    log = unfair_log(6, b_stays_queued=True)
    log[0]["quantum"] = {"default": 5}
    [violation] = [v for v in check(stating(log, stated(QuantumRange(1, 5)))).violations if v.rule == "extension-floor"]
    assert violation.expected.startswith("a deficit of at least -14")


def test_bounds_need_to_know_memory() -> None:
    for missing, reason in (("memory", "memory"), ("limits", "limits.kv_tokens")):
        log = [dict(line) for line in samples()[0]]
        del log[0][missing]
        report = check(log)
        assert report.violations == ()
        unchecked = {rule: group.reason for group in report.not_checked for rule in group.rules}
        assert unchecked["extension-gap"] == unchecked["extension-floor"] == f"the header states no {reason}"
        assert unchecked["gap-any"] == unchecked["deficit-floor"] == "not a theorem with a changing quantum"


# -- the reference's own runs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", [odd_quantum, gap_reached, hoard_reached])
def test_runs_that_reach_a_bound_hold(shown: Callable[[], Iterable[Any]], tmp_path: Any) -> None:
    for demonstration in shown():
        assert demonstration.confirmed
        _, path = demonstration.replay.write(tmp_path, "run")
        assert check_log(path.read_bytes().splitlines(keepends=True), all_violations=True).violations == ()


def test_a_favoured_client_is_found_at_the_first_refill_that_favours_it(tmp_path: Any) -> None:
    [demonstration] = favoured_for_ever()
    assert demonstration.replay is not None
    _, path = demonstration.replay.write(tmp_path, "run")
    lines = path.read_bytes().splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines, start=1) if b'"refill"' in line)
    report = check_log(lines, all_violations=True)
    assert (report.violations[0].rule, report.violations[0].line) == ("refill-alike", first)
    assert "extension-gap" in rules_broken(report)


# -- ledgers that depart from it ---------------------------------------------------------------------------------------


class TopsUp(ChangingLedger):
    """Raises clients with credit to the new quantum as well."""

    def check_refill(self, queued_clients: Iterable[str]) -> dict[str, int]:
        refilled = super().check_refill(queued_clients)
        for client in self.deficits if refilled else ():
            if client not in refilled and self.deficits[client] < self.quanta.default:
                self.deficits[client] = refilled[client] = self.quanta.default
        return refilled


class OneTooMany(ChangingLedger):
    """Adds one to what the source names."""

    def check_refill(self, queued_clients: Iterable[str]) -> dict[str, int]:
        refilled = super().check_refill(queued_clients)
        for client in refilled:
            self.deficits[client] += 1
        return {client: self.deficits[client] for client in refilled}


class ForgetsWhoIsIdle(ChangingLedger):
    """Pays only who is queued."""

    def check_refill(self, queued_clients: Iterable[str]) -> dict[str, int]:
        queued = tuple(queued_clients)
        idle = {client: deficit for client, deficit in self.deficits.items() if client not in queued}
        refilled = super().check_refill(queued)
        self.deficits.update(idle)
        return {client: deficit for client, deficit in refilled.items() if client in queued}


def favouring(rules: Rules, sink: EventSink) -> Worker:
    """Client A is always paid the largest quantum."""
    return worker_on(lambda cost: IndividualLedger(RANGE, cost, lambda c: MOST if c == "A" else LEAST), rules, sink)


@pytest.mark.parametrize(
    ("build", "rules"),
    [
        (changing(SCHEDULE, TopsUp), {"refill-credit"}),
        (changing(SCHEDULE, OneTooMany), {"refill-range"}),
        (changing(SCHEDULE, ForgetsWhoIsIdle), {"refill-forgot"}),
        (favouring, {"refill-alike"}),
    ],
)
def test_a_ledger_that_pays_otherwise_is_found(build: Build, rules: set[str]) -> None:
    logs = sample_logs(build, stated(RANGE), quantum=MOST)
    assert set().union(*(rules_broken(check(log, every=False)) for log in logs)) == rules


# -- changed logs ------------------------------------------------------------------------------------------------------


def a_refill_pays_more_than_the_largest_quantum(log: Log) -> Places:
    for index, line, view in events(log, "refill"):
        paid = {client: view.counters[client] + MOST + 1 for client in line["deficits"]}
        yield replaced(log, index, deficits=paid), index + 1


def a_refill_pays_less_than_the_smallest_quantum(log: Log) -> Places:
    for index, line, view in events(log, "refill"):
        paid = {client: view.counters[client] + LEAST - 1 for client in line["deficits"]}
        yield replaced(log, index, deficits=paid), index + 1


def a_refill_pays_one_client_another_quantum(log: Log) -> Places:
    for index, line, view in events(log, "refill"):
        first, *others = line["deficits"]
        quantum = line["deficits"][first] - view.counters[first]
        for client in others:
            other = LEAST if quantum > LEAST else MOST
            yield replaced(log, index, deficits={**line["deficits"], client: view.counters[client] + other}), index + 1


def a_refill_pays_one_client_twice(log: Log) -> Places:
    for index, line, view in events(log, "refill"):
        first, *others = line["deficits"]
        quantum = line["deficits"][first] - view.counters[first]
        for client in others:
            yield (
                replaced(log, index, deficits={**line["deficits"], client: line["deficits"][client] + quantum}),
                index + 1,
            )


def a_refill_forgives_a_debt(log: Log) -> Places:
    for index, line, view in events(log, "refill"):
        first, *others = line["deficits"]
        quantum = line["deficits"][first] - view.counters[first]
        for client in others:
            if view.counters[client] < 0:
                yield replaced(log, index, deficits={**line["deficits"], client: quantum}), index + 1


def a_refill_tops_up_a_client_with_credit(log: Log) -> Places:
    for index, line, view in events(log, "refill"):
        for client, counter in view.counters.items():
            if counter > 0:
                yield replaced(log, index, deficits={**line["deficits"], client: MOST}), index + 1


def a_refill_leaves_a_poor_client_out(log: Log) -> Places:
    for index, line, _ in events(log, "refill"):
        for left_out in line["deficits"]:
            paid = {client: deficit for client, deficit in line["deficits"].items() if client != left_out}
            if paid:
                yield replaced(log, index, deficits=paid), index + 1


FAULTS = (
    Fault("refill-range", a_refill_pays_more_than_the_largest_quantum),
    Fault("refill-range", a_refill_pays_less_than_the_smallest_quantum),
    Fault("refill-alike", a_refill_pays_one_client_another_quantum),
    Fault("refill-alike", a_refill_pays_one_client_twice),
    Fault("refill-alike", a_refill_forgives_a_debt),
    Fault("refill-credit", a_refill_tops_up_a_client_with_credit),
    Fault("refill-forgot", a_refill_leaves_a_poor_client_out),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.places.__name__)
def test_exactly_the_right_rule_fires_first(fault: Fault) -> None:
    found_exactly(fault, samples())


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "quantum", "field"),
    [
        ({"most": MOST}, {"default": MOST}, "least"),
        ({"least": 0, "most": MOST}, {"default": MOST}, "least"),
        ({"least": LEAST, "most": LEAST - 1}, {"default": MOST}, "most"),
        ({"least": LEAST, "most": MOST, "step": 1}, {"default": MOST}, "step"),
        ({"least": LEAST, "most": MOST}, {"default": MOST - 1}, "most"),
        ({"least": LEAST, "most": MOST}, {"default": MOST, "clients": {"A": 4}}, "most"),
    ],
)
def test_a_range_that_is_not_one_is_refused(options: Mapping[str, int], quantum: dict[str, Any], field: str) -> None:
    log = stating(samples()[0], {"quantum_range": dict(options)})
    log[0] = {**log[0], "quantum": quantum}
    with pytest.raises(InputError, match=f"extensions.quantum_range.{field}"):
        check_log(as_bytes(log), source="log")
