"""E2, chunked prefill: extend tokens are computed and paid for in chunks, under a budget of tokens a step.

An `admit` says in ``chunk`` how many of its extend tokens its step computes, where that is not all; each later step in
which more of them are computed has a `chunk` event. The step that computes the last of them yields the first output
token. The options: ``budget`` in tokens a step; ``gate``: ``request`` (if left out), asked at admission alone, or
``chunk``, asked for each chunk; ``charge``: ``chunk`` (if left out), paid as computed, or ``admission``, all paid
there; ``most``: the most extend tokens of one request in a step.
"""

from __future__ import annotations

from collections.abc import Mapping

from dlpm.bounds import tight_unit
from dlpm.bounds_chunked import extends_of_several
from dlpm.cost import CostModel
from dlpm.events import Header
from dlpm.fields import MAX_INTEGER, MAX_TOKENS, Fields
from dlpm_engine.conformance.batch import Batch
from dlpm_engine.conformance.extensions.chunked_rules import (
    ADMISSION,
    ALL,
    CHUNK,
    FIRST,
    FLOOR,
    GATED,
    ONE,
    ORDER,
    REQUEST,
    ChunkedRules,
    Chunking,
)
from dlpm_engine.conformance.extensions.composed import composed
from dlpm_engine.conformance.extensions.mode import Extension, Mode, known_options, one_of
from dlpm_engine.conformance.extensions.prefills import ChunkedBatch, Prefills
from dlpm_engine.conformance.forward import Forward
from dlpm_engine.conformance.lifecycle import Lifecycle
from dlpm_engine.conformance.line import Line
from dlpm_engine.conformance.odd import OddLineError
from dlpm_engine.conformance.parts import Parts
from dlpm_engine.conformance.promises import EXTENSION_BOUNDS, Promises, ProvenUnit, Unproven
from dlpm_engine.conformance.state import ClientState, RequestState
from dlpm_engine.conformance.theorem_rules import TheoremRules
from dlpm_engine.conformance.worker_state import WorkerState

NAME = "chunked_prefill"


class ChunkedLifecycle(Lifecycle):
    """Admissions with a first chunk, and later chunks."""

    def __init__(self, state: WorkerState, batch: ChunkedBatch, rules: ChunkedRules, prefills: Prefills) -> None:
        """Tell ``rules`` of chunks."""
        super().__init__(state, batch, rules)
        self._chunked_batch = batch
        self._chunk_rules = rules
        self._prefills = prefills

    def admit(self, event: Line) -> None:
        """As ever, after its first chunk."""
        first = event.get("chunk")
        if first is not None and not (type(first) is int and 1 <= first <= MAX_INTEGER):
            raise OddLineError
        self._chunk_rules.begins_with(first)
        super().admit(event)

    def chunk(self, event: Line) -> None:
        """More of a prompt is computed in this step. O(half computed requests)."""
        name, tokens, deficit = event["request"], event["tokens"], event.get("deficit")
        if not (type(name) is str and type(tokens) is int and 1 <= tokens <= MAX_INTEGER):
            raise OddLineError
        if "deficit" in event and not (type(deficit) is int and abs(deficit) <= MAX_INTEGER):
            raise OddLineError
        state = self._state
        request = state.running.get(name)
        if request is None:
            self._chunk_stray(name, deficit)
            return
        if self._chunk_rules.chunk(request, tokens, deficit):
            self._chunked_batch.computes(request, tokens)
        self._chunk_rules.charged(request, tokens)
        request.client.recent.append((state.findings.line, state.findings.raw))

    def _chunk_stray(self, name: str, deficit: int | None) -> None:
        """A chunk of a request that does not run."""
        state = self._state
        if name in state.strays:
            client = state.strays[name]
        else:
            queued = state.queued.get(name)
            client = queued.client if queued is not None else None
            self._chunk_rules.of_nobody(name, queued)
        if client is not None:
            self._discipline.adopts(client, deficit)

    def preempt(self, event: Line) -> None:
        """As ever; what the step had computed of it is lost."""
        request = self._state.running.get(event["request"])
        if request is not None:
            self._prefills.lose(request)
        super().preempt(event)


class ChunkedForward(Forward):
    """Forward steps that yield a token of each request whose prompt is computed."""

    def __init__(self, state: WorkerState, batch: Batch, rules: ChunkedRules, prefills: Prefills) -> None:
        """No forward step yet."""
        super().__init__(state, batch, rules)
        self._prefills = prefills

    def shortened(self, raw: bytes) -> bytes | None:
        """As ever, where nobody is half computed."""
        return super().shortened(raw) if self._all_yield() else None

    def _is_idle(self, tokens: Mapping[str, int]) -> bool:
        """No decode, no chunk."""
        return not tokens and not self._prefills.spent()

    def _all_yield(self) -> bool:
        """Nobody's prompt is half computed. O(prompts computed in this step)."""
        return not self._prefills.half_computed()

    def _yields(self, request: RequestState) -> bool:
        """Whose prompt is computed."""
        return self._prefills.yields(request)

    def _check_tokens(self, tokens: Mapping[str, int]) -> bool:
        """As ever, and no output of anybody who is half computed. O(running requests)."""
        prefills = self._prefills
        early = [request for request in prefills.half_computed() if tokens.get(request.id)]
        blamed = next((request for request in early if request not in prefills.doubtful), None)
        if blamed is not None:
            self._state.violation(
                FIRST.id,
                expected=f"no output of {blamed.id!r}: {prefills.left[blamed]} tokens of its prompt are left",
                found=f"{tokens[blamed.id]}",
                client=blamed.client,
                request=blamed.id,
            )
        for request in early:
            prefills.yielded(request)
        return super()._check_tokens(tokens)

    def _served(self, tokens: Mapping[str, int]) -> dict[ClientState, int]:
        """As ever; who is half computed is brought up to date. O(running requests)."""
        for request in self._prefills.half_computed():
            self._batch.gets_none(request)
        return super()._served({name: count for name, count in tokens.items() if count})

    def _take_in(self, deficits: Mapping[str, int], served: Mapping[ClientState, int] | None, *, sound: bool) -> None:
        """As ever; then what was to be computed is computed."""
        super()._take_in(deficits, served, sound=sound)
        self._prefills.end_step()


class ChunkedMode(Mode):
    """Logs of an engine that computes prompts in chunks."""

    def __init__(self, options: Fields, header: Header) -> None:
        """Read the options.

        Raises:
            InputError: ``budget`` or ``most`` is not a whole number > 0, ``gate`` or ``charge`` is another word, extend
                tokens are all charged at admission though each chunk is gated, or there are other options.
        """
        super().__init__(header)
        known_options(options, "budget", "gate", "charge", "most")
        given = options.values
        self.chunking = Chunking(
            budget=options.integer("budget", 1, MAX_TOKENS),
            gate=one_of(options, "gate", REQUEST, CHUNK) if "gate" in given else REQUEST,
            charge=one_of(options, "charge", CHUNK, ADMISSION) if "charge" in given else CHUNK,
            most=options.integer("most", 1, MAX_TOKENS) if "most" in given else None,
        )
        if self.chunking.gate == CHUNK and self.chunking.charge == ADMISSION:
            raise options.wrong("charge", f"expected {CHUNK}: each chunk is gated")

    @property
    def rules(self) -> tuple[str, ...]:
        """Those of the gate that is asked, and the bounds."""
        others = (ORDER.id,) if self.chunking.gate == CHUNK else (GATED.id, ONE.id, FLOOR.id)
        return (*(rule.id for rule in ALL if rule.id not in others), *(rule.id for rule in EXTENSION_BOUNDS))

    def promises(self) -> Promises:
        """The floor of the theorem that is about this gate, this charge and this memory."""
        header, chunking = self.header, self.chunking
        what = f"chunks under a budget of {chunking.budget}, gate {chunking.gate}"
        several = chunking.largest() < chunking.budget and chunking.charge == CHUNK and chunking.gate == REQUEST
        if chunking.gate == REQUEST and chunking.charge == CHUNK and not several:
            return composed(header, what, chunk_budget=chunking.budget)
        limits, kv_tokens = header.limits, header.limits.kv_tokens
        if kv_tokens is None:
            return Unproven(what, "the header states no limits.kv_tokens")
        if header.memory != "reserving":
            return Unproven(what, "for these options there is a theorem under reserving memory alone")
        cost = CostModel(header.extend_weight, header.output_weight)

        def unit(max_input: int) -> int:
            unpaid = extends_of_several(max_input, chunking.budget, chunking.largest()) if several else max_input
            return tight_unit(cost, unpaid, kv_tokens, max_output=limits.max_output, max_running=limits.max_running)

        return ProvenUnit(what, unit)

    def chunked_rules(self, state: WorkerState, prefills: Prefills) -> ChunkedRules:
        """The rules about gate, charges, refills and chunks."""
        return ChunkedRules(state, TheoremRules(state, self.promises()), self.chunking, prefills)

    def lifecycle(
        self, state: WorkerState, batch: ChunkedBatch, rules: ChunkedRules, prefills: Prefills
    ) -> ChunkedLifecycle:
        """The rules about the life of requests."""
        return ChunkedLifecycle(state, batch, rules, prefills)

    def parts(self, state: WorkerState) -> Parts:
        """Admissions with chunks, and forward steps that yield less than one token each."""
        prefills = Prefills(state)
        rules = self.chunked_rules(state, prefills)
        batch = ChunkedBatch(state, rules, prefills)
        lifecycle = self.lifecycle(state, batch, rules, prefills)
        return Parts(rules, lifecycle, ChunkedForward(state, batch, rules, prefills), {"chunk": lifecycle.chunk})


EXTENSION = Extension(NAME, ChunkedMode, ALL)
