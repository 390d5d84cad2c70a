"""Runs of extensions state themselves in their logs, and `dlpm check` holds them to that."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dlpm.bounds_extensions import split_gap
from dlpm.engine_profile import EngineProfile
from dlpm_engine.conformance import check_path
from dlpm_proofs.changing_runs import IndividualSetting
from dlpm_proofs.theorem import Theorem, Verdict
from dlpm_proofs.theorems.e2_chunked_prefill import (
    chunk_floor_reached,
    drifts_apart,
    request_floor_reached,
    several_floor_reached,
)
from dlpm_proofs.theorems.e5_speculation import surplus_reached
from dlpm_proofs.theorems.e6_churn import attack_succeeds
from dlpm_proofs.theorems.e7_runs import gap_reached, rides_for_free, shares_and_gains, works_for_others
from dlpm_proofs.theorems.e8_late import floor_reached, late_extends_sink
from dlpm_proofs.theorems.e9_shared_ledger import bounded_runs, early_binding
from dlpm_proofs.theorems.e9_shared_ledger import floor_reached as shared_floor_reached
from dlpm_proofs.theorems.e10_runs import favoured_for_ever
from dlpm_proofs.theorems.engine_runs import deepest
from dlpm_proofs.theorems.engine_together import OPTIMISTIC_RUNS, RESERVED
from dlpm_proofs.theorems.extensions import EXTENSIONS
from dlpm_proofs.witness import Demonstration, Replay, Setting

PROVED = [theorem for theorem in EXTENSIONS if theorem.expected is Verdict.PROVED]


def checked(run: Replay, folder: Path) -> list[tuple[str, int]]:
    """Rule and line of all that `dlpm check` finds in the log of a run."""
    _, log = run.write(folder, "witness")
    report = check_path(log, all_violations=True)
    return [(violation.rule, violation.line) for violation in report.violations]


@pytest.mark.parametrize("theorem", PROVED, ids=lambda theorem: theorem.id)
def test_dlpm_check_accepts_the_runs_that_reach_the_bounds_of_extensions(theorem: Theorem, tmp_path: Path) -> None:
    runs = [shown.replay for shown in theorem.demonstrations() if shown.replay is not None]
    for run in runs:
        if run.setting.extensions() and not isinstance(run.setting, IndividualSetting):
            assert checked(run, tmp_path) == []


def test_quanta_of_each_clients_own_are_found_in_the_log_of_a_range(tmp_path: Path) -> None:
    """One refill that pays clients differently is no changing quantum: what is proved of it is another bound."""
    runs = [shown.replay for shown in favoured_for_ever()]
    for run in runs:
        assert run is not None
        assert "refill-alike" in {rule for rule, _ in checked(run, tmp_path)} <= {"refill-alike", "extension-gap"}


@pytest.mark.parametrize(
    "shown",
    [request_floor_reached()[1], several_floor_reached()[0], surplus_reached()[0], floor_reached()[0]],
    ids=["E2/request", "E2/capped", "E5/surplus", "E8/outputs"],
)
def test_a_floor_that_is_reached_is_broken_where_fewer_requests_may_run(shown: Demonstration, tmp_path: Path) -> None:
    """Both floors fall with the largest batch: stated one smaller, the header promises more than the run keeps."""
    assert shown.replay is not None
    limit = shown.replay.setting.max_running
    assert limit is not None
    fewer = replace(shown.replay, setting=replace(shown.replay.setting, max_running=limit - 1))
    assert {rule for rule, _ in checked(fewer, tmp_path)} == {"max-running", "extension-floor"}


def test_the_floor_of_the_chunk_is_broken_where_fewer_requests_may_run(tmp_path: Path) -> None:
    shown = chunk_floor_reached()[1].replay
    assert shown is not None and shown.setting.max_running is not None
    fewer = replace(shown, setting=replace(shown.setting, max_running=shown.setting.max_running - 1))
    assert {rule for rule, _ in checked(fewer, tmp_path)} == {"max-running", "chunk-floor", "extension-floor"}


def test_a_refill_in_a_stall_is_blamed_for_the_gap_that_it_opens(tmp_path: Path) -> None:
    [shown] = drifts_apart()
    assert shown.replay is not None
    assert {rule for rule, _ in checked(shown.replay, tmp_path)} == {"refill-due", "extension-gap"}


@pytest.mark.parametrize("profile", [*RESERVED, *OPTIMISTIC_RUNS], ids=lambda profile: profile.engine)
def test_dlpm_check_accepts_the_runs_near_the_floors_of_whole_engines(profile: EngineProfile, tmp_path: Path) -> None:
    assert checked(deepest(profile).run, tmp_path) == []


def test_forgotten_debts_are_a_gain_that_only_the_plain_rules_blame(tmp_path: Path) -> None:
    """The log says that debts are forgotten, so it keeps its rules; the gap that it has is the refuted one."""
    [shown] = attack_succeeds()
    assert shown.replay is not None
    assert checked(shown.replay, tmp_path) == []
    plain = replace(shown.replay, setting=Setting(shown.replay.setting.kv_tokens, shown.replay.setting.quantum))
    assert {"refill-forgot", "gap-any"} <= {rule for rule, _ in checked(plain, tmp_path)}


@pytest.mark.parametrize("found", [rides_for_free, works_for_others, shares_and_gains])
def test_a_gap_in_another_measure_breaks_no_rule(found: Callable[[], Sequence[Demonstration]], tmp_path: Path) -> None:
    """Nobody is charged wrong: the rule for the payer does what it says, and that is what is refuted."""
    for shown in found():
        assert shown.replay is not None
        assert checked(shown.replay, tmp_path) == []


def test_a_gap_of_split_prefixes_that_is_reached_is_one_above_a_smaller_bound(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    [shown] = gap_reached()
    assert shown.replay is not None
    assert checked(shown.replay, tmp_path) == []
    monkeypatch.setattr(
        "dlpm_engine.conformance.extensions.shared_prefixes.split_gap",
        lambda ceiling, floor: split_gap(ceiling, floor) - 1,
    )
    assert {rule for rule, _ in checked(shown.replay, tmp_path)} == {"extension-gap"}


def test_late_extend_tokens_are_blamed_at_the_admission_and_at_the_floor(tmp_path: Path) -> None:
    [shown] = late_extends_sink()
    assert shown.replay is not None
    found = checked(shown.replay, tmp_path)
    rule, line = found[0]
    assert rule == "charge-extend"
    events = (tmp_path / "witness.events.jsonl").read_text().splitlines()
    assert json.loads(events[line - 1])["event"] == "admit"
    assert "extension-floor" in {name for name, _ in found}


SHARED = [*shared_floor_reached(), *bounded_runs(), *early_binding()]


@pytest.mark.parametrize("shown", SHARED, ids=lambda shown: shown.name.split(":")[0])
def test_dlpm_check_accepts_the_runs_of_a_shared_ledger(shown: Demonstration, tmp_path: Path) -> None:
    assert shown.replay is not None
    assert checked(shown.replay, tmp_path) == []


@pytest.mark.parametrize("shown", SHARED[:3], ids=lambda shown: shown.name.split(":")[0])
def test_the_floor_over_all_workers_is_broken_where_memory_is_stated_smaller(
    shown: Demonstration, tmp_path: Path
) -> None:
    """It is reached; so stated one token smaller, the header promises more than the run keeps."""
    assert shown.replay is not None
    setting = shown.replay.setting
    smaller = replace(shown.replay, setting=replace(setting, kv_tokens=setting.kv_tokens - 1))
    rules = {rule for rule, _ in checked(smaller, tmp_path)}
    assert "extension-floor" in rules
    assert rules <= {"arrive-in-limits", "memory-overbooked", "free-memory", "extension-floor"}
