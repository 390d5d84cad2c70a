"""E2 with E8, with E3, or with both: what vLLM does, all at once [ENGINE/...].

Chunks are paid for at once, and outputs are heard of late. Whoever joined last is preempted, and its client pays for
what is computed again. The theorem does not ask who is preempted, but the reference has chunks with no other victims;
about another payer there is no theorem.
"""

from __future__ import annotations

from collections.abc import Mapping

from dlpm.events import Header
from dlpm.fields import Fields
from dlpm_engine.conformance.extensions import chunked_prefill, late, recompute
from dlpm_engine.conformance.extensions.chunked_prefill import ChunkedLifecycle, ChunkedMode
from dlpm_engine.conformance.extensions.chunked_rules import CHUNK, REQUEST, ChunkedRules, Chunking
from dlpm_engine.conformance.extensions.composed import composed
from dlpm_engine.conformance.extensions.late import LateRules, late_steps
from dlpm_engine.conformance.extensions.prefills import ChunkedBatch, Prefills
from dlpm_engine.conformance.extensions.recompute import CLIENT, LAST, PAYER, VICTIM, PayerLifecycle, recomputation
from dlpm_engine.conformance.extensions.together import LateRecomputeRules
from dlpm_engine.conformance.promises import Promises, Unproven
from dlpm_engine.conformance.state import RequestState
from dlpm_engine.conformance.worker_state import WorkerState

TOGETHER = (
    frozenset((chunked_prefill.NAME, late.NAME)),
    frozenset((chunked_prefill.NAME, recompute.NAME)),
    frozenset((chunked_prefill.NAME, late.NAME, recompute.NAME)),
)
"""The sets of extensions that `ChunkedTogether` has rules for."""


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


class ChunkedLateRecomputeRules(ChunkedLateRules, LateRecomputeRules):
    """The same, and a rule for victims."""

    def __init__(
        self, state: WorkerState, promises: Promises, chunking: Chunking, prefills: Prefills, steps: int
    ) -> None:
        """Nothing has happened, nothing is unheard, and nobody has been preempted."""
        super().__init__(state, promises, chunking, prefills, steps)
        self.begin(LAST, CLIENT)


class ChunkedPayerLifecycle(ChunkedLifecycle, PayerLifecycle):
    """Admissions with a first chunk, which nobody but their client pays for."""


class ChunkedTogether(ChunkedMode):
    """Logs of an engine that computes prompts in chunks, and hears of outputs late, states its victims, or both."""

    def __init__(self, stated: Mapping[str, Fields], header: Header) -> None:
        """Read the options of all.

        Raises:
            InputError: an option is not what it must be, each chunk is gated, others are preempted than who came last,
                or others pay than the client: there are no rules for that.
        """
        options = stated[chunked_prefill.NAME]
        super().__init__(options, header)
        self._names = tuple(stated)
        if self.chunking.gate != REQUEST:
            others = " and ".join(name for name in stated if name != chunked_prefill.NAME)
            raise options.wrong("gate", f"expected {REQUEST}: there are no rules for gated chunks beside {others}")
        self._steps = late_steps(stated[late.NAME]) if late.NAME in stated else 0
        self._recomputes = recompute.NAME in stated
        if self._recomputes:
            options = stated[recompute.NAME]
            for option, found, known in zip(
                ("victim", "payer"), recomputation(options, header), (LAST, CLIENT), strict=True
            ):
                if found != known:
                    raise options.wrong(option, f"expected {known}: there are no rules for another beside chunks")

    @property
    def rules(self) -> tuple[str, ...]:
        """Those of each."""
        return (*super().rules, VICTIM.id, PAYER.id) if self._recomputes else super().rules

    def promises(self) -> Promises:
        """What is proven of all together [ENGINE/...]."""
        chunking = self.chunking
        what = " and ".join(self._names)
        if chunking.largest() < chunking.budget or chunking.charge != CHUNK:
            return Unproven(what, "no theorem is about a cap, or chunks paid at admission, beside other extensions")
        return composed(self.header, what, late_steps=self._steps, chunk_budget=chunking.budget)

    def chunked_rules(self, state: WorkerState, prefills: Prefills) -> ChunkedRules:
        """Those of each."""
        rules = ChunkedLateRecomputeRules if self._recomputes else ChunkedLateRules
        return rules(state, self.promises(), self.chunking, prefills, self._steps)

    def lifecycle(
        self, state: WorkerState, batch: ChunkedBatch, rules: ChunkedRules, prefills: Prefills
    ) -> ChunkedLifecycle:
        """Admissions that may name a payer, where one is stated."""
        if isinstance(rules, ChunkedLateRecomputeRules):
            return ChunkedPayerLifecycle(state, batch, rules, prefills)
        return super().lifecycle(state, batch, rules, prefills)
