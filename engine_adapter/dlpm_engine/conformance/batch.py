"""The running batch: who joins, who leaves, and what follows for memory, output limits and the policy's rules."""

from __future__ import annotations

from dlpm_engine.conformance.discipline import Discipline
from dlpm_engine.conformance.memory_rules import MemoryRules
from dlpm_engine.conformance.state import GONE, RUNNING, RequestState
from dlpm_engine.conformance.worker_state import WorkerState


class Batch:
    """Joining and leaving the batch of one worker, each O(1) beside what the policy's rules cost."""

    def __init__(self, state: WorkerState, discipline: Discipline, memory: MemoryRules | None = None) -> None:
        """An empty batch. ``memory``: rules that know which extend tokens are whose, if not the plain ones."""
        self._state = state
        self._discipline = discipline
        self._memory = memory if memory is not None else MemoryRules(state)
        # Requests by the forward step after which each has its maximum output.
        self._due: dict[int, set[RequestState]] = {}

    def join(self, request: RequestState, extend: int, free: int | None) -> None:
        """A queued request joins, computing ``extend`` tokens; ``free`` tokens of memory are left, if the log says."""
        state = self._state
        state.dequeue(request)
        request.status = RUNNING
        request.extend = extend
        request.joined = state.forwards
        self._watch(request, state.forwards + request.max_output - request.generated)
        state.start_running(request)
        self._discipline.admitted(request)
        self._memory.admitted(request, free)

    def leave(self, request: RequestState) -> None:
        """A running request leaves, for whatever reason."""
        state = self._state
        state.stop_running(request)
        self._memory.released(request)
        self._forget(request)
        request.generated += state.forwards - request.joined

    def discard(self, request: RequestState) -> None:
        """Forget a request, queued or running, that the log has contradicted itself on."""
        if request.status == RUNNING:
            self.leave(request)
            self._discipline.finished(request)
        else:
            self._state.dequeue(request)
            self._discipline.withdrawn(request)
        request.status = GONE

    def forwarded(self) -> None:
        """A forward step has been taken in."""
        self._memory.forwarded()

    def gets_more(self, request: RequestState, tokens: int) -> None:
        """In the coming forward step ``request`` gets ``tokens`` more than one; so its output ends earlier."""
        request.generated += tokens
        self._forget(request)
        self._watch(request, max(request.due - tokens, self._state.forwards))

    def gets_none(self, request: RequestState) -> None:
        """In the coming forward step ``request`` gets no token, its prompt being half computed."""
        request.joined += 1
        self._forget(request)
        self._watch(request, request.due + 1)

    def check_output_limit(self) -> None:
        """Who had its maximum output before the latest forward step should not have run in it. O(1) if nobody did."""
        state = self._state
        late = self._due.pop(state.forwards - 1, None)
        if late is not None:
            first = min(late, key=lambda request: request.rank)
            state.violation(
                "output-in-limit",
                expected=f"at most {first.max_output} output tokens of {first.id!r}",
                found=f"{first.generated + state.forwards - first.joined}",
                client=first.client,
                request=first.id,
            )

    def _watch(self, request: RequestState, due: int) -> None:
        """``request`` has its maximum output after forward step ``due``."""
        request.due = due
        self._due.setdefault(due, set()).add(request)

    def _forget(self, request: RequestState) -> None:
        """``request`` needs no watching."""
        watched = self._due.get(request.due)
        if watched is not None:
            watched.discard(request)
            if not watched:
                del self._due[request.due]
