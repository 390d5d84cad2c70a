"""The tester's own controls: equal engines do not differ, broken ones do, and what is counted was really there.

A tester that finds nothing is of interest only if it would find something. Whoever doubts a campaign runs these first
(`dlpm diff --controls`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, count

from dlpm.arrivals import Arrivals
from dlpm.errors import InputError
from dlpm.events import Finish, Order, Preempt
from dlpm.jsonl import JsonValue
from dlpm_engine.adapter import EngineAdapter
from dlpm_engine.differential.case import Case
from dlpm_engine.differential.corpus import corpus
from dlpm_engine.differential.engines import FAULT_MARK, REFERENCE, TENSOR, make_engine
from dlpm_engine.differential.generate import generate
from dlpm_engine.differential.hunt import Settings, smallest
from dlpm_engine.differential.hunt import compare as compare_with_reference
from dlpm_engine.differential.lockstep import Outcome

FAULT_SECONDS = 60.0
"""A planted fault must be found within this time."""

FEW_REQUESTS = 6
"""A planted fault must be shown by so few requests."""

_CLEAN_CASES = 100
_SEED = 0

Compare = Callable[[Case, EngineAdapter, Settings], Outcome]
"""The comparison under control."""


@dataclass(frozen=True, slots=True)
class Control:
    """What came of one control."""

    name: str
    passed: bool
    detail: str
    seconds: float

    def to_json(self) -> dict[str, JsonValue]:
        """As `dlpm diff --controls --json` writes it."""
        return {
            "name": self.name,
            "passed": self.passed,
            "detail": self.detail,
            "seconds": round(self.seconds, 3),
        }


def run_controls(
    faults: Iterable[str],
    compare: Compare = compare_with_reference,
    *,
    clean_cases: int = _CLEAN_CASES,
    fault_seconds: float = FAULT_SECONDS,
) -> Iterator[Control]:
    """Run all controls: the two clean pairs, the count, and each of ``faults`` (names of `faults.FAULTS`).

    ``compare`` is the comparison under control. Faults are looked for in the corpus, and then in the cases of one seed.
    """
    cases = [generate(_SEED, number) for number in range(clean_cases)]
    yield _clean("the reference against itself", REFERENCE, cases, compare)
    yield _clean("the tensor path against the reference", TENSOR, cases, compare)
    for fault in faults:
        yield _fault(fault, compare, fault_seconds)


def _clean(name: str, engine: str, cases: Iterable[Case], compare: Compare) -> Control:
    """Equal engines do not differ, and every decision that the reference makes has been compared."""
    started = time.monotonic()
    divergences = compared = made = 0
    for case in cases:
        outcome = compare(case, make_engine(engine), Settings(engine))
        divergences += outcome.divergence is not None
        if not outcome.out_of_range:
            compared += outcome.tally.decisions()
            made += decisions_made(case)
    passed = divergences == 0 and compared == made and made > 0
    detail = f"{divergences} divergences, {compared:,} of {made:,} decisions compared"
    return Control(name, passed, detail, time.monotonic() - started)


def decisions_made(case: Case) -> int:
    """The decisions that the reference makes in a case, counted without the tester: events, and requests left waiting.

    O(the case).
    """
    reference = make_engine(REFERENCE)
    reference.configure(case.config, full_log=False)
    arrivals = Arrivals(case.requests)
    requests = {request.id: request for request in case.requests}
    now_us = decisions = 0
    busy = False
    while busy or arrivals.next_us() is not None:
        now_us = now_us if busy else max(now_us, arrivals.next_us() or 0)
        for _, request in arrivals.take_due(now_us):
            try:
                reference.submit(request)
            except InputError:
                continue
        now_us += case.step_us
        for event in reference.step():
            decisions += 0 if isinstance(event, Order) else 1
            # A preempted request waits again, but nobody passed it over.
            decisions -= isinstance(event, Preempt)
            if isinstance(event, Finish):
                arrivals.finished(requests[event.request], now_us)
        state = reference.snapshot()
        decisions += len(state.queue)
        busy = bool(state.queue or state.running)
    return decisions


def _fault(fault: str, compare: Compare, seconds: float) -> Control:
    """A planted fault is found in time, and shown by few requests."""
    settings = Settings(f"{TENSOR}{FAULT_MARK}{fault}")
    started = time.monotonic()
    number = 0
    for case in chain(corpus().values(), (generate(_SEED, place) for place in count())):
        if time.monotonic() - started > seconds:
            break
        number += 1
        if compare(case, make_engine(settings.engine), settings).divergence is not None:
            found = time.monotonic() - started
            small, _ = smallest(case, settings)
            few = len(small.requests) <= FEW_REQUESTS
            detail = f"found in case {number} after {found:.1f} s, shown by {len(small.requests)} requests"
            return Control(f"planted: {fault}", few, detail, time.monotonic() - started)
    detail = f"not found in {number} cases"
    return Control(f"planted: {fault}", False, detail, time.monotonic() - started)
