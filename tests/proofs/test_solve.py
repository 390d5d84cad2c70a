"""An obligation's finding: every way in which solvers fail has its own name, and none of them passes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest

from dlpm_proofs.solve import Finding, claim, default_solvers, discharge, export, possible, write_smt2
from dlpm_proofs.solvers import CVC5, Z3, Answer, Status
from dlpm_proofs.terms import TRUE, Flag, Not, Poly, Products, all_of, at_least, at_most, between, equal, less

X, Y = Poly.unknown("x"), Poly.unknown("y")
TRUE_CLAIM = claim("x + 1 > x", [("x is positive", at_least(X, 1))], less(X, X + Poly.constant(1)))


@dataclass
class Saying:
    """A solver that always says the same."""

    name: str
    status: Status

    def solve(self, text: str, timeout_s: float) -> Answer:
        """Say it."""
        return Answer(self.status, 0.0)


@pytest.mark.parametrize(
    ("first", "second", "finding"),
    [
        (Status.UNSAT, Status.UNSAT, Finding.IMPOSSIBLE),
        (Status.SAT, Status.SAT, Finding.POSSIBLE),
        (Status.UNSAT, Status.SAT, Finding.DISAGREEMENT),
        (Status.UNSAT, Status.UNKNOWN, Finding.UNKNOWN),
        (Status.UNKNOWN, Status.SAT, Finding.UNKNOWN),
        (Status.TIMEOUT, Status.UNSAT, Finding.TIMEOUT),
        (Status.TIMEOUT, Status.UNKNOWN, Finding.TIMEOUT),
        (Status.CRASH, Status.UNSAT, Finding.CRASH),
        (Status.CRASH, Status.TIMEOUT, Finding.CRASH),
    ],
)
def test_only_agreement_is_an_answer(first: Status, second: Status, finding: Finding) -> None:
    outcome = discharge(TRUE_CLAIM, [Saying("one", first), Saying("two", second)])
    assert outcome.finding is finding
    assert outcome.as_expected == (finding is Finding.IMPOSSIBLE)


def test_a_true_claim_is_proved_by_both_solvers() -> None:
    outcome = discharge(TRUE_CLAIM, default_solvers())
    assert outcome.as_expected
    assert {name: answer.status for name, answer in outcome.answers.items()} == {"z3": "unsat", "cvc5": "unsat"}


def test_a_false_claim_has_a_counterexample() -> None:
    outcome = discharge(claim("x < 5", [("x is positive", at_least(X, 1))], less(X, 5)), default_solvers())
    assert outcome.finding is Finding.POSSIBLE
    assert not outcome.as_expected
    assert outcome.numbers["x"] >= 5


def test_a_counterexample_that_needs_a_wrong_product_is_called_spurious() -> None:
    outcome = discharge(claim("a square is not negative", [], at_least(X * X, 0)), default_solvers())
    assert outcome.finding is Finding.SPURIOUS
    assert not outcome.as_expected


def test_sign_facts_make_true_claims_about_products_provable() -> None:
    positive = [("x and y are positive", all_of(at_least(X, 1), at_least(Y, 1)))]
    products = Products((X,), frozenset({"y"}))
    assert discharge(claim("x y > 0", positive, at_least(X * Y, 1), products), default_solvers()).as_expected


def test_hypotheses_that_contradict_each_other_are_not_satisfiable() -> None:
    contradiction = [("x is small", at_most(X, 0)), ("x is large", at_least(X, 1))]
    outcome = discharge(possible("vacuous", contradiction, TRUE), default_solvers())
    assert outcome.finding is Finding.IMPOSSIBLE
    assert not outcome.as_expected


def test_a_hard_question_times_out_and_is_not_taken_for_an_answer() -> None:
    # Twelve pigeons in eleven holes: linear, and far beyond the patience of either solver.
    pigeons = [Poly.unknown(f"pigeon {k}") for k in range(12)]
    holes = [("each sits in a hole", all_of(*(between(1, pigeon, 11) for pigeon in pigeons)))]
    alone = all_of(*(Not(equal(one, other)) for one, other in combinations(pigeons, 2)))
    outcome = discharge(possible("each in its own", holes, alone), default_solvers(), timeout_s=0.3)
    assert outcome.finding is Finding.TIMEOUT
    assert not outcome.as_expected


@pytest.mark.parametrize("solver", [Z3(), CVC5(check_proofs=True)])
def test_text_that_is_no_smtlib_is_a_crash_and_no_exception(solver: Z3 | CVC5) -> None:
    answer = solver.solve("(set-logic QF_LIA)\n(assert (> y 1))\n(check-sat)\n", 1)
    assert answer.status is Status.CRASH
    assert answer.complaint


def test_the_exported_file_is_what_the_solvers_read(tmp_path: Path) -> None:
    obligation = claim("x < 5", [("x is positive", at_least(X, 1)), ("a flag", Flag("f is queued"))], less(X, 5))
    path = write_smt2(obligation, tmp_path, "T0")
    text = path.read_text()
    assert text == export(obligation)
    assert path.name == "t0-x-5.smt2"
    assert "; x is positive" in text
    assert "|f is queued|" in text
    assert Z3().solve(text, 1).status is Status.SAT
