"""The ledgers of E10 as transitions make them, on unknown quanta, and changed ones that proofs must notice."""

from __future__ import annotations

from collections.abc import Iterable

from dlpm.cost import CostModel
from dlpm.extensions.changing_quantum import ChangingLedger, IndividualLedger, QuantumRange
from dlpm.quanta import Quanta
from dlpm.request import ClientId
from dlpm_proofs.symbolic import SymInt
from dlpm_proofs.terms import Poly

LEAST, MOST = Poly.unknown("Q_min"), Poly.unknown("Q_max")


class HandedOver:
    """Says what the transition's refill pays."""

    def __init__(self, quanta: Quanta) -> None:
        """The quantum of everybody."""
        self._quanta = quanta

    def next_quantum(self) -> int:
        """One unknown."""
        return self._quanta.default


def symbolic_range(quanta: Quanta) -> QuantumRange:
    """The range in unknowns, in the exploration that made ``quanta``."""
    assert isinstance(quanta.default, SymInt)
    exploration = quanta.default.exploration
    return QuantumRange(SymInt(exploration, LEAST), SymInt(exploration, MOST))


class Handed(ChangingLedger):
    """The reference's ledger as transitions make it: the source hands over one unknown quantum."""

    def __init__(self, quanta: Quanta, cost: CostModel) -> None:
        """The range in unknowns."""
        super().__init__(symbolic_range(quanta), cost, HandedOver(quanta))


class HandedToEach(IndividualLedger):
    """The reference's ledger with a quantum of its own for each client, as transitions make it."""

    def __init__(self, quanta: Quanta, cost: CostModel) -> None:
        """The range in unknowns, and an unknown quantum for each client."""
        super().__init__(symbolic_range(quanta), cost, quanta.of)


class TopsUp(Handed):
    """Raises everybody who has less than the new quantum to it, clients with credit as well."""

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """Refill, then let nobody have less."""
        refilled = super().check_refill(queued_clients)
        for client in self.deficits if refilled else ():
            if 0 < self.deficits[client] < self.quanta.default:
                self.deficits[client] = self.quanta.default
        return refilled


class StaleQuantum(Handed):
    """Pays the quantum asked for to the first client, and to the others what was paid once before."""

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """Correct all but the first to the smallest quantum."""
        refilled = super().check_refill(queued_clients)
        for client in tuple(refilled)[1:]:
            self.deficits[client] += self.range.least - self.quanta.default
        return {client: self.deficits[client] for client in refilled}


class OneTooMany(Handed):
    """Adds one to whatever the source names, after it was checked."""

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """Pay one more."""
        refilled = super().check_refill(queued_clients)
        for client in refilled:
            self.deficits[client] += 1
        return {client: self.deficits[client] for client in refilled}


class IgnoresQueue(Handed):
    """Asks for a quantum although a queued client still has credit."""

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """Ask nobody whether it has credit."""
        return super().check_refill(())


class NeverShrinks(Handed):
    """Pays the largest quantum of the range whatever the source names."""

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """Make up for the difference."""
        refilled = super().check_refill(queued_clients)
        for client in refilled:
            self.deficits[client] += self.range.most - self.quanta.default
        return {client: self.deficits[client] for client in refilled}


class GateAtZero(Handed):
    """Lets a client in at exactly 0."""

    def has_credit(self, client: ClientId) -> bool:
        """The gate, one too low."""
        return self.deficits[client] >= 0


class PaysTwice(HandedToEach):
    """Pays the first client its quantum twice."""

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """Pay the first once more."""
        refilled = super().check_refill(queued_clients)
        for client in tuple(refilled)[:1]:
            self.deficits[client] += self.quanta.default
        return {client: self.deficits[client] for client in refilled}


class ForgivesTheLast(HandedToEach):
    """Lifts the last client's debt before it pays."""

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """Pay from 0."""
        before = dict(self.deficits)
        refilled = super().check_refill(queued_clients)
        for client in tuple(refilled)[-1:]:
            self.deficits[client] -= before[client]
        return {client: self.deficits[client] for client in refilled}
