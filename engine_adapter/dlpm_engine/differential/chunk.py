"""A chunk of a campaign: some cases one after the other, and what came of them as plain data."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from dlpm.errors import InputError
from dlpm.jsonl import JsonValue
from dlpm_engine.differential.case import Case, write_case
from dlpm_engine.differential.corpus import corpus
from dlpm_engine.differential.coverage import Coverage
from dlpm_engine.differential.engines import CPU, batched_engine
from dlpm_engine.differential.generate import generate
from dlpm_engine.differential.hunt import Settings, run_case, smallest
from dlpm_engine.differential.lockstep import Divergence, Outcome
from dlpm_engine.differential.record import Tally
from dlpm_engine.differential.report import as_json, report

CASES = 50
"""Generated cases of one chunk, of an engine that runs one case at a time."""

BATCHED_CASES = 500
"""Generated cases of one chunk, of an engine that runs many at once: enough to find some of like size among them."""

CORPUS = 0
"""The chunk that is the corpus; chunk ``k`` > 0 holds the generated cases ``(k - 1) * size`` and on, ``size`` as
`chunk_size` says."""

# On the CPU, instances of like size cost as much as as many alone beyond this; on a GPU all of a chunk go together.
_TOGETHER_ON_CPU = 25
_PATIENCE = 30


@dataclass(slots=True)
class ChunkResult:
    """What came of one chunk; everything in it can be written as JSON.

    Attributes:
        number: of the chunk.
        tally: how much was compared.
        kinds: for each kind of decision, how many cases reached it.
        out_of_range: cases that ended where the algorithm leaves int64, and the engine said so.
        unfinished: names of cases on which the reference took too long.
        seconds: how long it took.
        cpu_seconds: processor time of that; on a shared machine it says more.
        found: the first divergence, made small, with its report; the chunk ends there.
    """

    number: int
    tally: Tally = field(default_factory=Tally)
    kinds: Counter[str] = field(default_factory=Counter)
    out_of_range: int = 0
    unfinished: list[str] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    found: dict[str, JsonValue] | None = None

    def add(self, other: ChunkResult) -> None:
        """Add what another chunk brought; the first divergence stays."""
        self.tally.add(other.tally)
        self.kinds.update(other.kinds)
        self.out_of_range += other.out_of_range
        self.unfinished += other.unfinished
        self.seconds += other.seconds
        self.cpu_seconds += other.cpu_seconds
        self.found = self.found or other.found

    def to_json(self) -> dict[str, JsonValue]:
        """As a line of a journal."""
        return {
            "chunk": self.number,
            "tally": dict(asdict(self.tally)),
            "kinds": dict(sorted(self.kinds.items())),
            "out_of_range": self.out_of_range,
            "unfinished": list(self.unfinished),
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self.cpu_seconds, 3),
            "found": self.found,
        }


def chunk_from_json(values: Mapping[str, JsonValue]) -> ChunkResult:
    """The inverse of `ChunkResult.to_json`.

    Raises:
        InputError: that is not what it wrote.
    """
    number, tally, kinds = values.get("chunk"), values.get("tally"), values.get("kinds")
    out_of_range, unfinished, found = values.get("out_of_range"), values.get("unfinished"), values.get("found")
    seconds, cpu_seconds = values.get("seconds"), values.get("cpu_seconds")
    if not (
        isinstance(number, int)
        and isinstance(tally, dict)
        and isinstance(kinds, dict)
        and isinstance(out_of_range, int)
        and isinstance(unfinished, list)
        and isinstance(seconds, int | float)
        and isinstance(cpu_seconds, int | float)
        and (found is None or isinstance(found, dict))
    ):
        raise InputError("expected the result of a finished chunk")
    counts = {name: value for name, value in tally.items() if isinstance(value, int)}
    reached = {name: value for name, value in kinds.items() if isinstance(value, int)}
    if counts.keys() != asdict(Tally()).keys() or len(reached) != len(kinds):
        raise InputError("expected the counts of a finished chunk")
    names = [str(name) for name in unfinished]
    times = float(seconds), float(cpu_seconds)
    return ChunkResult(number, Tally(**counts), Counter(reached), out_of_range, names, *times, found)


def chunk_size(engine: str) -> int:
    """Generated cases of one chunk of an engine."""
    batched = batched_engine(engine)
    if batched is None or batched.is_interpreted():
        return CASES
    return BATCHED_CASES


def cases_of(number: int, seed: int, size: int) -> Iterable[Case]:
    """The cases of a chunk; ``size`` is that of every chunk but the corpus."""
    if number == CORPUS:
        yield from corpus().values()
        return
    for place in range((number - 1) * size, number * size):
        yield generate(seed, place)


def run_chunk(
    cases: Iterable[Case], number: int, settings: Settings, save: Path | None, *, is_small: bool = False
) -> ChunkResult:
    """Run cases until they are over or one diverges; it is made small and saved under ``save``, unless ``is_small``.

    Raises:
        InputError: the engine or mode does not exist, the engine refuses parameters, or ``save`` cannot be written.
    """
    result = ChunkResult(number)
    started, cpu_started = time.monotonic(), time.process_time()
    for case, coverage, outcome in _outcomes(cases, settings):
        result.tally.add(outcome.tally)
        result.kinds.update(coverage.reached)
        result.out_of_range += outcome.out_of_range
        if outcome.unfinished:
            result.unfinished.append(case.name)
        if outcome.divergence is not None:
            if is_small:
                result.found = described(case, outcome.divergence, settings, None)
            else:
                result.found = _made_small(case, outcome.divergence, settings, save)
            break
    result.seconds, result.cpu_seconds = time.monotonic() - started, time.process_time() - cpu_started
    return result


def _outcomes(cases: Iterable[Case], settings: Settings) -> Iterator[tuple[Case, Coverage, Outcome]]:
    """Compare on each case: one after the other, or many at once where the engine schedules many instances.

    Those that go together are of like size: all of them take as many steps as the longest. An interpreted kernel runs
    one after the other, and each may take `_PATIENCE` times as long.
    """
    batched = batched_engine(settings.engine)
    if batched is None:
        for case in cases:
            coverage = Coverage(case.config, case.requests)
            yield case, coverage, run_case(case, settings, coverage)
        return
    from dlpm_engine.differential.together import compare_together

    everyone = sorted(cases, key=lambda case: sum(request.output_tokens for request in case.requests))
    many = _TOGETHER_ON_CPU if batched.device == CPU else len(everyone)
    if batched.is_interpreted():
        many, settings = 1, replace(settings, case_seconds=_PATIENCE * settings.case_seconds)
    for first in range(0, len(everyone), max(1, many)):
        group = everyone[first : first + many]
        coverages = [Coverage(case.config, case.requests) for case in group]
        yield from zip(group, coverages, compare_together(group, batched, settings, coverages), strict=True)


def _made_small(case: Case, seen: Divergence, settings: Settings, save: Path | None) -> dict[str, JsonValue]:
    """Shrink a case, save it, and describe the divergence; as it was seen if it does not show on the case alone."""
    small, outcome = smallest(case, settings)
    again = outcome.divergence
    return described(small, again or seen, settings, _saved(small, settings, save), repeats=again is not None)


def described(
    case: Case, divergence: Divergence, settings: Settings, file: Path | None, *, repeats: bool = True
) -> dict[str, JsonValue]:
    """A divergence as plain data, its report for people included."""
    text = report(case, divergence, settings.engine, file, repeats=repeats)
    values = as_json(case, divergence, settings.engine, file, repeats=repeats)
    assert isinstance(values, dict)
    return {**values, "report": text}


def _saved(case: Case, settings: Settings, save: Path | None) -> Path | None:
    """The file that reproduces a case."""
    if save is None:
        return None
    words = "".join(letter if letter.isalnum() else "-" for letter in f"{settings.engine} {case.name}")
    path = save / f"{words.strip('-')}.jsonl"
    write_case(path, case)
    return path
