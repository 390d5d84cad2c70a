"""Changed rules for shared prefixes that the proofs of E7 must notice."""

from __future__ import annotations

from collections.abc import Mapping

from dlpm.batch import QueuedRequest
from dlpm.extensions.shared_prefixes import RefundingLedger, SharedPrefixDLPM
from dlpm.extensions.shared_prefixes_worker import SharingWorker
from dlpm.request import ClientId
from dlpm_proofs.mutants import GateAtZero, RefillOfEverybody

Bill = tuple[int, dict[ClientId, int]]


class ChargesTheMatch(SharingWorker):
    """Charges what is cached, too."""

    def _settle(self, queued: QueuedRequest, matched: int) -> Bill:
        """All that is resident."""
        return queued.resident, {}


class LetsATokenOff(SharingWorker):
    """Charges one token less than was computed."""

    def _settle(self, queued: QueuedRequest, matched: int) -> Bill:
        """One too few."""
        charged, refunds = super()._settle(queued, matched)
        return charged - 1, refunds


class ForgetsHoldings(SharingWorker):
    """Charges a client again for what it has paid for."""

    def _held(self, queued: QueuedRequest) -> int:
        """Nothing."""
        return 0


class SeesCompany(SharingWorker):
    """Charges what was computed, though a client alone would have computed more."""

    def _settle(self, queued: QueuedRequest, matched: int) -> Bill:
        """The extend tokens."""
        return queued.resident - matched, {}


class RoundsUp(SharingWorker):
    """Takes a token more than its part from everybody who gets something back."""

    def _settle(self, queued: QueuedRequest, matched: int) -> Bill:
        """Fractions count as whole tokens."""
        charged, refunds = super()._settle(queued, matched)
        shares = self.holdings.shares[queued.match.node] if refunds else {}
        for client in refunds:
            shares[client] -= 1
            shares[queued.client] += 1
        return charged + len(refunds), {client: tokens + 1 for client, tokens in refunds.items()}


class KeepsTheChange(SharingWorker):
    """Charges a newcomer its part and gives it to nobody."""

    def _settle(self, queued: QueuedRequest, matched: int) -> Bill:
        """Tokens are lost."""
        charged, _ = super()._settle(queued, matched)
        return charged, {}


class RefundsTwice(SharedPrefixDLPM):
    """Gives everything back twice."""

    def refund(self, tokens: Mapping[ClientId, int]) -> None:
        """Twice."""
        super().refund(tokens)
        super().refund(tokens)


class RefundsNothing(SharedPrefixDLPM):
    """Gives nothing back."""

    def refund(self, tokens: Mapping[ClientId, int]) -> None:
        """Nothing."""


class RefundsAsOutput(RefundingLedger):
    """Gives extend tokens back at the weight of output tokens."""

    def refund_extend(self, client: ClientId, tokens: int) -> None:
        """The wrong weight."""
        self.deficits[client] += self.cost.output(tokens)


class RefillsTheRich(RefillOfEverybody, RefundingLedger):
    """Pays the quantum to clients that still have credit, too."""


class OpensAtZero(GateAtZero, RefundingLedger):
    """Lets a client in at exactly 0."""


class ChargesTwice(RefundingLedger):
    """Charges every extend token twice."""

    def charge_extend(self, client: ClientId, tokens: int) -> None:
        """Charge twice."""
        super().charge_extend(client, 2 * tokens)
