"""The tensor path behind the adapter that every engine implements."""

from __future__ import annotations

from dlpm.events import Event
from dlpm.request import Request
from dlpm_engine.adapter import EngineConfig, Snapshot
from dlpm_engine.tensor.scheduler import TensorScheduler


class TensorEngine:
    """`TensorScheduler` on the CPU, one replica."""

    name = "tensor"

    def __init__(self) -> None:
        """An engine that is not configured yet."""
        self._scheduler: TensorScheduler | None = None
        self._events: list[Event] = []

    def configure(self, config: EngineConfig, *, full_log: bool) -> None:
        """A fresh scheduler."""
        self._events = []
        self._scheduler = TensorScheduler(config, self._events.append, full_log=full_log)

    def submit(self, request: Request) -> None:
        """Put a request into the queue."""
        self._configured().submit(request)

    def step(self) -> tuple[Event, ...]:
        """One step of the scheduler."""
        self._events.clear()
        self._configured().step()
        return tuple(self._events)

    def snapshot(self) -> Snapshot:
        """The scheduler's state. O(clients + requests)."""
        scheduler = self._configured()
        ledger = scheduler.ledger
        return Snapshot(
            deficits=dict(zip(ledger.clients, ledger.deficits.tolist(), strict=True)),
            queue=tuple(queued.request.id for queued in scheduler.queue.by_rank()),
            running=tuple(run.queued.request.id for run in scheduler.batch.requests),
            free_tokens=scheduler.free_tokens(),
            cached_tokens=scheduler.cache.total,
        )

    def close(self) -> None:
        """Let go of the tensors."""
        self._scheduler = None

    def _configured(self) -> TensorScheduler:
        """The scheduler, once there is one."""
        if self._scheduler is None:
            raise RuntimeError("configure the engine first")
        return self._scheduler
