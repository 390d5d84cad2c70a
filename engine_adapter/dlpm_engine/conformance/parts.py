"""What the rules of one worker are made of: the seam at which an extension puts in its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dlpm_engine.conformance.batch import Batch
from dlpm_engine.conformance.discipline import Discipline
from dlpm_engine.conformance.forward import Forward
from dlpm_engine.conformance.lifecycle import Lifecycle
from dlpm_engine.conformance.line import Line
from dlpm_engine.conformance.worker_state import WorkerState

Handler = Callable[[Line], None]
"""Takes one event as the log has it: raises `OddLineError` or `KeyError` where a field is not what it must be."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The rules of one worker.

    Attributes:
        discipline: those of its policy.
        lifecycle: those about arrivals, admissions, finishes and preemptions.
        forward: those about forward steps.
        handlers: by kind of event, where another method than the usual one of these takes it, or for a kind of event
            that the plain algorithm does not have.
    """

    discipline: Discipline
    lifecycle: Lifecycle
    forward: Forward
    handlers: Mapping[str, Handler] = field(default_factory=dict)


def plain_parts(state: WorkerState, discipline: Discipline) -> Parts:
    """Every rule about requests as it is without extensions, around the rules of a policy."""
    batch = Batch(state, discipline)
    return Parts(discipline, Lifecycle(state, batch, discipline), Forward(state, batch, discipline))
