"""A shared ledger: its logs hold whatever is late and whoever moves; each fault of ledger or moves is found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlpm.errors import InputError
from dlpm.extensions.shared_cluster import SharedCluster
from dlpm.extensions.shared_ledger import LedgerView, SharedLedger, Update
from dlpm.ledger import Ledger
from dlpm_engine.conformance import RULES, check_log
from tests.engine_adapter.conformance.extensions.shared_runs import SEEDS, Shared, moves, samples
from tests.engine_adapter.conformance.extensions.variants import rules_broken, stating
from tests.engine_adapter.conformance.logs import as_bytes, check
from tests.engine_adapter.conformance.samples import kind
from tests.engine_adapter.conformance.wording import assert_well_described

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


def test_clients_with_quanta_of_their_own_are_paid_these_by_the_shared_ledger() -> None:
    for seed in SEEDS:
        log = Shared(seed, quanta=(("A", 11), ("B", 4))).log()
        assert check(log).violations == ()
        header: dict[str, Any] = dict(log[0])
        header["quantum"] = {"default": 7}
        assert check([header, *log[1:]]).violations
