"""Batched schedulers as engines: what happened in each instance, and one instance behind the adapter."""

from __future__ import annotations

import torch

from dlpm.errors import InputError
from dlpm.events import Admit, Event, Evict, Finish, Output, Preempt, Refill
from dlpm.request import Request
from dlpm_engine.adapter import EngineConfig, OutOfRangeError, Snapshot
from dlpm_engine.tensor.batched import tape
from dlpm_engine.tensor.batched.scheduler import RUNNING, WAITING, BatchedScheduler


def read_events(scheduler: BatchedScheduler, instance: int, number: int) -> tuple[Event, ...]:
    """The events of the last step, which had a ``number``, of one instance. O(events)."""
    rows, deficits, concerned = scheduler.tape.read(instance)
    clients = scheduler.layout.clients(instance)
    running = _names(scheduler, instance, RUNNING, scheduler.admitted)
    finished = [scheduler.layout.request(instance, row[tape.SLOT]).id for row in rows if row[tape.KIND] == tape.FINISH]
    made: list[Event] = []
    for row, counters, those in zip(rows, deficits, concerned, strict=True):
        kind, slot, first, second = row
        named = {client: counters[place] for place, client in enumerate(clients) if those[place]}
        if kind == tape.REFILL:
            made.append(Refill(step=number, deficits=named))
            continue
        if kind == tape.EVICT:
            made.append(Evict(step=number, tokens=first))
            continue
        if kind == tape.OUTPUT:
            made.append(Output(step=number, tokens=dict.fromkeys((*finished, *running), 1), deficits=named))
            continue
        request = scheduler.layout.request(instance, slot)
        deficit = counters[clients.index(request.client)]
        if kind == tape.ADMIT:
            made.append(Admit(step=number, request=request.id, matched=first, extend=second, deficit=deficit))
        elif kind == tape.PREEMPT:
            made.append(Preempt(step=number, request=request.id, kind="recompute", deficit=deficit))
        else:
            made.append(Finish(step=number, request=request.id))
    return tuple(made)


def read_state(scheduler: BatchedScheduler, instance: int) -> Snapshot:
    """The state of one instance after the last step. O(its requests and clients)."""
    clients = scheduler.layout.clients(instance)
    return Snapshot(
        deficits=dict(zip(clients, scheduler.deficits[instance].tolist(), strict=False)),
        queue=tuple(_names(scheduler, instance, WAITING, scheduler.rank)),
        running=tuple(_names(scheduler, instance, RUNNING, scheduler.admitted)),
        free_tokens=int(scheduler.free_tokens()[instance]),
        cached_tokens=int(scheduler.caches.total[instance]),
    )


def _names(scheduler: BatchedScheduler, instance: int, phase: int, order: torch.Tensor) -> list[str]:
    """Requests in a phase, in an order."""
    slots = (scheduler.phase[instance] == phase).nonzero().flatten()
    ordered = slots[order[instance, slots].argsort()].tolist()
    return [scheduler.layout.request(instance, slot).id for slot in ordered]


class BatchedEngine:
    """`BatchedScheduler` with one instance, on the CPU or on a CUDA device.

    Raises:
        InputError: there is no such device.
    """

    def __init__(self, device: str = "cpu") -> None:
        """An engine that is not configured yet."""
        try:
            self._device = torch.device(device)
        except RuntimeError as error:
            raise InputError(f"expected cpu or cuda, found {device!r}", field="--device") from error
        if self._device.type not in {"cpu", "cuda"}:
            raise InputError(f"expected cpu or cuda, found {device!r}", field="--device")
        if self._device.type == "cuda" and not torch.cuda.is_available():
            raise InputError("this machine has no CUDA device that torch can use", field="--device")
        self.name = f"tensor-batched@{device}"
        self._scheduler: BatchedScheduler | None = None
        self._steps = 0

    def configure(self, config: EngineConfig, *, full_log: bool) -> None:
        """A fresh scheduler. It gives no `order` events."""
        del full_log
        self._scheduler = BatchedScheduler([config], self._device)
        self._steps = 0

    def submit(self, request: Request) -> None:
        """Put a request into the queue."""
        self._configured().submit([(0, request)])

    def step(self) -> tuple[Event, ...]:
        """One step of the scheduler.

        Raises:
            OutOfRangeError: a counter would have left int64.
        """
        scheduler = self._configured()
        self._steps += 1
        scheduler.step()
        if bool(scheduler.out_of_range[0]):
            raise OutOfRangeError("a deficit would leave int64")
        return read_events(scheduler, 0, self._steps)

    def snapshot(self) -> Snapshot:
        """The scheduler's state."""
        return read_state(self._configured(), 0)

    def close(self) -> None:
        """Let go of the tensors."""
        self._scheduler = None

    def _configured(self) -> BatchedScheduler:
        """The scheduler, once there is one."""
        if self._scheduler is None:
            raise RuntimeError("configure the engine first")
        return self._scheduler
