"""The bounds of DLPM as rules: ceiling, floors and service gap, with the hypotheses that they need.

The sharp gap is not a rule of its own: it is 2(Q - floor), and follows from the proven floor and the ledger rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import gcd

from dlpm.bounds import (
    deficit_ceiling,
    deficit_floor,
    deficit_floor_as_printed,
    longest_recomputation,
    optimistic_unit,
    outputs_after_admission,
    service_gap_as_printed,
    tight_unit,
)
from dlpm_engine.conformance.gap import GapTracker, Lead
from dlpm_engine.conformance.state import ClientState
from dlpm_engine.conformance.worker_state import WorkerState

_UNBOUNDED = 1 << 200


@dataclass(frozen=True, slots=True)
class _Floor:
    """The ``lowest`` deficit that a theorem allows, and whether the theorem needs reserving memory."""

    rule: str
    lowest: int
    expected: str
    needs_reserving: bool


class TheoremRules:
    """The bounds that [DLPM App. A.1] proves for one worker's ledger, for the limits that its log states.

    Where the header states no ``max_input``, the longest input so far stands for ``L_input``: every part of a run is a
    run, and the theorems hold for it. Clients with different quanta are not compared: the printed theorem has one
    quantum for all, and its proof only needs that the two compared clients share theirs.

    Attributes:
        trackers: where leads are kept, by quantum.
    """

    def __init__(self, state: WorkerState) -> None:
        """No client yet."""
        self._state = state
        limits = state.header.limits
        self._kv_tokens = limits.kv_tokens
        self._stated_max_input = limits.max_input
        self._max_input = limits.max_input or 0
        self.trackers: dict[int, GapTracker] = {}
        self._sunk: set[ClientState] = set()
        self._floors: list[_Floor] = []
        self._highest_floor = -_UNBOUNDED
        self._update_floors()

    def not_checked(self) -> Mapping[str, str]:
        """The bounds that need a limit that the header does not state."""
        if self._kv_tokens is not None:
            if self._state.header.memory is None:
                return {"deficit-floor-proven": "the header does not say what memory is"}
            return {}
        reason = "the header states no limits.kv_tokens"
        rules = ("deficit-floor", "deficit-floor-proven", "gap-backlogged", "gap-any")
        return dict.fromkeys(rules, reason)

    def longer_input(self, input_tokens: int) -> None:
        """A request with this input arrives. O(1), and O(quanta) where it is the longest so far."""
        if self._stated_max_input is None and input_tokens > self._max_input:
            self._max_input = input_tokens
            self._update_floors()
            for quantum, tracker in self.trackers.items():
                tracker.bound = self._gap_bound(quantum)

    def tracker(self, client: ClientState) -> GapTracker | None:
        """Where the leads over and of ``client`` are kept; ``None`` if M is not stated. O(1)."""
        if self._kv_tokens is None:
            return None
        tracker = self.trackers.get(client.quantum)
        if tracker is None:
            tracker = self.trackers[client.quantum] = GapTracker(self._gap_bound(client.quantum))
        return tracker

    def check_ceiling(self, client: ClientState) -> None:
        """``q_i <= Q`` [DLPM App. A.1 eq. 1], after a refill. O(1)."""
        ceiling = deficit_ceiling(client.quantum)
        if client.deficit > ceiling:
            self._state.violation(
                "deficit-ceiling",
                expected=f"a deficit of at most {ceiling}",
                found=f"{client.deficit}",
                client=client,
            )

    def check_floor(self, client: ClientState) -> None:
        """The printed floor [DLPM App. A.1 eq. 2] and the proven one, after a charge. O(1).

        A client that has sunk below one is reported once, until it is back.
        """
        if client.deficit >= self._highest_floor and not client.broken_floors:
            return
        for floor in self._floors:
            if client.deficit >= floor.lowest:
                client.broken_floors.discard(floor.rule)
            elif floor.rule not in client.broken_floors:
                client.broken_floors.add(floor.rule)
                self._sunk.add(client)
                self._state.violation(
                    floor.rule,
                    expected=floor.expected,
                    found=f"{client.deficit}",
                    client=client,
                    unmet_hypothesis=self._unmet() if floor.needs_reserving else None,
                )
        if not client.broken_floors:
            self._sunk.discard(client)

    def check_floors(self, lowest: int, served: Iterable[ClientState] | None) -> None:
        """The same after a forward step that left no counter below ``lowest``; ``served``: if not the whole batch.

        O(1) where all is well.
        """
        if lowest < self._highest_floor or self._sunk:
            for client in list(self._state.active if served is None else served):
                self.check_floor(client)

    def check_gaps(self) -> None:
        """No lead above 2(U+Q) [DLPM Thm 4.1, 4.2], after a charge. O(quanta) where no lead can have grown so far."""
        for quantum, tracker in self.trackers.items():
            if tracker.total > tracker.alarm:
                line = self._state.findings.line
                for lead in tracker.leads_above_bound(self.active(quantum), line):
                    self._report(lead, tracker.bound)

    def active(self, quantum: int) -> list[ClientState]:
        """Clients with this quantum and running requests. O(clients in the batch)."""
        return [client for client in self._state.active if client.quantum == quantum]

    def _report(self, lead: Lead, bound: int) -> None:
        """Report a lead above the bound, under the theorem that it breaks."""
        both = lead.ahead.backlog_line != 0 and lead.ahead.backlog_line <= lead.since
        behind, ahead = lead.behind.id, lead.ahead.id
        self._state.violation(
            "gap-backlogged" if both else "gap-any",
            expected=f"at most 2(U+Q) = {bound} more service for any client than for {behind!r} while it is backlogged",
            found=f"{ahead!r} got {lead.amount} more since line {lead.since}",
            client=lead.behind,
            unmet_hypothesis=self._unmet(),
        )

    def _unmet(self) -> str | None:
        """Why the theorems do not speak of this run, if they do not."""
        memory = self._state.header.memory
        if memory == "reserving":
            return None
        if memory is None:
            return "the header does not say what memory is: hypothesis reserving admission of A.1 eq. 2 is not known"
        return f"its memory is {memory}: hypothesis reserving admission of A.1 eq. 2 is not met"

    def _update_floors(self) -> None:
        """Compute the floors anew, where M and an input are known."""
        if self._kv_tokens is None or not self._max_input:
            return
        cost = self._state.cost
        printed = deficit_floor_as_printed(cost, self._max_input, self._kv_tokens)
        self._floors = [_Floor("deficit-floor", printed + 1, f"a deficit above -U = {printed}", needs_reserving=True)]
        proven = self._proven_floor(self._kv_tokens)
        if proven is not None:
            expected = f"a deficit of at least {proven}, the floor under {self._state.header.memory} memory"
            self._floors.append(_Floor("deficit-floor-proven", proven, expected, needs_reserving=False))
        self._highest_floor = max(floor.lowest for floor in self._floors)

    def _proven_floor(self, kv_tokens: int) -> int | None:
        """The lowest deficit that is possible with this memory, as far as it is known what memory it is."""
        header = self._state.header
        cost = self._state.cost
        limits = header.limits
        quanta = (header.default_quantum or 0, *header.quanta.values())
        unit = gcd(cost.extend_weight, cost.output_weight, *quanta)
        if header.memory == "reserving":
            tight = tight_unit(
                cost, self._max_input, kv_tokens, max_output=limits.max_output, max_running=limits.max_running
            )
            return deficit_floor(tight, unit)
        if header.memory == "optimistic":
            recomputation = longest_recomputation(self._max_input, kv_tokens, limits.max_output)
            outputs = outputs_after_admission(kv_tokens, limits.max_output, limits.max_running)
            return deficit_floor(optimistic_unit(cost, recomputation, outputs), unit)
        return None

    def _gap_bound(self, quantum: int) -> int:
        """2(U+Q) for clients with this quantum."""
        assert self._kv_tokens is not None
        return service_gap_as_printed(self._state.cost, self._max_input, self._kv_tokens, quantum)
