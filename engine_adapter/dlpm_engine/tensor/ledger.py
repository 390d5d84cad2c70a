"""The deficit counters as int64 tensors: what `dlpm.ledger` does, for all clients at once, and never wrapped."""

from __future__ import annotations

import torch

from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.ledger import Quanta
from dlpm.request import ClientId
from dlpm_engine.adapter import OutOfRangeError
from dlpm_engine.tensor.exact import INT64, fits, surely_safe, too_low

_FIRST_CAPACITY = 8
_ROWS = 3


class TensorLedger:
    """Deficit, quantum and number of queued requests of every registered client: int64 ``[clients]`` each.

    Clients are numbered in order of registration.

    Raises:
        InputError: a weight or quantum is not an int64.
    """

    def __init__(self, quanta: Quanta, cost: CostModel) -> None:
        """Start without clients."""
        named = {"weights.extend": cost.extend_weight, "weights.output": cost.output_weight}
        named |= {"quantum.default": quanta.default}
        named |= {f"quantum.{client}": value for client, value in quanta.clients.items()}
        for field, value in named.items():
            if not fits(value):
                raise InputError(f"expected an integer below 2^63, found {value}", field=field)
        self._quanta = quanta
        self._cost = cost
        self._numbers: dict[ClientId, int] = {}
        self.clients: list[ClientId] = []
        self._witness = 0
        self._table = torch.zeros((_ROWS, _FIRST_CAPACITY), dtype=INT64)
        self._point()

    def _point(self) -> None:
        """Let the three names point into the table, as far as clients are registered."""
        self.deficits, self.quanta, self.queued = self._table[:, : len(self.clients)].unbind()

    def register(self, client: ClientId) -> int:
        """The number of ``client``, which starts at 0 if it is new [DLPM Alg. 1 l. 12]. O(1) amortized."""
        number = self._numbers.get(client)
        if number is None:
            number = self._numbers[client] = len(self.clients)
            self.clients.append(client)
            if number == self._table.shape[1]:
                self._table = torch.cat((self._table, torch.zeros_like(self._table)), dim=1)
            self._table[:, number] = torch.tensor((0, self._quanta.of(client), 0), dtype=INT64)
            self._point()
        return number

    def joined(self, client: int) -> None:
        """One more request of ``client`` is queued. O(1)."""
        self.queued[client].add_(1)

    def left(self, client: int) -> None:
        """One request less of ``client`` is queued. O(1)."""
        self.queued[client].sub_(1)

    def has_credit(self, client: int) -> bool:
        """The gate [DLPM Alg. 1 ll. 20-21]. O(1)."""
        return int(self.deficits[client]) > 0

    def credit_queued(self) -> bool:
        """Some client with a queued request has credit: no refill is due [DLPM Alg. 1 ll. 4-5].

        O(1) while the client found the last time still has both, else O(clients).
        """
        witness = self._witness
        if witness < len(self.clients) and int(self.queued[witness]) and int(self.deficits[witness]) > 0:
            return True
        if not self.clients:
            return False
        credited = (self.deficits > 0) & (self.queued > 0)
        self._witness = int(credited.to(torch.uint8).argmax())
        return bool(credited[self._witness])

    def refill(self) -> dict[ClientId, int]:
        """Every client at or below 0 gets its quantum; returns their new counters [DLPM Alg. 1 ll. 6-8]. O(clients)."""
        low = self.deficits <= 0
        # At or below 0 plus an int64 above 0 never leaves the range.
        self.deficits += torch.where(low, self.quanta, 0)
        chosen = low.nonzero().flatten()
        counters = self.deficits[chosen].tolist()
        return {self.clients[number]: value for number, value in zip(chosen.tolist(), counters, strict=True)}

    def charge_extend(self, client: int, tokens: int) -> int:
        """Charge extend tokens; returns the counter afterwards [DLPM Alg. 1 l. 23]. O(1).

        Raises:
            OutOfRangeError: the counter would leave int64.
        """
        deficit = int(self.deficits[client]) - self._cost.extend(tokens)
        if not fits(deficit):
            raise OutOfRangeError(f"the deficit of client {self.clients[client]!r} would be {deficit}")
        self.deficits[client] = deficit
        return deficit

    def charge_outputs(self, clients: torch.Tensor) -> None:
        """Charge one output token for each running request, given as client numbers ``[running]`` [Alg. 1 l. 26].

        O(clients + running).

        Raises:
            OutOfRangeError: a counter would leave int64.
        """
        counts = torch.bincount(clients, minlength=len(self.clients))
        weight = self._cost.output_weight
        if not surely_safe(self.deficits, weight, clients.numel()):
            beyond = too_low(self.deficits, weight, counts).nonzero().flatten().tolist()
            if beyond:
                raise OutOfRangeError(f"the deficit of client {self.clients[beyond[0]]!r} would fall below -2^63")
        # The true result is in range, so that wrapping on the way there (a product of 2^63) does no harm.
        self.deficits -= counts * weight
