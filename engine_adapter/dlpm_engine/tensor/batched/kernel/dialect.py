"""Triton as the kernel uses it: compiled for a CUDA device where there is one, interpreted on the CPU elsewhere.

The interpreter runs the same source, operation by operation, so that the decisions of the kernel can be compared with
the reference without a device. It is slow, and it is sequential: what threads of one program could do to each other
shows in the detector of races in the tests.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar, cast

import torch

if not torch.cuda.is_available() and "triton" not in sys.modules:
    # Triton reads it when it is imported, and for good.
    os.environ.setdefault("TRITON_INTERPRET", "1")

import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError

__all__ = ["InterpreterError", "Kernel", "fence", "interpreted", "jit", "kernel", "tl"]

P = ParamSpec("P")
R = TypeVar("R")


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """`triton.jit`, for the type checker: the function can be called from another such function."""
    return cast("Callable[P, R]", triton.jit(function))


class Kernel(Protocol):
    """What the host launches on a grid of programs."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        """Takes the arguments, and what Triton asks for: `num_warps`."""


def kernel(*sizes: str) -> Callable[[Callable[..., None]], Kernel]:
    """`triton.jit` for a function that the host launches; ``sizes`` are integers that tables grow by.

    Without that, Triton would compile a variant for a size of 1, and others for multiples of 16.
    """

    def decorate(function: Callable[..., None]) -> Kernel:
        return cast("Kernel", triton.jit(function, do_not_specialize=sizes))

    return decorate


def interpreted() -> bool:
    """Whether kernels run on the CPU here, in the interpreter. O(1)."""
    return bool(triton.knobs.runtime.interpret)


@jit
def fence() -> None:
    """What threads of a program wrote before is seen by all of them after it; none is ahead, none behind.

    Triton orders accesses to shared memory, but not to global memory, where all state is: between a read and a write
    of one address, or two writes, there has to be one of these.
    """
    tl.debug_barrier()
