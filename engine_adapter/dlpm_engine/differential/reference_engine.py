"""The reference behind the adapter that every engine implements."""

from __future__ import annotations

from dlpm.events import Arrive, Event
from dlpm.ledger import Ledger
from dlpm.policies.dlpm import DLPM
from dlpm.request import Request
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_engine.adapter import EngineConfig, Snapshot


class ReferenceEngine:
    """`dlpm.worker.Worker` under the DLPM policy."""

    name = "reference"

    def __init__(self) -> None:
        """An engine that is not configured yet."""
        self._worker: Worker | None = None
        self._ledger: Ledger | None = None
        self._events: list[Event] = []

    def configure(self, config: EngineConfig, *, full_log: bool) -> None:
        """A fresh worker."""
        self._events = []
        self._ledger = Ledger(config.quanta_table(), config.cost())
        self._worker = Worker(config.worker(), DLPM(self._ledger), FixedStep(1), self._events.append, full_log=full_log)

    def submit(self, request: Request) -> None:
        """Put a request into the queue. O(its blocks)."""
        self._configured().submit(request, request.arrival_us)

    def step(self) -> tuple[Event, ...]:
        """One step of the worker."""
        self._configured().step()
        events = tuple(event for event in self._events if not isinstance(event, Arrive))
        self._events.clear()
        return events

    def snapshot(self) -> Snapshot:
        """The worker's state. O(clients + requests)."""
        worker = self._configured()
        assert self._ledger is not None
        return Snapshot(
            deficits=dict(self._ledger.deficits),
            queue=tuple(queued.id for queued in worker.waiting()),
            running=tuple(run.queued.id for run in worker.running),
            free_tokens=worker.free_tokens(),
            cached_tokens=worker.cache.total,
        )

    def close(self) -> None:
        """Nothing is held."""

    def _configured(self) -> Worker:
        """The worker, once there is one."""
        if self._worker is None:
            raise RuntimeError("configure the engine first")
        return self._worker
