"""The engines that the tester knows by name."""

from __future__ import annotations

import importlib
from typing import cast

from dlpm.errors import InputError
from dlpm_engine.adapter import EngineAdapter
from dlpm_engine.differential.reference_engine import ReferenceEngine

REFERENCE = "reference"
TENSOR = "tensor"
BATCHED = "tensor-batched"
FAULT_MARK = "+"
OBJECT_MARK = ":"
DEVICE_MARK = "@"
CPU = "cpu"


def make_engine(name: str) -> EngineAdapter:
    """A fresh engine: ``reference``, ``tensor``, ``tensor-batched``, ``tensor@cuda`` (batched, on a device),
    ``tensor+FAULT`` with a planted fault, or ``module:class`` of your own.

    Raises:
        InputError: there is no such engine or fault, or what it needs is not installed.
    """
    if OBJECT_MARK in name:
        return _imported(name)
    device = batched_device(name)
    if device is not None:
        return _batched(name, device)
    base, _, fault = name.partition(FAULT_MARK)
    if base == REFERENCE and not fault:
        return ReferenceEngine()
    if base != TENSOR:
        expected = f"{REFERENCE}, {TENSOR}, {BATCHED}, {TENSOR}{FAULT_MARK}FAULT or module:class"
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


def batched_device(name: str) -> str | None:
    """The device of an engine that schedules many instances at once; ``None`` for other engines."""
    base, mark, device = name.partition(DEVICE_MARK)
    if base == BATCHED or (base == TENSOR and mark):
        return device or CPU
    return None


def _batched(name: str, device: str) -> EngineAdapter:
    """The scheduler whose whole state is on a device."""
    try:
        from dlpm_engine.tensor.batched.engine import BatchedEngine
    except ModuleNotFoundError as error:
        raise InputError(f"{name} needs torch: pip install 'dlpm[torch]'", field="--engine") from error
    return BatchedEngine(device)


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
