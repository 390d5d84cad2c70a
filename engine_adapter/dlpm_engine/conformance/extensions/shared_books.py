"""The books of a ledger that workers share (E9), kept from their log: who has heard of what, and the true counters.

A worker's charges reach the others in *updates*: one for each admission and each forward step, in order. At most the
latest ``late`` of them are on their way; a `deliver` event says that some arrive earlier. So what the keeper and every
view must say follows from the order of a log's lines, and is kept here without the reference's ledger.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import NamedTuple, Protocol

from dlpm.events import Header
from dlpm_engine.conformance.findings import Findings
from dlpm_engine.conformance.promises import Promises
from dlpm_engine.conformance.state import ClientState
from dlpm_engine.conformance.theorem_rules import TheoremRules
from dlpm_engine.conformance.worker_state import WorkerState


class Update(NamedTuple):
    """Charges of one worker in weighted tokens, and whose request left the queue, if one did."""

    charges: Mapping[str, int]
    admitted: str | None


Charged = dict[int | None, deque[int]]
"""What workers charged one client, the latest update that arrived first; at most `REMEMBERED` of each worker."""

REMEMBERED = 16
"""How many updates of each worker are kept to explain a wrong counter."""


def remember(charged: Charged, sender: int | None, amount: int) -> None:
    """Keep what ``sender`` charged. O(1)."""
    charged.setdefault(sender, deque(maxlen=REMEMBERED)).appendleft(amount)


class View(Protocol):
    """One worker's counters, which the books keep up to date with what others do."""

    def registers(self, client: str, deficit: int, charged: Charged) -> None:
        """A client is known from now on, with this counter; others have ``charged`` it before."""
        ...

    def hears(self, sender: int | None, charges: Mapping[str, int]) -> None:
        """Another worker's charges arrive."""
        ...

    def is_paid(self, clients: Iterable[str]) -> None:
        """The keeper pays these clients, as another worker asked it to."""
        ...


class _Client:
    """What the keeper knows of one client."""

    __slots__ = ("charged", "deficit", "queued")

    def __init__(self) -> None:
        self.charged: Charged = {}
        self.deficit = 0
        self.queued = 0

    @property
    def rich(self) -> bool:
        """It waits somewhere, and has credit."""
        return self.queued > 0 and self.deficit > 0


class KeeperBooks:
    """The keeper's counters, and what is on its way to it.

    Attributes:
        clients: every client that a request was dispatched for, as the keeper knows it.
        due_since: the line since which a refill has been due without interruption, or 0.
    """

    def __init__(self, late: int, line: Callable[[], int]) -> None:
        """Nothing has happened; ``line`` is the number of the line that is being checked."""
        self.clients: dict[str, _Client] = {}
        self.due_since = 0
        self._late = late
        self._line = line
        self._rich = 0
        self._waiting = 0
        self._on_the_way: dict[int | None, deque[Update]] = {}

    def kept_back(self, worker: int | None) -> deque[Update]:
        """Updates of ``worker`` that nobody else has heard of, the oldest first. O(1)."""
        return self._on_the_way.setdefault(worker, deque())

    def waits(self, client: str, requests: int) -> None:
        """So many more requests of ``client`` wait, or fewer. O(1)."""
        self._change(client, requests=requests)
        self._settle()

    def pays(self, amounts: Mapping[str, int]) -> None:
        """A refill: whether another is due is seen anew. O(clients paid)."""
        for client, amount in amounts.items():
            self._change(client, amount=amount)
        self.due_since = 0
        self._settle()

    def sent(self, worker: int | None, update: Update) -> list[Update]:
        """``worker`` sends an update: those that arrive now, because they are not among the latest. O(arriving)."""
        outbox = self.kept_back(worker)
        outbox.append(update)
        return self.delivers(worker, len(outbox) - self._late)

    def delivers(self, worker: int | None, updates: int) -> list[Update]:
        """The oldest ``updates`` of ``worker`` arrive, at most all that it kept back. O(arriving)."""
        outbox = self.kept_back(worker)
        arriving = [outbox.popleft() for _ in range(min(updates, len(outbox)))]
        for update in arriving:
            for client, amount in update.charges.items():
                self._change(client, amount=-amount)
                remember(self.clients[client].charged, worker, amount)
            if update.admitted is not None:
                self._change(update.admitted, requests=-1)
        self._settle()
        return arriving

    def _change(self, client: str, *, amount: int = 0, requests: int = 0) -> None:
        """Count, and keep the number of clients that wait and of those with credit right. O(1)."""
        known = self.clients.setdefault(client, _Client())
        self._rich -= known.rich
        self._waiting -= known.queued > 0
        known.deficit += amount
        known.queued += requests
        self._rich += known.rich
        self._waiting += known.queued > 0

    def _settle(self) -> None:
        """Note since when a refill has been due: somebody waits, and nobody who does has credit. O(1)."""
        if not self._waiting or self._rich:
            self.due_since = 0
        elif not self.due_since:
            self.due_since = self._line()


class SharedBooks:
    """Keeper, true counters, and the views of all workers.

    Attributes:
        keeper: what the keeper knows.
        truth: every client of the cluster with what it was really served, wherever it waits.
    """

    def __init__(self, header: Header, findings: Findings, promises: Promises, late: int) -> None:
        """Nothing has happened."""
        self.keeper = KeeperBooks(late, lambda: findings.line)
        self.truth = WorkerState(header, findings, None)
        self._bounds = TheoremRules(self.truth, promises)
        self._views: dict[int | None, View] = {}

    def attach(self, worker: int | None, view: View) -> None:
        """A worker is heard of for the first time: it knows what the keeper knows. O(clients)."""
        self._views[worker] = view
        for name, client in self.keeper.clients.items():
            view.registers(name, client.deficit, client.charged)

    def not_checked(self) -> Mapping[str, str]:
        """The bounds that are not enforced, each with the reason."""
        return self._bounds.not_checked()

    def _client(self, name: str) -> ClientState:
        """A client of the cluster. O(workers) the first time."""
        clients = self.truth.clients
        if name not in clients:
            header = self.truth.header
            clients[name] = ClientState(name, header.quanta.get(name, header.default_quantum or 0))
            self.keeper.waits(name, 0)
            for view in self._views.values():
                view.registers(name, 0, {})
        return clients[name]

    def arrives(self, client: str, input_tokens: int) -> None:
        """A request reaches the router: its client waits somewhere from now on."""
        who = self._client(client)
        self._bounds.longer_input(input_tokens)
        if not who.queued:
            self._bounds.begin_backlog(who)
        who.queued += 1
        self.keeper.waits(client, 1)

    def leaves(self, client: str) -> None:
        """A request waits no more, and was not admitted: the log has contradicted itself."""
        who = self._client(client)
        who.queued -= 1
        tracker = self._bounds.tracker(who)
        if tracker is not None and not who.queued:
            tracker.end(who)
        self.keeper.waits(client, -1)

    def admitted(self, worker: int | None, client: str, extend: int) -> None:
        """A worker let in a request, and sends the update. O(workers)."""
        who = self._client(client)
        charge = self.truth.cost.extend(extend)
        who.queued -= 1
        who.deficit -= charge
        who.recent.append((self.truth.findings.line, self.truth.findings.raw))
        tracker = self._bounds.tracker(who)
        if tracker is not None:
            if not who.queued:
                tracker.end(who)
            tracker.jump(who, charge, self.truth.findings.line)
        else:
            who.service += charge
        self._bounds.check_floor(who)
        self._bounds.check_gaps()
        self._send(worker, Update({client: charge}, client))

    def forwarded(self, worker: int | None, tokens: Mapping[str, int]) -> None:
        """A forward step of one worker, which sends the update. O(clients served * (clients that wait + workers))."""
        cost = self.truth.cost
        served = {self._client(name): count for name, count in tokens.items()}
        self._bounds.before_forward(served)
        for client, count in served.items():
            client.service += cost.output(count)
            client.deficit -= cost.output(count)
        largest = max((cost.output(count) for count in served.values()), default=0)
        lowest = min((client.deficit for client in served), default=0)
        self._bounds.after_forward(largest, lowest, served)
        self._send(worker, Update({name: cost.output(count) for name, count in tokens.items()}, None))

    def pays(self, worker: int | None, clients: Iterable[str]) -> None:
        """A refill that ``worker`` asked for, which has the new counters already. O(clients paid * workers)."""
        paid = [self._client(name) for name in clients]
        for client in paid:
            client.deficit += client.quantum
        self.keeper.pays({client.id: client.quantum for client in paid})
        for other, view in self._views.items():
            if other != worker:
                view.is_paid([client.id for client in paid])
        for client in paid:
            self._bounds.check_ceiling(client)

    def deliver(self, worker: int | None, updates: int) -> None:
        """The oldest updates that ``worker`` kept back reach all others. O(workers) for each."""
        self._tell(worker, self.keeper.delivers(worker, updates))

    def _send(self, worker: int | None, update: Update) -> None:
        """An update is on its way, and pushes the oldest out."""
        self._tell(worker, self.keeper.sent(worker, update))

    def _tell(self, worker: int | None, arriving: Iterable[Update]) -> None:
        """Updates of ``worker`` reach the other workers."""
        for update in arriving:
            for other, view in self._views.items():
                if other != worker:
                    view.hears(worker, update.charges)

    def early(self, worker: int | None, client: str) -> set[int]:
        """What ``worker`` would have heard of ``client`` too early, had some of another's updates reached it."""
        sums: set[int] = set()
        for other in self._views:
            if other != worker:
                kept = self.keeper.kept_back(other)
                sums.update(accumulate(update.charges.get(client, 0) for update in kept))
        return sums - {0}
