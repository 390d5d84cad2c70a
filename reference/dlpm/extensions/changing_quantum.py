"""E10, changing quantum: how much a refill pays is decided anew at each refill, within a range that is known before.

A larger quantum buys locality for fairness, and which is worth more changes over a day. Whoever decides (an operator, a
schedule, `quantum_controller`) is a `QuantumSource`; what holds whatever it decides is in `dlpm.bounds_extensions`.
All clients that one refill pays get the same. `IndividualLedger` is the variant in which they do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.events import Extensions
from dlpm.ledger import Ledger
from dlpm.quanta import Quanta
from dlpm.request import ClientId

NAME = "quantum_range"


@dataclass(frozen=True, slots=True)
class QuantumRange:
    """The smallest and the largest quantum that a refill may pay, in weighted tokens.

    Raises:
        InputError: unless 1 <= ``least`` <= ``most``.
    """

    least: int
    most: int

    def __post_init__(self) -> None:
        """Check both ends."""
        if self.least < 1:
            raise InputError(f"expected an integer > 0, found {self.least!r}", field="quantum_range.least")
        if self.most < self.least:
            raise InputError(
                f"expected at least {self.least!r}, the smallest quantum, found {self.most!r}",
                field="quantum_range.most",
            )

    def checked(self, quantum: int) -> int:
        """``quantum``, if it lies in the range.

        Raises:
            InputError: it does not.
        """
        if quantum < self.least or quantum > self.most:
            raise InputError(
                f"expected a quantum from {self.least!r} to {self.most!r}, found {quantum!r}", field="quantum"
            )
        return quantum

    def nearest(self, quantum: int) -> int:
        """The quantum of the range that is nearest to ``quantum``."""
        return min(max(quantum, self.least), self.most)


def stated(quantum_range: QuantumRange) -> Extensions:
    """What the header of a log says of this extension; its quantum is the largest."""
    return {NAME: {"least": quantum_range.least, "most": quantum_range.most}}


class QuantumSource(Protocol):
    """Decides what the refill pays that is about to happen."""

    def next_quantum(self) -> int:
        """The quantum in weighted tokens, within the range of the ledger; asked once for each refill."""
        ...


class ListedQuanta:
    """Hands out quanta from a list, one for each refill, and the last of them from then on."""

    def __init__(self, quanta: Sequence[int]) -> None:
        """Start at the first of ``quanta``.

        Raises:
            InputError: there is none.
        """
        if not quanta:
            raise InputError("expected one quantum or more, found none", field="quantum")
        self._quanta = tuple(quanta)
        self._handed = 0

    def next_quantum(self) -> int:
        """The next of the list. O(1)."""
        quantum = self._quanta[min(self._handed, len(self._quanta) - 1)]
        self._handed += 1
        return quantum


class ChangingLedger(Ledger):
    """A ledger that asks, at each refill that fires, what the refill pays: one quantum for all whom it pays.

    Attributes:
        range: what a refill may pay.
    """

    def __init__(self, quantum_range: QuantumRange, cost: CostModel, source: QuantumSource) -> None:
        """Start without clients. Until the first refill `quanta` is the largest quantum, after that the latest."""
        super().__init__(Quanta(quantum_range.most), cost)
        self.range = quantum_range
        self._source = source

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """Refill as ever [DLPM Alg. 1 ll. 3-8], with the quantum that the source names now.

        The source is not asked where a queued client has credit, or where nobody is to be paid. O(registered clients).

        Raises:
            InputError: the source names a quantum outside the range.
        """
        queued = tuple(queued_clients)
        if any(self.deficits[client] > 0 for client in queued):
            return {}
        if not any(deficit <= 0 for deficit in self.deficits.values()):
            return {}
        self.quanta = Quanta(self.range.checked(self._source.next_quantum()))
        return super().check_refill(queued)


class IndividualLedger(Ledger):
    """A ledger that asks for each client that a refill pays. An unsafe rule: the gap may grow with every refill."""

    def __init__(self, quantum_range: QuantumRange, cost: CostModel, quantum_of: Callable[[ClientId], int]) -> None:
        """Start without clients; ``quantum_of`` says what a client is paid now, within the range."""
        super().__init__(Quanta(quantum_range.most), cost)
        self.range = quantum_range
        self._quantum_of = quantum_of

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """Refill as ever, each client with a quantum of its own. O(registered clients).

        Raises:
            InputError: a quantum lies outside the range.
        """
        if any(self.deficits[client] > 0 for client in queued_clients):
            return {}
        poor = [client for client, deficit in self.deficits.items() if deficit <= 0]
        for client in poor:
            self.deficits[client] += self.range.checked(self._quantum_of(client))
        return {client: self.deficits[client] for client in poor}
