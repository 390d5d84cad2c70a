"""E8, late accounting: what a forward step costs is known to the gate up to d forward steps later.

Overlapped schedulers admit the next batch while the present one still computes, and asynchronous ones hear of outputs
through a queue. Extend tokens are known at admission; their charge may be late all the same, where all charges go
through one queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dlpm.cost import CostModel
from dlpm.events import Extensions
from dlpm.ledger import Ledger, Quanta
from dlpm.request import ClientId

NAME = "late"

Lag = Callable[[int], int]
"""After the k-th forward step (from 1): how many of the latest forward steps may still be unaccounted for."""


def stated(steps: int) -> Extensions:
    """What the header of a log says of this extension, if outputs are up to ``steps`` forward steps late."""
    return {NAME: {"steps": steps}}


@dataclass(slots=True)
class Unaccounted:
    """Tokens of one forward step that the counters do not know of yet, and of the admissions before it."""

    extends: dict[ClientId, int] = field(default_factory=dict)
    outputs: dict[ClientId, int] = field(default_factory=dict)


class LateLedger(Ledger):
    """Counters that run behind. ``deficits`` is what the gate sees; `pending` is what it will still be charged.

    Charges come in the order of the forward steps, each step's all at once.
    """

    def __init__(self, quanta: Quanta, cost: CostModel, lag: Lag, *, late_extends: bool = False) -> None:
        """``late_extends``: the charge of an admission comes with that of the next forward step, not at once."""
        super().__init__(quanta, cost)
        self.unaccounted: deque[Unaccounted] = deque()
        self._coming = Unaccounted()
        self._lag = lag
        self._late_extends = late_extends
        self._forwards = 0

    def charge_extend(self, client: ClientId, tokens: int) -> None:
        """Charge at once, or keep it for the next forward step. O(1)."""
        if self._late_extends:
            self._coming.extends[client] = self._coming.extends.get(client, 0) + tokens
        else:
            super().charge_extend(client, tokens)

    def charge_outputs(self, tokens: Mapping[ClientId, int]) -> None:
        """Keep this forward step, and account for the oldest until no more than the lag remain. O(clients in them)."""
        self._forwards += 1
        self._coming.outputs = dict(tokens)
        self.unaccounted.append(self._coming)
        self._coming = Unaccounted()
        while len(self.unaccounted) > self._lag(self._forwards):
            oldest = self.unaccounted.popleft()
            for client, count in oldest.extends.items():
                super().charge_extend(client, count)
            super().charge_outputs(oldest.outputs)

    def pending(self, client: ClientId) -> int:
        """What ``client`` was served and not charged for yet, in weighted tokens. O(lag)."""
        steps = (*self.unaccounted, self._coming)
        extends = sum(step.extends.get(client, 0) for step in steps)
        outputs = sum(step.outputs.get(client, 0) for step in steps)
        return self.cost.extend(extends) + self.cost.output(outputs)

    def true_deficit(self, client: ClientId) -> int:
        """The counter as it would be if nothing were late. O(lag)."""
        return self.deficits[client] - self.pending(client)
