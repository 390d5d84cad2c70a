"""Compile kernels where there is no GPU: as much of a driver as Triton's compiler asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast

from triton.backends.compiler import GPUTarget

from dlpm_engine.tensor.batched.kernel.dialect import Kernel

WARP = 32


class AbsentGPU:
    """A device to compile for: ``triton.runtime.driver.set_active(AbsentGPU(90))`` for compute capability 9.0."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, WARP)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return device


class Jitted(Protocol):
    """What `triton.jit` makes of a function where kernels are compiled, as far as we use it.

    Attributes:
        compile: what `run` calls for arguments unlike those before; `device_caches` sets it when it is first asked.
        device_caches: by device.
        constexprs: places of the arguments that are compiled into the kernel.
    """

    compile: Callable[..., object]
    device_caches: Mapping[int, object]
    constexprs: Sequence[int]

    def run(self, *arguments: object, grid: tuple[int, ...], warmup: bool, **options: int) -> object:
        """With ``warmup``: what was compiled, for the very arguments of a launch; nothing is launched."""


def jitted(kernel: Kernel) -> Jitted:
    """What lies behind a kernel."""
    return cast("Jitted", kernel)
