"""E1, weighted clients: quanta in proportion to weights, and all clients compared by service per unit of quantum.

Let ``L`` be the least common multiple of all quanta. Service is counted in units of which a client's quantum is ``L``:
``L / Q_i`` for each weighted token. What `dlpm.bounds_extensions.weighted_gap` bounds, divided by ``Q_f Q_g`` and times
``L``, is then the plain difference of two services, and its bound a sum of two allowances, ``(L / Q_i) (Q_i - floor)``.
So `gap` serves as it is, but for a bound that differs from pair to pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import lcm

from dlpm.bounds import deficit_floor
from dlpm.bounds_extensions import weighted_gap
from dlpm.events import Header
from dlpm.fields import Fields
from dlpm_engine.conformance.dlpm_rules import DlpmRules
from dlpm_engine.conformance.extensions.mode import Extension, Mode, known_options
from dlpm_engine.conformance.gap import GapTracker, Lead
from dlpm_engine.conformance.output_charges import OutputCharges
from dlpm_engine.conformance.promises import Gap, PlainPromises, plain_unit, smallest_credit
from dlpm_engine.conformance.rule import extension_rule
from dlpm_engine.conformance.state import ClientState, RequestState
from dlpm_engine.conformance.theorem_rules import TheoremRules
from dlpm_engine.conformance.worker_state import WorkerState

WEIGHTED_GAP = extension_rule(
    "weighted-gap",
    "Over any interval, no client gets more service per quantum ahead of a backlogged one than is proven.",
    "docs/extensions.md, E1",
    theorem=True,
)


class WeightedTracker(GapTracker):
    """The leads among clients of any quanta, each with an allowance of its own: a lead may be the sum of the two.

    Attributes:
        allowances: what each client may contribute to a lead, by quantum.
    """

    def __init__(self, allowances: Mapping[int, int]) -> None:
        """No client is backlogged."""
        super().__init__(0)
        self.allowances = allowances

    def _room(self, lead: Lead) -> int:
        """What the two allowances leave."""
        return self.allowances[lead.behind.quantum] + self.allowances[lead.ahead.quantum] - lead.amount

    def _room_of_all(self, behind: ClientState, lead: Lead | None) -> int:
        """Who is not in the row has a lead of at most 0, and at least the smallest allowance."""
        most = self.allowances[behind.quantum] + min(self.allowances.values())
        return min(most, self._room(lead)) if lead is not None else most

    def _largest_lead(self, behind: ClientState) -> Lead | None:
        """The lead over ``behind`` that leaves the least room. O(clients in its row)."""
        leads = (
            Lead(behind, ahead, peak - (behind.service - ahead.service), behind.peak_lines[ahead])
            for ahead, peak in behind.peaks.items()
        )
        return min(leads, key=self._room, default=None)


class WeightedPromises(PlainPromises):
    """The plain floors; the gap is another rule's."""

    def gap(self, max_input: int, quantum: int) -> Gap | None:
        """None: clients of different quanta are compared."""
        return None

    def not_checked(self) -> Mapping[str, str]:
        """The gaps between clients of one quantum follow from the weighted one, which needs to know the memory."""
        replaced = dict.fromkeys(("gap-backlogged", "gap-any"), "weighted-gap says more, for these clients as well")
        limits = self._header.limits
        if limits.kv_tokens is None:
            return {**super().not_checked(), WEIGHTED_GAP.id: "the header states no limits.kv_tokens"}
        if self._header.memory is None:
            return {**super().not_checked(), **replaced, WEIGHTED_GAP.id: "the header does not say what memory is"}
        return {**super().not_checked(), **replaced}


class WeightedTheorems(TheoremRules):
    """The bounds of weighted clients: the floor is the same for all, and so is the unit in which they are compared."""

    def __init__(self, state: WorkerState) -> None:
        """No client yet."""
        header = state.header
        self._header = header
        self._quanta = sorted({header.default_quantum or 1, *header.quanta.values()})
        self._multiple = lcm(*self._quanta)
        super().__init__(state, WeightedPromises(header))

    def units(self, client: ClientState) -> int:
        """How many units of service a weighted token of ``client`` is. O(1)."""
        return self._multiple // client.quantum

    def group(self, client: ClientState) -> int:
        """All clients are compared."""
        return 0

    def tracker(self, client: ClientState) -> GapTracker | None:
        """The one tracker."""
        return self._trackers.get(0) or self._begin_tracking(0)

    def new_tracker(self, group: int) -> GapTracker | None:
        """One for all clients; none if no floor is known."""
        floor = self._floor()
        return WeightedTracker(self._allowances(floor)) if floor is not None else None

    def widen(self, tracker: GapTracker, group: int) -> None:
        """The floor is lower now. O(quanta)."""
        floor = self._floor()
        if isinstance(tracker, WeightedTracker) and floor is not None:
            tracker.allowances = self._allowances(floor)

    def _floor(self) -> int | None:
        """The proven floor, which is the same for all; ``None`` if the header states too little."""
        unit = plain_unit(self._header, self._max_input)
        return deficit_floor(unit, smallest_credit(self._header)) if unit is not None else None

    def _allowances(self, floor: int) -> dict[int, int]:
        """``(L / Q) (Q - floor)`` for each quantum: half of the weighted gap of two clients that have it."""
        return {q: weighted_gap(q, floor, q, floor) // (2 * q) * self._multiple // q for q in self._quanta}

    def report(self, lead: Lead, group: int) -> None:
        """Report a lead above the bound, cross-multiplied."""
        floor = self._floor()
        assert floor is not None
        behind, ahead = lead.behind, lead.ahead
        bound = weighted_gap(behind.quantum, floor, ahead.quantum, floor)
        self._state.violation(
            WEIGHTED_GAP.id,
            expected=f"{behind.quantum} W({ahead.id!r}) - {ahead.quantum} W({behind.id!r}) of at most {bound} over any "
            f"interval in which {behind.id!r} is backlogged",
            found=f"{lead.amount * behind.quantum * ahead.quantum // self._multiple} since line {lead.since}",
            client=behind,
        )


class WeightedCharges(OutputCharges):
    """The usual charges; service is counted in units."""

    def __init__(self, state: WorkerState, bounds: WeightedTheorems) -> None:
        """Nothing has been charged."""
        super().__init__(state, "charge-output", -1)
        self._bounds = bounds

    def apply(self, deficits: Mapping[str, int], served: Mapping[ClientState, int] | None) -> None:
        """As ever. O(clients in the batch)."""
        state = self._state
        tokens = {client: client.running for client in state.active} if served is None else served
        before = {client: client.service for client in tokens}
        super().apply(deficits, served)
        self.largest = 0
        for client, service in before.items():
            charge = (client.service - service) * self._bounds.units(client)
            client.service = service + charge
            self.largest = max(self.largest, charge)


class WeightedRules(DlpmRules):
    """Algorithm 1 with weighted clients."""

    def __init__(self, state: WorkerState) -> None:
        """Nothing has happened."""
        self._weighted = WeightedTheorems(state)
        super().__init__(state, self._weighted, WeightedCharges(state, self._weighted))

    def admission_service(self, request: RequestState) -> int:
        """In units."""
        return super().admission_service(request) * self._weighted.units(request.client)


class Weights(Mode):
    """Logs of an engine whose quanta are weights."""

    def __init__(self, options: Fields, header: Header) -> None:
        """There are no options.

        Raises:
            InputError: there are options.
        """
        super().__init__(header)
        known_options(options)

    @property
    def rules(self) -> tuple[str, ...]:
        """The weighted gap."""
        return (WEIGHTED_GAP.id,)

    def discipline(self, state: WorkerState) -> DlpmRules:
        """Algorithm 1 with weighted clients."""
        return WeightedRules(state)


EXTENSION = Extension("weights", Weights, (WEIGHTED_GAP,))
