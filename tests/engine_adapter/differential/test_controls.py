"""The tester's controls pass, and a tester that looks at too little fails them."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from dlpm_engine.adapter import EngineAdapter
from dlpm_engine.differential.case import Case
from dlpm_engine.differential.controls import FEW_REQUESTS, run_controls
from dlpm_engine.differential.engines import make_engine
from dlpm_engine.differential.faults import FAULTS
from dlpm_engine.differential.hunt import Settings, compare
from dlpm_engine.differential.lockstep import Outcome


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


def test_a_tester_that_compares_nothing_is_caught() -> None:
    def blind(case: Case, engine: EngineAdapter, settings: Settings) -> Outcome:
        return Outcome()

    clean_reference, clean_tensor, planted = run_controls(("one-pass",), blind, clean_cases=3, fault_seconds=0.2)
    assert not clean_reference.passed
    assert not clean_tensor.passed
    assert not planted.passed


def test_a_tester_that_looks_at_the_first_step_alone_is_caught() -> None:
    def hasty(case: Case, engine: EngineAdapter, settings: Settings) -> Outcome:
        outcome = compare(case, engine, settings)
        if outcome.divergence is not None and outcome.divergence.step > 1:
            return Outcome()
        outcome.tally.passed_over = 0
        return outcome

    clean_reference, *_ = run_controls((), hasty, clean_cases=10)
    assert not clean_reference.passed


def test_a_tester_that_always_complains_is_caught() -> None:
    def shrill(case: Case, engine: EngineAdapter, settings: Settings) -> Outcome:
        return compare(case, make_engine("tensor+newcomer-gets-quantum"), settings)

    clean_reference, *_ = run_controls((), shrill, clean_cases=3)
    assert not clean_reference.passed
