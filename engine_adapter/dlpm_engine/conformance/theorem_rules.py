"""The bounds of DLPM as rules: ceiling, floors and service gap, with the hypotheses that they need.

Which floors and which gap is for `promises` to say. The sharp gap of the plain algorithm is not a rule of its own: it
is 2(Q - floor), and follows from the proven floor and the ledger rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dlpm.bounds import deficit_ceiling
from dlpm_engine.conformance.gap import GapTracker, Lead
from dlpm_engine.conformance.promises import Floor, Gap, Promises
from dlpm_engine.conformance.state import ClientState
from dlpm_engine.conformance.worker_state import WorkerState

_UNBOUNDED = 1 << 200


class TheoremRules:
    """The bounds that are proven for one worker's ledger, for the limits that its log states.

    Where the header states no ``max_input``, the longest input so far stands for ``L_input``: every part of a run is a
    run, and the theorems hold for it. Clients with different quanta are not compared: the printed theorem has one
    quantum for all, and its proof only needs that the two compared clients share theirs. So clients are kept in
    groups, by quantum; an extension may group them otherwise (`group`, `tracker`, `new_tracker`, `report`).
    """

    def __init__(self, state: WorkerState, promises: Promises) -> None:
        """No client yet; what is enforced is what ``promises`` say."""
        self._state = state
        self._promises = promises
        self._stated_max_input = state.header.limits.max_input
        self._max_input = self._stated_max_input or 0
        self._trackers: dict[int, GapTracker] = {}
        self._sunk: set[ClientState] = set()
        self._floors: Sequence[Floor] = ()
        self._highest_floor = -_UNBOUNDED
        self._update_floors()

    def not_checked(self) -> Mapping[str, str]:
        """The bounds that are not enforced, each with the reason."""
        return self._promises.not_checked()

    def longer_input(self, input_tokens: int) -> None:
        """A request with this input arrives. O(1), and O(quanta) where it is the longest so far."""
        if self._stated_max_input is None and input_tokens > self._max_input:
            self._max_input = input_tokens
            self._update_floors()
            for group, tracker in self._trackers.items():
                self.widen(tracker, group)

    # -- floors and ceiling --------------------------------------------------------------------------------------------

    def counter(self, client: ClientState) -> int:
        """The counter that the floor is about."""
        return client.deficit

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
        """The floors [DLPM App. A.1 eq. 2], after a charge. O(1).

        A client that has sunk below one is reported once, until it is back.
        """
        counter = self.counter(client)
        if counter >= self._highest_floor and not client.broken_floors:
            return
        for floor in self._floors:
            if counter >= floor.lowest:
                client.broken_floors.discard(floor.rule)
            elif floor.rule not in client.broken_floors:
                client.broken_floors.add(floor.rule)
                self._sunk.add(client)
                self._state.violation(
                    floor.rule,
                    expected=floor.expected,
                    found=f"{counter}",
                    client=client,
                    unmet_hypothesis=floor.unmet,
                )
        if not client.broken_floors:
            self._sunk.discard(client)

    def _update_floors(self) -> None:
        """Compute the floors anew."""
        self._floors = self._promises.floors(self._max_input)
        self._highest_floor = max((floor.lowest for floor in self._floors), default=-_UNBOUNDED)

    # -- the gap -------------------------------------------------------------------------------------------------------

    def group(self, client: ClientState) -> int:
        """Which clients ``client`` is compared with. O(1)."""
        return client.quantum

    def new_tracker(self, group: int) -> GapTracker | None:
        """Where the leads among such clients are kept; ``None`` if no gap is promised."""
        gap = self._promises.gap(self._max_input, group)
        return GapTracker(gap.bound) if gap is not None else None

    def widen(self, tracker: GapTracker, group: int) -> None:
        """The longest input has grown, and with it the bound."""
        tracker.bound = self._gap(group).bound

    def tracker(self, client: ClientState) -> GapTracker | None:
        """Where the leads over and of ``client`` are kept; ``None`` if no gap is promised. O(1)."""
        return self._trackers.get(client.quantum) or self._begin_tracking(client.quantum)

    def _begin_tracking(self, group: int) -> GapTracker | None:
        """The tracker of a group, the first time that it is asked for."""
        tracker = self.new_tracker(group)
        if tracker is not None:
            self._trackers[group] = tracker
        return tracker

    def begin_backlog(self, client: ClientState) -> None:
        """``client`` is backlogged from this line on. O(clients in the batch)."""
        tracker = self.tracker(client)
        if tracker is not None:
            tracker.begin(client, self._active(self.group(client)), self._state.findings.line)

    def before_forward(self, served: Mapping[ClientState, int] | None) -> None:
        """A forward step is about to be charged; ``served``: if not one token for each running request."""
        line = self._state.findings.line
        for group, tracker in self._trackers.items():
            if served is not None:
                tracker.settle([client for client in served if self.group(client) == group], line)
            tracker.before_forward(line)

    def after_forward(self, largest: int, lowest: int, served: Mapping[ClientState, int] | None) -> None:
        """It has been charged: no client was served more than ``largest``, and no counter is below ``lowest``.

        All floors and gaps are checked. O(quanta) where all is well.
        """
        if lowest < self._highest_floor or self._sunk:
            for client in list(self._state.active if served is None else served):
                self.check_floor(client)
        for group, tracker in self._trackers.items():
            tracker.after_forward(largest)
            if served is not None:
                tracker.settle((), self._state.findings.line)
            if tracker.total > tracker.alarm:
                self._check_leads(tracker, group)

    def check_gaps(self) -> None:
        """No lead above the bound [DLPM Thm 4.1, 4.2], after a charge. O(quanta) where none can have grown so far."""
        for group, tracker in self._trackers.items():
            if tracker.total > tracker.alarm:
                self._check_leads(tracker, group)

    def _check_leads(self, tracker: GapTracker, group: int) -> None:
        """Look at the leads of one group. O(clients) for each row that is due."""
        for lead in tracker.leads_above_bound(self._active(group), self._state.findings.line):
            self.report(lead, group)

    def _active(self, group: int) -> list[ClientState]:
        """Clients of this group with running requests. O(clients in the batch)."""
        return [client for client in self._state.active if self.group(client) == group]

    def _gap(self, quantum: int) -> Gap:
        """The gap of clients with this quantum, of which there is a tracker."""
        gap = self._promises.gap(self._max_input, quantum)
        assert gap is not None
        return gap

    def report(self, lead: Lead, group: int) -> None:
        """Report a lead above the bound, under the theorem that it breaks."""
        gap = self._gap(group)
        both = lead.ahead.backlog_line != 0 and lead.ahead.backlog_line <= lead.since
        behind, ahead = lead.behind.id, lead.ahead.id
        self._state.violation(
            gap.backlogged if both else gap.other,
            expected=f"at most {gap.formula} = {gap.bound} more service for any client than for {behind!r} while it "
            "is backlogged",
            found=f"{ahead!r} got {lead.amount} more since line {lead.since}",
            client=lead.behind,
            unmet_hypothesis=gap.unmet,
        )
