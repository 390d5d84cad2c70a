"""The two solvers behind one small face: SMT-LIB 2 text in, an answer out.

Z3 runs in process, and also prunes the paths of explorations. cvc5 reads the same text with its own parser. This file
is the only one that touches the solvers' untyped Python bindings.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from itertools import chain
from typing import Protocol

import cvc5  # type: ignore[import-untyped]
import z3  # type: ignore[import-untyped]

from dlpm_proofs.terms import And, AtMostZero, Flag, Formula, IsZero, Not, Or, Poly, product_name


class Status(StrEnum):
    """What one solver said."""

    UNSAT = "unsat"
    SAT = "sat"
    UNKNOWN = "unknown"
    TIMEOUT = "timeout"
    CRASH = "crash"


@dataclass(frozen=True, slots=True)
class Answer:
    """One solver's answer: its status, how long it took, the model if there is one, and what it complained of."""

    status: Status
    seconds: float
    numbers: Mapping[str, int] = field(default_factory=dict)
    truths: Mapping[str, bool] = field(default_factory=dict)
    complaint: str = ""


class Solver(Protocol):
    """Decides the satisfiability of SMT-LIB 2 text."""

    @property
    def name(self) -> str:
        """Name in tables and JSON."""

    def solve(self, text: str, timeout_s: float) -> Answer:
        """Decide ``text`` within ``timeout_s`` seconds; failures are answers, never exceptions."""


class Z3:
    """Z3, in process."""

    name = "z3"

    def solve(self, text: str, timeout_s: float) -> Answer:
        """Decide ``text``; a model's values are given for the plain unknowns and flags."""
        started = time.perf_counter()
        try:
            solver = z3.Solver()
            solver.set("timeout", int(timeout_s * 1000))
            solver.from_string(text)
            status = _status(str(solver.check()), str(solver.reason_unknown()))
            numbers: dict[str, int] = {}
            truths: dict[str, bool] = {}
            if status is Status.SAT:
                model = solver.model()
                for declaration in model.decls():
                    value = model[declaration]
                    if z3.is_int_value(value):
                        numbers[declaration.name()] = value.as_long()
                    else:
                        truths[declaration.name()] = z3.is_true(value)
            return Answer(status, time.perf_counter() - started, numbers, truths)
        except z3.Z3Exception as error:
            return Answer(Status.CRASH, time.perf_counter() - started, complaint=str(error))


class CVC5:
    """cvc5, reading the exported text with its own parser; with ``check_proofs`` it also checks its own proofs."""

    name = "cvc5"

    def __init__(self, *, check_proofs: bool) -> None:
        """Checking a proof costs about as much again as finding it."""
        self._check_proofs = check_proofs

    def solve(self, text: str, timeout_s: float) -> Answer:
        """Decide ``text``; no model is read back, Z3's is the one that gets replayed."""
        started = time.perf_counter()
        try:
            solver = cvc5.Solver(cvc5.TermManager())
            solver.setOption("tlimit-per", str(int(timeout_s * 1000)))
            if self._check_proofs:
                solver.setOption("produce-proofs", "true")
                solver.setOption("check-proofs", "true")
            parser = cvc5.InputParser(solver)
            parser.setStringInput(cvc5.InputLanguage.SMT_LIB_2_6, text, "obligation")
            said = ""
            while not (command := parser.nextCommand()).isNull():
                said += command.invoke(solver, parser.getSymbolManager())
            return Answer(_status(said.strip(), said), time.perf_counter() - started, complaint=_complaint(said))
        except RuntimeError as error:
            return Answer(Status.CRASH, time.perf_counter() - started, complaint=str(error).strip())


def _status(word: str, reason: str) -> Status:
    """Read a solver's one-word answer; a word that is not one is a crash."""
    if word in ("sat", "unsat"):
        return Status(word)
    if word.startswith("unknown") or word == "timeout":
        return Status.TIMEOUT if "timeout" in (word + reason).lower() or "canceled" in reason else Status.UNKNOWN
    return Status.CRASH


def _complaint(said: str) -> str:
    """What to show of an answer that is none."""
    return "" if said.strip() in ("sat", "unsat", "unknown") else said.strip()


class Feasibility:
    """Z3, asked many small questions under a growing and shrinking stack of assumptions."""

    def __init__(self, assumptions: Iterable[Formula]) -> None:
        """Start with what always holds."""
        self._solver = z3.SolverFor("QF_LIA")
        for formula in assumptions:
            self.assume(formula)

    def assume(self, formula: Formula) -> None:
        """Add an assumption until the matching `pop`."""
        self._solver.add(_z3(formula))

    def push(self) -> None:
        """Remember the assumptions."""
        self._solver.push()

    def pop(self) -> None:
        """Forget the assumptions since the last `push`."""
        self._solver.pop()

    def possible(self, formula: Formula) -> bool:
        """False only if ``formula`` contradicts the assumptions; a solver that gives up counts as "possible"."""
        return bool(self._solver.check(_z3(formula)) != z3.unsat)


@cache
def _z3(formula: Formula) -> z3.BoolRef:
    """``formula`` as a Z3 term. Remembered: explorations ask about the same comparisons on every path."""
    match formula:
        case AtMostZero(inner):
            return _z3_sum(inner) <= 0
        case IsZero(inner):
            return _z3_sum(inner) == 0
        case Flag(name):
            return z3.Bool(name)
        case Not(negated):
            return z3.Not(_z3(negated))
        case And(formulas):
            return z3.And([_z3(part) for part in formulas])
        case Or(formulas):
            return z3.Or([_z3(part) for part in formulas])


def _z3_sum(inner: Poly) -> z3.ArithRef:
    """A polynomial as a linear Z3 term over products' names."""
    return z3.Sum(
        *chain(
            (z3.IntVal(0),),
            (
                value * z3.Int(product_name(monomial)) if monomial else z3.IntVal(value)
                for monomial, value in inner.parts
            ),
        )
    )
