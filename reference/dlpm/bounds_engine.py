"""The bounds of an engine that departs from the paper in several ways at once.

That bounds add up is not to be hoped for: chunks change which requests hold memory when, and with it what the harmonic
sum counts. The theorems ENGINE/... are about the compositions written here, and about no others. Results are in
weighted tokens unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

from dlpm.bounds import (
    deficit_floor,
    longest_recomputation,
    optimistic_unit,
    outputs_after_admission,
    service_gap,
    tight_unit,
)
from dlpm.bounds_extensions import late_unit
from dlpm.cost import CostModel
from dlpm.engine_profile import RESERVING, EngineProfile
from dlpm.errors import InputError


def most_running(kv_tokens: int, max_running: int | None = None) -> int:
    """The most requests that yield a token in one step: each holds one, and all share one prompt token at least."""
    return kv_tokens - 1 if max_running is None else min(max_running, kv_tokens - 1)


def optimistic_engine_unit(cost: CostModel, recomputation: int, outputs: int, late_steps: int, running: int) -> int:
    """``U*`` of optimistic memory with recomputation that clients pay for, and outputs charged ``late_steps`` late.

    ``recomputation`` is `dlpm.bounds.longest_recomputation`, ``outputs`` is `dlpm.bounds.outputs_after_admission`, and
    ``running`` is `most_running`. Chunks of prompts change nothing: see the theorem ENGINE/optimistic.
    """
    return late_unit(cost, optimistic_unit(cost, recomputation, outputs), late_steps, running)


def reserving_engine_unit(cost: CostModel, tight: int, late_steps: int, tokens_a_step: int) -> int:
    """``U*`` of reserving memory with prompts in chunks or not, several tokens a step, and outputs charged late.

    ``tight`` is `dlpm.bounds.tight_unit`: what is admitted has room for all its extend tokens and outputs, whenever
    they come. ``tokens_a_step`` is the most that a step yields: `most_running`, times what one request may accept.
    """
    return late_unit(cost, tight, late_steps, tokens_a_step)


def steps_while_waiting_with_chunks(cost: CostModel, service: int) -> int:
    """Forward steps in which others can receive ``service``: each step computes an extend token or yields an output.

    `dlpm.bounds.steps_while_waiting` needs an output token in every step, and a step may compute nothing but a chunk.
    """
    return service // min(cost.extend(1), cost.output(1))


@dataclass(frozen=True, slots=True)
class EngineBounds:
    """What holds for one engine, and what its parts are.

    Attributes:
        theorem: the theorem that proves it.
        unit: ``U*``: the most that a client can be charged after the gate last saw it with credit.
        of_extends: what of that are extend tokens, where the two share no memory; else 0.
        of_outputs: what of that are outputs, likewise; under reserving memory both together.
        of_lateness: what of that was served before, and not charged yet.
        floor: no counter, seen or true, falls below this.
        gap: service gap of two clients with the default quantum, the one that gets less being backlogged.
    """

    theorem: str
    unit: int
    of_extends: int
    of_outputs: int
    of_lateness: int
    floor: int
    gap: int


def for_engine(profile: EngineProfile) -> EngineBounds:
    """The bounds of an engine with all that its profile states. O(sqrt(M)).

    Raises:
        InputError: no theorem is about such an engine.
    """
    running = most_running(profile.kv_tokens, profile.max_running)
    if profile.memory == RESERVING:
        theorem = "ENGINE/reserving"
        tight = tight_unit(
            profile.cost,
            profile.max_input,
            profile.kv_tokens,
            max_output=profile.max_output,
            max_running=profile.max_running,
        )
        extends, outputs = 0, tight
        unit = reserving_engine_unit(profile.cost, tight, profile.late_steps, running * profile.most_accepted)
    elif profile.most_accepted > 1:
        raise InputError(
            "expected 1 with optimistic memory: no theorem is about both", field="speculation.most_accepted"
        )
    else:
        theorem = "ENGINE/optimistic"
        recomputation = longest_recomputation(profile.max_input, profile.kv_tokens, profile.max_output)
        count = outputs_after_admission(profile.kv_tokens, profile.max_output, profile.max_running)
        extends, outputs = profile.cost.extend(recomputation), profile.cost.output(count)
        unit = optimistic_engine_unit(profile.cost, recomputation, count, profile.late_steps, running)
    floor = deficit_floor(unit)
    return EngineBounds(
        theorem=theorem,
        unit=unit,
        of_extends=extends,
        of_outputs=outputs,
        of_lateness=unit - extends - outputs,
        floor=floor,
        gap=service_gap(profile.quanta.default, floor),
    )
