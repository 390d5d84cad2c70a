"""The bound of VTC as a rule: how far the counters of queued clients can part [VTC Thm 4.4, its lemma]."""

from __future__ import annotations

from collections.abc import Mapping

from dlpm.bounds import vtc_unit_as_printed
from dlpm_engine.conformance.worker_state import WorkerState

RULE = "vtc-apart"


class VtcBounds:
    """Counters of queued clients differ by at most ``max(w_p L_input, w_q M)``: Thm 4.4 follows from this lemma.

    Where the header states no ``max_input``, the longest input so far stands for ``L_input``.
    """

    def __init__(self, state: WorkerState) -> None:
        """No client yet."""
        self._state = state
        self._kv_tokens = state.header.limits.kv_tokens
        self._stated = state.header.limits.max_input is not None
        self._max_input = state.header.limits.max_input or 0
        self._apart = False

    def not_checked(self) -> Mapping[str, str]:
        """The bound needs the memory."""
        return {} if self._kv_tokens is not None else {RULE: "the header states no limits.kv_tokens"}

    def longer_input(self, input_tokens: int) -> None:
        """A request with this input arrives. O(1)."""
        if not self._stated:
            self._max_input = max(self._max_input, input_tokens)

    def check(self) -> None:
        """Look at the counters of those queued, after a charge. Reported once, until they have drawn near again.

        O(queued clients).
        """
        state = self._state
        if self._kv_tokens is None or state.blind or len(state.queued_clients) < 2:
            return
        known = [client for client in state.queued_clients if not client.doubtful]
        if not known:
            return
        behind = min(known, key=lambda client: client.deficit)
        ahead = max(known, key=lambda client: client.deficit)
        bound = vtc_unit_as_printed(state.cost, self._max_input, self._kv_tokens)
        apart = ahead.deficit - behind.deficit
        if apart > bound and not self._apart:
            state.violation(
                RULE,
                expected=f"counters of queued clients at most max(w_p L_input, w_q M) = {bound} apart",
                found=f"{apart}: {ahead.id!r} at {ahead.deficit}, {behind.id!r} at {behind.deficit}",
                client=ahead,
                unmet_hypothesis=self._unmet(),
            )
        self._apart = apart > bound

    def _unmet(self) -> str | None:
        """Why the theorem does not speak of this run, if it does not."""
        if self._state.header.memory != "reserving":
            memory = self._state.header.memory or "not stated"
            return f"its memory is {memory}: hypothesis reserving admission of Thm 4.4 is not met"
        if self._state.cost.extend_weight > self._state.cost.output_weight:
            return "an input token weighs more than an output token: hypothesis w_p <= w_q of Thm 4.4 is not met"
        return None
