"""One instance of a batched scheduler behind the adapter that every engine implements."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dlpm.errors import InputError
from dlpm.events import Event
from dlpm.request import Request
from dlpm_engine.adapter import EngineConfig, OutOfRangeError, Snapshot
from dlpm_engine.tensor.batched.means import OPERATIONS
from dlpm_engine.tensor.batched.scheduler import BatchedScheduler
from dlpm_engine.tensor.batched.view import View

CPU = "cpu"
CUDA = "cuda"


def torch_device(name: str) -> torch.device:
    """The device called ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        InputError: there is no such device here.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"expected {CPU} or {CUDA}, found {name!r}", field="--device") from error
    if device.type not in {CPU, CUDA}:
        raise InputError(f"expected {CPU} or {CUDA}, found {name!r}", field="--device")
    if device.type == CUDA and not torch.cuda.is_available():
        raise InputError("this machine has no CUDA device that torch can use", field="--device")
    return device


def batched_scheduler(configs: Sequence[EngineConfig], device: torch.device, means: str) -> BatchedScheduler:
    """An empty scheduler of many instances on a device, by the ``means`` of `means`.

    Raises:
        InputError: a parameter is beyond int64, or a kernel cannot run here.
    """
    if means == OPERATIONS:
        return BatchedScheduler(configs, device)
    try:
        from dlpm_engine.tensor.batched.kernel.scheduler import KernelScheduler
    except ModuleNotFoundError as error:
        raise InputError(f"the kernel needs Triton ({error}): pip install 'dlpm[triton]'", field="--engine") from error
    return KernelScheduler(configs, device)


class BatchedEngine:
    """A scheduler of many instances with one of them, on the CPU or on a CUDA device, by operations or by a kernel.

    Raises:
        InputError: there is no such device here.
    """

    def __init__(self, device: str = CPU, means: str = OPERATIONS) -> None:
        """An engine that is not configured yet."""
        self._device = torch_device(device)
        self._means = means
        self.name = f"tensor-{'batched' if means == OPERATIONS else means}@{device}"
        self._scheduler: BatchedScheduler | None = None
        self._view: View | None = None
        self._steps = 0

    def configure(self, config: EngineConfig, *, full_log: bool) -> None:
        """A fresh scheduler. It gives no `order` events."""
        del full_log
        self._scheduler = batched_scheduler([config], self._device, self._means)
        self._view = None
        self._steps = 0

    def submit(self, request: Request) -> None:
        """Put a request into the queue."""
        self._configured().submit([(0, request)])
        self._view = None

    def step(self) -> tuple[Event, ...]:
        """One step of the scheduler.

        Raises:
            OutOfRangeError: a counter would have left int64.
        """
        scheduler = self._configured()
        self._steps += 1
        scheduler.step()
        self._view = View(scheduler)
        if self._view.out_of_range[0]:
            raise OutOfRangeError("a deficit would leave int64")
        return self._view.events(0, self._steps)

    def snapshot(self) -> Snapshot:
        """The scheduler's state."""
        if self._view is None:
            self._view = View(self._configured())
        return self._view.state(0)

    def close(self) -> None:
        """Let go of the tensors."""
        self._scheduler = self._view = None

    def _configured(self) -> BatchedScheduler:
        """The scheduler, once there is one."""
        if self._scheduler is None:
            raise RuntimeError("configure the engine first")
        return self._scheduler
