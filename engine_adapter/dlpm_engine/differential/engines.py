"""The engines that the tester knows by name."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import cast

from dlpm.errors import InputError
from dlpm_engine.adapter import EngineAdapter
from dlpm_engine.differential.reference_engine import ReferenceEngine
from dlpm_engine.tensor.batched.means import KERNEL as BY_KERNEL
from dlpm_engine.tensor.batched.means import OPERATIONS

REFERENCE = "reference"
TENSOR = "tensor"
BATCHED = "tensor-batched"
KERNEL = "tensor-kernel"
FAULT_MARK = "+"
OBJECT_MARK = ":"
DEVICE_MARK = "@"
CPU = "cpu"


def make_engine(name: str) -> EngineAdapter:
    """A fresh engine: ``reference``, ``tensor``, ``tensor-batched``, ``tensor-kernel``, ``tensor@cuda`` (the last
    two on a device), ``tensor+FAULT`` with a planted fault, or ``module:class`` of your own.

    Raises:
        InputError: there is no such engine or fault, or what it needs is not installed.
    """
    if OBJECT_MARK in name:
        return _imported(name)
    batched = batched_engine(name)
    if batched is not None:
        return _batched(name, batched)
    base, _, fault = name.partition(FAULT_MARK)
    if base == REFERENCE and not fault:
        return ReferenceEngine()
    if base != TENSOR:
        expected = f"{REFERENCE}, {TENSOR}, {BATCHED}, {KERNEL}, {TENSOR}{FAULT_MARK}FAULT or module:class"
        raise InputError(f"expected {expected}, found {name!r}", field="--engine")
    try:
        from dlpm_engine.differential.fault import FaultyEngine
        from dlpm_engine.tensor.engine import TensorEngine
    except ModuleNotFoundError as error:
        raise InputError(f"{name} needs torch: pip install 'dlpm[torch]'", field="--engine") from error
    if not fault:
        return TensorEngine()
    from dlpm_engine.differential.faults import FAULTS

    if fault not in FAULTS:
        raise InputError(f"expected one of {', '.join(FAULTS)}, found {fault!r}", field="--engine")
    return FaultyEngine(FAULTS[fault])


@dataclass(frozen=True, slots=True)
class Batched:
    """An engine that schedules many instances at once: on which device, and whether a step is a Triton kernel."""

    device: str
    is_kernel: bool

    def is_interpreted(self) -> bool:
        """Whether a kernel runs on the CPU, some thirty times slower than tensor operations. O(1)."""
        return self.is_kernel and self.device == CPU


def batched_engine(name: str) -> Batched | None:
    """What a name says of an engine that schedules many instances at once; ``None`` for other engines.

    ``tensor`` on a device is the kernel where Triton is installed, as it is beside torch for CUDA, else operations.
    """
    base, mark, device = name.partition(DEVICE_MARK)
    if base in {BATCHED, KERNEL}:
        return Batched(device or CPU, base == KERNEL)
    if base == TENSOR and mark:
        return Batched(device, importlib.util.find_spec("triton") is not None)
    return None


def _batched(name: str, batched: Batched) -> EngineAdapter:
    """The scheduler whose whole state is on a device."""
    try:
        from dlpm_engine.tensor.batched.engine import BatchedEngine
    except ModuleNotFoundError as error:
        raise InputError(f"{name} needs torch: pip install 'dlpm[torch]'", field="--engine") from error
    return BatchedEngine(batched.device, BY_KERNEL if batched.is_kernel else OPERATIONS)


def _imported(name: str) -> EngineAdapter:
    """An engine of somebody else's: ``package.module:Class``, made without arguments."""
    module_name, _, class_name = name.partition(OBJECT_MARK)
    try:
        factory: object = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"expected module:class that can be imported: {error}", field="--engine") from error
    if not callable(factory):
        raise InputError(f"expected a class or function, found {name!r}", field="--engine")
    try:
        engine = factory()
    except TypeError as error:
        raise InputError(f"expected a class that is made without arguments: {error}", field="--engine") from error
    missing = [method for method in _METHODS if not callable(getattr(engine, method, None))]
    if missing or not isinstance(getattr(engine, "name", None), str):
        lacking = ", ".join([*missing, *([] if isinstance(getattr(engine, "name", None), str) else ["name"])])
        raise InputError(f"expected an EngineAdapter (docs/adapter.md); {name} lacks {lacking}", field="--engine")
    return cast(EngineAdapter, engine)


_METHODS = ("configure", "submit", "step", "snapshot", "close")
