"""Shared prefixes: logs of each payer hold in their mode, and whoever charges or gives back otherwise is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dlpm.batch import QueuedRequest
from dlpm.errors import InputError
from dlpm.events import EventSink
from dlpm.extensions.shared_prefixes import (
    ALONE,
    FIRST,
    PAYERS,
    SPLIT,
    RefundingLedger,
    SharedPrefixDLPM,
    stated,
)
from dlpm.extensions.shared_prefixes_worker import SharingWorker
from dlpm.request import ClientId
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_engine.conformance import RULES
from dlpm_engine.conformance.extensions.shared_prefixes import NetTracker
from dlpm_engine.conformance.state import ClientState
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
from tests.reference.lockstep import Shape
from tests.reference.naive_worker import Rules


def sharing(
    payer: str, worker: type[SharingWorker] = SharingWorker, policy: type[SharedPrefixDLPM] = SharedPrefixDLPM
) -> Callable[[Rules, EventSink], Worker]:
    def build(rules: Rules, sink: EventSink) -> Worker:
        ledger = RefundingLedger(*quanta_and_cost(rules))
        return worker(config_of(rules), policy(ledger), FixedStep(1), payer, sink, full_log=True)

    return build


@cache
def samples(payer: str) -> list[Log]:
    return sample_logs(sharing(payer), stated(payer))


@given(run_rules(["dlpm"], ["reserving", "optimistic"]), plans(), st.sampled_from(PAYERS))
def test_every_log_of_a_sharing_worker_holds(rules: Rules, plan: Plan, payer: str) -> None:
    log = record_variant(rules, plan, sharing(payer), stated(payer))
    assume(len(log) > 1)
    report = check(log)
    assert all(RULES[violation.rule].theorem and violation.unmet_hypothesis for violation in report.violations)
    assert not any(violation.rule.startswith(("split", "extension")) for violation in report.violations)


@pytest.mark.parametrize("payer", [ALONE, SPLIT])
def test_the_plain_mode_reports_whoever_pays_for_what_is_cached(payer: str) -> None:
    broken = [rules_broken(check(stating(log, {}), every=False)) for log in samples(payer)]
    assert "charge-extend" in set().union(*broken)


# -- workers that do otherwise than they say ---------------------------------------------------------------------------

Settlement = tuple[int, dict[ClientId, int]]


class KeepsTheChange(SharingWorker):
    """What a newcomer pays is given to nobody."""

    def _settle(self, queued: QueuedRequest, matched: int) -> Settlement:
        return super()._settle(queued, matched)[0], {}


class LetsOff(SharingWorker):
    """A newcomer pays only for what it computes, and the others get their part back all the same."""

    def _settle(self, queued: QueuedRequest, matched: int) -> Settlement:
        return queued.resident - matched, super()._settle(queued, matched)[1]


class Doubles(SharingWorker):
    """Charges twice what is resident."""

    def _settle(self, queued: QueuedRequest, matched: int) -> Settlement:
        return 2 * queued.resident, {}


class RefundsTwice(SharedPrefixDLPM):
    """Gives everything back twice."""

    def refund(self, tokens: Mapping[ClientId, int]) -> None:
        super().refund(tokens)
        super().refund(tokens)


@pytest.mark.parametrize(
    ("payer", "worker", "policy", "rules"),
    [
        (SPLIT, KeepsTheChange, SharedPrefixDLPM, {"refund-conserved"}),
        (SPLIT, LetsOff, SharedPrefixDLPM, {"refund-conserved"}),
        (ALONE, Doubles, SharedPrefixDLPM, {"shared-bill"}),
        (SPLIT, SharingWorker, RefundsTwice, {"charge-refund"}),
    ],
)
def test_a_worker_that_does_otherwise_than_it_says_is_found(
    payer: str, worker: type[SharingWorker], policy: type[SharedPrefixDLPM], rules: set[str]
) -> None:
    logs = sample_logs(sharing(payer, worker, policy), stated(payer))
    assert set().union(*(rules_broken(check(log, every=False)) for log in logs)) == rules


# -- logs that were changed --------------------------------------------------------------------------------------------


def bills(log: Log) -> Iterator[tuple[int, Any]]:
    """The admissions of a log."""
    for index, line in enumerate(log):
        if kind(line) == "admit":
            yield index, line


def weight(log: Log) -> int:
    """``w_e``."""
    header: Any = log[0]
    found: int = header["weights"]["extend"]
    return found


def a_refund_is_a_token_too_much(log: Log) -> Places:
    for index, line in bills(log):
        if "refunds" in line:
            name, counter = next(iter(line["deficits"].items()))
            yield replaced(log, index, deficits={**line["deficits"], name: counter + 1}), index + 1


def a_refund_leaves_no_trace(log: Log) -> Places:
    for index, line in bills(log):
        if "refunds" in line:
            left = {name: value for name, value in line.items() if name != "deficits"}
            yield [*log[:index], left, *log[index + 1 :]], index + 1


def somebody_gets_a_counter_for_nothing(log: Log) -> Places:
    for index, view in enumerate(views(log)):
        line: Any = log[index]
        others = [name for name in view.counters if kind(line) == "admit" and name not in line.get("refunds", {})]
        if others:
            deficits = {**line.get("deficits", {}), others[0]: view.counters[others[0]]}
            yield replaced(log, index, deficits=deficits), index + 1


def nobody_gets_anything_back(log: Log) -> Places:
    for index, line in bills(log):
        if "refunds" in line:
            left = {name: value for name, value in line.items() if name not in ("refunds", "deficits")}
            yield [*log[:index], left, *log[index + 1 :]], index + 1


def somebody_gets_something_back(log: Log) -> Places:
    for index, view in enumerate(views(log)):
        line: Any = log[index]
        if kind(line) == "admit":
            others = [name for name in view.counters if name != view.queued[line["request"]]]
            if others:
                after = view.counters[others[0]] + weight(log)
                yield replaced(log, index, refunds={others[0]: 1}, deficits={others[0]: after}), index + 1


def a_client_is_charged_beyond_what_it_needs(log: Log) -> Places:
    for index, line in bills(log):
        charged = line.get("charged", line["extend"])
        more = line["matched"] + line["extend"] + 1
        lower = line["deficit"] - weight(log) * (more - charged)
        yield replaced(log, index, charged=more, deficit=lower), index + 1


def a_client_is_charged_less_than_was_computed(log: Log) -> Places:
    for index, line in bills(log):
        charged = line.get("charged", line["extend"])
        higher = line["deficit"] + weight(log) * (charged - line["extend"] + 1)
        yield replaced(log, index, charged=line["extend"] - 1, deficit=higher), index + 1


def a_counter_is_a_token_too_low(log: Log) -> Places:
    for index, line in bills(log):
        yield replaced(log, index, deficit=line["deficit"] - weight(log)), index + 1


def who_never_paid_gets_it(log: Log) -> Places:
    paid: set[str] = set()
    for index, view in enumerate(views(log)):
        line: Any = log[index]
        if kind(line) != "admit":
            continue
        idle = [name for name in view.counters if name not in paid and name != view.queued[line["request"]]]
        if "refunds" in line and idle:
            tokens = sum(line["refunds"].values())
            after = view.counters[idle[0]] + weight(log) * tokens
            yield replaced(log, index, refunds={idle[0]: tokens}, deficits={idle[0]: after}), index + 1
        paid.add(view.queued[line["request"]])


def who_paid_little_gets_it(log: Log) -> Places:
    """All of a refund goes to somebody who paid something before, but less than n/(n - 1) of it."""
    paid: dict[str, int] = {}
    back: dict[str, int] = {}
    for index, view in enumerate(views(log)):
        line: Any = log[index]
        if kind(line) != "admit":
            continue
        client, refunds = view.queued[line["request"]], line.get("refunds", {})
        tokens, clients = sum(refunds.values()), len(view.counters)
        for name in view.counters:
            had = back.get(name, 0) + tokens
            if name != client and 0 < paid.get(name, 0) * (clients - 1) < had * clients:
                after = view.counters[name] + weight(log) * tokens
                yield replaced(log, index, refunds={name: tokens}, deficits={name: after}), index + 1
        paid[client] = paid.get(client, 0) + line.get("charged", line["extend"])
        for name, part in refunds.items():
            back[name] = back.get(name, 0) + part


def a_stranger_gets_it(log: Log) -> Places:
    for index, line in bills(log):
        if "refunds" in line:
            tokens = sum(line["refunds"].values())
            yield replaced(log, index, refunds={"stranger": tokens}, deficits={"stranger": tokens}), index + 1


FAULTS = (
    (SPLIT, Fault("charge-refund", a_refund_is_a_token_too_much)),
    (SPLIT, Fault("charge-refund", a_refund_leaves_no_trace)),
    (SPLIT, Fault("charge-refund", somebody_gets_a_counter_for_nothing)),
    (SPLIT, Fault("refund-conserved", nobody_gets_anything_back)),
    (ALONE, Fault("refund-conserved", somebody_gets_something_back)),
    (FIRST, Fault("refund-conserved", somebody_gets_something_back)),
    (ALONE, Fault("shared-bill", a_client_is_charged_beyond_what_it_needs)),
    (FIRST, Fault("shared-bill", a_client_is_charged_beyond_what_it_needs)),
    (SPLIT, Fault("shared-bill", a_client_is_charged_less_than_was_computed)),
    (SPLIT, Fault("charge-extend", a_counter_is_a_token_too_low)),
    (ALONE, Fault("charge-extend", a_counter_is_a_token_too_low)),
    (SPLIT, Fault("refund-paid", who_never_paid_gets_it)),
    (SPLIT, Fault("refund-paid", who_paid_little_gets_it)),
    (SPLIT, Fault("known-client", a_stranger_gets_it)),
)


@pytest.mark.parametrize(("payer", "fault"), FAULTS, ids=lambda value: getattr(value, "rule", value))
def test_exactly_the_right_rule_fires_first(payer: str, fault: Fault) -> None:
    found_exactly(fault, samples(payer))


# -- the bounds --------------------------------------------------------------------------------------------------------

WHOLE = 7
"""A prompt that fills a memory of 8 but for one token."""


def test_refunds_for_more_than_memory_holds_break_the_ceiling() -> None:
    """F pays for three prompts that fill memory, and is refilled; a cache that still has all three lets g join two."""
    prompts = [(k,) * WHOLE for k in range(3)]
    plan: Plan = [
        *(item for prompt in prompts for item in (shape("f", prompt), 1)),
        *(item for prompt in prompts[:2] for item in (shape("g", prompt), 1)),
    ]
    rules = Rules(kv_tokens=24, quantum=10, extend_weight=1, output_weight=3)
    log = record_variant(rules, plan, sharing(SPLIT), stated(SPLIT))
    assert check(log).violations == ()
    header: Any = log[0]
    claims = {**header, "limits": {"kv_tokens": 8}, "level": "decisions"}
    events = [
        {name: value for name, value in line.items() if name != "free"} for line in log[1:] if kind(line) != "order"
    ]
    [found] = check([claims, *events]).violations
    # Half of 7 tokens is 3 whole ones. They come back for the first prompt, and again for the second.
    assert (found.rule, found.found) == ("split-ceiling", f"{10 + 3 + 3}")
    assert found.expected == f"a deficit of at most {10 + 3}, for 2 clients that split"


def shape(client: str, prompt: tuple[int, ...]) -> Shape:
    return Shape(client, prompt, output=1, spare_output=0, reply=(), hashed=False, tail_hashed=False)


Moves = list[tuple[str, Mapping[int, int]]]


@st.composite
def moves(draw: st.DrawFn) -> Moves:
    """Backlogs begin and end, clients are served one at a time, and have service taken back, several at once."""
    clients = st.integers(0, 2)
    taken = st.dictionaries(clients, st.integers(0, 9), min_size=1, max_size=2)
    one = st.builds(lambda client, amount: {client: amount}, clients, st.integers(1, 9))
    kinds = st.sampled_from(("serve", "serve", "take back", "begin", "end"))
    found: Moves = []
    for _ in range(draw(st.integers(1, 25))):
        what = draw(kinds)
        found.append((what, draw(taken if what == "take back" else one)))
    return found


@given(moves())
def test_leads_in_net_service_are_those_of_every_interval(steps: Moves) -> None:
    tracker = NetTracker(10**6)
    clients = [ClientState(name, 1) for name in "abc"]
    history: list[list[int]] = [[0, 0, 0]]
    since: dict[int, int] = {}
    for line, (what, amounts) in enumerate(steps):
        now = list(history[-1])
        [client, *_] = amounts
        if what == "begin" and client not in since:
            since[client] = len(history) - 1
            tracker.begin(clients[client], clients, line)
        elif what == "end" and client in since:
            del since[client]
            tracker.end(clients[client])
        elif what == "serve":
            now[client] += amounts[client]
            tracker.jump(clients[client], amounts[client], line)
        elif what == "take back":
            now = [service - amounts.get(client, 0) for client, service in enumerate(now)]
            tracker.take_back({clients[client]: amount for client, amount in amounts.items()}, clients, line)
        history.append(now)
        assert [client.service for client in clients] == now
        for behind, start in since.items():
            largest = max(
                (now[ahead] - then[ahead]) - (now[behind] - then[behind])
                for ahead in range(3)
                for then in history[start:]
            )
            lead = tracker._largest_lead(clients[behind])
            assert max(0, lead.amount if lead is not None else 0) == max(0, largest)


# -- the header --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"payer": "nobody"}, "extensions.shared_prefixes.payer"),
        ({}, "extensions.shared_prefixes.payer"),
        ({"payer": "split", "clients": 2}, "extensions.shared_prefixes.clients"),
    ],
)
def test_options_that_are_not_known_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        check(stating(samples(SPLIT)[0], {"shared_prefixes": options}))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "change", [{"charged": -1}, {"charged": "1"}, {"refunds": {"A": -1}}, {"refunds": [1]}, {"deficits": {"A": 1.5}}]
)
def test_a_bill_that_is_none_is_bad_input(change: dict[str, Any]) -> None:
    log = samples(SPLIT)[0]
    index = next(index for index, _ in bills(log))
    with pytest.raises(InputError) as caught:
        check(replaced(log, index, **change))
    assert caught.value.line == index + 1


def test_without_the_size_of_memory_ceiling_and_gap_are_not_checked() -> None:
    header: Any = samples(SPLIT)[0][0]
    unknown = {**header, "limits": {}}
    report = check([unknown, *samples(SPLIT)[0][1:]])
    reasons = {rule: one.reason for one in report.not_checked for rule in one.rules}
    for rule in ("split-ceiling", "extension-gap"):
        assert reasons[rule] == "the header states no limits.kv_tokens"
