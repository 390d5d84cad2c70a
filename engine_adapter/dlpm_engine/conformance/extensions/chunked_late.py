"""E2 with E8: prompts in chunks, and counters that hear of outputs late. Chunks are paid for at once."""

from __future__ import annotations

from collections.abc import Mapping

from dlpm.events import Header
from dlpm.fields import Fields
from dlpm_engine.conformance.extensions import chunked_prefill, late
from dlpm_engine.conformance.extensions.chunked_prefill import ChunkedMode
from dlpm_engine.conformance.extensions.chunked_rules import CHUNK, REQUEST, ChunkedRules, Chunking
from dlpm_engine.conformance.extensions.composed import composed
from dlpm_engine.conformance.extensions.late import LateRules, late_steps
from dlpm_engine.conformance.extensions.prefills import Prefills
from dlpm_engine.conformance.promises import Promises, Unproven
from dlpm_engine.conformance.state import RequestState
from dlpm_engine.conformance.worker_state import WorkerState

TOGETHER = frozenset((chunked_prefill.NAME, late.NAME))


class ChunkedLateRules(ChunkedRules, LateRules):
    """The rules about chunks, on counters that run behind."""

    def __init__(
        self, state: WorkerState, promises: Promises, chunking: Chunking, prefills: Prefills, steps: int
    ) -> None:
        """Nothing has happened, and nothing is unheard."""
        LateRules.__init__(self, state, promises, steps)
        self.begin_chunks(chunking, prefills)

    def chunk(self, request: RequestState, tokens: int, deficit: int | None) -> bool:
        """As ever, on the counter that is seen."""
        client = request.client
        if len(self._unheard.possible) > 1 and deficit is not None and not client.doubtful:
            before = deficit + self.state.cost.extend(self.paid_now(tokens))
            self._unheard.settle(lambda steps: self._unheard.seen(client, steps) == before)
        return super().chunk(request, tokens, deficit)


class ChunkedLate(ChunkedMode):
    """Logs of an engine that computes prompts in chunks and hears of outputs late."""

    def __init__(self, stated: Mapping[str, Fields], header: Header) -> None:
        """Read the options of both.

        Raises:
            InputError: an option of either is not what it must be, or each chunk is gated: there are no rules for that.
        """
        options = stated[chunked_prefill.NAME]
        super().__init__(options, header)
        if self.chunking.gate != REQUEST:
            raise options.wrong("gate", f"expected {REQUEST}: there are no rules for gated chunks beside {late.NAME}")
        self._steps = late_steps(stated[late.NAME])

    def promises(self) -> Promises:
        """What is proven of both together [ENGINE/...]."""
        chunking = self.chunking
        what = f"chunks under a budget of {chunking.budget}, outputs charged up to {self._steps} steps late"
        if chunking.largest() < chunking.budget or chunking.charge != CHUNK:
            return Unproven(what, "no theorem is about late outputs with a cap, or with chunks paid at admission")
        return composed(self.header, what, late_steps=self._steps, chunk_budget=chunking.budget)

    def chunked_rules(self, state: WorkerState, prefills: Prefills) -> ChunkedRules:
        """Both."""
        return ChunkedLateRules(state, self.promises(), self.chunking, prefills, self._steps)
