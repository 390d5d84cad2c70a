"""A ledger that measures how fair it was lately, and lets a controller pick its quantum (E10).

What is measured: the Jain index of service over windows in which a fixed amount of service was given, among the clients
that were backlogged in the theorems' sense: queued whenever check-refill was asked in the window, and when it was last
asked before. Clients that are not backlogged are left out, since they got less because they asked for less. Windows end
in the middle of things, not at refills: there all queued clients have spent their quantum, and any quantum looks fair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.extensions.changing_quantum import ChangingLedger, QuantumRange
from dlpm.extensions.quantum_controller import QuantumController
from dlpm.request import ClientId
from dlpm.summary import jain_index


class JainMeter:
    """The Jain index of each window of ``window`` weighted tokens of service.

    Attributes:
        measured: the index of every window so far that had at least two backlogged clients; 16 bytes and more a window.
    """

    def __init__(self, window: int) -> None:
        """Nothing was served.

        Raises:
            InputError: unless ``window`` >= 1.
        """
        if window < 1:
            raise InputError(f"expected an integer > 0, found {window!r}", field="window")
        self.measured: list[Fraction] = []
        self._window = window
        self._served: dict[ClientId, int] = {}
        self._total = 0
        self._queued: frozenset[ClientId] = frozenset()
        self._backlogged: frozenset[ClientId] = frozenset()
        self._asked = False
        self._reported = 0

    def asked(self, queued_clients: Iterable[ClientId]) -> None:
        """Check-refill was asked, with these clients in the queue. O(queued clients)."""
        self._queued = frozenset(queued_clients)
        self._backlogged &= self._queued
        self._asked = True

    def served(self, amounts: Mapping[ClientId, int]) -> None:
        """Clients received service at once, in weighted tokens; ends the window if it is full. O(amounts)."""
        for client, amount in amounts.items():
            self._served[client] = self._served.get(client, 0) + amount
            self._total += amount
        if self._total >= self._window:
            self._end_window()

    def latest(self) -> Fraction | None:
        """The mean index of the windows that ended since this was last asked; ``None`` if none was measured."""
        new = self.measured[self._reported :]
        self._reported = len(self.measured)
        return sum(new, Fraction(0)) / len(new) if new else None

    def _end_window(self) -> None:
        """Note the index, and start the next window with whoever was queued when check-refill was last asked."""
        if self._asked and len(self._backlogged) > 1:
            self.measured.append(jain_index([self._served.get(client, 0) for client in self._backlogged]))
        self._served = {}
        self._total = 0
        self._backlogged = self._queued
        self._asked = False


class _Measuring:
    """Asks a controller with what a meter measured."""

    def __init__(self, controller: QuantumController, meter: JainMeter) -> None:
        """Nothing was asked."""
        self._controller = controller
        self._meter = meter

    def next_quantum(self) -> int:
        """The controller's answer."""
        return self._controller.next_quantum(self._meter.latest())


class MeasuredLedger(ChangingLedger):
    """A changing ledger whose source is a controller; counters are those of the plain one, and a meter listens.

    Attributes:
        meter: what was measured.
    """

    def __init__(
        self, quantum_range: QuantumRange, cost: CostModel, controller: QuantumController, window: int
    ) -> None:
        """Start without clients; ``window`` is the service over which fairness is measured, in weighted tokens.

        Raises:
            InputError: unless ``window`` >= 1.
        """
        self.meter = JainMeter(window)
        super().__init__(quantum_range, cost, _Measuring(controller, self.meter))

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """Refill as ever, with the controller's quantum. O(registered clients).

        Raises:
            InputError: the controller names a quantum outside the range.
        """
        queued = tuple(queued_clients)
        self.meter.asked(queued)
        return super().check_refill(queued)

    def charge_extend(self, client: ClientId, tokens: int) -> None:
        """Charge, and measure."""
        super().charge_extend(client, tokens)
        self.meter.served({client: self.cost.extend(tokens)})

    def charge_outputs(self, tokens: Mapping[ClientId, int]) -> None:
        """Charge, and measure. O(clients in the running batch)."""
        super().charge_outputs(tokens)
        self.meter.served({client: self.cost.output(count) for client, count in tokens.items()})
