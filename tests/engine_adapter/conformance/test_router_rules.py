"""Routers with a fault: the checker calls each fault by its name. Sound routers: no false alarm."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from typing import Any

import pytest
from hypothesis import given

from dlpm.cost import CostModel
from dlpm.dispatch.base import Decision, Router
from dlpm.dispatch.d2lpm import D2LPM
from dlpm.errors import InputError
from dlpm.event_codec import encode_event, encode_header
from dlpm.request import BlockKey, Request, Workload
from dlpm_engine.conformance import RULES, check_log, rules_for
from dlpm_engine.conformance.findings import MAX_VIOLATIONS
from tests.engine_adapter.conformance.logs import Log, as_bytes, check, header_of
from tests.engine_adapter.conformance.wording import assert_well_described
from tests.reference.cluster_runs import Setting, settings_of_clusters
from tests.reference.naive_worker import Rules
from tests.reference.scene import request
from tests.reference.test_simulate import at

WORKERS = 3
QUANTUM = 11
COST = CostModel(1, 2)


def log_of(setting: Setting, router: Router | None = None) -> Log:
    """The event log of a run of a cluster."""
    described: dict[str, Any] = {
        "router": setting.router,
        "workers": len(setting.speeds),
        "notice_delay": setting.delay,
    }
    if setting.router == "d2lpm":
        described["worker_quantum"] = setting.quantum
    header = replace(header_of(setting.rules, full=False), extra={"dispatch": described})
    return [encode_header(header), *map(encode_event, setting.run(router=router))]


@given(settings_of_clusters())
def test_a_sound_router_breaks_no_rule(setting: Setting) -> None:
    if setting.workload.requests:
        report = check(log_of(setting))
        assert [v for v in report.violations if not RULES[v.rule].theorem] == []
        assert {rule.id for rule in rules_for("", setting.router)} <= {*report.rules, *report.not_checked}


# -- faults in Algorithm 2 ---------------------------------------------------------------------------------------------


class Faulty(D2LPM):
    """Algorithm 2 with its parts as methods, so that one can be wrong."""

    quantum = QUANTUM

    def __init__(self) -> None:
        super().__init__(WORKERS, self.quantum, COST)

    def dispatch(self, request: Request, blocks: Sequence[BlockKey]) -> Decision:
        credit = self.credit.setdefault(request.client, [0] * WORKERS)
        longest, matched = self.directory.longest_match_workers(blocks)
        self.refills(credit, longest)
        worker = self.choose(credit, longest)
        self.charge(credit, worker, request, matched)
        self.queues.dispatched(worker)
        self.directory.insert(blocks, worker)
        return Decision(worker, longest, matched, credit[worker])

    def refills(self, credit: list[int], longest: Sequence[int]) -> None:
        while max(credit) <= 0:
            for worker in range(WORKERS):
                credit[worker] += QUANTUM

    def choose(self, credit: list[int], longest: Sequence[int]) -> int:
        available = [worker for worker in range(WORKERS) if credit[worker] > 0]
        return self.queues.shortest([worker for worker in longest if credit[worker] > 0] or available)

    def charge(self, credit: list[int], worker: int, request: Request, matched: int) -> None:
        credit[worker] -= COST.extend(request.input_tokens)


class ChargesNothingAtDispatch(Faulty):
    def charge(self, credit: list[int], worker: int, request: Request, matched: int) -> None:
        """Nothing."""


class ChargesOnlyWhatIsNotCached(Faulty):
    def charge(self, credit: list[int], worker: int, request: Request, matched: int) -> None:
        credit[worker] -= COST.extend(request.input_tokens - matched)


class ChargesInputAsOutput(Faulty):
    def charge(self, credit: list[int], worker: int, request: Request, matched: int) -> None:
        credit[worker] -= COST.output(request.input_tokens)


class ChargesEveryWorker(Faulty):
    def charge(self, credit: list[int], worker: int, request: Request, matched: int) -> None:
        for other in range(WORKERS):
            credit[other] -= COST.extend(request.input_tokens)


class ForgetsTheOutput(Faulty):
    def finished(self, request: Request, worker: int) -> None:
        self.queues.finished(worker)


class ChargesTheDeclaredOutput(Faulty):
    def finished(self, request: Request, worker: int) -> None:
        self.credit[request.client][worker] -= COST.output(request.max_output)
        self.queues.finished(worker)


class ChargesTheOutputToTheNextWorker(Faulty):
    def finished(self, request: Request, worker: int) -> None:
        self.credit[request.client][(worker + 1) % WORKERS] -= COST.output(request.output_tokens)
        self.queues.finished(worker)


class ForgivesDebtAtARefill(Faulty):
    def refills(self, credit: list[int], longest: Sequence[int]) -> None:
        while max(credit) <= 0:
            for worker in range(WORKERS):
                credit[worker] = QUANTUM


class RefillsOneWorkerOnly(Faulty):
    def refills(self, credit: list[int], longest: Sequence[int]) -> None:
        while max(credit) <= 0:
            credit[self.queues.shortest(range(WORKERS))] += QUANTUM


class RefillsTwice(Faulty):
    def refills(self, credit: list[int], longest: Sequence[int]) -> None:
        while max(credit) <= 0:
            for worker in range(WORKERS):
                credit[worker] += 2 * QUANTUM


class RefillsWhenThePrefixIsOutOfCredit(Faulty):
    def refills(self, credit: list[int], longest: Sequence[int]) -> None:
        while max(credit[worker] for worker in longest or range(WORKERS)) <= 0:
            for worker in range(WORKERS):
                credit[worker] += QUANTUM


class RefillsWhileAnyIsOutOfCredit(Faulty):
    def refills(self, credit: list[int], longest: Sequence[int]) -> None:
        while min(credit) <= 0:
            for worker in range(WORKERS):
                credit[worker] += QUANTUM


class RefillsOnceAndGoesOn(Faulty):
    quantum = 2

    def refills(self, credit: list[int], longest: Sequence[int]) -> None:
        if max(credit) <= 0:
            for worker in range(WORKERS):
                credit[worker] += self.quantum

    def choose(self, credit: list[int], longest: Sequence[int]) -> int:
        available = [worker for worker in range(WORKERS) if credit[worker] > 0]
        return super().choose(credit, longest) if available else self.queues.shortest(range(WORKERS))


class IgnoresCredit(Faulty):
    def choose(self, credit: list[int], longest: Sequence[int]) -> int:
        return self.queues.shortest(longest or range(WORKERS))


class IgnoresPrefixes(Faulty):
    def choose(self, credit: list[int], longest: Sequence[int]) -> int:
        return self.queues.shortest([worker for worker in range(WORKERS) if credit[worker] > 0])


class PrefersTheLongestQueue(Faulty):
    def choose(self, credit: list[int], longest: Sequence[int]) -> int:
        available = [worker for worker in range(WORKERS) if credit[worker] > 0]
        holders = [worker for worker in longest if credit[worker] > 0]
        return max(holders or available, key=lambda worker: (self.queues.sizes[worker], -worker))


class PrefersTheHighestIndex(Faulty):
    def choose(self, credit: list[int], longest: Sequence[int]) -> int:
        available = [worker for worker in range(WORKERS) if credit[worker] > 0]
        holders = [worker for worker in longest if credit[worker] > 0]
        return min(holders or available, key=lambda worker: (self.queues.sizes[worker], -worker))


class ForgetsThatRequestsFinish(Faulty):
    def finished(self, request: Request, worker: int) -> None:
        self.credit[request.client][worker] -= COST.output(request.output_tokens)


# A log carries one counter of the client, that of the worker it is sent to. A wrong counter of another worker shows
# when the client is sent there, or earlier in a choice, as a worker left out that has credit: that is all that a refill
# of one worker alone ever shows.
FAULTS: list[tuple[type[Faulty], str]] = [
    (ChargesNothingAtDispatch, "router-charge"),
    (ChargesOnlyWhatIsNotCached, "router-charge"),
    (ChargesInputAsOutput, "router-charge"),
    (ChargesEveryWorker, "router-charge"),
    (ForgetsTheOutput, "router-charge"),
    (ChargesTheDeclaredOutput, "router-charge"),
    (ChargesTheOutputToTheNextWorker, "router-charge"),
    (ForgivesDebtAtARefill, "router-charge"),
    (RefillsOneWorkerOnly, "router-locality"),
    (RefillsTwice, "router-refill"),
    (RefillsWhenThePrefixIsOutOfCredit, "router-refill"),
    (RefillsWhileAnyIsOutOfCredit, "router-refill"),
    (RefillsOnceAndGoesOn, "router-refill"),
    (IgnoresCredit, "router-credit"),
    (IgnoresPrefixes, "router-locality"),
    (PrefersTheLongestQueue, "router-shortest"),
    (PrefersTheHighestIndex, "router-tie"),
    (ForgetsThatRequestsFinish, "router-shortest"),
]


@cache
def settings_with_traffic() -> tuple[Setting, ...]:
    """Fixed runs of three workers in which prefixes are shared, credit runs out and queues differ."""
    found = []
    for seed in range(6):
        source = random.Random(seed)
        requests = []
        for number in range(60):
            stem = source.choice([(0,) * 8, (1,) * 8, (0, 0, 0, 1, 1, 1, 1, 1)])
            prompt = (*stem[: source.randint(1, 8)], source.randint(0, 1))
            output = source.randint(1, 6)
            made = request(f"{'AB'[number % 2]}{number}", prompt, output, max_output=output + source.randint(1, 4))
            requests.append(at(made, 3 * number))
        rules = Rules(policy="dlpm", kv_tokens=40, quantum=9)
        workload = Workload(1, tuple(requests))
        found.append(Setting(rules, "d2lpm", QUANTUM, (Fraction(1),) * WORKERS, 0, workload))
    return tuple(found)


def test_the_routers_of_this_test_are_sound_without_a_fault() -> None:
    for setting in settings_with_traffic():
        assert log_of(setting, Faulty()) == log_of(setting)
        assert check(log_of(setting)).violations == ()


@pytest.mark.parametrize(("fault", "rule"), FAULTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_fault_in_algorithm_2_breaks_the_rule_that_names_it(fault: type[Faulty], rule: str) -> None:
    settings = [replace(setting, quantum=fault.quantum) for setting in settings_with_traffic()]
    logs = [log_of(setting, fault()) for setting in settings]
    first = [check(log, every=False).violations for log in logs]
    assert [rule] in [[violation.rule for violation in found] for found in first]
    assert all(first), "a run with the fault was taken for sound"
    for log, (violation,) in zip(logs, first, strict=True):
        assert_well_described(log, violation)


# -- faults in the log -------------------------------------------------------------------------------------------------


def dispatches(log: Log) -> Iterator[tuple[int, Any]]:
    """The dispatches of a log, with their index."""
    return ((index, line) for index, line in enumerate(log) if line.get("event") == "dispatch")


def changed(log: Log, index: int, **changes: Any) -> Log:
    """The log with one line changed."""
    return [*log[:index], {**log[index], **changes}, *log[index + 1 :]]


EDITS: dict[str, Callable[[Log, int, Any], Log]] = {
    "dispatch-once": lambda log, index, line: [*log[: index + 1], line, *log[index + 1 :]],
    "dispatch-known-worker": lambda log, index, line: changed(log, index, worker=WORKERS),
    "dispatch-matched": lambda log, index, line: changed(log, index, matched_workers=[0, 0]),
    "router-charge": lambda log, index, line: changed(log, index, counter=line["counter"] + 1),
    "router-refill": lambda log, index, line: changed(log, index, counter=line["counter"] + QUANTUM),
}


@pytest.mark.parametrize("rule", EDITS)
def test_a_dispatch_that_is_changed_in_the_log_breaks_the_rule_that_names_it(rule: str) -> None:
    log = log_of(settings_with_traffic()[0])
    for index, line in list(dispatches(log))[:20]:
        report = check(EDITS[rule](log, index, line), every=False)
        assert [(v.rule, v.line) for v in report.violations][:1] == [
            (rule, index + 2 if rule == "dispatch-once" else index + 1)
        ]
        violation = report.violations[0]
        assert_well_described(EDITS[rule](log, index, line), violation)
        assert (violation.client, violation.step) == (line["client"], line["step"])
        assert violation.worker == (WORKERS if rule == "dispatch-known-worker" else line["worker"])
        assert violation.clients == len(violation.ledger)
        if rule.startswith("router"):
            assert violation.ledger.keys() == {f"worker {worker}" for worker in range(WORKERS)}


def test_a_prefix_at_a_worker_that_was_sent_nothing_is_a_violation() -> None:
    log = log_of(settings_with_traffic()[0])
    index, _ = next(dispatches(log))
    report = check(changed(log, index, matched_workers=[2]), every=False)
    assert [(v.rule, v.found) for v in report.violations] == [("dispatch-matched", "2, which was sent nothing")]
    assert_well_described(log, report.violations[0])


def test_only_so_many_violations_of_a_router_are_kept() -> None:
    header: Any = log_of(settings_with_traffic()[0])[0]
    header = {**header, "dispatch": {"router": "round-robin", "workers": 1}}
    sent: Any = {"event": "dispatch", "step": 0, "worker": 1, "matched_workers": []}
    report = check([header, *({**sent, "request": f"r{number}"} for number in range(MAX_VIOLATIONS + 7))])
    assert {violation.rule for violation in report.violations} == {"dispatch-known-worker"}
    assert (len(report.violations), report.omitted) == (MAX_VIOLATIONS, 7)


def test_an_arrival_that_is_not_what_was_dispatched_is_a_violation() -> None:
    log = log_of(settings_with_traffic()[0])
    index, line = next(dispatches(log))
    log = changed(log, index, client="somebody")
    report = check(log, every=False)
    assert [v.rule for v in report.violations] == ["dispatch-same-request"]
    found = report.violations[0]
    assert (log[found.line - 1]["event"], found.request, found.client) == ("arrive", line["request"], line["client"])
    assert found.expected == f"client 'somebody' and {line['input']} input tokens, as dispatched"
    assert found.found == f"{line['client']!r} and {line['input']}"


@pytest.mark.parametrize("router", ["round-robin", "per-client-round-robin", "least-loaded"])
def test_a_router_that_says_it_is_another_breaks_the_rules_of_that_one(router: str) -> None:
    rules = []
    for setting in settings_with_traffic():
        log = log_of(setting)
        header: Any = dict(log[0])
        header["dispatch"] = {"router": router, "workers": WORKERS}
        for violation in check([header, *log[1:]], every=False).violations:
            assert_well_described(log, violation)
            rules.append(violation.rule)
    expected = {"router-turn"} if "robin" in router else {"router-shortest", "router-tie"}
    assert rules and set(rules) <= expected


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ("d2lpm", "dispatch: expected an object"),
        ({"workers": 3, "worker_quantum": 4}, "dispatch.router: expected a non-empty string"),
        ({"router": "d2lpm", "workers": 0, "worker_quantum": 4}, "dispatch.workers: expected a whole number from 1 to"),
        ({"router": "d2lpm", "workers": 3}, "dispatch.worker_quantum: expected a whole number from 1 to"),
        (
            {"router": "d2lpm", "workers": 3, "worker_quantum": 4, "worker_quanta": [1]},
            "dispatch.worker_quanta: expected an object, found [1]",
        ),
        (
            {"router": "d2lpm", "workers": 3, "worker_quantum": 4, "worker_quanta": {"A": 0}},
            "dispatch.worker_quanta.A: expected a whole number from 1 to",
        ),
    ],
)
def test_a_header_that_says_nonsense_of_its_router_is_refused(described: Any, said: str) -> None:
    log = log_of(settings_with_traffic()[0])
    with pytest.raises(InputError) as caught:
        check_log([b"\n", *as_bytes([{**log[0], "dispatch": described}, *log[1:]])], source="x")
    assert str(caught.value).startswith(f"x:2: {said}")


@pytest.mark.parametrize("left_out", ["client", "input", "counter"])
def test_a_log_of_algorithm_2_that_does_not_say_who_is_charged_is_refused(left_out: str) -> None:
    log = log_of(settings_with_traffic()[0])
    index, line = next(dispatches(log))
    bare = {name: value for name, value in line.items() if name != left_out}
    with pytest.raises(InputError) as caught:
        check([*log[:index], bare, *log[index + 1 :]])
    said = f"log:{index + 1}: expected client, input and counter: router d2lpm charges by them"
    assert str(caught.value) == said


def test_a_worker_quantum_of_one_is_taken() -> None:
    setting = replace(settings_with_traffic()[0], quantum=1)
    assert check(log_of(setting)).violations == ()


def test_a_client_with_a_worker_quantum_of_its_own_is_held_to_that() -> None:
    setting = settings_with_traffic()[0]
    log = log_of(setting, D2LPM(WORKERS, QUANTUM, COST, worker_quanta={"A": 29}))
    header: Any = dict(log[0])
    assert [v.rule for v in check(log, every=False).violations] == ["router-charge"]
    header["dispatch"] = {**header["dispatch"], "worker_quanta": {"A": 29}}
    assert check([header, *log[1:]]).violations == ()
