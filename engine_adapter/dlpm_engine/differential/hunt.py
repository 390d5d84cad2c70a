"""Run cases on an engine named in the settings, and make what was found small."""

from __future__ import annotations

import time
from dataclasses import dataclass

from dlpm_engine.adapter import EngineAdapter
from dlpm_engine.differential.case import Case
from dlpm_engine.differential.engines import REFERENCE, make_engine
from dlpm_engine.differential.generate import generate
from dlpm_engine.differential.lockstep import Comparison, Observer, Outcome
from dlpm_engine.differential.modes import LOCKSTEP
from dlpm_engine.differential.shrink import Fails, shrink

CASE_SECONDS = 20.0
"""After this an engine is taken to hang, or the reference to be no use on the case."""

_SHRINK_CASE_SECONDS = 2.0
_FEW = 6
_TO_SHRINK = 5.0
_OTHER_SEED = 1


@dataclass(frozen=True, slots=True)
class Settings:
    """How cases are run.

    Attributes:
        engine: name of the engine under test (`engines.make_engine`).
        mode: what must agree (`modes.MODES`).
        excused: declared differences of the engine.
        case_seconds: longest time for one case.
        shrink_seconds: longest time to make a found case small.
    """

    engine: str
    mode: str = LOCKSTEP
    excused: frozenset[str] = frozenset()
    case_seconds: float = CASE_SECONDS
    shrink_seconds: float = 30.0


def run_case(case: Case, settings: Settings, observer: Observer | None = None) -> Outcome:
    """Compare the engine under test with the reference on one case.

    Raises:
        InputError: there is no such engine or mode, or the engine refuses the parameters.
    """
    return compare(case, make_engine(settings.engine), settings, observer)


def compare(case: Case, engine: EngineAdapter, settings: Settings, observer: Observer | None = None) -> Outcome:
    """Compare ``engine`` with the reference on one case. Raises as `run_case`."""
    return Comparison(
        case,
        make_engine(REFERENCE),
        engine,
        mode=settings.mode,
        excused=settings.excused,
        observer=observer,
        seconds=settings.case_seconds,
    ).run()


def smallest(case: Case, settings: Settings) -> tuple[Case, Outcome]:
    """A small case on which the engine still differs, and what comes of it.

    The case itself, and no divergence, if the engine does not differ on it again: what it does then depends on the
    other instances that it schedules, or on chance.
    """
    started = time.monotonic()
    first = run_case(case, settings)
    if first.divergence is None:
        return case, first
    # An engine that is slow, or that compiles for sizes it has not seen, is as slow on smaller cases.
    longest = max(_SHRINK_CASE_SECONDS, time.monotonic() - started)
    quick = Settings(settings.engine, settings.mode, settings.excused, min(settings.case_seconds, longest))

    def differs(candidate: Case) -> bool:
        return run_case(candidate, quick).divergence is not None

    deadline = time.monotonic() + settings.shrink_seconds
    small = shrink(case, differs, settings.shrink_seconds / 3)
    if len(small.requests) > _FEW:
        small = _with_few_requests(differs, deadline) or small
    if len(small.requests) > _FEW:
        small = shrink(small, differs, max(0.0, deadline - time.monotonic()))
    outcome = run_case(small, settings)
    return (small, outcome) if outcome.divergence is not None else (case, first)


def _with_few_requests(differs: Fails, deadline: float) -> Case | None:
    """Another case, of few requests, on which the engine differs: shrinking alone can get stuck at many."""
    number = 0
    while time.monotonic() < deadline - _TO_SHRINK:
        case = generate(_OTHER_SEED, number, _FEW)
        if differs(case):
            return shrink(case, differs, _TO_SHRINK)
        number += 1
    return None
