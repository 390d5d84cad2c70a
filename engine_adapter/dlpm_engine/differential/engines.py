"""The engines that the tester knows by name."""

from __future__ import annotations

from dlpm.errors import InputError
from dlpm_engine.adapter import EngineAdapter
from dlpm_engine.differential.reference_engine import ReferenceEngine

REFERENCE = "reference"
TENSOR = "tensor"
FAULT_MARK = ":"


def make_engine(name: str) -> EngineAdapter:
    """A fresh engine: ``reference``, ``tensor``, or ``tensor:FAULT`` with a planted fault.

    Raises:
        InputError: there is no such engine or fault, or what it needs is not installed.
    """
    base, _, fault = name.partition(FAULT_MARK)
    if base == REFERENCE and not fault:
        return ReferenceEngine()
    if base != TENSOR:
        raise InputError(f"expected {REFERENCE}, {TENSOR} or {TENSOR}:FAULT, found {name!r}", field="engine")
    try:
        from dlpm_engine.differential.fault import FaultyEngine
        from dlpm_engine.tensor.engine import TensorEngine
    except ModuleNotFoundError as error:
        raise InputError(f"{name} needs torch: pip install 'dlpm[torch]'", field="engine") from error
    if not fault:
        return TensorEngine()
    from dlpm_engine.differential.faults import FAULTS

    if fault not in FAULTS:
        raise InputError(f"expected one of {', '.join(FAULTS)}, found {fault!r}", field="engine")
    return FaultyEngine(FAULTS[fault])
