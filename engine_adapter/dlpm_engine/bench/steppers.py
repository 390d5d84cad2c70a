"""The schedulers whose steps are timed, as the clock sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from dlpm.ledger import Ledger
from dlpm.policies.dlpm import DLPM
from dlpm.request import Request
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_engine.adapter import EngineConfig
from dlpm_engine.tensor.batched.means import KERNEL as BY_KERNEL
from dlpm_engine.tensor.batched.means import OPERATIONS

if TYPE_CHECKING:
    import torch

REFERENCE = "reference"
TENSOR = "tensor"
BATCHED = "tensor-batched"
KERNEL = "tensor-kernel"
ON_CPU = (REFERENCE, TENSOR, BATCHED)
NAMES = (*ON_CPU, KERNEL)
"""Those that can be timed; the kernel on a CUDA device alone, for its interpreter's times say nothing of it."""
ON_DEVICE = (BATCHED, KERNEL)
"""Those whose tensors can be on another device than the CPU."""


class Stepper(Protocol):
    """A scheduler as the clock sees it."""

    def submit(self, requests: Sequence[Request]) -> None:
        """Requests join the queue, in this order."""

    def step(self) -> None:
        """One step; over when this returns."""

    def waiting(self) -> int:
        """Requests in the queue."""


class ReferenceStepper:
    """The reference worker under DLPM, without an event log."""

    def __init__(self, config: EngineConfig) -> None:
        """An empty worker."""
        self._worker = Worker(config.worker(), DLPM(Ledger(config.quanta_table(), config.cost())), FixedStep(1))

    def submit(self, requests: Sequence[Request]) -> None:
        """See `Stepper`."""
        for request in requests:
            self._worker.submit(request, 0)

    def step(self) -> None:
        """See `Stepper`."""
        self._worker.step()

    def waiting(self) -> int:
        """See `Stepper`."""
        return len(self._worker.waiting())


class TensorStepper:
    """The incremental tensor scheduler, without events: a step matches only what the cache's changes concern."""

    def __init__(self, config: EngineConfig) -> None:
        """An empty scheduler."""
        from dlpm_engine.tensor.scheduler import TensorScheduler

        self._scheduler = TensorScheduler(config)

    def submit(self, requests: Sequence[Request]) -> None:
        """See `Stepper`."""
        for request in requests:
            self._scheduler.submit(request)

    def step(self) -> None:
        """See `Stepper`."""
        self._scheduler.step()

    def waiting(self) -> int:
        """See `Stepper`."""
        return len(self._scheduler.queue)


class BatchedStepper:
    """A batched tensor scheduler with one instance: a step matches the whole queue afresh, as tensor work."""

    def __init__(self, config: EngineConfig, device: torch.device, means: str) -> None:
        """An empty scheduler on a device, by operations or by a kernel."""
        from dlpm_engine.tensor.batched.engine import batched_scheduler
        from dlpm_engine.tensor.batched.scheduler import WAITING

        self._scheduler = batched_scheduler([config], device, means)
        self._waiting_phase = WAITING
        self._device = device

    def submit(self, requests: Sequence[Request]) -> None:
        """See `Stepper`."""
        self._scheduler.submit([(0, request) for request in requests])

    def step(self) -> None:
        """See `Stepper`."""
        self._scheduler.step()
        if self._device.type == "cuda":
            import torch

            torch.cuda.synchronize(self._device)

    def waiting(self) -> int:
        """See `Stepper`."""
        return int((self._scheduler.phase == self._waiting_phase).sum())


def make_stepper(name: str, config: EngineConfig, device: str) -> Stepper:
    """An empty scheduler. ``device`` is where those of `ON_DEVICE` keep their tensors; the others are on the CPU.

    Raises:
        InputError: there is no such device here, or no Triton.
    """
    if name == REFERENCE:
        return ReferenceStepper(config)
    if name == TENSOR:
        return TensorStepper(config)
    from dlpm_engine.tensor.batched import engine

    means = BY_KERNEL if name == KERNEL else OPERATIONS
    return BatchedStepper(config, engine.torch_device(device), means)
