"""The rules of the virtual token counter [VTC Alg. 2]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dlpm_engine.conformance.arrival_queue import ArrivalQueue
from dlpm_engine.conformance.considered_order import ConsideredOrder
from dlpm_engine.conformance.counters import logged_counter
from dlpm_engine.conformance.discipline import Discipline
from dlpm_engine.conformance.output_charges import OutputCharges
from dlpm_engine.conformance.state import ClientState, RequestState
from dlpm_engine.conformance.vtc_bounds import VtcBounds
from dlpm_engine.conformance.worker_state import WorkerState


class VtcRules(Discipline):
    """Least counter first; whole inputs and output tokens are charged; who comes back is lifted."""

    def __init__(self, state: WorkerState) -> None:
        """Counters start at 0."""
        super().__init__(state)
        self._waiting: dict[ClientState, ArrivalQueue] = {}
        self._bounds = VtcBounds(state)
        self._order = ConsideredOrder(state)
        self._charges = OutputCharges(state, "vtc-charge-output", 1)
        self._last_to_leave: ClientState | None = None
        self._before_lift: dict[ClientState, int] = {}

    def not_checked(self) -> Mapping[str, str]:
        """What needs the order, free memory, or limits."""
        return {**self._bounds.not_checked(), **self._order.not_checked()}

    def arrives(self, request: RequestState) -> None:
        """A client with nothing queued is lifted to those who stayed, or to who left last. O(queued clients)."""
        client = request.client
        self._bounds.longer_input(request.input)
        self._queue_of(client).join(request)
        if client.queued:
            return
        queued = self.state.queued_clients
        if queued:
            lifted = min(other.deficit for other in queued)
        elif self._last_to_leave is not None:
            lifted = self._last_to_leave.deficit
        else:
            return
        if lifted > client.deficit:
            self._before_lift[client] = client.deficit
            client.deficit = lifted

    def preempts(self, request: RequestState, deficit: int | None) -> None:
        """It goes back to its place; nothing is charged."""
        client = request.client
        self._queue_of(client).join(request)
        found = logged_counter(self.state, deficit)
        if found != client.deficit and not client.doubtful and not self.state.blind:
            self._wrong(client, request, "vtc-charge-preempt", f"{client.deficit}", found, 0)
        self._take(client, found)

    def considers(self, requests: Sequence[str], matched: Sequence[int], free: int | None) -> None:
        """The order names the queue; which client comes first is decided anew after each admission."""
        self._order.begin(requests, free)

    def admits(self, request: RequestState, extend: int, deficit: int | None, free: int | None) -> None:
        """The least served client's earliest request is admitted, and its whole input is charged. O(queued clients)."""
        state = self.state
        client = request.client
        found = logged_counter(state, deficit)
        before = client.deficit
        charge = state.cost.extend(request.input + request.generated)
        known = not client.doubtful and not state.blind
        if found != before + charge and known:
            tokens = request.input + request.generated
            expected = f"{before} + {charge} = {before + charge} for {tokens} tokens of input"
            self._wrong(client, request, "vtc-charge-input", expected, found, charge)
        else:
            self._check_least_served(request)
            self._check_first_of_client(request)
        self._take(client, found)
        self._order.follow(free)

    def admitted(self, request: RequestState) -> None:
        """Remember who left the queue last, and look how far apart the others are."""
        if not request.client.queued:
            self._last_to_leave = request.client
        self._bounds.check()

    def forwards(self) -> None:
        """The least served client's earliest request does not certainly fit. O(queued clients).

        Where several have the least counter, which of them is next is not known, and nothing is checked.
        """
        queued = self.state.queued_clients
        if not queued:
            return
        least = min(other.deficit for other in queued)
        next_clients = [other for other in queued if other.deficit == least]
        if len(next_clients) == 1:
            first = self._queue_of(next_clients[0]).first()
            if first is not None:
                self._order.check_fixpoint((first,))

    def outputs(self, deficits: Mapping[str, int], served: Mapping[ClientState, int] | None) -> None:
        """Each client pays for its output tokens. O(clients in the batch and the queue)."""
        if self._before_lift and self._missed_lift(deficits, served):
            self.adopts_outputs(deficits)
            return
        self._charges.apply(deficits, served)
        self._bounds.check()

    def _missed_lift(self, deficits: Mapping[str, int], served: Mapping[ClientState, int] | None) -> bool:
        """Report a client whose counter is what it would be without its latest lift. O(clients lifted)."""
        for client, before in self._before_lift.items():
            tokens = client.running if served is None else served.get(client, 0)
            charge = self.state.cost.output(tokens)
            if tokens and deficits.get(client.id) == before + charge and before != client.deficit:
                self._report_lift(client, client.deficit + charge, before + charge, None)
                return True
        for client in list(self._before_lift):
            if client.running:
                del self._before_lift[client]
        return False

    def _wrong(
        self, client: ClientState, request: RequestState, rule: str, expected: str, found: int, charge: int
    ) -> None:
        """A counter is wrong: because a lift was left out, if that explains it."""
        before = self._before_lift.get(client)
        if before is not None and found == before + charge:
            self._report_lift(client, client.deficit + charge, found, request)
            return
        self.state.violation(rule, expected=expected, found=f"{found}", client=client, request=request.id)

    def _report_lift(self, client: ClientState, right: int, found: int, request: RequestState | None) -> None:
        """Report a lift that was left out."""
        self.state.violation(
            "vtc-lift",
            expected=f"{right}: {client.id!r} came back and is lifted to {client.deficit}",
            found=f"{found}, as without the lift",
            client=client,
            request=request.id if request is not None else None,
        )

    def _take(self, client: ClientState, found: int) -> None:
        """The log's counter stands from here on."""
        client.deficit = found
        client.doubtful = False
        self._before_lift.pop(client, None)

    def _check_least_served(self, request: RequestState) -> None:
        """Nobody queued has a lower counter."""
        client = request.client
        least = min(self.state.queued_clients, key=lambda other: other.deficit)
        if least.deficit < client.deficit and not least.doubtful and not client.doubtful:
            self.state.violation(
                "vtc-least-served",
                expected=f"a request of {least.id!r}, whose counter is {least.deficit}",
                found=f"{request.id!r} of {client.id!r}, whose counter is {client.deficit}",
                client=least,
                request=request.id,
            )

    def _check_first_of_client(self, request: RequestState) -> None:
        """No request of the same client came earlier."""
        first = self._queue_of(request.client).first()
        if first is not None and first is not request:
            self.state.violation(
                "vtc-first-of-client",
                expected=f"{first.id!r}, the earliest of {request.client.id!r} in the queue",
                found=f"{request.id!r}",
                client=request.client,
                request=request.id,
            )

    def _queue_of(self, client: ClientState) -> ArrivalQueue:
        """The waiting requests of one client."""
        queue = self._waiting.get(client)
        if queue is None:
            queue = self._waiting[client] = ArrivalQueue()
        return queue
