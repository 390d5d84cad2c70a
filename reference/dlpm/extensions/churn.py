"""E6, churn: clients come and go, and the counters of those who are gone must not be kept for ever.

A client is idle while nothing of it is queued or running. Two rules for an idle client: *debt keeping* drops its credit
at once, keeps its debt, and lets the refills that it gets as ever pay that off; *naive forgetting* drops its counter at
once, debt and all. A client that is not known starts at 0, as every new one does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dlpm.cost import CostModel
from dlpm.events import Extensions
from dlpm.ledger import Ledger, Quanta
from dlpm.policies.base import AdmissionStep
from dlpm.policies.dlpm import DLPM
from dlpm.request import ClientId

NAME = "churn"
KEEP_DEBT = "keep-debt"
FORGET = "forget"


def stated(rule: str) -> Extensions:
    """What the header of a log says of this extension: ``rule`` is `KEEP_DEBT` or `FORGET`."""
    return {NAME: {"rule": rule}}


class DebtKeepingLedger(Ledger):
    """Forgets idle clients as soon as they have no debt.

    Attributes:
        busy: clients in the latest forward step, or admitted since: no other client has anything running.
        debtors: idle clients that are remembered, because they have debt.
    """

    def __init__(self, quanta: Quanta, cost: CostModel) -> None:
        """Start without clients."""
        super().__init__(quanta, cost)
        self.busy: set[ClientId] = set()
        self.debtors: set[ClientId] = set()

    def rest_if_idle(self, client: ClientId, queued_clients: Iterable[ClientId]) -> None:
        """Let a client of which nothing is queued or running rest; nothing happens to any other. O(queued clients)."""
        if client in self.deficits and client not in self.busy and client not in queued_clients:
            self.rest(client)

    def rest(self, client: ClientId) -> None:
        """``client`` is idle: its credit is lost, its debt is not. O(1)."""
        if self.deficits[client] >= 0:
            del self.deficits[client]
        else:
            self.debtors.add(client)

    def register(self, client: ClientId) -> None:
        """A debtor goes on with its debt, a client that is not known starts at 0."""
        self.debtors.discard(client)
        super().register(client)

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """Refill as ever; a debtor whose debt is paid is forgotten. O(remembered clients)."""
        refilled = super().check_refill(queued_clients)
        for client in refilled:
            if client in self.debtors and self.deficits[client] >= 0:
                self.debtors.remove(client)
                del self.deficits[client]
        return refilled

    def charge_extend(self, client: ClientId, tokens: int) -> None:
        """Charge as ever; the client runs something now."""
        super().charge_extend(client, tokens)
        self.busy.add(client)

    def charge_outputs(self, tokens: Mapping[ClientId, int]) -> None:
        """Charge as ever; who got no token has nothing running."""
        super().charge_outputs(tokens)
        self.busy = set(tokens)


class NaiveForgettingLedger(DebtKeepingLedger):
    """Forgets idle clients at once. An unsafe rule, kept for the attack on it."""

    def rest(self, client: ClientId) -> None:
        """Forget the client, and what it owes. O(1)."""
        del self.deficits[client]


class ChurnDLPM(DLPM):
    """DLPM that lets idle clients rest before each admission phase and when they come back."""

    def __init__(self, ledger: DebtKeepingLedger) -> None:
        """Schedule by the counters of ``ledger``, and forget by its rule."""
        super().__init__(ledger)
        self._churn = ledger

    def arrive(self, client: ClientId, queued_clients: Iterable[ClientId]) -> None:
        """Who was idle until now comes back without credit; who is not known starts at 0."""
        self._churn.rest_if_idle(client, queued_clients)
        super().arrive(client, queued_clients)

    def admit(self, step: AdmissionStep) -> None:
        """Forget whom the rule forgets, then admit as ever. O(remembered clients) more."""
        queued = set(step.queued_clients())
        for client in list(self._churn.deficits):
            self._churn.rest_if_idle(client, queued)
        super().admit(step)
