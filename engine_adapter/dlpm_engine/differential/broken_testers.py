"""Faults planted in the tester on purpose: the controls must fail on each of these testers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from dlpm_engine.adapter import EngineAdapter
from dlpm_engine.differential.case import Case
from dlpm_engine.differential.controls import Compare, Control, run_controls
from dlpm_engine.differential.engines import FAULT_MARK, REFERENCE, TENSOR, make_engine
from dlpm_engine.differential.hunt import Settings, compare
from dlpm_engine.differential.lockstep import Outcome

_CASES = 10
_FAULT = "one-pass"
_FAULT_SECONDS = 2.0


def _compares_nothing(case: Case, engine: EngineAdapter, settings: Settings) -> Outcome:
    """Says that all is well."""
    del case, engine, settings
    return Outcome()


def _compares_the_reference_alone(case: Case, engine: EngineAdapter, settings: Settings) -> Outcome:
    """Counts every decision, and never asks the engine under test."""
    del engine
    return compare(case, make_engine(REFERENCE), settings)


def _looks_at_the_first_step_alone(case: Case, engine: EngineAdapter, settings: Settings) -> Outcome:
    """Overlooks all that differs later."""
    outcome = compare(case, engine, settings)
    if outcome.divergence is not None and outcome.divergence.step > 1:
        return Outcome()
    outcome.tally.passed_over = 0
    return outcome


def _always_complains(case: Case, engine: EngineAdapter, settings: Settings) -> Outcome:
    """Finds a difference whatever the engine does."""
    del engine
    return compare(case, make_engine(f"{TENSOR}{FAULT_MARK}{_FAULT}"), settings)


BROKEN_TESTERS: Mapping[str, Compare] = {
    "compares-nothing": _compares_nothing,
    "compares-the-reference-alone": _compares_the_reference_alone,
    "looks-at-the-first-step-alone": _looks_at_the_first_step_alone,
    "always-complains": _always_complains,
}
"""Testers with a fault, by name."""


def run_tester_controls() -> Iterator[Control]:
    """Give two clean pairs and a planted fault to each broken tester: one of these controls at least must fail."""
    for name, broken in BROKEN_TESTERS.items():
        started = time.monotonic()
        results = list(run_controls((_FAULT,), broken, clean_cases=_CASES, fault_seconds=_FAULT_SECONDS))
        failed = [control.name for control in results if not control.passed]
        detail = f"caught by {', '.join(failed)}" if failed else f"not caught by any of {len(results)} controls"
        yield Control(f"planted in the tester: {name}", bool(failed), detail, time.monotonic() - started)
