"""What running requests certainly hold of the KV memory, and the rules that follow: overbooked, free, batch size.

The log does not say which blocks requests share, so the rules use a lower bound on what is held: what no two running
requests can share.

* The output a request may still get or has got since its admission is its own: ``max_output`` less what it had
  generated before. (Under optimistic memory nothing is reserved, and these rules do not apply.)
* With visibility ``at_admission`` its extend tokens are its own too: they were in nobody's memory when it was
  admitted, and whoever shares them later counts them as matched. One exception: if all of its tokens are cached it
  still computes one, which is in memory already; so an extend of 1 counts as nothing.
* With ``after_forward`` two requests may compute the same prompt side by side and share it afterwards: extend tokens
  are certainly apart only until the next forward step.

If the sum over the running requests exceeds M, memory is overbooked, whatever they share.
"""

from __future__ import annotations

from dlpm_engine.conformance.state import RequestState
from dlpm_engine.conformance.worker_state import WorkerState


class MemoryRules:
    """The memory and the size of the running batch of one worker. Every method O(1)."""

    def __init__(self, state: WorkerState) -> None:
        """An empty memory; the limits are those of the header."""
        header = state.header
        self._state = state
        self._capacity = header.limits.kv_tokens
        self._reserving = header.memory == "reserving"
        self._extends_stay_apart = header.visibility == "at_admission"
        self._max_running = header.limits.max_running
        self._held = 0
        self._fresh = 0
        self._fresh_of: dict[RequestState, int] = {}
        # A fault is reported when it first shows, and not again at every admission until it is over.
        self._overbooked = False
        self._too_many = False

    def admitted(self, request: RequestState, free: int | None) -> None:
        """``request`` has joined the batch, and the log says that ``free`` tokens are left."""
        apart, fresh = self._own_extends(request)
        request.held = apart + request.max_output - request.generated
        self._held += request.held
        if fresh:
            self._fresh_of[request] = fresh
            self._fresh += fresh
        state = self._state
        too_many = self._max_running is not None and len(state.running) > self._max_running
        if too_many and not self._too_many:
            state.violation(
                "max-running",
                expected=f"at most {self._max_running} running requests",
                found=f"{len(state.running)}",
                client=request.client,
                request=request.id,
            )
        self._too_many = too_many
        if self._capacity is None:
            return
        certain = self._held + self._fresh
        overbooked = self._reserving and certain > self._capacity
        if overbooked and not self._overbooked:
            state.violation(
                "memory-overbooked",
                expected=f"at most M = {self._capacity} tokens held or reserved by the running requests",
                found=f"at least {certain}",
                client=request.client,
                request=request.id,
            )
        self._overbooked = overbooked
        if free is not None and not overbooked:
            most = self._capacity - certain if self._reserving else self._capacity
            if not 0 <= free <= most:
                state.violation(
                    "free-memory",
                    expected=f"free tokens from 0 to {most}",
                    found=f"{free}",
                    client=request.client,
                    request=request.id,
                )

    def released(self, request: RequestState) -> None:
        """``request`` has left the batch."""
        self._held -= request.held
        request.held = 0
        self._fresh -= self._fresh_of.pop(request, 0)

    def forwarded(self) -> None:
        """A forward step is over: from here on, prompts may be shared."""
        if self._fresh:
            self._fresh = 0
            self._fresh_of.clear()

    def _own_extends(self, request: RequestState) -> tuple[int, int]:
        """Its extend tokens that are certainly its own: as long as it runs, and until the next forward step."""
        own = request.extend if request.extend > 1 else 0
        return (own, 0) if self._extends_stay_apart else (0, own)
