"""Prompts that are computed in chunks, as a log tells of them: how much is left of each, and what a step has computed.

Free memory with chunks. What is not computed of a prompt is its request's own: nobody can match it. Once it is
computed, another request that computed the same may share it, whatever the visibility; unless all was computed in the
step of the admission, as without chunks.
"""

from __future__ import annotations

from collections.abc import Sequence

from dlpm_engine.conformance.batch import Batch
from dlpm_engine.conformance.considered_order import ConsideredOrder, Eligible
from dlpm_engine.conformance.discipline import Discipline
from dlpm_engine.conformance.memory_rules import MemoryRules
from dlpm_engine.conformance.state import RUNNING, RequestState
from dlpm_engine.conformance.worker_state import WorkerState


class Prefills:
    """The running requests whose prompts were not computed when the present step began.

    Attributes:
        left: of each, the extend tokens that no step has computed yet, this one included; in order of admission.
        now: the extend tokens that this step computes, by request.
        doubtful: requests of which the log has contradicted itself on how much is left.
    """

    def __init__(self, state: WorkerState) -> None:
        """Nothing runs."""
        self._state = state
        self.left: dict[RequestState, int] = {}
        self.now: dict[RequestState, int] = {}
        self.doubtful: set[RequestState] = set()
        self._taken = 0
        self._lost = 0
        self._step = -1

    def begin(self, request: RequestState, extend: int, first: int) -> None:
        """``request`` is about to join the batch, and ``first`` of its ``extend`` tokens are computed now. O(1)."""
        self.left[request] = extend
        self.take(request, first)

    def take(self, request: RequestState, tokens: int) -> int:
        """So many of its tokens are computed in this step; how many of those had been left. O(1)."""
        self._keep_up()
        self.now[request] = self.now.get(request, 0) + tokens
        self._taken += tokens
        taken = min(tokens, self.left[request])
        self.left[request] -= taken
        return taken

    def spent(self) -> int:
        """Tokens that this step computes for those who run now: decodes and chunks. O(1)."""
        self._keep_up()
        return len(self._state.running) - len(self.left) + self._taken

    def spent_before_rest(self) -> int:
        """The same, with those preempted in this step: at most this had been spent when they had to go. O(1)."""
        return self.spent() + self._lost

    def half_computed(self) -> list[RequestState]:
        """Requests with a part of their prompt left, in order of admission. O(those)."""
        return [request for request, left in self.left.items() if left or request in self.doubtful]

    def without_chunk(self) -> list[RequestState]:
        """Those of them that have got no chunk in this step. O(those)."""
        self._keep_up()
        return [request for request in self.half_computed() if request not in self.now]

    def yields(self, request: RequestState) -> bool:
        """Whether its prompt is computed when the step ends, as far as is known."""
        return not self.left.get(request, 0)

    def lose(self, request: RequestState) -> None:
        """It is about to be preempted. O(1)."""
        self._keep_up()
        self._lost += self.now.get(request, 0) if request in self.left else 1

    def forget(self, request: RequestState) -> None:
        """It has left the batch. O(1)."""
        if self.left.pop(request, None) is not None:
            self._taken -= self.now.pop(request, 0)
            self.doubtful.discard(request)

    def doubt(self, request: RequestState) -> None:
        """How much is left of it is not known, until it yields its first output."""
        self.doubtful.add(request)

    def yielded(self, request: RequestState) -> None:
        """Its prompt must have been computed: it got output. O(1)."""
        if request in self.left:
            self.left[request] = 0
            self.doubtful.discard(request)

    def end_step(self) -> None:
        """What was to be computed is computed. O(half computed)."""
        if self.left:
            self.left = {request: left for request, left in self.left.items() if left or request in self.doubtful}
        self.now = {}
        self._taken = 0
        self._lost = 0

    def _keep_up(self) -> None:
        """A step that the log goes past has ended. O(1) in the same step."""
        if self._state.step != self._step:
            self._step = self._state.step
            self.end_step()


class ChunkedMemory(MemoryRules):
    """What requests certainly hold, if their prompts may be computed in chunks."""

    def __init__(self, state: WorkerState, prefills: Prefills) -> None:
        """An empty memory."""
        super().__init__(state)
        self._prefills = prefills

    def computed(self, request: RequestState, tokens: int) -> None:
        """So many of its tokens that were left are computed: others may share them from here on. O(1)."""
        if request.extend > 1:
            request.held -= tokens
            self._held -= tokens

    def _own_extends(self, request: RequestState) -> tuple[int, int]:
        """What is left of its prompt; what its first chunk computes may soon be shared."""
        left = self._prefills.left.get(request, 0)
        return (left, request.extend - left) if left else super()._own_extends(request)


class ChunkedBatch(Batch):
    """A batch of requests some of which are half computed."""

    def __init__(self, state: WorkerState, discipline: Discipline, prefills: Prefills) -> None:
        """An empty batch."""
        self._chunked_memory = ChunkedMemory(state, prefills)
        super().__init__(state, discipline, self._chunked_memory)
        self._prefills = prefills

    def computes(self, request: RequestState, tokens: int) -> None:
        """A later chunk of ``request`` is computed in this step. O(1)."""
        self._chunked_memory.computed(request, self._prefills.take(request, tokens))

    def leave(self, request: RequestState) -> None:
        """As ever."""
        super().leave(request)
        self._prefills.forget(request)


class GatedOrder(ConsideredOrder):
    """The order where each chunk is gated: who is half computed comes before the queue, in order of admission."""

    def __init__(self, state: WorkerState, prefills: Prefills) -> None:
        """No order yet."""
        super().__init__(state)
        self._prefills = prefills

    def ahead(self) -> Sequence[RequestState]:
        """Who waits for its next chunk."""
        return self._prefills.without_chunk()

    def waits(self, request: RequestState) -> bool:
        """A request is in the queue, or waits for its next chunk."""
        prefills = self._prefills
        return super().waits(request) or (prefills.left.get(request, 0) > 0 and request not in prefills.now)

    def fits(self, request: RequestState, free: int) -> bool:
        """Who is half computed has the memory of its whole prompt."""
        return request.status == RUNNING or super().fits(request, free)

    def goes_on(self, request: RequestState, eligible: Eligible) -> None:
        """``request`` is about to get a chunk; free memory is no less after it. O(requests passed over).

        One that goes on before the queue is considered has passed over nobody.
        """
        if self._step == self._state.step:
            self.admits(request, self._free, eligible)
