"""The reference as an engine's profile describes it: chunks, late outputs and either kind of memory, all at once."""

from __future__ import annotations

from dataclasses import dataclass

from dlpm.engine_profile import EngineProfile
from dlpm.events import EventSink, Extensions
from dlpm.extensions import late_accounting
from dlpm.extensions.chunked_prefill import ChunkedDLPM, ChunkedPrefill, ChunkedWorker
from dlpm.extensions.late_accounting import LateLedger
from dlpm.ledger import Quanta
from dlpm.policies.base import Policy
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_proofs.witness import STEP_US, Setting


@dataclass(frozen=True, slots=True)
class EngineSetting(Setting):
    """An engine that a workload is replayed on, with prompts in chunks where ``chunk_budget`` is given.

    ``late_steps`` is how many forward steps late its gate hears of outputs.
    """

    late_steps: int = 0
    chunk_budget: int | None = None

    def build_policy(self) -> Policy:
        """DLPM on a ledger that runs behind."""
        return self._policy()

    def build_worker(self, sink: EventSink) -> Worker:
        """The chunked worker, or the plain one."""
        if self.chunk_budget is None:
            return Worker(self.config(), self._policy(), FixedStep(STEP_US), sink, full_log=True)
        chunks = ChunkedPrefill(self.chunk_budget)
        return ChunkedWorker(self.config(), self._policy(), FixedStep(STEP_US), chunks, sink, full_log=True)

    def extensions(self) -> Extensions:
        """Whatever is not as in the paper."""
        late = late_accounting.stated(self.late_steps) if self.late_steps else {}
        chunked = {} if self.chunk_budget is None else ChunkedPrefill(self.chunk_budget).stated()
        return {**late, **chunked}

    def _policy(self) -> ChunkedDLPM:
        quanta = Quanta(self.quantum, dict(self.quanta))
        return ChunkedDLPM(LateLedger(quanta, self.cost(), lambda _: self.late_steps))


def setting_of(profile: EngineProfile) -> EngineSetting:
    """The reference as the engine of ``profile``. It yields one token a step and request."""
    return EngineSetting(
        profile.kv_tokens,
        profile.quanta.default,
        profile.cost.extend_weight,
        profile.cost.output_weight,
        memory=profile.memory,
        max_running=profile.max_running,
        late_steps=profile.late_steps,
        chunk_budget=profile.chunk_budget,
    )
