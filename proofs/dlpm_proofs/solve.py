"""Obligations: what a theorem comes down to, decided by both solvers, each failure with a name of its own.

An obligation asks whether something is possible under named assumptions. *Never* obligations must be impossible (a
proof), *once* obligations must be possible (a hypothesis that is not vacuous, a bound that is reached, a
counterexample). A solver that gives up, crashes or contradicts the other is never taken for an answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from pathlib import Path as FilePath

from dlpm_proofs.solvers import CVC5, Z3, Answer, Solver, Status
from dlpm_proofs.terms import NO_PRODUCTS, Formula, Not, Products, atoms, flags, holds, product_name, smtlib, substitute

TIME_LIMIT_S = 10.0
"""No obligation may take longer than this with either solver."""

Named = tuple[str, Formula]
"""An assumption and what it is called."""


class Expectation(StrEnum):
    """What must be found out about an obligation."""

    NEVER = "never"
    ONCE = "once"


class Finding(StrEnum):
    """What was found out; only the first two are answers."""

    IMPOSSIBLE = "impossible"
    POSSIBLE = "possible"
    UNKNOWN = "unknown"
    TIMEOUT = "timeout"
    CRASH = "crash"
    DISAGREEMENT = "disagreement"
    SPURIOUS = "spurious"


@dataclass(frozen=True, slots=True)
class Obligation:
    """Is ``question`` possible under ``assumptions``? ``expect`` says what must come out.

    The sign facts of its ``products`` are added to the assumptions.
    """

    name: str
    assumptions: tuple[Named, ...]
    question: Formula
    expect: Expectation
    products: Products = NO_PRODUCTS

    def facts(self) -> tuple[Formula, ...]:
        """The sign facts that solvers get along."""
        return self.products.facts(self.formulas())

    def given(self, values: Mapping[str, int]) -> Obligation:
        """The obligation for these parameters only."""
        return Obligation(
            self.name,
            tuple((label, substitute(formula, values)) for label, formula in self.assumptions),
            substitute(self.question, values),
            self.expect,
            self.products.with_values(values),
        )

    def formulas(self) -> tuple[Formula, ...]:
        """Everything asserted but the sign facts."""
        return (*(formula for _, formula in self.assumptions), self.question)


@dataclass(frozen=True, slots=True)
class Outcome:
    """An obligation with both solvers' answers, and what they amount to."""

    obligation: Obligation
    answers: Mapping[str, Answer]
    finding: Finding
    numbers: Mapping[str, int] = field(default_factory=dict)
    truths: Mapping[str, bool] = field(default_factory=dict)

    @property
    def as_expected(self) -> bool:
        """The finding is the one that was called for."""
        wanted = Finding.IMPOSSIBLE if self.obligation.expect is Expectation.NEVER else Finding.POSSIBLE
        return self.finding is wanted


def claim(
    name: str,
    assumptions: Sequence[Named],
    goal: Formula,
    products: Products = NO_PRODUCTS,
) -> Obligation:
    """``goal`` follows from ``assumptions``."""
    return Obligation(name, tuple(assumptions), Not(goal), Expectation.NEVER, products)


def possible(
    name: str, assumptions: Sequence[Named], question: Formula, given: Mapping[str, int] | None = None
) -> Obligation:
    """The assumptions, and ``question``, can hold together; parameters are ``given`` where products must be real."""
    return Obligation(name, tuple(assumptions), question, Expectation.ONCE).given(given or {})


def default_solvers(*, check_proofs: bool = True) -> tuple[Solver, ...]:
    """Z3, and cvc5 checking its own proofs."""
    return (Z3(), CVC5(check_proofs=check_proofs))


def discharge(obligation: Obligation, solvers: Sequence[Solver], *, timeout_s: float = TIME_LIMIT_S) -> Outcome:
    """Ask every solver, and compare what they say."""
    return discharge_text(obligation, export(obligation), solvers, timeout_s=timeout_s)


def discharge_text(
    obligation: Obligation, text: str, solvers: Sequence[Solver], *, timeout_s: float = TIME_LIMIT_S
) -> Outcome:
    """The same, for an obligation whose ``text`` has been exported already."""
    answers = {solver.name: solver.solve(text, timeout_s) for solver in solvers}
    finding = _compare(answers)
    if finding is not Finding.POSSIBLE:
        return Outcome(obligation, answers, finding)
    model = next((answer for answer in answers.values() if answer.numbers or answer.truths), None)
    if model is None:
        return Outcome(obligation, answers, finding)
    names = set(chain.from_iterable(inner.names() for formula in obligation.formulas() for inner in atoms(formula)))
    numbers = {name: model.numbers.get(name, 0) for name in sorted(names)}
    if not all(holds(formula, numbers, model.truths) for formula in obligation.formulas()):
        return Outcome(obligation, answers, Finding.SPURIOUS, numbers, model.truths)
    return Outcome(obligation, answers, finding, numbers, model.truths)


def _compare(answers: Mapping[str, Answer]) -> Finding:
    """One finding from all answers: the worst failure, or what they agree on."""
    statuses = {answer.status for answer in answers.values()}
    for status, finding in (
        (Status.CRASH, Finding.CRASH),
        (Status.TIMEOUT, Finding.TIMEOUT),
        (Status.UNKNOWN, Finding.UNKNOWN),
    ):
        if status in statuses:
            return finding
    if len(statuses) != 1:
        return Finding.DISAGREEMENT
    return Finding.IMPOSSIBLE if statuses == {Status.UNSAT} else Finding.POSSIBLE


def export(obligation: Obligation) -> str:
    """The obligation as SMT-LIB 2: what both solvers read, and what `--smt2` writes."""
    facts = obligation.facts()
    everything = (*obligation.formulas(), *facts)
    compared = set(chain.from_iterable(atoms(formula) for formula in everything))
    products = {product_name(monomial) for inner in compared for monomial, _ in inner.parts if monomial}
    truths = set(chain.from_iterable(flags(formula) for formula in everything))
    wanted = "unsat" if obligation.expect is Expectation.NEVER else "sat"
    lines = [
        f"; {obligation.name}",
        "; a name such as |a*b| stands for that product; the facts about it are instances of the rule of signs",
        f"; expected: {wanted}",
        "(set-logic QF_LIA)",
        *(f"(declare-const |{name}| Int)" for name in sorted(products)),
        *(f"(declare-const |{name}| Bool)" for name in sorted(truths)),
    ]
    for name, formula in obligation.assumptions:
        lines += [f"; {name}", f"(assert {smtlib(formula)})"]
    for formula in facts:
        lines.append(f"(assert {smtlib(formula)})")
    lines += ["; is this possible?", f"(assert {smtlib(obligation.question)})", "(check-sat)", ""]
    return "\n".join(lines)


def write_smt2(obligation: Obligation, folder: FilePath, prefix: str) -> FilePath:
    """Write the obligation into ``folder`` as ``prefix`` and its name; returns the file."""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{prefix}-{obligation.name}".lower()).strip("-")
    path = folder / f"{slug}.smt2"
    path.write_text(export(obligation), encoding="utf-8")
    return path
