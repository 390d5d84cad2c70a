"""Recomputation: logs with other victims and payers hold in their mode, and who picks or pays otherwise is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dlpm.batch import RunningRequest
from dlpm.errors import InputError
from dlpm.events import EventSink
from dlpm.extensions.recompute import Payer, Recompute, RecomputeDLPM, RecomputeWorker, Victim, stated
from dlpm.ledger import Ledger
from dlpm.request import ClientId
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_engine.conformance import RULES
from tests.engine_adapter.conformance.edits import replaced
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
from tests.engine_adapter.conformance.views import views
from tests.reference.naive_worker import Rules

ALL = [Recompute(victim, payer) for victim in Victim for payer in Payer]


def recomputing(
    recompute: Recompute, worker: type[RecomputeWorker] = RecomputeWorker
) -> Callable[[Rules, EventSink], Worker]:
    def build(rules: Rules, sink: EventSink) -> Worker:
        policy = RecomputeDLPM(Ledger(*quanta_and_cost(rules)))
        return worker(config_of(rules), policy, FixedStep(1), recompute, sink, full_log=True)

    return build


@cache
def samples(recompute: Recompute) -> list[Log]:
    return sample_logs(recomputing(recompute), stated(recompute), memory="optimistic", kv_tokens=24)


@given(run_rules(["dlpm"], ["optimistic"]), plans(), st.sampled_from(ALL))
def test_every_log_of_a_recomputing_worker_holds(rules: Rules, plan: Plan, recompute: Recompute) -> None:
    log = record_variant(rules, plan, recomputing(recompute), stated(recompute))
    assume(len(log) > 1)
    report = check(log)
    assert all(RULES[violation.rule].theorem and violation.unmet_hypothesis for violation in report.violations)
    if recompute.payer is not Payer.CLIENT:
        assert report.violations == ()


def test_the_plain_mode_reports_whoever_does_not_pay_again() -> None:
    for payer in (Payer.SYSTEM, Payer.CAUSER):
        broken = [rules_broken(check(stating(log, {}), every=False)) for log in samples(Recompute(payer=payer))]
        assert "charge-extend" in set().union(*broken)


class FirstOut(RecomputeWorker):
    """Preempts who has run longest."""

    def _victim(self) -> RunningRequest:
        return self.running[0]


class BlamesTheVictim(RecomputeWorker):
    """The victim's own client is taken for the causer."""

    def _causer(self, victim: RunningRequest) -> ClientId:
        return victim.queued.client


class ForgetsOnce(RecomputeWorker):
    """The second preemption of a request is paid for by its client."""

    def _preempt(self, run: RunningRequest) -> None:
        again = run.queued.generated > 1
        super()._preempt(run)
        if again:
            del self._causers[run.queued.id]


@pytest.mark.parametrize(
    ("worker", "says", "rules"),
    [
        (FirstOut, Recompute(Victim.LAST), {"preempt-victim"}),
        (FirstOut, Recompute(Victim.FEWEST_OUTPUTS), {"preempt-victim"}),
        (BlamesTheVictim, Recompute(payer=Payer.CAUSER), {"recompute-payer"}),
        (ForgetsOnce, Recompute(payer=Payer.SYSTEM), {"charge-extend"}),
        (ForgetsOnce, Recompute(payer=Payer.CAUSER), {"recompute-payer"}),
    ],
)
def test_a_worker_that_does_otherwise_than_it_says_is_found(
    worker: type[RecomputeWorker], says: Recompute, rules: set[str]
) -> None:
    logs = sample_logs(recomputing(says, worker), stated(says), memory="optimistic", kv_tokens=24)
    found = set().union(*(rules_broken(check(log, every=False)) for log in logs))
    assert found == rules


def lines(log: Log, event: str) -> Iterator[tuple[int, Any]]:
    """The lines of one kind of event."""
    for index, line in enumerate(log):
        if kind(line) == event:
            yield index, line


def somebody_older_is_preempted(log: Log) -> Places:
    for index, view in enumerate(views(log)):
        line: Any = log[index]
        if kind(line) != "preempt":
            continue
        others = [name for name in view.running if name != line["request"]]
        same = [name for name in others if view.running[name] == view.running[line["request"]]]
        if same:
            yield replaced(log, index, request=same[0]), index + 1


def the_causer_pays_a_token_more(log: Log) -> Places:
    for index, line in lines(log, "admit"):
        if "payer" in line and _owner(log, line["request"]) != line["payer"]:
            yield replaced(log, index, payer_deficit=line["payer_deficit"] - 1), index + 1


def somebody_else_is_blamed(log: Log) -> Places:
    owners = sorted({line["client"] for _, line in lines(log, "arrive")})
    for index, line in lines(log, "admit"):
        if "payer" in line:
            other = next((owner for owner in owners if owner != line["payer"]), None)
            if other is not None:
                yield replaced(log, index, payer=other), index + 1


def nobody_pays(log: Log) -> Places:
    for index, line in lines(log, "admit"):
        if "payer" in line:
            left = {name: value for name, value in line.items() if not name.startswith("payer")}
            yield [*log[:index], left, *log[index + 1 :]], index + 1


def a_new_request_has_a_payer(log: Log) -> Places:
    preempted: set[str] = set()
    for index, line in enumerate(log):
        name: Any = line.get("request")
        if kind(line) == "preempt":
            preempted.add(name)
        elif kind(line) == "admit" and name not in preempted:
            yield replaced(log, index, payer=_owner(log, name), payer_deficit=line["deficit"]), index + 1


def the_client_pays_again(log: Log) -> Places:
    preempted: set[str] = set()
    weight = _weight(log)
    for index, line in enumerate(log):
        any_line: Any = line
        if kind(line) == "preempt":
            preempted.add(any_line["request"])
        elif kind(line) == "admit" and any_line["request"] in preempted:
            paid = any_line["deficit"] - weight * any_line["extend"]
            yield replaced(log, index, deficit=paid), index + 1


def _owner(log: Log, name: str) -> str:
    """Whose request it is."""
    owners: Mapping[str, str] = {line["request"]: line["client"] for _, line in lines(log, "arrive")}
    return owners[name]


def _weight(log: Log) -> int:
    """``w_e``."""
    header: Any = log[0]
    weight: int = header["weights"]["extend"]
    return weight


FAULTS = (
    (Recompute(), Fault("preempt-victim", somebody_older_is_preempted)),
    (Recompute(payer=Payer.CAUSER), Fault("charge-recompute", the_causer_pays_a_token_more)),
    (Recompute(payer=Payer.CAUSER), Fault("recompute-payer", somebody_else_is_blamed)),
    (Recompute(payer=Payer.CAUSER), Fault("recompute-payer", nobody_pays)),
    (Recompute(payer=Payer.CAUSER), Fault("recompute-payer", a_new_request_has_a_payer)),
    (Recompute(payer=Payer.SYSTEM), Fault("recompute-payer", a_new_request_has_a_payer)),
    (Recompute(payer=Payer.SYSTEM), Fault("charge-extend", the_client_pays_again)),
)


@pytest.mark.parametrize(("recompute", "fault"), FAULTS, ids=lambda value: getattr(value, "rule", None))
def test_exactly_the_right_rule_fires_first(recompute: Recompute, fault: Fault) -> None:
    found_exactly(fault, samples(recompute))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"victim": "oldest", "payer": "client"}, "extensions.recompute.victim"),
        ({"victim": "last"}, "extensions.recompute.payer"),
        ({"victim": "last", "payer": "client", "fee": 1}, "extensions.recompute.fee"),
    ],
)
def test_options_that_are_not_known_are_refused(options: dict[str, Any], field: str) -> None:
    log = stating(samples(Recompute())[0], {"recompute": options})
    with pytest.raises(InputError) as caught:
        check(log)
    assert caught.value.field == field


def test_memory_that_reserves_cannot_state_it() -> None:
    header: Any = samples(Recompute())[0][0]
    with pytest.raises(InputError, match="expected memory optimistic"):
        check([{**header, "memory": "reserving"}, *samples(Recompute())[0][1:]])
