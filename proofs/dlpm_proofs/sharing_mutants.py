"""Changed shared ledgers that the proof of E9 must notice: each overrides one method, in one way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from dlpm.extensions.shared_ledger import LedgerView, SharedLedger, Update
from dlpm.ledger import Ledger
from dlpm.request import ClientId
from dlpm_proofs.sharing import SHARED_SAMPLE
from dlpm_proofs.solve import Obligation
from dlpm_proofs.theorem import Mutant


class _Deaf(LedgerView):
    """A view that hears of nobody."""

    def heard(self, update: Update) -> None:
        """Hear nothing."""


class _Blind(LedgerView):
    """A view that waits for its own charges to come back."""

    def charge_extend(self, client: ClientId, tokens: int) -> None:
        """Publish only."""
        self._publish(Update({client: self.cost.extend(tokens)}, client))


class _Silent(LedgerView):
    """A view that tells nobody of outputs."""

    def charge_outputs(self, tokens: Mapping[ClientId, int]) -> None:
        """Charge here alone."""
        Ledger.charge_outputs(self, tokens)


class _PaysItself(LedgerView):
    """A view that refills by its own queue."""

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """The refill of one worker."""
        return Ledger.check_refill(self, queued_clients)


class _LetsInAtZero(LedgerView):
    """A view whose gate opens at exactly 0."""

    def has_credit(self, client: ClientId) -> bool:
        """One too low."""
        return self.deficits[client] >= 0


class WorkersThatHearNothing(SharedLedger):
    """Workers never hear of each other's charges."""

    view = _Deaf


class WorkersThatForgetTheirOwn(SharedLedger):
    """A worker's own admissions do not count for its gate."""

    view = _Blind


class WorkersThatKeepOutputsSecret(SharedLedger):
    """Outputs are charged at their worker only."""

    view = _Silent


class WorkersThatPayThemselves(SharedLedger):
    """Every worker refills by its own queue, as plain DLPM does."""

    view = _PaysItself


class WorkersThatLetInAtZero(SharedLedger):
    """The gate opens at 0."""

    view = _LetsInAtZero


class KeeperThatIgnoresQueues(SharedLedger):
    """The keeper pays although a queued client has credit."""

    def queued_clients(self) -> Iterable[ClientId]:
        """Nobody."""
        return ()


class KeeperThatPaysTwice(SharedLedger):
    """The keeper pays two quanta."""

    def check_refill(self) -> Mapping[ClientId, int]:
        """Pay again."""
        refilled = super().check_refill()
        for client in refilled:
            self.keeper.deficits[client] += self.keeper.quanta.of(client)
        for view in self.views:
            view.paid(refilled)
        return refilled


class UpdatesThatArriveTwice(SharedLedger):
    """What is delivered is delivered twice."""

    def flush(self, worker: int) -> None:
        """Send everything again."""
        kept = tuple(self.on_the_way(worker))
        super().flush(worker)
        for update in kept:
            self.send(worker, update)
        super().flush(worker)


LEDGERS: dict[str, type[SharedLedger]] = {
    "hear-nothing": WorkersThatHearNothing,
    "forget-own-charges": WorkersThatForgetTheirOwn,
    "secret-outputs": WorkersThatKeepOutputsSecret,
    "local-refill": WorkersThatPayThemselves,
    "shared-gate-at-zero": WorkersThatLetInAtZero,
    "keeper-ignores-queues": KeeperThatIgnoresQueues,
    "keeper-pays-twice": KeeperThatPaysTwice,
    "updates-arrive-twice": UpdatesThatArriveTwice,
}


def to_be_noticed(obligations: Callable[[type[SharedLedger]], Iterable[Obligation]], *names: str) -> tuple[Mutant, ...]:
    """The ledgers of these names, each of which must fail one of ``obligations``."""
    return tuple(
        Mutant(
            name, (LEDGERS[name].__doc__ or name).splitlines()[0], partial(obligations, LEDGERS[name]), SHARED_SAMPLE
        )
        for name in names
    )
