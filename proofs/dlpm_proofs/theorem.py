"""What a theorem is here: a sentence with its source and hypotheses, the obligations that prove it, and its controls.

A theorem is believed only if all of this comes out: every obligation, with both solvers; every demonstration, replayed
on the reference itself; and every mutant of the algorithm fails, so that the proof is known to notice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dlpm_proofs.solve import Expectation, Finding, Obligation, Outcome, discharge_text, export
from dlpm_proofs.solvers import Solver
from dlpm_proofs.witness import Demonstration


class Verdict(StrEnum):
    """What is known about a claim."""

    PROVED = "proved"
    REFUTED = "refuted"
    UNKNOWN = "unknown"


Obligations = Callable[[], Iterable[Obligation]]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A changed algorithm, on which some claim among ``obligations`` must have a counterexample.

    It is looked for with the parameters ``given``, so that products are real ones.
    """

    name: str
    sentence: str
    obligations: Obligations
    given: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Theorem:
    """A claim and everything that decides it.

    Attributes:
        id: as in the table of verdicts; cases follow a slash.
        title: a few words.
        source: where the paper says so.
        statement: the claim in one English sentence.
        hypotheses: what it needs, each in a few words.
        expected: the verdict that the obligations and demonstrations establish when all of them come out.
        checked: what is machine-checked.
        argued: what is argued in words only.
        obligations: what both solvers must find.
        demonstrations: runs of the reference that must show what they say.
        mutants: changes of the algorithm that must be noticed.
    """

    id: str
    title: str
    source: str
    statement: str
    hypotheses: tuple[str, ...]
    expected: Verdict
    checked: str
    argued: str
    obligations: Obligations
    demonstrations: Callable[[], Sequence[Demonstration]] = tuple
    mutants: tuple[Mutant, ...] = ()


@dataclass(frozen=True, slots=True)
class MutantResult:
    """What became of a mutant: the obligation that it fails, or ``None`` if nothing noticed it."""

    mutant: Mutant
    failed: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Result:
    """A theorem with all that was found out about it."""

    theorem: Theorem
    outcomes: tuple[Outcome, ...]
    demonstrations: tuple[Demonstration, ...]
    mutants: tuple[MutantResult, ...]
    seconds: float
    broken: str = ""

    def problems(self) -> tuple[str, ...]:
        """Why the verdict is not the expected one; empty if it is."""
        return (
            *((self.broken,) if self.broken else ()),
            *(f"{outcome.obligation.name}: {outcome.finding}" for outcome in self.outcomes if not outcome.as_expected),
            *(f"{shown.name}: not confirmed" for shown in self.demonstrations if not shown.confirmed),
            *(f"mutant {mutant.mutant.name}: not noticed" for mutant in self.mutants if mutant.failed is None),
        )

    @property
    def verdict(self) -> Verdict:
        """The expected verdict if everything came out, else `unknown`: nothing is concluded from a failed proof."""
        return Verdict.UNKNOWN if self.problems() else self.theorem.expected


class Prover:
    """Decides theorems with a set of solvers; an obligation that comes up twice is discharged once."""

    def __init__(self, solvers: Sequence[Solver], *, with_mutants: bool = True, fail_fast: bool = False) -> None:
        """``with_mutants`` also runs what must fail; ``fail_fast`` leaves a theorem at its first failure."""
        self._solvers = tuple(solvers)
        self._with_mutants = with_mutants
        self._fail_fast = fail_fast
        self._known: dict[str, Outcome] = {}

    def decide(self, theorem: Theorem) -> Result:
        """Discharge, replay and control one theorem."""
        started = time.perf_counter()
        outcomes, broken = self._outcomes(theorem)
        if broken or (self._fail_fast and not all(outcome.as_expected for outcome in outcomes)):
            return Result(theorem, outcomes, (), (), time.perf_counter() - started, broken)
        demonstrations = _shown(theorem)
        mutants = tuple(self._try(mutant) for mutant in theorem.mutants) if self._with_mutants else ()
        return Result(theorem, outcomes, demonstrations, mutants, time.perf_counter() - started)

    def _outcomes(self, theorem: Theorem) -> tuple[tuple[Outcome, ...], str]:
        """Discharge the obligations; and what stopped the symbolic runs that make them, if something did."""
        outcomes: list[Outcome] = []
        try:
            for obligation in theorem.obligations():
                outcomes.append(self._discharge(obligation))
                if self._fail_fast and not outcomes[-1].as_expected:
                    break
        except Exception as error:  # a broken reference may do anything: that is a finding, not a failure of ours
            return tuple(outcomes), f"the symbolic run of the reference ends in {error!r}"
        return tuple(outcomes), ""

    def _discharge(self, obligation: Obligation) -> Outcome:
        """Discharge an obligation, or remember it."""
        text = export(obligation)
        if text not in self._known:
            self._known[text] = discharge_text(obligation, text, self._solvers)
        return self._known[text]

    def _try(self, mutant: Mutant) -> MutantResult:
        """Find the first claim that a mutant fails: there must be a counterexample, a solver that gives up is none."""
        started = time.perf_counter()
        for obligation in mutant.obligations():
            if obligation.expect is not Expectation.NEVER:
                continue
            outcome = self._discharge(obligation.given(mutant.given))
            if outcome.finding is Finding.POSSIBLE:
                return MutantResult(mutant, obligation.name, time.perf_counter() - started)
        return MutantResult(mutant, None, time.perf_counter() - started)


def _shown(theorem: Theorem) -> tuple[Demonstration, ...]:
    """Replay the demonstrations of a theorem; one that raises is not confirmed."""
    try:
        return tuple(theorem.demonstrations())
    except Exception as error:  # a broken reference may raise anything: that is a finding, not a failure of ours
        return (Demonstration(f"a run ends in {error!r}", (), False),)
