"""The tester's controls pass, and a tester that looks at too little fails them."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from dlpm_engine.differential import broken_testers
from dlpm_engine.differential.broken_testers import BROKEN_TESTERS, run_tester_controls
from dlpm_engine.differential.controls import FEW_REQUESTS, run_controls
from dlpm_engine.differential.faults import FAULTS
from dlpm_engine.differential.hunt import compare


def test_at_least_twenty_faults_are_planted_and_each_says_what_is_wrong() -> None:
    assert len(FAULTS) >= 20
    assert all(fault.what and fault.name == name for name, fault in FAULTS.items())


def test_equal_engines_do_not_differ_and_all_their_decisions_are_compared() -> None:
    controls = list(run_controls((), clean_cases=60))
    assert [control.passed for control in controls] == [True, True], controls


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_shown_by_few_requests(fault: str) -> None:
    (*_, control) = run_controls((fault,), clean_cases=1)
    assert control.passed, control
    assert f"shown by {FEW_REQUESTS + 1}" not in control.detail


def test_each_broken_tester_is_caught() -> None:
    controls = list(run_tester_controls())
    assert [control.name.rpartition(" ")[2] for control in controls] == list(BROKEN_TESTERS)
    assert all(control.passed for control in controls), controls


def test_a_tester_that_never_asks_the_engine_is_caught_by_a_planted_fault_alone() -> None:
    broken = BROKEN_TESTERS["compares-the-reference-alone"]
    results = list(run_controls(("one-pass",), broken, clean_cases=3, fault_seconds=0.2))
    assert [control.passed for control in results] == [True, True, False]


def test_a_tester_that_compares_nothing_is_caught_by_every_control() -> None:
    results = list(run_controls(("one-pass",), BROKEN_TESTERS["compares-nothing"], clean_cases=3, fault_seconds=0.2))
    assert [control.passed for control in results] == [False, False, False]


def test_a_tester_that_is_not_broken_is_not_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broken_testers, "BROKEN_TESTERS", {"sound": compare})
    (control,) = run_tester_controls()
    assert not control.passed
    assert control.detail == "not caught by any of 3 controls"
