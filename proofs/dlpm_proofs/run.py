"""Decide theorems, on several processes, and write what was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dlpm.errors import InputError
from dlpm_proofs.solve import default_solvers, write_smt2
from dlpm_proofs.theorem import Prover, Result, Theorem
from dlpm_proofs.theorems import THEOREMS


def chosen(names: Sequence[str]) -> tuple[Theorem, ...]:
    """The theorems of these ids, in the order of the table; ``T3`` stands for all its cases, no name for everything.

    Raises:
        InputError: no theorem has that id.
    """
    for name in names:
        if not any(_named(theorem, name) for theorem in THEOREMS):
            known = ", ".join(dict.fromkeys(theorem.id.partition("/")[0] for theorem in THEOREMS))
            raise InputError(
                f"expected one of {known} or a case such as {THEOREMS[1].id}, found {name!r}", field="theorem"
            )
    return tuple(theorem for theorem in THEOREMS if not names or any(_named(theorem, name) for name in names))


def _named(theorem: Theorem, name: str) -> bool:
    """``name`` is the theorem's id, or the part before its case; letters of either size."""
    wanted = name.casefold()
    return wanted in (theorem.id.casefold(), theorem.id.partition("/")[0].casefold())


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done: whether mutants are tried, and whether a theorem is left at its first failure."""

    with_mutants: bool = True
    fail_fast: bool = False


THOROUGH = Effort()


def decide_all(theorems: Sequence[Theorem], *, jobs: int, effort: Effort = THOROUGH) -> Iterator[Result]:
    """Decide theorems on ``jobs`` processes, and yield the results in order."""
    if jobs <= 1 or len(theorems) <= 1:
        yield from (_prover(effort).decide(theorem) for theorem in theorems)
        return
    with ProcessPoolExecutor(jobs) as pool:
        futures = [pool.submit(_decide, theorem.id, effort) for theorem in theorems]
        yield from (future.result() for future in futures)


@cache
def _prover(effort: Effort) -> Prover:
    """The prover of this process: it remembers what it has discharged."""
    return Prover(default_solvers(), with_mutants=effort.with_mutants, fail_fast=effort.fail_fast)


def _decide(theorem_id: str, effort: Effort) -> Result:
    """Decide one theorem in a process that may already have decided others."""
    return _prover(effort).decide(next(theorem for theorem in THEOREMS if theorem.id == theorem_id))


def write_all_smt2(results: Sequence[Result], folder: Path) -> int:
    """Write every obligation into ``folder``; returns how many files."""
    folder.mkdir(parents=True, exist_ok=True)
    return len(
        {write_smt2(outcome.obligation, folder, result.theorem.id) for result in results for outcome in result.outcomes}
    )


def write_witnesses(results: Sequence[Result], folder: Path) -> dict[str, Path]:
    """Write workload and event log of every demonstration that has one; returns the first log of each theorem."""
    folder.mkdir(parents=True, exist_ok=True)
    first: dict[str, Path] = {}
    for result in results:
        for number, shown in enumerate((s for s in result.demonstrations if s.replay is not None), start=1):
            assert shown.replay is not None
            stem = f"{result.theorem.id.replace('/', '-').replace('*', '-tight').lower()}-{number}"
            _, log = shown.replay.write(folder, stem)
            if shown.drawing:
                (folder / f"{stem}.svg").write_text(shown.drawing, encoding="utf-8")
            first.setdefault(result.theorem.id, log)
    return first
