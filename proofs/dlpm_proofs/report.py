"""Verdicts as people and machines read them: table rows, stories of counterexamples, JSON, JUnit."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from dlpm.jsonl import JsonValue
from dlpm_proofs.solvers import Status
from dlpm_proofs.theorem import Result, Theorem, Verdict
from dlpm_proofs.timeline import timeline

SCHEMA = "dlpm.verdicts/1"
HEADER = ("theorem", "claim", "source", "needs", "verdict", "z3 s", "cvc5 s", "proved", "shown", "mutants")
NEEDS_WIDTH = 36
WORDS = 5
"""So many columns are words, the others numbers."""
STORY_LINES = 12
"""A timeline longer than this is cut in the middle."""


def row(result: Result) -> tuple[str, ...]:
    """One line of the table."""
    theorem = result.theorem
    verdict = str(result.verdict) if not result.problems() else f"{result.verdict}, expected {theorem.expected}"
    good = sum(outcome.as_expected for outcome in result.outcomes)
    shown = sum(shown.confirmed for shown in result.demonstrations)
    noticed = sum(mutant.failed is not None for mutant in result.mutants)
    return (
        theorem.id,
        theorem.title,
        theorem.source,
        needs(theorem),
        verdict,
        *(f"{solver_seconds(result, name):.1f}" for name in ("z3", "cvc5")),
        f"{good}/{len(result.outcomes)}",
        f"{shown}/{len(result.demonstrations)}",
        f"{noticed}/{len(result.mutants)}",
    )


def needs(theorem: Theorem) -> str:
    """The first hypothesis, cut to a table's width, and how many more there are; `explain` has them all."""
    if not theorem.hypotheses:
        return "nothing"
    first, *others = theorem.hypotheses
    short = textwrap.shorten(first.partition(":")[0].partition(",")[0], NEEDS_WIDTH, placeholder=" ...")
    return f"{short} +{len(others)}" if others else short


def solver_seconds(result: Result, solver: str) -> float:
    """How long one solver worked for a theorem."""
    return sum(outcome.answers[solver].seconds for outcome in result.outcomes if solver in outcome.answers)


def solver_status(result: Result, solver: str) -> str:
    """`ok` if the solver answered every obligation as it must be answered, else its first other answer."""
    for outcome in result.outcomes:
        answer = outcome.answers.get(solver)
        if answer is not None and (answer.status not in (Status.SAT, Status.UNSAT) or not outcome.as_expected):
            return str(answer.status)
    return "ok"


def story(result: Result) -> tuple[str, ...]:
    """A refuted claim's counterexamples told in words, the first with its timeline; and whatever went wrong.

    Later ones vary the first: longer runs, other weights. `--witnesses` writes them all.
    """
    lines: list[str] = []
    if result.theorem.expected is Verdict.REFUTED:
        for number, shown in enumerate(result.demonstrations):
            lines += [f"{result.theorem.id}: {shown.name}", *(f"  {sentence}" for sentence in shown.story)]
            if shown.replay is not None and number == 0:
                lines += [f"    {line}" for line in _shortened(timeline(shown.replay.events))]
    if result.problems():
        lines += [f"{result.theorem.id}: not as expected ({result.theorem.expected})"]
        lines += [f"  {problem}" for problem in result.problems()]
        lines += _induction_note(result)
    return tuple(lines)


def _induction_note(result: Result) -> list[str]:
    """What a failed inductive step does and does not mean."""
    failed = [
        o for o in result.outcomes if not o.as_expected and o.numbers and "keeps the invariant" in o.obligation.name
    ]
    if not failed:
        return []
    state = ", ".join(f"{name} = {value}" for name, value in sorted(failed[0].numbers.items()))
    return [
        "  This is a counterexample to induction: a step out of the invariant, from a state that it allows.",
        "  Whether a run can reach that state is not known, so no violation is claimed.",
        *(f"    {line}" for line in textwrap.wrap(state, 100)),
    ]


def _shortened(lines: Sequence[str]) -> Sequence[str]:
    """Lines, without the middle if there are many."""
    if len(lines) <= STORY_LINES:
        return lines
    half = STORY_LINES // 2
    return (*lines[:half], f"... {len(lines) - 2 * half} more lines ...", *lines[-half:])


def explain(theorem: Theorem) -> tuple[str, ...]:
    """A theorem in words: statement, hypotheses, what is checked and what is argued."""
    return (
        f"{theorem.id}  {theorem.title}  {theorem.source}",
        f"  {theorem.statement}",
        f"  needs: {'; '.join(theorem.hypotheses)}",
        f"  checked: {theorem.checked}",
        f"  argued: {theorem.argued}",
    )


def verdicts(results: Sequence[Result], witnesses: Mapping[str, Path]) -> JsonValue:
    """The document `dlpm.verdicts/1`; ``witnesses`` are files by theorem."""
    return {"schema": SCHEMA, "theorems": [_entry(result, witnesses.get(result.theorem.id)) for result in results]}


def _entry(result: Result, witness: Path | None) -> JsonValue:
    """One theorem of the document."""
    theorem = result.theorem
    solvers: dict[str, JsonValue] = {
        name: {"status": solver_status(result, name), "seconds": round(solver_seconds(result, name), 3)}
        for name in ("z3", "cvc5")
    }
    return {
        "id": theorem.id,
        "title": theorem.title,
        "source": theorem.source,
        "statement": theorem.statement,
        "verdict": str(result.verdict),
        "expected": str(theorem.expected),
        "hypotheses": list(theorem.hypotheses),
        "checked": theorem.checked,
        "argued": theorem.argued,
        "solvers": solvers,
        "obligations": len(result.outcomes),
        "demonstrations": [{"name": shown.name, "confirmed": shown.confirmed} for shown in result.demonstrations],
        "mutants": [{"name": found.mutant.name, "failed": found.failed} for found in result.mutants],
        "problems": list(result.problems()),
        "seconds": round(result.seconds, 3),
        "witness": str(witness) if witness else None,
    }


def junit(results: Sequence[Result]) -> str:
    """The verdicts as a JUnit report: one test case a theorem."""
    failures = sum(bool(result.problems()) for result in results)
    suite = ElementTree.Element(
        "testsuite",
        name="dlpm verify",
        tests=str(len(results)),
        failures=str(failures),
        time=f"{sum(result.seconds for result in results):.3f}",
    )
    for result in results:
        theorem = result.theorem
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname="dlpm.verify",
            name=f"{theorem.id} {theorem.title}",
            time=f"{result.seconds:.3f}",
        )
        if result.problems():
            message = f"{result.verdict}, expected {theorem.expected}"
            failure = ElementTree.SubElement(case, "failure", message=message)
            failure.text = "\n".join(result.problems())
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
