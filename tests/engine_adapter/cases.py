"""Cases for tests of engines: drawn by Hypothesis, and driven without the differential tester."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import strategies as st

from dlpm.arrivals import Arrivals
from dlpm.errors import InputError
from dlpm.events import Event, Finish
from dlpm_engine.adapter import EngineAdapter, Snapshot
from dlpm_engine.differential.case import Case
from dlpm_engine.differential.generate import PROFILES, from_shape

SMALL = [name for name in PROFILES if name not in {"many clients", "long queue", "huge weights"}]


@st.composite
def cases(draw: st.DrawFn, profiles: list[str] = SMALL) -> Case:
    """A case of one of the profiles; Hypothesis controls, and shrinks, every random choice in it."""
    profile = draw(st.sampled_from(profiles))
    return from_shape(PROFILES[profile], draw(st.randoms(use_true_random=False)), profile)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a run: the state before it (arrivals not yet in), its events, the state after it."""

    before: Snapshot
    events: tuple[Event, ...]
    after: Snapshot


def steps(case: Case, engine: EngineAdapter, most: int = 3000) -> Iterator[Step]:
    """Run a case on one engine alone, to its end. Fails if it takes more than ``most`` steps."""
    engine.configure(case.config, full_log=True)
    arrivals = Arrivals(case.requests)
    requests = {request.id: request for request in case.requests}
    now_us = 0
    state = engine.snapshot()
    for _ in range(most):
        if not state.queue and not state.running:
            next_us = arrivals.next_us()
            if next_us is None:
                engine.close()
                return
            now_us = max(now_us, next_us)
        for _, request in arrivals.take_due(now_us):
            try:
                engine.submit(request)
            except InputError:
                continue
        now_us += case.step_us
        before, events = state, engine.step()
        state = engine.snapshot()
        yield Step(before, events, state)
        for event in events:
            if isinstance(event, Finish):
                arrivals.finished(requests[event.request], now_us)
    raise AssertionError(f"no end after {most} steps")
