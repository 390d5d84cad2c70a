"""Execute what a launch compiles to, on the CPU, in place of the launch.

The tensors of a launch are copied side by side into one memory with gaps between them. There every access is held to
what `races.py` says: nothing outside all tensors, nothing between two fences that races. Beyond that, an address must
be a multiple of what is read or written there; tensors must not overlap, nor have gaps; and what the compiler took for
granted of an argument must be true of it. Programs run one after the other, in an order drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import NoReturn, Protocol, cast
from unittest.mock import patch

import numpy as np
import torch
from triton.backends.nvidia.compiler import CUDABackend
from triton.compiler import compile as compile_all

from dlpm_engine.tensor.batched.kernel.dialect import Kernel
from tests.engine_adapter.tensor.absent_gpu import Jitted, jitted
from tests.engine_adapter.tensor.races import ADD, READ, WRITE, Watch
from tests.engine_adapter.tensor.ttir import Program, translated
from tests.engine_adapter.tensor.ttir_numbers import SIGNED, Flags, Numbers, TtirError

GAP = 256
LIKELY = 16
"""What the compiler asks whether addresses are a multiple of: in the copy they are wherever they were."""
UNWRITTEN = 0xAA


class ArenaMemory:
    """Copies of tensors with gaps between them."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        """Copy them.

        Raises:
            TtirError: two of them share memory, or one is not contiguous.
        """
        spans = sorted((each.data_ptr(), each.data_ptr() + each.nbytes) for each in tensors)
        if any(end > start for (_, end), (start, _) in pairwise(spans)):
            raise TtirError("two tensors share memory")
        if not all(each.is_contiguous() for each in tensors):
            raise TtirError("a tensor with gaps")
        self._tensors = tensors
        arena = torch.full((sum(each.nbytes + 2 * GAP for each in tensors) + GAP,), UNWRITTEN, dtype=torch.uint8)
        arena = arena[: arena.numel() // GAP * GAP]
        self._start = arena.data_ptr()
        self._copies: list[torch.Tensor] = []
        place = 0
        for each in tensors:
            place += GAP - (self._start + place - each.data_ptr()) % LIKELY
            self._copies.append(arena[place : place + each.nbytes])
            self._copies[-1].copy_(_bytes(each))
            place += each.nbytes
        self._views = {element: arena.numpy().view(SIGNED[element]) for element in ("i8", "i32", "i64")}
        self.watch = Watch(lambda: self._copies)
        self.watch.launch()

    def addresses(self) -> list[int]:
        """Where the copies begin."""
        return [copy.data_ptr() for copy in self._copies]

    def write_back(self) -> None:
        """Copy everything back."""
        for each, copy in zip(self._tensors, self._copies, strict=True):
            _bytes(each).copy_(copy)

    def load(self, element: str, pointers: Numbers, mask: Flags | None = None, other: Numbers | None = None) -> Numbers:
        """What is stored there; ``other`` where the mask is false."""
        chosen, places = self._access(READ, element, pointers, mask)
        found: Numbers = self._views[element][places]
        if mask is None or other is None:
            return found.reshape(np.shape(pointers))[()]
        values = np.array(other, ndmin=1)
        values[chosen] = found
        return values.reshape(np.shape(pointers))[()]

    def store(self, element: str, pointers: Numbers, values: Numbers, mask: Flags | None = None) -> None:
        """Write there."""
        chosen, places = self._access(WRITE, element, pointers, mask)
        self._views[element][places] = np.atleast_1d(values)[chosen]

    def add(self, element: str, pointers: Numbers, values: Numbers, mask: Flags) -> None:
        """Add to what is stored there, any number of times to one address."""
        chosen, places = self._access(ADD, element, pointers, mask)
        np.add.at(self._views[element], places, np.atleast_1d(values)[chosen])

    def fence(self) -> None:
        """A barrier of all threads of the program."""
        self.watch.fence()

    def _access(self, kind: str, element: str, pointers: Numbers, mask: Flags | None) -> tuple[Flags, Numbers]:
        """Which threads access memory, and where in the view.

        Raises:
            RaceError: as `Watch.access` says.
            TtirError: an address is not a multiple of the size of what is there.
        """
        addresses = np.atleast_1d(pointers)
        chosen = np.ones(addresses.shape, dtype=np.bool_) if mask is None else np.atleast_1d(mask)
        self.watch.access(kind, addresses.view(np.uint64), chosen)
        offsets = addresses[chosen] - self._start
        size = self._views[element].itemsize
        if np.any(offsets % size):
            raise TtirError(f"{kind} of {element} at an address that is no multiple of {size}")
        return chosen, offsets // size


class InPlaceOfLaunch:
    """Stands where a kernel is launched: compiles it as the launch would, as far as TTIR, and executes that.

    Attributes:
        programs: what was compiled; Triton's own cache decides what is compiled anew.
        launches, accesses, fences: counted, so that a test can see that something happened.
    """

    def __init__(self, kernel: Kernel, seed: int) -> None:
        self._kernel = jitted(kernel)
        self._draw = Random(seed)
        self.programs: list[Program] = []
        self.launches = self.accesses = self.fences = 0

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def execute(*arguments: torch.Tensor | int, **options: int) -> None:
            program = compiled(self._kernel, grid, arguments, options)
            if program not in self.programs:
                self.programs.append(program)
            memory = ArenaMemory([each for each in arguments if isinstance(each, torch.Tensor)])
            given = [each for place, each in enumerate(arguments) if place not in self._kernel.constexprs]
            values = values_for(program, given, memory)
            order = self._draw.sample(range(grid[0]), grid[0])
            with np.errstate(over="ignore"):
                for number in order:
                    memory.watch.begin(number)
                    program.run(memory, number, *values)
            memory.write_back()
            self.launches += 1
            self.accesses += memory.watch.accesses
            self.fences += memory.watch.fences

        return execute


def compiled(
    kernel: Jitted, grid: tuple[int, ...], arguments: tuple[torch.Tensor | int, ...], options: dict[str, int]
) -> Program:
    """What a kernel becomes for the arguments of a launch, on the active driver's device.

    Raises:
        TtirError: it contains something that is not known.
    """
    # Looking it up sets `compile`, once and for all.
    assert kernel.device_caches[0]
    with patch.object(kernel, "compile", _as_far_as_ttir):
        program = kernel.run(*arguments, grid=grid, warmup=True, **options)
    return cast("Program", program)


class _StoppedError(Exception):
    """The compiler has made TTIR."""


def _as_far_as_ttir(source: object, target: object, options: object) -> Program:
    """`triton.compile`, but what comes after TTIR is left out."""

    def stop(backend: object, module: _Module, *rest: object) -> NoReturn:
        raise _StoppedError(module.str_nodebug())

    with patch.object(CUDABackend, "make_ttgir", stop):
        try:
            compile_all(source, target=target, options=options)
        except _StoppedError as reached:
            return translated(str(reached))
    raise TtirError("the kernel came from Triton's cache: set TRITON_ALWAYS_COMPILE=1")


class _Module(Protocol):
    """As much of a module as we ask for."""

    def str_nodebug(self) -> str:
        """Its text without locations."""


def values_for(program: Program, arguments: list[torch.Tensor | int], memory: ArenaMemory) -> list[np.generic]:
    """What the function takes for the arguments of a launch.

    Raises:
        TtirError: there are more or fewer than it takes, one is of another type, or not what the compiler took it for.
    """
    addresses = iter(memory.addresses())
    if len(arguments) != len(program.arguments):
        raise TtirError(f"{len(arguments)} arguments, where the kernel takes {len(program.arguments)}")
    values: list[np.generic] = []
    for argument, kind, divisor in zip(arguments, program.arguments, program.divisors, strict=True):
        if isinstance(argument, torch.Tensor):
            value, found = next(addresses), f"!tt.ptr<i{8 * argument.element_size()}>"
            values.append(np.int64(value))
        else:
            value, found = argument, kind if kind in {"i32", "i64"} else "a number"
            values.append(np.int32(value) if kind == "i32" else np.int64(value))
        if found != kind:
            raise TtirError(f"{found}, where the kernel takes {kind}")
        if value % divisor:
            raise TtirError(f"the compiler takes {value} for a multiple of {divisor}")
    return values


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The memory of a tensor."""
    return tensor.reshape(-1).view(torch.uint8)
