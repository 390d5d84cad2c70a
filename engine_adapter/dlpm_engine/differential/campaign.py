"""A campaign: the corpus and as many generated cases as asked for, on an engine, in several processes, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dlpm.jsonl import JsonValue
from dlpm_engine.differential.chunk import CORPUS, ChunkResult, cases_of, chunk_size, run_chunk
from dlpm_engine.differential.hunt import Settings
from dlpm_engine.differential.journal import Journal
from dlpm_engine.differential.kinds import KINDS
from dlpm_engine.differential.pool import HerePool, Pool, ProcessPool, RayPool

ENOUGH_CASES = 1000
"""From so many cases on, a campaign must have reached every kind of decision."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a campaign does.

    Attributes:
        settings: engine, mode and limits.
        seed: of the generated cases.
        cases: generated cases at least, in whole chunks, or ``None`` to go on until ``seconds`` are over.
        seconds: begin no chunk after so many seconds; ``None``: no limit.
        jobs: processes.
        journal: file of finished chunks, or ``None``.
        save: folder for the cases that diverge, or ``None``.
        ray: run on a Ray cluster.
        least_kinds: kinds of decision that must be reached; ``None``: all of them from `ENOUGH_CASES` cases on.
    """

    settings: Settings
    seed: int = 0
    cases: int | None = ENOUGH_CASES
    seconds: float | None = None
    jobs: int = 1
    journal: Path | None = None
    save: Path | None = None
    ray: bool = False
    least_kinds: int | None = None

    def kinds_required(self, cases: int) -> int:
        """Kinds of decision that must be reached by ``cases`` cases."""
        if self.least_kinds is not None:
            return self.least_kinds
        return len(KINDS) if cases >= ENOUGH_CASES else 0


@dataclass(slots=True)
class Summary:
    """What came of a campaign. ``wall_seconds`` is this run's time, ``resumed`` how many chunks earlier runs did."""

    total: ChunkResult
    wall_seconds: float
    resumed: int
    required: int

    def never_reached(self) -> list[str]:
        """Kinds of decision that no case reached."""
        return [kind for kind in KINDS if not self.total.kinds[kind]]

    def sound(self) -> bool:
        """No divergence, something compared, and enough kinds of decision reached."""
        reached = len(KINDS) - len(self.never_reached())
        return self.total.found is None and self.total.tally.decisions() > 0 and reached >= self.required

    def to_json(self) -> dict[str, JsonValue]:
        """As `dlpm diff --json` writes it."""
        values = self.total.to_json()
        del values["chunk"]
        kinds: dict[str, JsonValue] = {kind: self.total.kinds[kind] for kind in KINDS}
        return {
            "schema": "dlpm.diff/1",
            "sound": self.sound(),
            "decisions": self.total.tally.decisions(),
            **values,
            "kinds": kinds,
            "never_reached": list(self.never_reached()),
            "kinds_required": self.required,
            "wall_seconds": round(self.wall_seconds, 3),
            "resumed_chunks": self.resumed,
        }


def run_campaign(plan: Plan, on_progress: Callable[[ChunkResult], None] | None = None) -> Summary:
    """Run a campaign to its end, or to the first divergence. ``on_progress`` is told the sum after each chunk.

    Raises:
        InputError: the engine, mode or journal is refused.
        WorkerDiedError: a process died.
    """
    started = time.monotonic()
    total = ChunkResult(CORPUS)
    with ExitStack() as stack:
        journal = None
        if plan.journal is not None:
            journal = stack.enter_context(Journal(plan.journal, _identity(plan)))
            for chunk in journal.finished.values():
                total.add(chunk)
        known = set(journal.finished) if journal is not None else set()
        results = _pool(plan).results(
            partial(_work, plan=replace(plan, journal=None)), _chunks(plan, known, total, started)
        )
        for chunk in results:
            if journal is not None:
                journal.add(chunk)
            total.add(chunk)
            if on_progress is not None:
                on_progress(total)
    return Summary(total, time.monotonic() - started, len(known), plan.kinds_required(total.tally.cases))


def _identity(plan: Plan) -> dict[str, JsonValue]:
    """What makes two runs parts of one campaign."""
    settings = plan.settings
    excused: list[JsonValue] = [*sorted(settings.excused)]
    return {
        "engine": settings.engine,
        "mode": settings.mode,
        "excused": excused,
        "seed": plan.seed,
        "chunk_cases": chunk_size(settings.engine),
    }


def _pool(plan: Plan) -> Pool:
    """Where the chunks run."""
    if plan.ray:
        return RayPool()
    return HerePool() if plan.jobs == 1 else ProcessPool(plan.jobs)


def _chunks(plan: Plan, known: set[int], total: ChunkResult, started: float) -> Iterator[int]:
    """The chunks still to run; ends when something was found, or the time is over."""
    number = CORPUS
    size = chunk_size(plan.settings.engine)
    while plan.cases is None or number == CORPUS or (number - 1) * size < plan.cases:
        if total.found is not None:
            return
        if plan.seconds is not None and time.monotonic() - started > plan.seconds:
            return
        if number not in known:
            yield number
        number += 1


def _work(number: int, plan: Plan) -> ChunkResult:
    """Run one chunk of a plan."""
    cases = cases_of(number, plan.seed, chunk_size(plan.settings.engine))
    return run_chunk(cases, number, plan.settings, plan.save)
