"""A shared ledger: its logs hold whatever is late and whoever moves; each fault of ledger, moves or log is found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlpm.batch import WorkerConfig
from dlpm.cost import CostModel
from dlpm.dispatch.moving import MovingD2LPM
from dlpm.errors import InputError
from dlpm.event_codec import encode_event, encode_header
from dlpm.events import Event, Header, Limits
from dlpm.extensions.shared_cluster import MovableWorker, SharedCluster
from dlpm.extensions.shared_ledger import LedgerView, SharedDLPM, SharedLedger, Update, stated
from dlpm.ledger import Ledger, Quanta
from dlpm.memory import Reserving
from dlpm.simulate import StalledError
from dlpm.timing import FixedStep
from dlpm.workload.fuzz import random_workload
from dlpm_engine.conformance import RULES, check_log
from tests.engine_adapter.conformance.extensions.variants import Fault, Places, found_exactly, rules_broken, stating
from tests.engine_adapter.conformance.logs import Log, as_bytes, check
from tests.engine_adapter.conformance.mutations import dropped, inserted, replaced, stamp
from tests.engine_adapter.conformance.samples import kind
from tests.engine_adapter.conformance.wording import assert_well_described

COST = CostModel(1, 2)


@dataclass(frozen=True)
class Shared:
    """One run of a cluster with a shared ledger; ``ledger`` and ``cluster`` may be ones with a fault."""

    seed: int = 0
    steps_us: tuple[int, ...] = (1, 2, 3)
    late: int = 2
    stated_late: int | None = None
    quantum: int = 7
    kv_tokens: int = 24
    max_running: int | None = None
    moving: bool = True
    full: bool = True
    ledger: type[SharedLedger] = SharedLedger
    cluster: type[SharedCluster] = SharedCluster
    requests: int = 24

    def log(self) -> Log:
        """The log of the run."""
        events: list[Event] = []
        workload = random_workload(Random(self.seed), requests=self.requests, span_us=20, parent_chance=0.2)
        count = len(self.steps_us)
        ledger = self.ledger(count, Quanta(self.quantum), COST, self.late)
        config = WorkerConfig(self.kv_tokens, Reserving(), max_running=self.max_running)
        workers = [
            MovableWorker(config, SharedDLPM(view), FixedStep(step_us), events.append, index=index, full_log=self.full)
            for index, (view, step_us) in enumerate(zip(ledger.views, self.steps_us, strict=True))
        ]
        router = MovingD2LPM(count, 5, COST)
        with suppress(StalledError):
            self.cluster(workers, router, ledger, events.append, moving=self.moving).run(workload)
        header = Header(
            engine="reference under test",
            policy="dlpm",
            extend_weight=COST.extend_weight,
            output_weight=COST.output_weight,
            default_quantum=self.quantum,
            limits=Limits(kv_tokens=self.kv_tokens, max_running=self.max_running),
            memory=config.memory.kind,
            visibility=config.visibility,
            block_size=config.block_size,
            level="full" if self.full else "decisions",
            extensions=stated(self.late if self.stated_late is None else self.stated_late),
            extra={"dispatch": {"router": router.name, "workers": count, "worker_quantum": 5}},
        )
        return [encode_header(header), *map(encode_event, events)]


SEEDS = range(6)


@cache
def samples() -> list[Log]:
    return [Shared(seed).log() for seed in SEEDS]


# -- sound logs --------------------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 10_000),
    steps_us=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    late=st.integers(0, 4),
    quantum=st.integers(1, 12),
    max_running=st.one_of(st.none(), st.integers(1, 3)),
    moving=st.booleans(),
    full=st.booleans(),
)
def test_every_log_of_a_shared_ledger_holds(
    seed: int, steps_us: list[int], late: int, quantum: int, max_running: int | None, moving: bool, full: bool
) -> None:
    shared = Shared(
        seed, tuple(steps_us), late, quantum=quantum, max_running=max_running, moving=moving, full=full, requests=12
    )
    report = check(shared.log())
    assert report.violations == ()
    assert {"extension-floor", "extension-gap"} <= set(report.rules)


def test_the_samples_move_and_deliver_and_refill() -> None:
    """What the faults below are about happens."""
    for log in samples():
        assert {"deliver", "refill", "dispatch"} <= {kind(line) for line in log}
    assert sum(1 for log in samples() for _ in moves(log)) > 10


def test_the_plain_rules_do_not_hold_for_views() -> None:
    """Without the extension in the header, a deliver event is no event of the log, and the counters are wrong."""
    with pytest.raises(InputError, match="deliver") as caught:
        check_log(as_bytes(stating(samples()[0], {})), source="log", all_violations=True)
    assert caught.value.field == "event"
    plain = [line for line in stating(samples()[0], {}) if kind(line) != "deliver"]
    assert rules_broken(check(plain, every=False)) - {"work-conserving"}


@pytest.mark.parametrize(
    ("extensions", "change", "where"),
    [
        ({"shared_ledger": {}}, {}, "extensions.shared_ledger.late"),
        ({"shared_ledger": {"late": -1}}, {}, "extensions.shared_ledger.late"),
        ({"shared_ledger": {"late": 1, "lag": 1}}, {}, "extensions.shared_ledger.lag"),
        ({"shared_ledger": {"late": 1}}, {"memory": "optimistic"}, "extensions.shared_ledger.late"),
        ({"shared_ledger": {"late": 1}}, {"dispatch": {}}, "dispatch.workers"),
    ],
)
def test_a_header_that_states_too_little_is_bad_input(
    extensions: dict[str, Any], change: dict[str, Any], where: str
) -> None:
    log = stating(samples()[0], extensions)
    with pytest.raises(InputError) as caught:
        check_log(as_bytes([{**log[0], **change}, *log[1:]]), source="log")
    assert (caught.value.line, caught.value.field) == (1, where)


def test_a_ledger_is_shared_by_the_workers_of_a_cluster() -> None:
    log = samples()[0]
    alone = {name: value for name, value in log[0].items() if name != "dispatch"}
    with pytest.raises(InputError, match="workers of a cluster"):
        check_log(as_bytes([alone, *log[1:]]), source="log")


def test_a_dispatch_must_say_whose_request_it_is() -> None:
    log = samples()[0]
    index = next(index for index, line in enumerate(log) if kind(line) == "dispatch")
    nameless = {name: value for name, value in log[index].items() if name != "client"}
    with pytest.raises(InputError) as caught:
        check_log(as_bytes([*log[:index], nameless, *log[index + 1 :]]), source="log")
    assert (caught.value.line, caught.value.field) == (index + 1, "client")


# -- faulty ledgers and clusters ---------------------------------------------------------------------------------------


def sharing(changed: type[LedgerView]) -> type[SharedLedger]:
    """A shared ledger whose views are changed ones."""
    return type(changed.__name__, (SharedLedger,), {"view": changed})


class HearsNothing(LedgerView):
    def heard(self, update: Update) -> None:
        """Hear nothing."""


class HearsTwice(LedgerView):
    def heard(self, update: Update) -> None:
        super().heard(update)
        super().heard(update)


class PaysItself(LedgerView):
    def check_refill(self, queued_clients: Iterable[str]) -> dict[str, int]:
        return Ledger.check_refill(self, queued_clients)


class GateAtZero(LedgerView):
    def has_credit(self, client: str) -> bool:
        return self.deficits[client] >= 0


class ForgetsItsOwnOutputs(LedgerView):
    def charge_outputs(self, tokens: Mapping[str, int]) -> None:
        self._publish(Update({client: self.cost.output(count) for client, count in tokens.items()}))


class AdmissionsAreFree(LedgerView):
    def charge_extend(self, client: str, tokens: int) -> None:
        self._publish(Update({client: self.cost.extend(tokens)}, client))


class NeverAsks(LedgerView):
    """One worker in three never lets the keeper pay."""

    def check_refill(self, queued_clients: Iterable[str]) -> dict[str, int]:
        return {} if len(self.deficits) % 2 else super().check_refill(queued_clients)


class PaysTwice(SharedLedger):
    def check_refill(self) -> Mapping[str, int]:
        refilled = super().check_refill()
        for client in refilled:
            self.keeper.deficits[client] += self.keeper.quanta.of(client)
        for view in self.views:
            view.paid(refilled)
        return refilled


class IgnoresQueues(SharedLedger):
    def queued_clients(self) -> Iterable[str]:
        return ()


class PaysTheQueued(SharedLedger):
    """Who is poor and waits nowhere gets nothing."""

    def check_refill(self) -> Mapping[str, int]:
        others = {name: q for name, q in self.keeper.deficits.items() if name not in self._queued}
        for name in others:
            del self.keeper.deficits[name]
        refilled = super().check_refill()
        self.keeper.deficits.update(others)
        return refilled


class MovesWithoutNeed(SharedCluster):
    """A free worker takes over requests although its own queue has credit."""

    def _begin_where(self, *, credited: bool) -> None:
        if credited:
            for index, replica in enumerate(self._replicas):
                if not replica.stepping and self._has_credited(index):
                    self._move_in(index)
        super()._begin_where(credited=credited)


SCHEDULERS: tuple[tuple[str, dict[str, Any], set[str]], ...] = (
    ("hears-nothing", {"ledger": sharing(HearsNothing)}, {"shared-view"}),
    ("hears-twice", {"ledger": sharing(HearsTwice)}, {"shared-view"}),
    ("later-than-stated", {"stated_late": 1}, {"shared-view", "deliver-kept"}),
    ("earlier-than-stated", {"stated_late": 4}, {"shared-view", "refill-due"}),
    ("pays-itself", {"ledger": sharing(PaysItself)}, {"refill-due", "refill-credit"}),
    ("gate-at-zero", {"ledger": sharing(GateAtZero)}, {"gate"}),
    ("forgets-its-own-outputs", {"ledger": sharing(ForgetsItsOwnOutputs)}, {"charge-output"}),
    ("admissions-are-free", {"ledger": sharing(AdmissionsAreFree)}, {"charge-extend"}),
    ("pays-twice", {"ledger": PaysTwice}, {"refill-twice"}),
    ("ignores-queues", {"ledger": IgnoresQueues}, {"refill-due"}),
    ("pays-the-queued", {"ledger": PaysTheQueued}, {"refill-forgot"}),
    ("moves-without-need", {"cluster": MovesWithoutNeed}, {"move-needless"}),
)


@pytest.mark.parametrize(("changes", "rules"), [item[1:] for item in SCHEDULERS], ids=[item[0] for item in SCHEDULERS])
def test_a_faulty_scheduler_is_found_by_the_rule_it_breaks(changes: dict[str, Any], rules: set[str]) -> None:
    """The quantum is one that updates do not add up to: else a missing update could as well be a missing refill."""
    found = set()
    for seed in SEEDS:
        log = Shared(seed, quantum=23, **changes).log()
        for violation in check(log, every=False).violations:
            assert_well_described(log, violation)
            found.add(violation.rule)
    assert found
    assert found <= rules


# -- faulty logs -------------------------------------------------------------------------------------------------------


def moves(log: Log) -> Iterator[int]:
    """The places of dispatches that move a request."""
    for index, line in enumerate(log):
        if kind(line) == "dispatch" and any(
            kind(other) == "dispatch" and other["request"] == line["request"] for other in log[1:index]
        ):
            yield index


def lines(log: Log, wanted: str) -> Iterator[tuple[int, Any]]:
    """Every event of one kind, with its place."""
    for index, line in enumerate(log):
        if kind(line) == wanted:
            yield index, line


def an_admission_costs_one_less(log: Log) -> Places:
    for index, line in lines(log, "admit"):
        yield replaced(log, index, deficit=line["deficit"] + 100), index + 1


def a_forward_step_costs_more(log: Log) -> Places:
    for index, line in lines(log, "output"):
        client = next(iter(line["deficits"]))
        yield replaced(log, index, deficits={**line["deficits"], client: line["deficits"][client] - 100}), index + 1


def a_refill_pays_less(log: Log) -> Places:
    for index, line in lines(log, "refill"):
        client = next(iter(line["deficits"]))
        yield replaced(log, index, deficits={**line["deficits"], client: line["deficits"][client] - 100}), index + 1


def a_refill_forgets_somebody(log: Log) -> Places:
    for index, line in lines(log, "refill"):
        if len(line["deficits"]) > 1:
            client = next(iter(line["deficits"]))
            left = {name: after for name, after in line["deficits"].items() if name != client}
            yield replaced(log, index, deficits=left), index + 1


def more_is_delivered_than_was_kept(log: Log) -> Places:
    for index, line in lines(log, "deliver"):
        yield replaced(log, index, updates=line["updates"] + 1), index + 1


def a_delivery_comes_twice(log: Log) -> Places:
    for index, line in lines(log, "deliver"):
        yield inserted(log, index + 1, line), index + 2


def a_move_charges_the_router_twice(log: Log) -> Places:
    for index in moves(log):
        line: Any = log[index]
        yield replaced(log, index, counter=line["counter"] - line["input"]), index + 1


def a_request_moves_to_where_its_client_is_poor(log: Log) -> Places:
    """Another request, of a client whose latest counter at that worker is not positive, moves instead."""
    for index, worker, name in poor_moves(log):
        line: Any = log[index]
        arrived: Any = next(item for item in log if kind(item) == "arrive" and item["request"] == name)
        event = {**stamp(line), "event": "dispatch", "worker": worker, "request": name, "matched_workers": []}
        told = {"client": arrived["client"], "input": arrived["input"], "counter": 0}
        yield inserted(log, index, {**event, **told}), index + 1


def poor_moves(log: Log) -> Iterator[tuple[int, int, str]]:
    """Places of moves with another request that waits at a third worker, its client known to be poor at the target."""
    at: dict[str, int] = {}
    waits: dict[str, str] = {}
    counters: dict[tuple[int, str], int] = {}
    moving = set(moves(log))
    for index, raw in enumerate(log):
        line: Any = raw
        if index in moving and index - 1 not in moving:
            for name, client in waits.items():
                if counters.get((line["worker"], client), 1) <= 0 and at[name] != line["worker"]:
                    yield index, line["worker"], name
                    break
        if kind(line) == "arrive":
            waits[line["request"]] = line["client"]
            at[line["request"]] = line["worker"]
        elif index in moving:
            at[line["request"]] = line["worker"]
        elif kind(line) == "admit":
            counters[line["worker"], waits.pop(line["request"])] = line["deficit"]
        elif kind(line) == "output":
            counters.update({(line["worker"], client): after for client, after in line["deficits"].items()})
        elif kind(line) == "refill":
            counters.clear()


def a_refill_was_left_out(log: Log) -> Places:
    """The admission after it is of a client that had no credit."""
    for index, line in lines(log, "refill"):
        following: Any = log[index + 1]
        before = line["deficits"]
        if kind(following) == "admit" and before:
            yield dropped(log, index), index + 1


FAULTS = (
    Fault("charge-extend", an_admission_costs_one_less),
    Fault("charge-output", a_forward_step_costs_more),
    Fault("refill-amount", a_refill_pays_less),
    Fault("refill-forgot", a_refill_forgets_somebody),
    Fault("deliver-kept", more_is_delivered_than_was_kept),
    Fault("deliver-kept", a_delivery_comes_twice),
    Fault("router-charge", a_move_charges_the_router_twice),
    Fault("move-credit", a_request_moves_to_where_its_client_is_poor),
    Fault("gate", a_refill_was_left_out),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.places.__name__)
def test_exactly_the_right_rule_fires_first(fault: Fault) -> None:
    found_exactly(fault, samples())


def test_a_delivery_that_is_not_logged_is_missed_by_the_views() -> None:
    found = [
        rules_broken(check(dropped(log, index), every=False)) for log in samples() for index, _ in lines(log, "deliver")
    ]
    assert set().union(*found) <= {"shared-view", "refill-due", "refill-forgot", "refill-credit"}
    assert {"shared-view"} in found


def test_a_forward_step_while_the_keeper_should_pay_is_found() -> None:
    """Everybody waits without credit, and nobody asks."""
    log = Shared(steps_us=(1, 1), late=0, ledger=sharing(NeverAsks)).log()
    [violation] = check(log, every=False).violations
    assert violation.rule == "fixpoint-refill"
    assert_well_described(log, violation)


def test_floor_and_gap_are_those_of_all_workers_together() -> None:
    """Stated with less memory than there is, the bounds of the run's own counters are broken as well."""
    log = Shared(late=0, quantum=24, requests=60).log()
    header: Any = log[0]
    small = {**header, "limits": {**header["limits"], "kv_tokens": 2}, "extensions": {"shared_ledger": {"late": 0}}}
    broken = rules_broken(check([small, *log[1:]]))
    assert "extension-floor" in broken
    assert {rule for rule in broken if RULES[rule].theorem} <= {"extension-floor", "extension-gap"}
