"""The rules of DLPM [DLPM Alg. 1]: gate, charges, refills, order, fixpoint, and the bounds that follow.

An extension's rules are a subclass, which overrides the small methods that say what is expected (`has_credit`, `owed`,
`admission_charge`, `admission_service`), or those about a whole event (`extensions.mode`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from dlpm_engine.conformance.considered_order import ConsideredOrder
from dlpm_engine.conformance.counters import logged_counter
from dlpm_engine.conformance.discipline import Discipline
from dlpm_engine.conformance.findings import names
from dlpm_engine.conformance.output_charges import OutputCharges
from dlpm_engine.conformance.promises import PlainPromises
from dlpm_engine.conformance.state import ClientState, RequestState
from dlpm_engine.conformance.theorem_rules import TheoremRules
from dlpm_engine.conformance.worker_state import WorkerState


class DlpmRules(Discipline):
    """What Algorithm 1 may do to one worker."""

    def __init__(
        self, state: WorkerState, bounds: TheoremRules | None = None, charges: OutputCharges | None = None
    ) -> None:
        """Nothing has happened. ``bounds`` and ``charges`` are those of the plain algorithm unless given."""
        super().__init__(state)
        self._bounds = bounds if bounds is not None else TheoremRules(state, PlainPromises(state.header))
        self._order = ConsideredOrder(state)
        self._charges = charges if charges is not None else OutputCharges(state, "charge-output", -1)
        self._refill_overdue = False

    def not_checked(self) -> Mapping[str, str]:
        """Rules that this log does not carry enough for, and why."""
        return {**self._bounds.not_checked(), **self._order.not_checked()}

    # -- what is expected ------------------------------------------------------------------------------------------

    def has_credit(self, request: RequestState) -> bool:
        """The gate: its client's deficit is known to be positive [DLPM Alg. 1 l. 21]."""
        return request.client.deficit > 0 and not request.client.doubtful

    def eligible(self, request: RequestState) -> bool:
        """Whether a queued request may join the batch now, if memory can hold it."""
        return self.has_credit(request)

    def waiting_clients(self) -> Collection[ClientState]:
        """Whom check-refill asks: the clients with a queued request [DLPM Alg. 1 l. 4]."""
        return self.state.queued_clients

    def owed(self) -> list[ClientState]:
        """Whom a refill that fires now must pay [DLPM Alg. 1 ll. 6-7], as far as counters are known. O(clients)."""
        return [client for client in self.state.clients.values() if client.deficit <= 0 and not client.doubtful]

    def admission_charge(self, request: RequestState, extend: int) -> int:
        """What the client pays when ``request`` joins the batch [DLPM Alg. 1 l. 23], in weighted tokens."""
        return self.state.cost.extend(extend)

    def admission_service(self, request: RequestState) -> int:
        """What the client is served by the admission just made, in weighted tokens."""
        return self.state.cost.extend(request.extend)

    # -- queue -----------------------------------------------------------------------------------------------------

    def arrives(self, request: RequestState) -> None:
        """The backlog of a client begins with its first request in the queue."""
        self._bounds.longer_input(request.input)
        if not request.client.queued:
            self._bounds.begin_backlog(request.client)

    def considers(self, requests: Sequence[str], matched: Sequence[int], free: int | None) -> None:
        """The order is longest match first."""
        known = self._order.begin(requests, free)
        if len(known) == len(requests):
            self._order.check_longest_first(known, matched)

    # -- refill ----------------------------------------------------------------------------------------------------

    def refills(self, deficits: Mapping[str, int]) -> None:
        """A refill is due, forgets nobody, and pays each client at or below 0 its quantum once. O(clients)."""
        state = self.state
        self._check_due()
        clients = state.clients
        unknown = [name for name in deficits if name not in clients]
        if unknown:
            state.violation("known-client", expected="deficits of clients that have arrived", found=names(unknown))
        paid = {clients[name]: after for name, after in deficits.items() if name in clients}
        self._check_amounts(paid)
        forgotten = [client for client in self.owed() if client not in paid]
        if forgotten:
            state.violation(
                "refill-forgot",
                expected=f"{names(client.id for client in forgotten)} among those refilled: at or below 0",
                found="not refilled",
                client=forgotten[0],
            )
        for client in forgotten:
            client.doubtful = True
        event = (state.findings.line, state.findings.raw)
        for client, after in paid.items():
            client.deficit = after
            client.doubtful = False
            client.recent.append(event)
        for client in paid:
            self._bounds.check_ceiling(client)
        self._order.refilled()
        self._refill_overdue = False

    def _check_due(self) -> None:
        """Somebody waits, and nobody who waits has credit [DLPM Alg. 1 ll. 4-5]."""
        state = self.state
        waiting = self.waiting_clients()
        if not waiting:
            state.violation("refill-due", expected="no refill while nobody is queued", found="a refill")
            return
        for client in waiting:
            if client.deficit > 0 and not client.doubtful:
                state.violation(
                    "refill-due",
                    expected=f"no refill while {client.id!r} is queued and has {client.deficit} of credit",
                    found="a refill",
                    client=client,
                )
                return

    def _check_amounts(self, paid: Mapping[ClientState, int]) -> None:
        """Each client at or below 0 gets its quantum, once [DLPM Alg. 1 l. 7]. Each rule is reported once a refill."""
        broken: dict[str, tuple[ClientState, str, int]] = {}
        for client, after in paid.items():
            before = client.deficit
            right = before + client.quantum
            if client.doubtful:
                continue
            if before > 0:
                broken.setdefault("refill-credit", (client, f"no refill at a deficit of {before}", after))
            elif after == right + client.quantum:
                broken.setdefault("refill-twice", (client, f"{before} + {client.quantum} = {right}", after))
            elif after != right:
                broken.setdefault("refill-amount", (client, f"{before} + {client.quantum} = {right}", after))
        for rule, (client, expected, after) in broken.items():
            self.state.violation(rule, expected=expected, found=f"{after}", client=client)

    # -- batch -----------------------------------------------------------------------------------------------------

    def admits(self, request: RequestState, extend: int, deficit: int | None, free: int | None) -> None:
        """The client has credit, nobody was passed over, and the charge is that of the extend tokens."""
        state = self.state
        client = request.client
        found = logged_counter(state, deficit)
        before = client.deficit
        known = not client.doubtful and not state.blind
        if before <= 0 and known:
            self._doubt_the_poor()
            state.violation(
                "gate",
                expected=f"no admission of {client.id!r} at a deficit of {before}",
                found=f"request {request.id!r} admitted",
                client=client,
                request=request.id,
            )
        else:
            self._order.admits(request, free, self.eligible)
            charge = self.admission_charge(request, extend)
            if found != before - charge and known:
                state.violation(
                    "charge-extend",
                    expected=f"{before} - {charge} = {before - charge} for {extend} extend tokens",
                    found=f"{found}",
                    client=client,
                    request=request.id,
                )
        client.deficit = found
        client.doubtful = False

    def _doubt_the_poor(self) -> None:
        """A refill seems to be missing from the log: whom it paid, and how often, is not known. O(clients)."""
        for client in self.state.clients.values():
            if client.deficit <= 0:
                client.doubtful = True

    def admitted(self, request: RequestState) -> None:
        """Service grows by the extend tokens; with the last queued request the backlog ends."""
        client = request.client
        tracker = self._bounds.tracker(client)
        if tracker is not None:
            if not client.queued:
                tracker.end(client)
            tracker.jump(client, self.admission_service(request), self.state.findings.line)
        self._bounds.check_floor(client)
        self._bounds.check_gaps()

    def finished(self, request: RequestState) -> None:
        """A client decodes one request less."""
        tracker = self._bounds.tracker(request.client)
        if tracker is not None:
            tracker.bend(request.client)

    def withdrawn(self, request: RequestState) -> None:
        """With the last queued request the backlog ends."""
        tracker = self._bounds.tracker(request.client)
        if tracker is not None and not request.client.queued:
            tracker.end(request.client)

    def preempts(self, request: RequestState, deficit: int | None) -> None:
        """A preemption charges nothing; its client is backlogged again."""
        client = request.client
        found = logged_counter(self.state, deficit)
        if found != client.deficit and not client.doubtful and not self.state.blind:
            self.state.violation(
                "charge-preempt", expected=f"{client.deficit}", found=f"{found}", client=client, request=request.id
            )
        client.deficit = found
        client.doubtful = False
        if not client.queued:
            self._bounds.begin_backlog(client)
        self.finished(request)

    # -- forward ---------------------------------------------------------------------------------------------------

    def forwards(self) -> None:
        """The admission fixpoint is reached: no refill is due, and nobody who may run and fits still waits."""
        self._check_refill_not_due()
        self._order.check_fixpoint(filter(self.eligible, self._order.waiting()))

    def _check_refill_not_due(self) -> None:
        """Some queued client has credit, if anybody was queued when admission came to rest. O(queued clients).

        Who was preempted after that had no visit; whether preemptions come before or after admission is not known, so
        a step is blamed only if its refill was due either way.
        """
        state = self.state
        for client in self.waiting_clients():
            if client.deficit > 0 or client.doubtful:
                self._refill_overdue = False
                return
        if self._refill_overdue:
            return
        if self.somebody_waited():
            self._refill_overdue = True
            waiting = names(client.id for client in self.waiting_clients())
            self._doubt_the_poor()
            state.violation(
                "fixpoint-refill",
                expected="a refill before the forward: nobody who is queued has credit",
                found=f"none, while {waiting} wait",
                client=next(iter(self.waiting_clients())),
            )

    def somebody_waited(self) -> bool:
        """Whether somebody certainly waited when admission came to rest. O(1) mostly, O(queue) at most."""
        step = self.state.step
        return any(request.preempted_in != step for request in self.state.queued.values())

    def outputs(self, deficits: Mapping[str, int], served: Mapping[ClientState, int] | None) -> None:
        """Each client pays for its output tokens. O(clients in the batch)."""
        bounds = self._bounds
        charges = self._charges
        bounds.before_forward(served)
        charges.apply(deficits, served)
        bounds.after_forward(charges.largest, charges.lowest, served)

    def adopts_outputs(self, deficits: Mapping[str, int]) -> None:
        """Counters are taken as they are; what was served is not known, so the intervals of the gaps begin anew."""
        super().adopts_outputs(deficits)
        for client in self.state.queued_clients:
            self._bounds.begin_backlog(client)
