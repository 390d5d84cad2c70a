"""E9: one ledger for all workers, updates arriving late.

A client has one deficit counter for the whole cluster, paid by the keeper (at the router). Every worker has a *view* of
it: its own charges at once, the other workers' at most ``late`` updates after they were made. The gate is asked of
the view. The keeper pays when no client that is queued anywhere has credit *as far as it has heard*: charges that are
still on their way make a view too high, never too low, so whom the keeper believes without credit has none.

docs/d2lpm.md says why this, what is proved of it, and what it costs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.events import Extensions
from dlpm.ledger import Ledger, Quanta
from dlpm.policies.dlpm import DLPM
from dlpm.request import ClientId

NAME = "shared_ledger"


def stated(late: int) -> Extensions:
    """What the header of a log says of this extension, if workers keep back up to ``late`` updates."""
    return {NAME: {"late": late}}


@dataclass(frozen=True, slots=True)
class Update:
    """What a worker tells the others: charges in weighted tokens, and whose request left the queue, if one did.

    One update is one admission, or one forward step.
    """

    charges: Mapping[ClientId, int]
    admitted: ClientId | None = None


class LedgerView(Ledger):
    """The shared counters as one worker knows them."""

    def __init__(
        self,
        quanta: Quanta,
        cost: CostModel,
        publish: Callable[[Update], None],
        ask_keeper: Callable[[], Mapping[ClientId, int]],
    ) -> None:
        """``publish`` sends an update on its way; ``ask_keeper`` lets the keeper pay, and returns whom it paid."""
        super().__init__(quanta, cost)
        self._publish = publish
        self._ask_keeper = ask_keeper

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """Ask the keeper: who is queued elsewhere matters as well. Returns this view of the clients it paid."""
        del queued_clients
        return {client: self.deficits[client] for client in self._ask_keeper()}

    def charge_extend(self, client: ClientId, tokens: int) -> None:
        """Charge an admission here, and tell the others."""
        super().charge_extend(client, tokens)
        self._publish(Update({client: self.cost.extend(tokens)}, client))

    def charge_outputs(self, tokens: Mapping[ClientId, int]) -> None:
        """Charge a forward step here, and tell the others."""
        super().charge_outputs(tokens)
        self._publish(Update({client: self.cost.output(count) for client, count in tokens.items()}))

    def heard(self, update: Update) -> None:
        """Another worker charged. O(clients charged)."""
        for client, amount in update.charges.items():
            self.deficits[client] = self.deficits.get(client, 0) - amount

    def paid(self, clients: Iterable[ClientId]) -> None:
        """The keeper paid these clients their quanta. O(clients)."""
        for client in clients:
            self.deficits[client] = self.deficits.get(client, 0) + self.quanta.of(client)


class SharedLedger:
    """The keeper's counters, every worker's view of them, and the updates on their way.

    Attributes:
        keeper: the counters as the keeper knows them, a plain `dlpm.ledger.Ledger`.
        view: what a worker sees with; proofs put changed ones in its place.
        views: one for each worker.
        changes: how many refills and deliveries there have been: what was impossible before may be possible now.
    """

    view: type[LedgerView] = LedgerView

    def __init__(self, workers: int, quanta: Quanta, cost: CostModel, late: int) -> None:
        """``late``: how many of its latest updates a worker may keep back, >= 0.

        Raises:
            InputError: if ``late`` is negative.
        """
        if late < 0:
            raise InputError(f"expected an integer >= 0, found {late}", field="late")
        self.keeper = Ledger(quanta, cost)
        self.views = [
            self.view(quanta, cost, partial(self.send, worker), self.check_refill) for worker in range(workers)
        ]
        self.changes = 0
        self._late = late
        self._on_the_way: list[deque[Update]] = [deque() for _ in range(workers)]
        self._queued: dict[ClientId, int] = {}

    def arrived(self, client: ClientId) -> None:
        """The router sent a request of ``client`` to some worker: it is queued somewhere until an update says not."""
        self.keeper.register(client)
        self._queued[client] = self._queued.get(client, 0) + 1

    def queued_clients(self) -> Iterable[ClientId]:
        """Clients that, as far as the keeper has heard, have a request queued anywhere: never too few. O(1)."""
        return self._queued.keys()

    def check_refill(self) -> Mapping[ClientId, int]:
        """Pay every client without credit, if no client queued anywhere has credit [DLPM Alg. 1 ll. 3-8, one ledger].

        Returns the keeper's new counters of those it paid. O(registered clients * workers).
        """
        refilled = self.keeper.check_refill(self.queued_clients())
        if refilled:
            self.changes += 1
            for view in self.views:
                view.paid(refilled)
        return refilled

    def on_the_way(self, worker: int) -> Sequence[Update]:
        """Updates of ``worker`` that nobody else has heard of yet, the oldest first. O(1)."""
        return self._on_the_way[worker]

    def flush(self, worker: int) -> None:
        """Deliver everything that ``worker`` kept back: it has come to rest, and no newer update would push it out."""
        self._deliver_down_to(worker, 0)

    def send(self, worker: int, update: Update) -> None:
        """``worker`` puts ``update`` on its way, and so its oldest beyond ``late`` arrive. O(workers) for each."""
        self._on_the_way[worker].append(update)
        self._deliver_down_to(worker, self._late)

    def _deliver_down_to(self, sender: int, kept: int) -> None:
        """Deliver the oldest updates of ``sender`` until at most ``kept`` are left. O(workers) for each."""
        outbox = self._on_the_way[sender]
        while len(outbox) > kept:
            update = outbox.popleft()
            self.changes += 1
            self._keeper_hears(update)
            for worker, view in enumerate(self.views):
                if worker != sender:
                    view.heard(update)

    def _keeper_hears(self, update: Update) -> None:
        """Take charges off the keeper's counters, and a request out of its idea of the queues."""
        for client, amount in update.charges.items():
            self.keeper.deficits[client] -= amount
        if update.admitted is not None:
            self._queued[update.admitted] -= 1
            if not self._queued[update.admitted]:
                del self._queued[update.admitted]


class SharedDLPM(DLPM):
    """DLPM at one worker, gated by its view of the shared ledger."""

    name = "dlpm-shared"

    def admission_due(self, queued_clients: Iterable[ClientId]) -> bool:
        """Always: the keeper may have paid, or other workers' work may have been heard of, at any time."""
        return True
