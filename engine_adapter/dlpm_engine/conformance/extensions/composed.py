"""The floor and the gap of engines that are late, speculate or chunk, in any combination that a theorem is about."""

from __future__ import annotations

from dlpm.bounds_engine import for_engine
from dlpm.cost import CostModel
from dlpm.engine_profile import EngineProfile
from dlpm.errors import InputError
from dlpm.events import Header
from dlpm.quanta import Quanta
from dlpm_engine.conformance.promises import Promises, ProvenUnit, Unproven


def composed(
    header: Header,
    extensions: str,
    *,
    late_steps: int = 0,
    most_accepted: int = 1,
    chunk_budget: int | None = None,
) -> Promises:
    """What is proven of the whole composition [ENGINE/...], for the memory and the limits that ``header`` states.

    ``extensions`` is how messages call it. Nothing is promised where the header states too little, or where no theorem
    is about such an engine.
    """
    limits = header.limits
    if limits.kv_tokens is None:
        return Unproven(extensions, "the header states no limits.kv_tokens")
    if header.memory is None:
        return Unproven(extensions, "the header does not say what memory is")
    kv_tokens, memory = limits.kv_tokens, header.memory

    def profile(max_input: int) -> EngineProfile:
        return EngineProfile(
            engine=header.engine,
            cost=CostModel(header.extend_weight, header.output_weight),
            quanta=Quanta(header.default_quantum or 1, header.quanta),
            memory=memory,
            kv_tokens=kv_tokens,
            max_input=max_input,
            max_output=limits.max_output,
            max_running=limits.max_running,
            chunk_budget=chunk_budget,
            late_steps=late_steps,
            most_accepted=most_accepted,
        )

    try:
        for_engine(profile(1))
    except InputError as error:
        return Unproven(extensions, f"{error.field}: {error.expected}" if error.field else error.expected)
    return ProvenUnit(extensions, lambda max_input: for_engine(profile(max_input)).unit)
