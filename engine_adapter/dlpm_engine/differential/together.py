"""Many cases at once on one batched scheduler, each in lockstep with a reference of its own."""

from __future__ import annotations

from collections.abc import Sequence

from dlpm.events import Event
from dlpm.request import Request
from dlpm_engine.adapter import EngineConfig, OutOfRangeError, Snapshot
from dlpm_engine.differential.case import Case
from dlpm_engine.differential.coverage import Coverage
from dlpm_engine.differential.engines import Batched
from dlpm_engine.differential.hunt import Settings
from dlpm_engine.differential.lockstep import CaseTimeoutError, Comparison, Outcome, time_limit
from dlpm_engine.differential.reference_engine import ReferenceEngine
from dlpm_engine.tensor.batched.engine import batched_scheduler, torch_device
from dlpm_engine.tensor.batched.means import KERNEL, OPERATIONS
from dlpm_engine.tensor.batched.view import View


class _Shared:
    """A scheduler of many instances, of which each is an engine for one comparison."""

    def __init__(self, configs: Sequence[EngineConfig], batched: Batched) -> None:
        means = KERNEL if batched.is_kernel else OPERATIONS
        self.scheduler = batched_scheduler(configs, torch_device(batched.device), means)
        self.view = View(self.scheduler)
        self.steps = 0
        self._due: list[tuple[int, Request]] = []

    def submit(self, instance: int, request: Request) -> None:
        """Keep a request until the next step of all instances."""
        self.scheduler.check(instance, request)
        self._due.append((instance, request))

    def step(self) -> None:
        """One step of all instances."""
        self.scheduler.submit(self._due)
        self._due = []
        self.steps += 1
        self.scheduler.step()
        self.view = View(self.scheduler)


class _Instance:
    """One instance behind the adapter; its steps are those of all instances."""

    def __init__(self, shared: _Shared, instance: int, name: str) -> None:
        self.name = name
        self._shared = shared
        self._instance = instance

    def configure(self, config: EngineConfig, *, full_log: bool) -> None:
        """It is configured already, with all the others."""

    def submit(self, request: Request) -> None:
        """Put a request into the queue."""
        self._shared.submit(self._instance, request)

    def step(self) -> tuple[Event, ...]:
        """What the last step of all instances did in this one."""
        view = self._shared.view
        if view.out_of_range[self._instance]:
            raise OutOfRangeError("a deficit would leave int64")
        return view.events(self._instance, self._shared.steps)

    def snapshot(self) -> Snapshot:
        """The state of this instance."""
        return self._shared.view.state(self._instance)

    def close(self) -> None:
        """Nothing is held."""


def compare_together(
    cases: Sequence[Case], batched: Batched, settings: Settings, observers: Sequence[Coverage | None]
) -> list[Outcome]:
    """Compare a batched scheduler with the reference on all ``cases`` at once; one outcome a case.

    The time limit of ``settings`` holds for each case of the sum.

    Raises:
        InputError: there is no such device or mode, or parameters are beyond int64.
    """
    shared = _Shared([case.config for case in cases], batched)
    comparisons = [
        Comparison(
            case,
            ReferenceEngine(),
            _Instance(shared, place, settings.engine),
            mode=settings.mode,
            excused=settings.excused,
            observer=observer,
        )
        for place, (case, observer) in enumerate(zip(cases, observers, strict=True))
    ]
    for comparison in comparisons:
        comparison.begin()
    active = comparisons
    try:
        with time_limit(settings.case_seconds * len(cases)):
            while active := [comparison for comparison in active if comparison.submit_due()]:
                shared.step()
                active = [comparison for comparison in active if comparison.step()]
    except CaseTimeoutError:
        for comparison in active:
            comparison.give_up()
    return [comparison.end() for comparison in comparisons]
