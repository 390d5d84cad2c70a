"""The theorems about one worker come out as the table says, and their controls bite."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace

import pytest

from dlpm_proofs.report import HEADER, NEEDS_WIDTH, needs, row
from dlpm_proofs.run import chosen
from dlpm_proofs.solve import TIME_LIMIT_S, Obligation, default_solvers
from dlpm_proofs.symbolic import SymbolicError
from dlpm_proofs.theorem import Prover, Result, Theorem, Verdict
from dlpm_proofs.theorems import THEOREMS
from tests.proofs.controls import assert_comes_out

ONE_WORKER = chosen(["M1", "M2", "M3", "N1", "T1", "T2", "T2*", "T3", "T3*", "T4", "T4*", "T5", "T6", "T7", "T8"])
PROVER = Prover(default_solvers(check_proofs=False))


@pytest.mark.parametrize("theorem", ONE_WORKER, ids=[theorem.id for theorem in ONE_WORKER])
def test_a_theorem_about_one_worker_gets_its_verdict(theorem: Theorem) -> None:
    result = PROVER.decide(theorem)
    assert_comes_out(result)
    assert result.outcomes
    seconds = [answer.seconds for outcome in result.outcomes for answer in outcome.answers.values()]
    assert max(seconds) <= TIME_LIMIT_S


@pytest.mark.parametrize("theorem", ONE_WORKER, ids=[theorem.id for theorem in ONE_WORKER])
def test_a_proof_has_mutants_that_it_must_notice_and_a_refutation_has_a_run(theorem: Theorem) -> None:
    if theorem.expected is Verdict.PROVED:
        assert len({mutant.name for mutant in theorem.mutants}) >= 2
    else:
        assert theorem.demonstrations()


def test_cvc5_checks_its_own_proof_of_the_tight_floor() -> None:
    (theorem,) = chosen(["T2*/reserving"])
    result = Prover(default_solvers(check_proofs=True), with_mutants=False).decide(theorem)
    assert result.problems() == ()


def test_every_theorem_says_what_is_checked_and_what_is_argued() -> None:
    for theorem in ONE_WORKER:
        assert theorem.statement.endswith(".")
        assert theorem.checked.endswith(".")
        assert theorem.argued.endswith(".")


@pytest.mark.parametrize("theorem", THEOREMS, ids=[theorem.id for theorem in THEOREMS])
def test_a_theorem_can_be_sent_between_processes(theorem: Theorem) -> None:
    copy = pickle.loads(pickle.dumps(theorem))
    assert copy.id == theorem.id


def test_a_reference_that_cannot_be_run_symbolically_is_a_problem_and_no_crash() -> None:
    (theorem,) = chosen(["T1"])

    def raising() -> Iterator[Obligation]:
        yield next(iter(theorem.obligations()))
        raise SymbolicError("a loop without end")

    result = PROVER.decide(replace(theorem, obligations=raising))
    assert result.verdict is Verdict.UNKNOWN
    assert len(result.outcomes) == 1
    (problem,) = result.problems()
    assert "a loop without end" in problem


def test_the_table_says_what_a_theorem_needs_in_the_width_of_a_column() -> None:
    reserving, rejects = chosen(["T3/reserving", "T6/rejects"])
    assert needs(reserving) == f"reserving memory +{len(reserving.hypotheses) - 1}"
    assert needs(rejects) == "nothing"
    shown = row(PROVER.decide(rejects))
    assert len(shown) == len(HEADER)
    assert shown[HEADER.index("needs")] == "nothing"
    assert max(len(needs(theorem)) for theorem in THEOREMS) <= NEEDS_WIDTH + len(" +9")


def test_failing_fast_leaves_a_theorem_at_its_first_failure() -> None:
    (theorem,) = chosen(["T1"])
    (mutant,) = (mutant for mutant in theorem.mutants if mutant.name == "double-refill")
    hasty = Prover(default_solvers(check_proofs=False), fail_fast=True)
    result = hasty.decide(replace(theorem, obligations=mutant.obligations))
    assert [outcome.as_expected for outcome in result.outcomes] == [True, False]
    assert len(result.problems()) == 1


def test_a_theorem_whose_obligation_fails_is_unknown_and_never_its_expected_verdict() -> None:
    (theorem,) = chosen(["T1"])
    (mutant,) = (mutant for mutant in theorem.mutants if mutant.name == "double-refill")
    obligations = [next(iter(mutant.obligations()))]
    wrong = [obligation for obligation in mutant.obligations() if obligation.name.startswith("a visit of f keeps")]
    outcomes = tuple(PROVER._discharge(obligation) for obligation in (*obligations, *wrong))
    result = Result(theorem, outcomes, (), (), 0.0)
    assert result.verdict is Verdict.UNKNOWN
    assert any("a visit of f keeps" in problem for problem in result.problems())
