"""Several extensions at once: logs of the reference doing all of it hold, and each fault is found by its own rule."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dlpm.batch import RunningRequest
from dlpm.bounds_engine import for_engine
from dlpm.cost import CostModel
from dlpm.engine_profile import EngineProfile
from dlpm.errors import InputError
from dlpm.events import EventSink, Extensions
from dlpm.extensions import late_accounting, recompute, speculation
from dlpm.extensions.late_accounting import LateLedger
from dlpm.extensions.recompute import Payer, Recompute, RecomputeDLPM, RecomputeWorker, Victim
from dlpm.extensions.speculation import SeededAcceptance, SpeculativeWorker
from dlpm.ledger import Ledger, Quanta
from dlpm.policies.dlpm import DLPM
from dlpm.request import Request
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_engine.conformance import check_log
from dlpm_engine.conformance.extensions.registry import COMBINATIONS
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
from tests.engine_adapter.conformance.logs import Line, Log, Plan, as_bytes, check, plans, run_rules
from tests.engine_adapter.conformance.samples import sample_log
from tests.engine_adapter.conformance.wording import assert_well_described
from tests.reference.naive_worker import Rules

STEPS, MOST = 2, 3
PLAIN_BOUNDS = {"deficit-floor", "deficit-floor-proven", "gap-backlogged", "gap-any"}
Build = Callable[[Rules, EventSink], Worker]


def varying(most: int, seed: int) -> Callable[[int], int]:
    """Delays from 0 to ``most`` steps, another after each forward step."""
    return lambda step: random.Random(f"{seed}/{step}").randint(0, most)


def late_and_speculative(
    lag: Callable[[int], int],
    acceptance: Callable[[Request, int], int],
    ledger: type[LateLedger] = LateLedger,
    *,
    charge_surplus: bool = False,
) -> Build:
    """Several tokens a step, of which the gate hears late."""

    def build(rules: Rules, sink: EventSink) -> Worker:
        policy = DLPM(ledger(*quanta_and_cost(rules), lag))
        return SpeculativeWorker(
            config_of(rules), policy, FixedStep(1), acceptance, sink, full_log=True, charge_surplus=charge_surplus
        )

    return build


def late_and_recomputing(
    lag: Callable[[int], int],
    rule: Victim,
    ledger: type[LateLedger] = LateLedger,
    worker: type[RecomputeWorker] = RecomputeWorker,
) -> Build:
    """Preemptions by a rule, and outputs of which the gate hears late."""

    def build(rules: Rules, sink: EventSink) -> Worker:
        policy = RecomputeDLPM(ledger(*quanta_and_cost(rules), lag))
        return worker(config_of(rules), policy, FixedStep(1), Recompute(rule), sink, full_log=True)

    return build


def speculating(steps: int = STEPS, most: int = MOST) -> Extensions:
    """What such a log states."""
    return {**late_accounting.stated(steps), **speculation.stated(most)}


def recomputing(steps: int = STEPS, rule: Victim = Victim.FEWEST_OUTPUTS, payer: Payer = Payer.CLIENT) -> Extensions:
    """What such a log states."""
    return {**late_accounting.stated(steps), **recompute.stated(Recompute(rule, payer))}


@cache
def speculative_samples() -> list[Log]:
    return sample_logs(late_and_speculative(lambda _: STEPS, SeededAcceptance(MOST)), speculating())


@cache
def recomputing_samples() -> list[Log]:
    build = late_and_recomputing(lambda _: STEPS, Victim.FEWEST_OUTPUTS)
    return sample_logs(build, recomputing(), memory="optimistic", kv_tokens=24)


# -- sound logs --------------------------------------------------------------------------------------------------------


@given(run_rules(["dlpm"], ["reserving"]), plans(), st.integers(0, 3), st.integers(1, 4), st.integers(0, 99))
def test_every_log_that_is_late_and_speculates_holds(
    rules: Rules, plan: Plan, steps: int, most: int, seed: int
) -> None:
    build = late_and_speculative(varying(steps, seed), SeededAcceptance(most, seed))
    log = record_variant(rules, plan, build, speculating(steps, most))
    assume(len(log) > 1)
    report = check(log)
    assert report.violations == ()
    assert {rule for group in report.not_checked for rule in group.rules} == PLAIN_BOUNDS
    assert {"extension-floor", "extension-gap", "accepted-limit", "accepted-surplus"} <= set(report.rules)


@given(
    run_rules(["dlpm"], ["optimistic"]), plans(), st.integers(0, 3), st.sampled_from(list(Victim)), st.integers(0, 99)
)
def test_every_log_that_is_late_and_recomputes_holds(
    rules: Rules, plan: Plan, steps: int, rule: Victim, seed: int
) -> None:
    log = record_variant(rules, plan, late_and_recomputing(varying(steps, seed), rule), recomputing(steps, rule))
    assume(len(log) > 1)
    report = check(log)
    assert report.violations == ()
    assert {rule for group in report.not_checked for rule in group.rules} == PLAIN_BOUNDS
    assert {"extension-floor", "extension-gap", "preempt-victim", "recompute-payer"} <= set(report.rules)


def test_the_samples_preempt() -> None:
    assert sum(line.get("event") == "preempt" for log in recomputing_samples() for line in log) > 10


@pytest.mark.parametrize(
    ("memory", "extensions", "most"), [("reserving", speculating(), MOST), ("optimistic", recomputing(), 1)]
)
def test_the_floor_that_is_enforced_is_that_of_the_whole_engine(memory: str, extensions: Extensions, most: int) -> None:
    """A counter one below it is reported with its number; a header without a memory has no bound at all."""
    header: Any = {
        **stating(sample_log("dlpm", 0), extensions)[0],
        "memory": memory,
        "weights": {"extend": 1, "output": 2},
        "limits": {"max_input": 12, "max_output": 8, "kv_tokens": 64, "max_running": 4},
        "quantum": {"default": 500},
        "level": "decisions",
    }
    profile = EngineProfile(
        "as stated", CostModel(1, 2), Quanta(500), memory, 64, 12, 8, 4, late_steps=STEPS, most_accepted=most
    )
    floor = for_engine(profile).floor
    arrival: Line = {"event": "arrive", "step": 1, "request": "r", "client": "A", "input": 12, "max_output": 8}
    refill: Line = {"event": "refill", "step": 1, "deficits": {"A": 500}}
    admission: Line = {"event": "admit", "step": 1, "request": "r", "matched": 0, "extend": 12}
    at, below = (check([header, arrival, refill, {**admission, "deficit": floor - less}]) for less in (0, 1))
    assert rules_broken(at) == {"charge-extend"}
    assert rules_broken(below) == {"charge-extend", "extension-floor"}
    assert str(floor) in next(found.expected for found in below.violations if found.rule == "extension-floor")
    silent = {name: value for name, value in header.items() if name != "memory"}
    if memory == "reserving":
        reasons = {rule: group.reason for group in check([silent, arrival]).not_checked for rule in group.rules}
        assert reasons["extension-floor"] == "the header does not say what memory is"


# -- what no theorem is about ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory", "extensions", "field", "says"),
    [
        ("optimistic", speculating(), "speculation.most_accepted", "no theorem"),
        (
            "reserving",
            {**speculating(), **speculation.stated(2, charge_surplus=True)},
            "speculation.surplus",
            "theorem",
        ),
        ("optimistic", recomputing(payer=Payer.SYSTEM), "recompute.payer", "no theorem"),
        ("optimistic", recomputing(payer=Payer.CAUSER), "recompute.payer", "no theorem"),
        ("reserving", recomputing(), "recompute.victim", "expected memory optimistic"),
        ("optimistic", {**recomputing(), "late": {"steps": -1}}, "late.steps", "expected a whole number"),
        ("reserving", {**speculating(), "late": {"seconds": 1}}, "late.seconds", "expected one of steps"),
    ],
)
def test_what_no_theorem_is_about_is_refused_in_one_line(
    memory: str, extensions: Extensions, field: str, says: str
) -> None:
    log = stating(sample_log("dlpm", 0, memory=memory), extensions)
    with pytest.raises(InputError, match=says) as caught:
        check_log(as_bytes(log), source="log")
    assert (caught.value.line, caught.value.field) == (1, f"extensions.{field}")
    assert "\n" not in str(caught.value)


def test_a_set_without_rules_is_refused_with_those_that_have_some() -> None:
    log = stating(sample_log("dlpm", 0), {"late": {"steps": 1}, "churn": {"rule": "keep-debt"}})
    with pytest.raises(InputError, match="no rules for late and churn together") as caught:
        check_log(as_bytes(log), source="log")
    said = str(caught.value).split(": there are")[0]
    assert all(f"{name} and" in said or f"and {name}" in said for names in COMBINATIONS for name in names)


# -- faulty schedulers -------------------------------------------------------------------------------------------------


class ForgetsAStep(LateLedger):
    """The fifth forward step is never charged."""

    def charge_outputs(self, tokens: Mapping[str, int]) -> None:
        super().charge_outputs(tokens if self._forwards != 5 else dict.fromkeys(tokens, 0))


class ChargesOneToken(LateLedger):
    """A forward step costs one token a client, however many it got."""

    def charge_outputs(self, tokens: Mapping[str, int]) -> None:
        super().charge_outputs(dict.fromkeys(tokens, 1))


class GateAtZero(LateLedger):
    """A seen counter of 0 still is credit."""

    def has_credit(self, client: str) -> bool:
        return self.deficits[client] >= 0


class RefillsTwice(LateLedger):
    """A refill pays two quanta."""

    def check_refill(self, queued_clients: Any) -> dict[str, int]:
        refilled = Ledger.check_refill(self, queued_clients)
        for client in refilled:
            self.deficits[client] += self.quanta.of(client)
        return {client: self.deficits[client] for client in refilled}


class LateExtends(LateLedger):
    """Extend tokens are charged late, too."""

    def __init__(self, quanta: Quanta, cost: CostModel, lag: Callable[[int], int]) -> None:
        super().__init__(quanta, cost, lag, late_extends=True)


class FirstOut(RecomputeWorker):
    """Preempts who has run longest."""

    def _victim(self) -> RunningRequest:
        return self.running[0]


def on_time(step: int) -> int:
    """As late as stated."""
    return STEPS


SPECULATIVE: tuple[tuple[str, Build, set[str]], ...] = (
    ("forgets-a-step", late_and_speculative(on_time, SeededAcceptance(MOST), ForgetsAStep), {"charge-output"}),
    ("charges-one-token", late_and_speculative(on_time, SeededAcceptance(MOST), ChargesOneToken), {"charge-output"}),
    ("gate-at-zero", late_and_speculative(on_time, SeededAcceptance(MOST), GateAtZero), {"gate"}),
    ("refills-twice", late_and_speculative(on_time, SeededAcceptance(MOST), RefillsTwice), {"refill-twice"}),
    ("late-extends", late_and_speculative(on_time, SeededAcceptance(MOST), LateExtends), {"charge-extend"}),
    ("later-than-stated", late_and_speculative(lambda _: STEPS + 1, SeededAcceptance(MOST)), {"charge-output"}),
    ("accepts-more", late_and_speculative(on_time, SeededAcceptance(MOST + 3)), {"accepted-limit"}),
    (
        "surplus-charged",
        late_and_speculative(on_time, SeededAcceptance(MOST), charge_surplus=True),
        {"charge-output"},
    ),
)
RECOMPUTING: tuple[tuple[str, Build, set[str]], ...] = (
    ("forgets-a-step", late_and_recomputing(on_time, Victim.FEWEST_OUTPUTS, ForgetsAStep), {"charge-output"}),
    ("gate-at-zero", late_and_recomputing(on_time, Victim.FEWEST_OUTPUTS, GateAtZero), {"gate"}),
    ("refills-twice", late_and_recomputing(on_time, Victim.FEWEST_OUTPUTS, RefillsTwice), {"refill-twice"}),
    ("late-extends", late_and_recomputing(on_time, Victim.FEWEST_OUTPUTS, LateExtends), {"charge-extend"}),
    ("later-than-stated", late_and_recomputing(lambda _: STEPS + 1, Victim.FEWEST_OUTPUTS), {"charge-output"}),
    ("another-victim", late_and_recomputing(on_time, Victim.MOST_OUTPUT_LEFT), {"preempt-victim"}),
    ("first-out", late_and_recomputing(on_time, Victim.FEWEST_OUTPUTS, worker=FirstOut), {"preempt-victim"}),
)
SHOWN_LATER = {"refill-amount", "refill-forgot", "charge-preempt", "charge-extend", "gate"}
"""A step that was charged wrong is seen in the client's next counter, which may come when it has nothing running."""


@pytest.mark.parametrize(
    ("build", "stated", "changes", "rules"),
    [
        *((build, speculating(), {}, rules) for _, build, rules in SPECULATIVE),
        *((build, recomputing(), {"memory": "optimistic", "kv_tokens": 24}, rules) for _, build, rules in RECOMPUTING),
    ],
    ids=[f"late-speculation-{item[0]}" for item in SPECULATIVE] + [f"late-recompute-{item[0]}" for item in RECOMPUTING],
)
def test_a_faulty_scheduler_is_found_by_the_rule_it_breaks(
    build: Build, stated: Extensions, changes: dict[str, Any], rules: set[str]
) -> None:
    found = set()
    for log in sample_logs(build, stated, **changes):
        for violation in check(log, every=False).violations:
            assert_well_described(log, violation)
            found.add(violation.rule)
    assert rules <= found <= (rules | SHOWN_LATER if rules == {"charge-output"} else rules)


# -- faulty logs -------------------------------------------------------------------------------------------------------


def an_admission_is_free(log: Log) -> Places:
    for index, line, _ in events(log, "admit"):
        yield replaced(log, index, deficit=line["deficit"] + line["extend"]), index + 1


def a_counter_rises_in_a_forward_step(log: Log) -> Places:
    for index, line, _ in events(log, "output"):
        client = next(iter(line["deficits"]))
        yield replaced(log, index, deficits={**line["deficits"], client: line["deficits"][client] + 1}), index + 1


def a_refill_forgets_a_client(log: Log) -> Places:
    for index, line, _ in events(log, "refill"):
        if len(line["deficits"]) > 1:
            client = next(iter(line["deficits"]))
            left = {name: after for name, after in line["deficits"].items() if name != client}
            yield replaced(log, index, deficits=left), index + 1


def a_refill_pays_one_less(log: Log) -> Places:
    for index, line, _ in events(log, "refill"):
        client = next(iter(line["deficits"]))
        yield replaced(log, index, deficits={**line["deficits"], client: line["deficits"][client] - 1}), index + 1


def too_many_tokens_at_once(log: Log) -> Places:
    """Of a request that goes on; what follows then is no longer right, so that the limit must be the first."""
    for index, line, _ in events(log, "output"):
        name = next(iter(line["tokens"]))
        yield replaced(log, index, tokens={**line["tokens"], name: MOST + 1}), index + 1


def a_payer_is_named(log: Log) -> Places:
    for index, _, _ in events(log, "admit"):
        yield replaced(log, index, payer="A", payer_deficit=0), index + 1


def a_preemption_refunds(log: Log) -> Places:
    for index, line, _ in events(log, "preempt"):
        yield replaced(log, index, deficit=line["deficit"] + 1), index + 1


COMMON = (
    Fault("charge-extend", an_admission_is_free),
    Fault("charge-output", a_counter_rises_in_a_forward_step),
    Fault("refill-forgot", a_refill_forgets_a_client),
    Fault("refill-amount", a_refill_pays_one_less),
)


@pytest.mark.parametrize(
    "fault", [*COMMON, Fault("accepted-limit", too_many_tokens_at_once)], ids=lambda fault: fault.places.__name__
)
def test_a_fault_in_a_log_that_is_late_and_speculates_is_found_first(fault: Fault) -> None:
    found_exactly(fault, speculative_samples())


@pytest.mark.parametrize(
    "fault",
    [*COMMON, Fault("recompute-payer", a_payer_is_named), Fault("charge-preempt", a_preemption_refunds)],
    ids=lambda fault: fault.places.__name__,
)
def test_a_fault_in_a_log_that_is_late_and_recomputes_is_found_first(fault: Fault) -> None:
    found_exactly(fault, recomputing_samples())
