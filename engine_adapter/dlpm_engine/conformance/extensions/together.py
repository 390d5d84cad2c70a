"""Engines that do several things at once, as far as one theorem is about all of them [ENGINE/...].

Bounds may not be added, so what has no theorem of its own is refused here, and a log is held to no bound that nobody
has proved: several tokens a step need reserving memory; with late charges a surplus must be free, and clients must pay
for what they compute again. Whom a preemption hits is of no consequence for the bound.
"""

from __future__ import annotations

from collections.abc import Mapping

from dlpm.events import Header
from dlpm.fields import Fields
from dlpm_engine.conformance.batch import Batch
from dlpm_engine.conformance.dlpm_rules import DlpmRules
from dlpm_engine.conformance.extensions.composed import composed
from dlpm_engine.conformance.extensions.late import LateRules, late_steps
from dlpm_engine.conformance.extensions.mode import Mode
from dlpm_engine.conformance.extensions.recompute import (
    CLIENT,
    PAYER,
    VICTIM,
    PayerLifecycle,
    RecomputeRules,
    recomputation,
)
from dlpm_engine.conformance.extensions.speculation import (
    ACCEPTED_LIMIT,
    ACCEPTED_SURPLUS,
    FREE,
    SpeculativeForward,
    speculation,
)
from dlpm_engine.conformance.forward import Forward
from dlpm_engine.conformance.lifecycle import Lifecycle
from dlpm_engine.conformance.parts import Parts
from dlpm_engine.conformance.promises import EXTENSION_BOUNDS, Promises
from dlpm_engine.conformance.worker_state import WorkerState


class LateRecomputeRules(RecomputeRules, LateRules):
    """Counters that run behind, and a rule for victims; clients pay for what they compute again."""

    def __init__(self, state: WorkerState, promises: Promises, steps: int, victim: str) -> None:
        """Nothing has happened."""
        LateRules.__init__(self, state, promises, steps)
        self.begin(victim, CLIENT)


class Together(Mode):
    """Logs of an engine that hears of outputs late, and does something else as well."""

    def __init__(self, stated: Mapping[str, Fields], header: Header) -> None:
        """Read the options of all.

        Raises:
            InputError: one is not what it must be; or no theorem is about such an engine.
        """
        super().__init__(header)
        self._names = tuple(stated)
        self._late = late_steps(stated["late"])
        self._most_accepted: int | None = None
        self._victim: str | None = None
        if "speculation" in stated:
            options = stated["speculation"]
            self._most_accepted, charged = speculation(options)
            if charged:
                raise options.wrong("surplus", f"expected {FREE} beside late: no theorem is about a late surplus")
            if header.memory == "optimistic" and self._most_accepted > 1:
                expected = "expected 1 beside late under optimistic memory: no theorem is about them together"
                raise options.wrong("most_accepted", expected)
        if "recompute" in stated:
            options = stated["recompute"]
            self._victim, payer = recomputation(options, header)
            if payer != CLIENT:
                raise options.wrong("payer", f"expected {CLIENT} beside late: no theorem is about another payer")

    @property
    def rules(self) -> tuple[str, ...]:
        """Those of each, and the bounds of the whole."""
        speculative = () if self._most_accepted is None else (ACCEPTED_LIMIT.id, ACCEPTED_SURPLUS.id)
        recomputing = () if self._victim is None else (VICTIM.id, PAYER.id)
        return (*speculative, *recomputing, *(rule.id for rule in EXTENSION_BOUNDS))

    def promises(self) -> Promises:
        """The floor and the gap of the whole composition."""
        return composed(
            self.header,
            " and ".join(self._names),
            late_steps=self._late,
            most_accepted=self._most_accepted or 1,
        )

    def parts(self, state: WorkerState) -> Parts:
        """The rules of each, put together."""
        discipline: DlpmRules
        if self._victim is None:
            discipline = LateRules(state, self.promises(), self._late)
            batch = Batch(state, discipline)
            lifecycle = Lifecycle(state, batch, discipline)
        else:
            discipline = LateRecomputeRules(state, self.promises(), self._late, self._victim)
            batch = Batch(state, discipline)
            lifecycle = PayerLifecycle(state, batch, discipline)
        forward = Forward(state, batch, discipline)
        if self._most_accepted is not None:
            forward = SpeculativeForward(state, batch, discipline, self._most_accepted, charged=False)
        return Parts(discipline, lifecycle, forward)
