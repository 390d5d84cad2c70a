"""What the workers of one cluster with a shared ledger (E9) have in common: its books, and requests that move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dlpm.errors import InputError
from dlpm.fields import MAX_INTEGER
from dlpm_engine.conformance.extensions.mode import ClusterRules
from dlpm_engine.conformance.extensions.shared_books import SharedBooks, View
from dlpm_engine.conformance.findings import Findings
from dlpm_engine.conformance.lifecycle import Lifecycle
from dlpm_engine.conformance.line import Line
from dlpm_engine.conformance.odd import OddLineError
from dlpm_engine.conformance.rule import extension_rule
from dlpm_engine.conformance.state import RequestState
from dlpm_engine.conformance.worker_state import WorkerState

PAGE = "docs/d2lpm.md, E9"

VIEW = extension_rule("shared-view", "A worker has heard of all updates of the others but those on their way.", PAGE)
DELIVERY = extension_rule("deliver-kept", "A worker delivers no more updates than it kept back.", PAGE)
NEEDLESS = extension_rule("move-needless", "A worker with a credited request in its queue takes over none.", PAGE)
POOR = extension_rule("move-credit", "A request moves only to a worker where its client has credit.", PAGE)


@dataclass(slots=True)
class _Sent:
    """A request that was dispatched and has not finished: where it is, and whether it waits."""

    client: str
    worker: int | None
    arrived: bool = False
    waits: bool = True


class SharedWorkers(ClusterRules):
    """What the workers of one cluster have in common: the books, and the requests that may move.

    Attributes:
        moving_to: the worker that takes over requests at the moment.
    """

    def __init__(self, findings: Findings, books: SharedBooks) -> None:
        """No worker yet."""
        self.books = books
        self.moving_to: int | None = None
        self._findings = findings
        self._sent: dict[str, _Sent] = {}
        self._workers: dict[int | None, tuple[WorkerState, Lifecycle]] = {}

    def attach(self, state: WorkerState, view: View, lifecycle: Lifecycle) -> None:
        """A worker that is heard of for the first time. O(clients)."""
        self._workers[state.index] = (state, lifecycle)
        self.books.attach(state.index, view)

    def not_checked(self) -> Mapping[str, str]:
        """The bounds, if the header states too little for them."""
        return self.books.not_checked()

    def dispatched(self, event: Line) -> bool:
        """The router has sent a request to a worker; whether this moved one that waits at another.

        Raises:
            InputError: the event does not say whose request it is, or how long.
        """
        if "client" not in event or "input" not in event:
            raise InputError(
                "expected client and input: the keeper knows who waits",
                source=self._findings.source,
                line=self._findings.line,
                field="client" if "client" not in event else "input",
            )
        sent = self._sent.get(event["request"])
        if sent is not None and sent.waits and sent.arrived and sent.worker != event["worker"]:
            self._move(event["request"], sent, event["worker"])
            return True
        self.moving_to = None
        if sent is None:
            self._sent[event["request"]] = _Sent(event["client"], event["worker"])
            self.books.arrives(event["client"], event["input"])
        return False

    def _move(self, name: str, sent: _Sent, target: int) -> None:
        """A request that waits changes workers. O(clients queued at the target)."""
        source_state, _ = self._workers[sent.worker]
        state, lifecycle = self._workers[target]
        client = state.clients[sent.client]
        rich = next((other for other in state.queued_clients if other.deficit > 0 and not other.doubtful), None)
        if rich is not None and self.moving_to != target:
            state.violation(
                NEEDLESS.id,
                expected=f"no move to worker {target}, where {rich.id!r} waits with {rich.deficit} of credit",
                found=f"{name!r} moved from worker {sent.worker}",
                client=client,
                request=name,
            )
        elif client.deficit <= 0 and not client.doubtful:
            state.violation(
                POOR.id,
                expected=f"no move to worker {target}, where {client.id!r} has {client.deficit}",
                found=f"{name!r} moved from worker {sent.worker}",
                client=client,
                request=name,
            )
        self.moving_to = target
        request = source_state.queued[name]
        source_state.dequeue(request)
        request.client = client
        request.order_number = 0
        request.reported = False
        lifecycle.takes_over(request)
        sent.worker = target

    def arrives(self, request: RequestState, worker: int | None) -> None:
        """A request joins the queue of a worker; without a dispatch, the keeper hears of it now."""
        sent = self._sent.get(request.id)
        client = request.client.id
        if sent is None or not sent.waits or sent.client != client:
            if sent is not None and sent.waits:
                self.books.leaves(sent.client)
            sent = self._sent[request.id] = _Sent(client, worker)
            self.books.arrives(client, request.input)
        sent.worker = worker
        sent.arrived = True

    def admitted(self, request: RequestState, worker: int | None) -> None:
        """A worker let a request in."""
        self._sent[request.id].waits = False
        self.books.admitted(worker, request.client.id, request.extend)

    def finished(self, request: RequestState) -> None:
        """A request is done; its name may come again."""
        self._sent.pop(request.id, None)

    def withdrawn(self, request: RequestState) -> None:
        """A request that the log has contradicted itself on waits nowhere any more."""
        if self._sent.pop(request.id, None) is not None:
            self.books.leaves(request.client.id)

    def deliver(self, state: WorkerState, event: Line) -> None:
        """A worker's oldest updates arrive at once."""
        updates = event["updates"]
        if type(updates) is not int or not 1 <= updates <= MAX_INTEGER:
            raise OddLineError
        self.moving_to = None
        kept = len(self.books.keeper.kept_back(state.index))
        if updates > kept:
            state.violation(DELIVERY.id, expected=f"at most {kept} updates, which it kept back", found=f"{updates}")
        self.books.deliver(state.index, updates)
