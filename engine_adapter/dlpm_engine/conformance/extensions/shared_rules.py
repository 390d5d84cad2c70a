"""Algorithm 1 at one worker that sees the shared ledger through its own view (E9)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from dlpm_engine.conformance.dlpm_rules import DlpmRules
from dlpm_engine.conformance.extensions.shared_books import Charged, remember
from dlpm_engine.conformance.extensions.shared_workers import VIEW, SharedWorkers
from dlpm_engine.conformance.promises import EXTENSION_BOUNDS, Unproven
from dlpm_engine.conformance.state import ClientState, RequestState
from dlpm_engine.conformance.theorem_rules import TheoremRules
from dlpm_engine.conformance.worker_state import WorkerState

MOST_SUMS = 4096
"""At most so many sums of updates are tried to explain a wrong counter."""

BOUNDS = frozenset(rule.id for rule in EXTENSION_BOUNDS)


class SharedRules(DlpmRules):
    """Algorithm 1 at one worker, on its view of the counters."""

    def __init__(self, state: WorkerState, cluster: SharedWorkers) -> None:
        """Nothing has happened here."""
        promises = Unproven("a shared ledger", "about all workers together")
        super().__init__(state, TheoremRules(state, promises))
        self._cluster = cluster
        self._books = cluster.books
        # For each client, what others said they charged it since this worker last logged its counter, the latest first.
        self._heard: dict[ClientState, Charged] = {}
        self._paid_meanwhile: dict[ClientState, int] = {}
        self._latest = 0
        self._due_at_rest: int | None = None

    def conserves_work(self) -> bool:
        """A batch goes forward in each step; who waits beside an empty one may be without credit."""
        return bool(self.state.running)

    def not_checked(self) -> Mapping[str, str]:
        """Floor and gap are not those of one worker."""
        own = {rule: why for rule, why in super().not_checked().items() if rule not in BOUNDS}
        return {**own, **self._books.not_checked()}

    # -- what reaches this worker ----------------------------------------------------------------------------------

    def registers(self, client: str, deficit: int, charged: Charged) -> None:
        """The ledger knows a client that may never have come here, and what it was ``charged``."""
        known = self.state.clients.get(client)
        if known is None:
            header = self.state.header
            known = ClientState(client, header.quanta.get(client, header.default_quantum or 0))
            self.state.clients[client] = known
        known.deficit = deficit
        self._heard[known] = {sender: deque(amounts, amounts.maxlen) for sender, amounts in charged.items()}

    def hears(self, sender: int | None, charges: Mapping[str, int]) -> None:
        """Another worker's charges arrive. O(clients charged)."""
        for name, amount in charges.items():
            client = self.state.clients[name]
            client.deficit -= amount
            remember(self._heard.setdefault(client, {}), sender, amount)

    def _sums(self, client: ClientState) -> set[int]:
        """What the latest updates of one or several others charged together: any number of each, from the latest."""
        sums = {0}
        for amounts in self._heard.get(client, {}).values():
            if len(sums) * len(amounts) > MOST_SUMS:
                break
            sums |= {some + more for some in sums for more in accumulate(amounts)}
        return sums

    def is_paid(self, clients: Iterable[str]) -> None:
        """A refill that another worker asked for. O(clients)."""
        for name in clients:
            client = self.state.clients[name]
            client.deficit += client.quantum
            self._paid_meanwhile[client] = self._paid_meanwhile.get(client, 0) + client.quantum

    def _explain(self, client: ClientState, found: int) -> None:
        """Report a counter before a charge that is wrong by what updates say: heard of late, early, or twice.

        The counter is taken over then, so that the rule about the charge has nothing to say. A counter that is too
        high by one quantum is left to the other rules: a refill is missing. O(`MOST_SUMS`), and O(1) if it is right.
        """
        missing = found - client.deficit
        if missing in (0, client.quantum) or client.doubtful or self.state.blind:
            return
        heard = self._sums(client)
        if missing in heard:
            what = "updates are missing that it must have heard of"
        elif -missing in heard:
            what = "updates count twice"
        elif -missing in self._books.early(self.state.index, client.id):
            what = "updates count that are still on their way"
        else:
            return
        self.state.violation(
            VIEW.id,
            expected=f"{client.deficit} for {client.id!r} before its charge",
            found=f"{found}: {what}",
            client=client,
        )
        client.deficit = found

    def _happens(self) -> None:
        """An event of this worker: the next one may be explained by what is heard from here on."""
        self._latest = self.state.findings.line
        self._cluster.moving_to = None

    def _rests(self) -> None:
        """This may be where the admission of this step came to rest."""
        self._due_at_rest = self._books.keeper.due_since
        self._paid_meanwhile.clear()

    # -- queue -----------------------------------------------------------------------------------------------------

    def arrives(self, request: RequestState) -> None:
        """The cluster knows of it from its dispatch."""
        self._happens()
        self._cluster.arrives(request, self.state.index)

    def considers(self, requests: Sequence[str], matched: Sequence[int], free: int | None) -> None:
        """As ever."""
        self._happens()
        self._paid_meanwhile.clear()
        super().considers(requests, matched, free)

    # -- refill ----------------------------------------------------------------------------------------------------

    def owed(self) -> list[ClientState]:
        """Whom the keeper believes without credit. O(clients)."""
        known = self._books.keeper.clients
        return [
            client
            for name, client in self.state.clients.items()
            if name in known and known[name].deficit <= 0 and not client.doubtful
        ]

    def _check_due(self) -> None:
        """Somebody waits anywhere, and nobody who does has credit, as far as the keeper has heard."""
        keeper = self._books.keeper
        if keeper.due_since:
            return
        for name, client in keeper.clients.items():
            if client.rich:
                expected = f"no refill while {name!r} waits somewhere and has {client.deficit}, as the keeper knows"
                self.state.violation(
                    "refill-due", expected=expected, found="a refill", client=self.state.clients.get(name)
                )
                return
        self.state.violation("refill-due", expected="no refill while nobody waits anywhere", found="a refill")

    def _check_amounts(self, paid: Mapping[ClientState, int]) -> None:
        """Each client that the keeper believes without credit gets its quantum, once."""
        known = self._books.keeper.clients
        rich = [client for client in paid if client.id in known and known[client.id].deficit > 0]
        if rich:
            credit = known[rich[0].id].deficit
            expected = f"no refill of {rich[0].id!r}, which has {credit} as the keeper knows"
            self.state.violation("refill-credit", expected=expected, found=f"{paid[rich[0]]}", client=rich[0])
        poor = {client: after for client, after in paid.items() if client not in rich}
        for client, after in poor.items():
            self._explain(client, after - client.quantum)
        super()._check_amounts(poor)

    def refills(self, deficits: Mapping[str, int]) -> None:
        """The keeper pays, and everybody hears of it at once. O(clients * workers)."""
        self._happens()
        super().refills(deficits)
        paid = [name for name in deficits if name in self.state.clients]
        for name in paid:
            self._heard.pop(self.state.clients[name], None)
        self._books.pays(self.state.index, paid)
        self._rests()

    # -- batch -----------------------------------------------------------------------------------------------------

    def admits(self, request: RequestState, extend: int, deficit: int | None, free: int | None) -> None:
        """As ever, on the view."""
        self._happens()
        if deficit is not None:
            self._explain(request.client, deficit + self.admission_charge(request, extend))
        super().admits(request, extend, deficit, free)
        self._heard.pop(request.client, None)

    def admitted(self, request: RequestState) -> None:
        """The others will hear of it."""
        self._cluster.admitted(request, self.state.index)
        self._rests()

    def finished(self, request: RequestState) -> None:
        """Nothing that was served changes."""
        self._happens()
        self._cluster.finished(request)

    def withdrawn(self, request: RequestState) -> None:
        """It waits nowhere any more."""
        self._cluster.withdrawn(request)

    # -- forward ---------------------------------------------------------------------------------------------------

    def has_credit(self, request: RequestState) -> bool:
        """The gate, on the view as it was when admission came to rest, or lower."""
        client = request.client
        return client.deficit - self._paid_meanwhile.get(client, 0) > 0 and not client.doubtful

    def _check_refill_not_due(self) -> None:
        """No refill was due when admission came to rest.

        That was after the step's latest admission or refill. In a step without one it is not logged when: then a
        refill must have been due all the time since the worker's latest event. O(1).
        """
        due = self._due_at_rest
        if due is None and self._books.keeper.due_since <= self._latest:
            due = self._books.keeper.due_since
        if due and self.state.queued:
            waiting = next(iter(self.state.queued.values())).client
            self.state.violation(
                "fixpoint-refill",
                expected=f"a refill before the forward: since line {due} nobody who waits anywhere has credit, as the "
                "keeper knows",
                found=f"none, while {len(self.state.queued)} wait here",
                client=waiting,
            )

    def outputs(self, deficits: Mapping[str, int], served: Mapping[ClientState, int] | None) -> None:
        """Each client pays for its output tokens, and the others will hear of it. O(clients in the batch)."""
        state = self.state
        self._happens()
        self._due_at_rest = None
        tokens = {client: client.running for client in state.active} if served is None else dict(served)
        for client, count in tokens.items():
            if client.id in deficits:
                self._explain(client, deficits[client.id] + state.cost.output(count))
        super().outputs(deficits, served)
        for client in tokens:
            self._heard.pop(client, None)
        self._books.forwarded(state.index, {client.id: count for client, count in tokens.items()})

    def adopts_outputs(self, deficits: Mapping[str, int]) -> None:
        """What was served is not known: one token for each running request is believed."""
        super().adopts_outputs(deficits)
        self._due_at_rest = None
        tokens = {client.id: client.running for client in self.state.active}
        self._books.forwarded(self.state.index, tokens)
