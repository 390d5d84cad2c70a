"""A detector of races in an interpreted kernel: what threads of a program, or programs, could do to each other.

The interpreter runs one access to memory after the other; a GPU does not. Between two fences any thread of a program
may be ahead of any other, and which thread handles which entry of a block is the compiler's choice, another one for
each access. So until the next fence an address that was written must be neither read nor written again, and one that
was read must not be written. (That one thread reads an address and writes it itself would be harmless; it counts too.)
Atomic additions commute among themselves. Programs run in any order and have no fence between them: what one writes, no
other may touch, but by atomic additions. And an access outside all tensors of the launch is an error here, while a GPU
might answer it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from triton.runtime import interpreter

READ, WRITE, ADD = "read", "write", "add"


class RaceError(AssertionError):
    """Two accesses to one address that nothing orders, or one outside all tensors."""


@dataclass
class Watch:
    """The accesses since the last fence of the program that runs, and those of all programs of a launch.

    ``accesses`` and ``fences`` count them, so that a test can see that something was watched. ``tensors`` gives those
    that kernels may touch.
    """

    tensors: Callable[[], Iterable[torch.Tensor]]
    accesses: int = 0
    fences: int = 0
    _since: dict[int, str] = field(default_factory=dict)
    _everywhere: dict[int, tuple[int, str]] = field(default_factory=dict)
    _program: int = -1
    _starts: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    _ends: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))

    def launch(self) -> None:
        """A kernel begins: what came before is over."""
        self._everywhere.clear()
        self._program = -1
        spans = sorted((each.data_ptr(), each.data_ptr() + each.nbytes) for each in self.tensors())
        self._starts = np.array([start for start, _ in spans], dtype=np.uint64)
        self._ends = np.array([end for _, end in spans], dtype=np.uint64)

    def begin(self, program: int) -> None:
        """Another program runs."""
        self._program = program
        self._since.clear()

    def fence(self) -> None:
        """What is ahead of it is before what is behind it."""
        self.fences += 1
        self._since.clear()

    def access(self, kind: str, addresses: NDArray[np.uint64], mask: NDArray[np.bool_]) -> None:
        """One access of all threads, to those of the addresses that the mask selects.

        Raises:
            RaceError: it races with an earlier one or with itself, or lies outside all tensors.
        """
        # A mask that was computed from others holds 0 and 1.
        chosen = addresses[mask.astype(bool)].ravel()
        place = np.searchsorted(self._starts, chosen, side="right").astype(np.int64) - 1
        if np.any(place < 0) or np.any(chosen >= self._ends[place]):
            raise RaceError(f"{kind} outside all tensors")
        touched: list[int] = chosen.tolist()
        if kind == WRITE and len(set(touched)) < len(touched):
            raise RaceError("two threads write one address at once")
        self.accesses += len(touched)
        for address in touched:
            before = self._since.get(address)
            if before is not None and not (before == kind and kind != WRITE):
                raise RaceError(f"{before} and {kind} of one address without a fence between them")
            self._since[address] = kind
            owner, earlier = self._everywhere.get(address, (self._program, kind))
            if owner != self._program and not (earlier == kind and kind != WRITE):
                raise RaceError(f"{earlier} by program {owner} and {kind} by program {self._program} of one address")
            self._everywhere[address] = (self._program, kind if earlier == READ else earlier)


@contextmanager
def watched(tensors: Callable[[], Iterable[torch.Tensor]]) -> Iterator[Watch]:
    """Watch the accesses of all kernels that are interpreted inside; ``tensors`` gives those that they may touch."""
    watch = Watch(tensors)
    builder = interpreter.interpreter_builder
    load, store, add = builder.create_masked_load, builder.create_masked_store, builder.create_atomic_rmw
    at, size = builder.set_grid_idx, builder.set_grid_dim

    def watched_load(pointers: interpreter.TensorHandle, mask: interpreter.TensorHandle, *rest: object) -> object:
        watch.access(READ, pointers.data, mask.data)
        return load(pointers, mask, *rest)

    def watched_store(
        pointers: interpreter.TensorHandle, value: object, mask: interpreter.TensorHandle, *rest: object
    ) -> object:
        watch.access(WRITE, pointers.data, mask.data)
        return store(pointers, value, mask, *rest)

    def watched_add(
        operation: object,
        pointers: interpreter.TensorHandle,
        value: object,
        mask: interpreter.TensorHandle,
        *rest: object,
    ) -> object:
        watch.access(ADD, pointers.data, mask.data)
        return add(operation, pointers, value, mask, *rest)

    def watched_size(*sizes: int) -> None:
        watch.launch()
        size(*sizes)

    def watched_index(x: int, y: int, z: int) -> None:
        watch.begin(x)
        at(x, y, z)

    with (
        patch.object(builder, "create_masked_load", watched_load),
        patch.object(builder, "create_masked_store", watched_store),
        patch.object(builder, "create_atomic_rmw", watched_add),
        patch.object(builder, "create_barrier", watch.fence),
        patch.object(builder, "set_grid_dim", watched_size),
        patch.object(builder, "set_grid_idx", watched_index),
    ):
        yield watch
