"""Schedulers with one fault each: their logs are consistent with what they do, and the checker says what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from dlpm.batch import WorkerConfig
from dlpm.cost import CostModel
from dlpm.event_codec import encode_event, encode_header
from dlpm.events import Event
from dlpm.ledger import Ledger, Quanta
from dlpm.memory import AdmissionControl, Optimistic, Reserving
from dlpm.policies.base import AdmissionStep, Policy
from dlpm.policies.dlpm import DLPM
from dlpm.policies.dlpm_literal import DLPMLiteral
from dlpm.policies.fcfs import FCFS
from dlpm.policies.lpm import LPM
from dlpm.policies.vtc import VTC, VirtualCounters
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from tests.engine_adapter.conformance.logs import Log, check, header_of, submit
from tests.engine_adapter.conformance.samples import SEEDS, sample_plan, sample_rules
from tests.engine_adapter.conformance.wording import assert_well_described
from tests.reference.naive_worker import Rules

MOST_STEPS = 200
"""A faulty scheduler may never come to an end."""


class OpenGate(Ledger):
    """Everybody has credit."""

    def has_credit(self, client: str) -> bool:
        return True


class GateAtZero(Ledger):
    """A deficit of 0 still is credit."""

    def has_credit(self, client: str) -> bool:
        return self.deficits[client] >= 0


class RefillsQueuedOnly(Ledger):
    """A refill forgets who has nothing queued."""

    def check_refill(self, queued_clients: Iterable[str]) -> dict[str, int]:
        queued = set(queued_clients)
        before = dict(self.deficits)
        refilled = super().check_refill(queued)
        for client in refilled.keys() - queued:
            self.deficits[client] = before[client]
        return {client: value for client, value in refilled.items() if client in queued}


class RefillsEverybody(Ledger):
    """A refill pays clients with credit, too."""

    def check_refill(self, queued_clients: Iterable[str]) -> dict[str, int]:
        refilled = super().check_refill(queued_clients)
        if refilled:
            for client in self.deficits.keys() - refilled.keys():
                self.deficits[client] += self.quanta.of(client)
                refilled[client] = self.deficits[client]
        return refilled


class RefillsUnasked(Ledger):
    """A gated client is refilled although others have credit."""

    def check_refill(self, queued_clients: Iterable[str]) -> dict[str, int]:
        return super().check_refill(())


class RefillsTwice(Ledger):
    """A refill pays two quanta."""

    def check_refill(self, queued_clients: Iterable[str]) -> dict[str, int]:
        refilled = super().check_refill(queued_clients)
        for client in refilled:
            self.deficits[client] += self.quanta.of(client)
            refilled[client] = self.deficits[client]
        return refilled


class ForgivesDebt(Ledger):
    """A refill sets the counter to the quantum."""

    def check_refill(self, queued_clients: Iterable[str]) -> dict[str, int]:
        refilled = super().check_refill(queued_clients)
        for client in refilled:
            self.deficits[client] = self.quanta.of(client)
            refilled[client] = self.deficits[client]
        return refilled


class FreePrefill(Ledger):
    """Extend tokens cost nothing."""

    def charge_extend(self, client: str, tokens: int) -> None:
        return


class FreeOutput(Ledger):
    """Output tokens cost nothing."""

    def charge_outputs(self, tokens: Mapping[str, int]) -> None:
        return


class OutputOncePerClient(Ledger):
    """A client pays for one output token a step, however many requests it runs."""

    def charge_outputs(self, tokens: Mapping[str, int]) -> None:
        super().charge_outputs(dict.fromkeys(tokens, 1))


class ForgetsIdleClients(DLPM):
    """A client whose queue runs empty is new when it comes back: its debt is forgotten."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self.gone: set[str] = set()

    def leave(self, client: str) -> None:
        self.gone.add(client)

    def arrive(self, client: str, queued_clients: Iterable[str]) -> None:
        if client in self.gone and client not in set(queued_clients):
            self.gone.discard(client)
            self.ledger.deficits[client] = 0
        super().arrive(client, queued_clients)


class InArrivalOrder(DLPM):
    """The gate is right, the order is that of arrival."""

    def admit(self, step: AdmissionStep) -> None:
        order = step.waiting()
        step.considered(order)
        self.visit_each(step, order)


class StopsAtTheFirstThatDoesNotFit(DLPM):
    """One request that does not fit blocks everything behind it."""

    def admit(self, step: AdmissionStep) -> None:
        super().admit(_HeadOfLine(step))


class _HeadOfLine:
    """A step in which nothing is admitted after a refusal."""

    def __init__(self, step: AdmissionStep) -> None:
        self._step = step
        self._blocked = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._step, name)

    def try_admit(self, request: Any) -> int | None:
        extend = None if self._blocked else self._step.try_admit(request)
        self._blocked = extend is None
        return extend


class ShortestMatchFirst(LPM):
    """The order is logged and kept, but from the wrong end."""

    def admit(self, step: AdmissionStep) -> None:
        order = sorted(step.waiting(), key=lambda request: (step.matched(request), request.rank))
        step.considered(order)
        for request in order:
            if step.try_admit(request) is not None:
                step.admitted(request, None)


class LastComeFirstServed(FCFS):
    """The youngest first."""

    def admit(self, step: AdmissionStep) -> None:
        for request in list(step.waiting())[::-1]:
            if step.try_admit(request) is None:
                break
            step.admitted(request, None)


class NoLift(VirtualCounters):
    """A client that was away comes back with its old counter."""

    def lift(self, client: str, queued_clients: Iterable[str]) -> None:
        self.counters.setdefault(client, 0)


class MostServedFirst(VirtualCounters):
    """The client with the largest counter first."""

    def least_served(self, clients: Iterable[str]) -> str | None:
        return max(clients, key=lambda client: self.counters[client], default=None)


class HalfPrice(VirtualCounters):
    """Half of the input is free."""

    def charge_input(self, client: str, tokens: int) -> None:
        super().charge_input(client, tokens // 2)


def dlpm(ledger: type[Ledger] = Ledger, policy: type[DLPM] = DLPM) -> Callable[[Rules], Policy]:
    return lambda rules: policy(ledger(Quanta(rules.quantum, rules.quanta), CostModel(1, 2)))


def one_pass(rules: Rules) -> Policy:
    return DLPMLiteral(Ledger(Quanta(rules.quantum, rules.quanta), CostModel(1, 2)), one_pass=True)


def vtc(counters: type[VirtualCounters]) -> Callable[[Rules], Policy]:
    def build(rules: Rules) -> Policy:
        policy = VTC(CostModel(1, 2))
        policy.counters = counters(CostModel(1, 2))
        return policy

    return build


@dataclass(frozen=True)
class Fault:
    """A scheduler with one fault: its policy, what it claims to be, and the rules that may name the fault."""

    name: str
    policy: Callable[[Rules], Policy]
    rules: frozenset[str]
    claims: str = "dlpm"
    memory: AdmissionControl = field(default_factory=Reserving)
    full: bool = True
    max_running: int | None = None


def fault(name: str, policy: Callable[[Rules], Policy], *rules: str, **more: Any) -> Fault:
    return Fault(name, policy, frozenset(rules), **more)


FAULTS = (
    fault("the gate is always open", dlpm(OpenGate), "gate"),
    fault("the gate is open at 0", dlpm(GateAtZero), "gate"),
    fault("a refill forgets who has nothing queued", dlpm(RefillsQueuedOnly), "refill-forgot"),
    fault("a refill pays clients with credit", dlpm(RefillsEverybody), "refill-credit"),
    fault("a refill comes without being due", dlpm(RefillsUnasked), "refill-due"),
    fault("a refill pays twice", dlpm(RefillsTwice), "refill-twice"),
    fault("a refill forgives debt", dlpm(ForgivesDebt), "refill-amount", "refill-twice"),
    fault("prefill is free", dlpm(FreePrefill), "charge-extend"),
    fault("output is free", dlpm(FreeOutput), "charge-output"),
    fault("output costs one token a client", dlpm(OutputOncePerClient), "charge-output"),
    fault(
        "an idle client is forgotten with its debt",
        dlpm(policy=ForgetsIdleClients),
        "refill-amount",
        "refill-due",
        "refill-twice",
    ),
    fault(
        "one pass is all",
        one_pass,
        "fixpoint-refill",
        "fixpoint-fit",
        "work-conserving",
    ),
    fault("the order is that of arrival", dlpm(policy=InArrivalOrder), "order-longest-first", "fixpoint-refill"),
    fault(
        "a large request blocks the queue",
        dlpm(policy=StopsAtTheFirstThatDoesNotFit),
        "fixpoint-fit",
        "admit-in-order",
    ),
    fault("memory is not reserved", dlpm(), "memory-overbooked", "free-memory", memory=Optimistic()),
    fault("memory is not reserved, in a short log", dlpm(), "memory-overbooked", memory=Optimistic(), full=False),
    fault("the batch has no limit", dlpm(), "max-running", max_running=1),
    fault("the shortest match is first", lambda rules: ShortestMatchFirst(), "order-longest-first", claims="lpm"),
    fault("the last is first", lambda rules: LastComeFirstServed(), "fcfs-head", claims="fcfs", full=False),
    fault("nobody is lifted", vtc(NoLift), "vtc-lift", claims="vtc"),
    fault("the most served is first", vtc(MostServedFirst), "vtc-least-served", claims="vtc"),
    fault("half of the input is free", vtc(HalfPrice), "vtc-charge-input", claims="vtc"),
)


def run(case: Fault, seed: int) -> Log:
    """The log of a faulty scheduler that claims to be a sound one under reserving memory."""
    rules = sample_rules(case.claims, seed)
    config = WorkerConfig(
        kv_tokens=rules.kv_tokens, memory=case.memory, block_size=rules.block_size, visibility=rules.visibility
    )
    events: list[Event] = []
    worker = Worker(config, case.policy(rules), FixedStep(1), events.append, full_log=case.full)
    submitted = 0
    for item in sample_plan(seed):
        if isinstance(item, int):
            for _ in range(item):
                worker.step()
        else:
            submitted += 1
            submit(worker.submit, item.request(f"r{submitted}", rules.block_size))
    while not worker.idle() and worker.step_number < MOST_STEPS:
        worker.step()
    header = header_of(replace(rules, max_running=case.max_running), full=case.full)
    return [encode_header(header), *map(encode_event, events)]


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: case.name)
def test_the_first_rule_that_a_faulty_scheduler_breaks_names_its_fault(case: Fault) -> None:
    named = set()
    for log in (run(case, seed) for seed in SEEDS):
        for violation in check(log, every=False).violations:
            assert_well_described(log, violation)
            named.add(violation.rule)
    assert named, "no run of this scheduler was found out"
    assert named <= case.rules


@pytest.mark.parametrize("claims", ["dlpm", "vtc", "lpm", "fcfs"])
def test_the_same_runs_without_a_fault_hold(claims: str) -> None:
    sound: Mapping[str, Callable[[Rules], Policy]] = {
        "dlpm": dlpm(),
        "vtc": vtc(VirtualCounters),
        "lpm": lambda rules: LPM(),
        "fcfs": lambda rules: FCFS(),
    }
    for seed in SEEDS:
        assert check(run(fault("none", sound[claims], claims=claims), seed)).holds
