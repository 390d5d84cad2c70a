"""The deficit counters of DLPM: gate, charge and refill [DLPM Alg. 1 ll. 3-8, 12, 20-23, 26].

This file is what the proofs run on symbolic integers, so each transition is a small function of plain
integers and mappings, and nothing else decides who may be admitted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dlpm.cost import CostModel
from dlpm.quanta import Quanta
from dlpm.request import ClientId

__all__ = ["Ledger", "Quanta"]


class Ledger:
    """One deficit counter ``q_i`` a client, in weighted tokens: what it may still spend before it must wait.

    A client is registered at its first arrival and never forgotten.
    """

    def __init__(self, quanta: Quanta, cost: CostModel) -> None:
        """Start without clients."""
        self.quanta = quanta
        self.cost = cost
        self.deficits: dict[ClientId, int] = {}

    def register(self, client: ClientId) -> None:
        """A client seen for the first time starts at 0 [DLPM Alg. 1 l. 12]."""
        if client not in self.deficits:
            self.deficits[client] = 0

    def has_credit(self, client: ClientId) -> bool:
        """The gate: a client is served only while its counter is positive [DLPM Alg. 1 ll. 20-21]."""
        return self.deficits[client] > 0

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """Refill every client at or below 0, if no queued client has credit left [DLPM Alg. 1 ll. 3-8].

        ``queued_clients`` are the clients with at least one request in the waiting queue. Returns the new counters of
        the clients that got their quantum, and nothing where a queued client still had credit.
        O(queued clients) to refuse, O(registered clients) to refill.
        """
        for client in queued_clients:  # l. 4
            if self.deficits[client] > 0:  # l. 5
                return {}
        refilled = {}
        for client in self.deficits:  # l. 6
            if self.deficits[client] <= 0:  # l. 7
                self.deficits[client] += self.quanta.of(client)
                refilled[client] = self.deficits[client]
        return refilled

    def charge_extend(self, client: ClientId, tokens: int) -> None:
        """Charge the extend tokens of an admitted request [DLPM Alg. 1 l. 23]."""
        self.deficits[client] -= self.cost.extend(tokens)

    def charge_outputs(self, tokens: Mapping[ClientId, int]) -> None:
        """Charge one forward step: per client, the output tokens its running requests got [DLPM Alg. 1 l. 26].

        O(clients in the running batch).
        """
        for client, count in tokens.items():
            self.deficits[client] -= self.cost.output(count)
