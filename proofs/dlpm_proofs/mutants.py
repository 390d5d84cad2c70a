"""Changed algorithms that proofs must notice: each overrides one function of the reference, in one way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from dlpm.ledger import Ledger
from dlpm.policies.dlpm import Visit, visit
from dlpm.request import ClientId
from dlpm_proofs.solve import Obligation
from dlpm_proofs.theorem import Mutant
from dlpm_proofs.transitions import SAMPLE, Algorithm, RecordRefill, TryAdd


class GateAtZero(Ledger):
    """Lets a client in at exactly 0."""

    def has_credit(self, client: ClientId) -> bool:
        """The gate, one too low."""
        return self.deficits[client] >= 0


class NoGate(Ledger):
    """Lets everybody in."""

    def has_credit(self, client: ClientId) -> bool:
        """No gate."""
        return True


class RefillIgnoringQueue(Ledger):
    """Refills although a queued client still has credit."""

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """Ask nobody."""
        return super().check_refill(())


class RefillOfEverybody(Ledger):
    """Pays the quantum to clients that still have credit, too."""

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """Refill without the test of line 7."""
        if any(self.deficits[client] > 0 for client in queued_clients):
            return {}
        for client in self.deficits:
            self.deficits[client] += self.quanta.of(client)
        return dict(self.deficits)


class RefillOfTheQueuedOnly(Ledger):
    """Forgets clients that have nothing queued at the moment."""

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """Refill the queued clients instead of all registered ones."""
        queued = tuple(queued_clients)
        if any(self.deficits[client] > 0 for client in queued):
            return {}
        for client in queued:
            self.deficits[client] += self.quanta.of(client)
        return {client: self.deficits[client] for client in queued}


class RefillOfOne(Ledger):
    """Refills the first client only."""

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """Stop after one client."""
        queued = tuple(queued_clients)
        if any(self.deficits[client] > 0 for client in queued):
            return {}
        for client in queued:
            self.deficits[client] += self.quanta.of(client)
            return {client: self.deficits[client]}
        return {}


class RefillByMajority(Ledger):
    """Refills when two queued clients have no credit, whatever the others have."""

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """Count those without credit."""
        poor = sum(1 for client in queued_clients if self.deficits[client] <= 0)
        return super().check_refill(()) if poor >= 2 else {}


class RefillFromTheSum(Ledger):
    """Refills when the queued clients together have no credit."""

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """Add up the counters instead of asking each."""
        return super().check_refill(()) if sum(self.deficits[client] for client in queued_clients) <= 0 else {}


class DoubleRefill(Ledger):
    """Pays two quanta."""

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """Refill, then add the quantum once more."""
        refilled = super().check_refill(queued_clients)
        for client in refilled:
            self.deficits[client] += self.quanta.of(client)
        return {client: self.deficits[client] for client in refilled}


class FreeExtend(Ledger):
    """Charges nothing at admission."""

    def charge_extend(self, client: ClientId, tokens: int) -> None:
        """Charge nothing."""


class FreeOutputs(Ledger):
    """Charges nothing for output tokens."""

    def charge_outputs(self, tokens: Mapping[ClientId, int]) -> None:
        """Charge nothing."""


class DoubleOutputs(Ledger):
    """Charges every output token twice."""

    def charge_outputs(self, tokens: Mapping[ClientId, int]) -> None:
        """Charge twice."""
        super().charge_outputs(tokens)
        super().charge_outputs(tokens)


class ForgivenDebt(Ledger):
    """Starts a client anew whenever it comes back."""

    def register(self, client: ClientId) -> None:
        """Forget what the client owes."""
        self.deficits[client] = 0


class WelcomeGift(Ledger):
    """Starts a new client with two quanta."""

    def register(self, client: ClientId) -> None:
        """Give a new client credit."""
        if client not in self.deficits:
            self.deficits[client] = 2 * self.quanta.of(client)


def charge_before_the_gate(
    ledger: Ledger, client: ClientId, queued_clients: Iterable[ClientId], try_add: TryAdd, record_refill: RecordRefill
) -> Visit:
    """Admit first, then ask for credit: a client with debt gets one more request in."""
    extend = try_add()
    if extend is not None:
        ledger.charge_extend(client, extend)
        return Visit(False, extend)
    return visit(ledger, client, queued_clients, lambda: None, record_refill)


def charge_input(
    ledger: Ledger, client: ClientId, queued_clients: Iterable[ClientId], try_add: TryAdd, record_refill: RecordRefill
) -> Visit:
    """Charge one token more than was computed, as charging the input instead of the extend tokens does."""
    outcome = visit(ledger, client, queued_clients, try_add, record_refill)
    if outcome.extend is not None:
        ledger.charge_extend(client, 1)
    return outcome


ALGORITHMS = {
    "gate-at-zero": Algorithm(GateAtZero),
    "no-gate": Algorithm(NoGate),
    "refill-ignores-queue": Algorithm(RefillIgnoringQueue),
    "refill-everybody": Algorithm(RefillOfEverybody),
    "refill-queued-only": Algorithm(RefillOfTheQueuedOnly),
    "refill-one": Algorithm(RefillOfOne),
    "refill-by-majority": Algorithm(RefillByMajority),
    "refill-from-the-sum": Algorithm(RefillFromTheSum),
    "double-refill": Algorithm(DoubleRefill),
    "free-extend": Algorithm(FreeExtend),
    "free-outputs": Algorithm(FreeOutputs),
    "double-outputs": Algorithm(DoubleOutputs),
    "forgiven-debt": Algorithm(ForgivenDebt),
    "welcome-gift": Algorithm(WelcomeGift),
    "charge-before-gate": Algorithm(visit=charge_before_the_gate),
    "charge-input": Algorithm(visit=charge_input),
}


def to_be_noticed(
    obligations: Callable[[Algorithm], Iterable[Obligation]], *names: str, given: Mapping[str, int] = SAMPLE
) -> tuple[Mutant, ...]:
    """The mutants of these names, each of which must fail one of ``obligations`` with the parameters ``given``."""
    found = []
    for name in names:
        algorithm = ALGORITHMS[name]
        words = (algorithm.ledger if algorithm.ledger is not Ledger else algorithm.visit).__doc__ or name
        found.append(Mutant(name, words.splitlines()[0], partial(obligations, algorithm), given))
    return tuple(found)
