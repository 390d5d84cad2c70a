"""Weighted clients: service per unit of quantum, over every interval, beside its definition."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dlpm.events import EventSink
from dlpm.extensions.weights import stated
from dlpm.ledger import Ledger, Quanta
from dlpm.policies.dlpm import DLPM
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_engine.conformance import RULES
from dlpm_engine.conformance.extensions.weights import WeightedTracker
from dlpm_engine.conformance.state import ClientState
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
from tests.engine_adapter.conformance.test_gap import Move, Replay
from tests.engine_adapter.conformance.test_gap import plans as moves
from tests.engine_adapter.conformance.test_theorem_rules import unfair_log
from tests.reference.naive_worker import Rules

QUANTA = {"A": 4, "B": 12}


def weighted(ledger: type[Ledger] = Ledger) -> Callable[[Rules, EventSink], Worker]:
    def build(rules: Rules, sink: EventSink) -> Worker:
        return Worker(config_of(rules), DLPM(ledger(*quanta_and_cost(rules))), FixedStep(1), sink, full_log=True)

    return build


@cache
def samples() -> list[Log]:
    return sample_logs(weighted(), stated(), quantum=6, quanta=QUANTA)


@given(run_rules(["dlpm"], ["reserving", "optimistic"]), plans())
def test_every_log_of_weighted_clients_holds(rules: Rules, plan: Plan) -> None:
    log = record_variant(rules, plan, weighted(), stated())
    assume(len(log) > 1)
    report = check(log)
    assert all(RULES[violation.rule].theorem and violation.unmet_hypothesis for violation in report.violations)
    assert "weighted-gap" in report.rules
    assert {rule for group in report.not_checked for rule in group.rules} == {"gap-backlogged", "gap-any"}


# -- the tracker -------------------------------------------------------------------------------------------------------


UNITS = {"A": 1, "B": 3, "C": 1, "D": 2}
"""How many units a weighted token of each client is: their quanta are 6, 2, 6 and 3."""

CLIENT_QUANTA = {name: 6 // units for name, units in UNITS.items()}


class InUnits(Replay):
    """Both count service in units of which every quantum is the same number."""

    def __init__(self, tracker: WeightedTracker) -> None:
        super().__init__(tracker, clients={name: ClientState(name, CLIENT_QUANTA[name]) for name in UNITS})

    def one(self, kind: str, name: str, amount: int) -> None:
        super().one(kind, name, amount * UNITS[name])

    def forward(self, tokens: Mapping[str, int], *, even: bool) -> None:
        super().forward({name: count * UNITS[name] for name, count in tokens.items()}, even=even)


@settings(max_examples=200)
@given(moves(), st.dictionaries(st.sampled_from((6, 3, 2)), st.integers(0, 30)))
def test_a_lead_is_found_in_the_very_event_that_takes_it_above_both_allowances(
    plan: Sequence[Move], drawn: dict[int, int]
) -> None:
    allowances = {6: 3, 3: 3, 2: 3, **drawn}
    replay = InUnits(WeightedTracker(allowances))
    allowed = {name: allowances[CLIENT_QUANTA[name]] for name in UNITS}
    for move in plan:
        found = {lead.behind.id for lead in replay.play(move)}
        naive = replay.naive
        above = {
            behind
            for behind, since in naive.since.items()
            for before in naive.moments[since:]
            for ahead in UNITS
            if ahead != behind
            and (naive.moments[-1][ahead] - before[ahead]) - (naive.moments[-1][behind] - before[behind])
            > allowed[behind] + allowed[ahead]
        }
        assert found == above
        if above:
            break


# -- the rule ----------------------------------------------------------------------------------------------------------


def weighted_unfair(rounds: int) -> Log:
    """A (quantum 2) waits, and B (quantum 6) is served 3 a round: 2 W(B) - 6 W(A) grows by 6 a round."""
    return stating(unfair_log(rounds, b_stays_queued=True, quanta={"A": 2, "B": 6}), stated())


def test_a_light_client_that_is_left_behind_is_found_when_the_weighted_gap_passes_its_bound() -> None:
    """U* = 1 + 2 * 7 = 15, the floor is -14, and the bound 6 (2 + 14) + 2 (6 + 14) = 136.

    22 rounds are 132; the 23rd admission makes 134, and its forward step 138.
    """
    assert "weighted-gap" not in rules_broken(check(weighted_unfair(22)))
    [violation] = [v for v in check(weighted_unfair(23)).violations if v.rule == "weighted-gap"]
    assert violation.client == "A"
    assert "of at most 136" in violation.expected
    assert violation.found.startswith("138 ")


def test_clients_of_different_quanta_are_not_compared_without_stated_weights() -> None:
    broken = rules_broken(check(stating(weighted_unfair(40), {})))
    assert not broken & {"gap-any", "gap-backlogged", "weighted-gap"}


def test_the_weighted_gap_needs_to_know_the_memory() -> None:
    for missing, reason in (("memory", "what memory is"), ("limits", "kv_tokens")):
        log = weighted_unfair(40)
        del log[0][missing]
        report = check(log)
        assert "weighted-gap" not in rules_broken(report)
        assert any("weighted-gap" in group.rules and reason in group.reason for group in report.not_checked)


def test_a_longer_input_widens_the_weighted_gap() -> None:
    """Without a stated limit the longest input so far counts. With weights 3 and 1 it is the dearer part of U*.

    One of 1: U* = 3 + 7 = 10 and the bound is 6 (2 + 9) + 2 (6 + 9) = 96; one of 4: U* = 12 + 4, and it is 144.
    """
    for length, bound in ((1, 96), (4, 144)):
        log = weighted_unfair(40)
        log[0]["limits"] = {"kv_tokens": 8}
        log[0]["weights"] = {"extend": 3, "output": 1}
        long: Any = {"event": "arrive", "step": 1, "request": "long", "client": "C", "input": length, "max_output": 4}
        report = check([log[0], log[1], long, *log[2:]])
        broken = [violation for violation in report.violations if violation.rule == "weighted-gap"]
        assert f"of at most {bound} " in broken[0].expected


class IgnoresWeights(Ledger):
    """A refill pays everybody the default quantum."""

    def __init__(self, quanta: Quanta, cost: Any) -> None:
        super().__init__(Quanta(quanta.default), cost)


class ChargesByWeight(Ledger):
    """Heavy clients pay half for their outputs."""

    def charge_outputs(self, tokens: Mapping[str, int]) -> None:
        super().charge_outputs({client: count // 2 if client == "B" else count for client, count in tokens.items()})


class PaysTheHeavyWithCredit(Ledger):
    """A refill pays the heaviest client although it has credit."""

    def check_refill(self, queued_clients: Iterable[str]) -> dict[str, int]:
        refilled = super().check_refill(queued_clients)
        if refilled and "B" in self.deficits and "B" not in refilled:
            self.deficits["B"] += self.quanta.of("B")
            refilled["B"] = self.deficits["B"]
        return refilled


@pytest.mark.parametrize(
    ("ledger", "rules"),
    [
        (IgnoresWeights, {"refill-amount"}),
        (ChargesByWeight, {"charge-output"}),
        (PaysTheHeavyWithCredit, {"refill-credit"}),
    ],
)
def test_a_ledger_that_weighs_otherwise_is_found(ledger: type[Ledger], rules: set[str]) -> None:
    logs = sample_logs(weighted(ledger), stated(), quantum=6, quanta=QUANTA)
    assert set().union(*(rules_broken(check(log, every=False)) for log in logs)) == rules


def a_light_client_is_paid_the_quantum_of_a_heavy_one(log: Log) -> Places:
    for index, line, view in events(log, "refill"):
        if "A" in line["deficits"]:
            paid = {**line["deficits"], "A": view.counters["A"] + QUANTA["B"]}
            yield replaced(log, index, deficits=paid), index + 1


def a_heavy_client_is_paid_twice(log: Log) -> Places:
    for index, line, view in events(log, "refill"):
        if "B" in line["deficits"]:
            paid = {**line["deficits"], "B": view.counters["B"] + 2 * QUANTA["B"]}
            yield replaced(log, index, deficits=paid), index + 1


def an_admission_is_charged_by_weight(log: Log) -> Places:
    for index, line, view in events(log, "admit"):
        if view.queued[line["request"]] == "B" and line["extend"] > 1:
            yield replaced(log, index, deficit=line["deficit"] + line["extend"] // 2), index + 1


def a_light_client_is_forgotten(log: Log) -> Places:
    for index, line, _ in events(log, "refill"):
        if "A" in line["deficits"] and len(line["deficits"]) > 1:
            left = {client: after for client, after in line["deficits"].items() if client != "A"}
            yield replaced(log, index, deficits=left), index + 1


def the_header_states_another_weight(log: Log) -> Places:
    for index, line, _ in events(log, "refill"):
        if "B" in line["deficits"]:
            header: Any = log[0]
            quantum = {**header["quantum"], "clients": {**QUANTA, "B": QUANTA["B"] + 1}}
            yield [{**header, "quantum": quantum}, *log[1:]], index + 1
            return


FAULTS = (
    Fault("refill-amount", a_light_client_is_paid_the_quantum_of_a_heavy_one),
    Fault("refill-twice", a_heavy_client_is_paid_twice),
    Fault("charge-extend", an_admission_is_charged_by_weight),
    Fault("refill-forgot", a_light_client_is_forgotten),
    Fault("refill-amount", the_header_states_another_weight),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.places.__name__)
def test_exactly_the_right_rule_fires_first(fault: Fault) -> None:
    found_exactly(fault, samples())
