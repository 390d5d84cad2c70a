"""What the checker knows of one worker, shared by all rules that look at it."""

from __future__ import annotations

from collections import deque
from itertools import islice

from dlpm.cost import CostModel
from dlpm.events import Header
from dlpm_engine.conformance.findings import MAX_LEDGER, Findings, described
from dlpm_engine.conformance.report import Violation
from dlpm_engine.conformance.state import ClientState, RequestState

RECENT_OUTPUTS = 2
"""How many forward steps are remembered for the report of a violation."""


class WorkerState:
    """Queue, running batch and clients of one worker, as the log so far implies them.

    Attributes:
        header: the log's header.
        cost: what tokens cost.
        findings: where violations go.
        index: the worker's number in a cluster, or ``None``.
        step: its latest step, or -1.
        forwards: forward steps so far.
        forward_step: the step of the latest of them, or -1.
        clients: every client that has arrived, by name.
        queued: the waiting queue, by request.
        queued_clients: clients with a request in it.
        running: the running batch, by request.
        active: clients with a request in it.
        strays: requests about which the log has contradicted itself, with their client where it is known. Events about
            one are taken as they are, until it finishes: one fault is reported once.
        recent_outputs: the latest forward steps, as line numbers and lines.
    """

    def __init__(self, header: Header, findings: Findings, index: int | None) -> None:
        """A worker of which nothing has been heard."""
        self.header = header
        self.cost = CostModel(header.extend_weight, header.output_weight)
        self.findings = findings
        self.index = index
        self.step = -1
        self.forwards = 0
        self.forward_step = -1
        self.clients: dict[str, ClientState] = {}
        self.queued: dict[str, RequestState] = {}
        self.queued_clients: dict[ClientState, None] = {}
        self.running: dict[str, RequestState] = {}
        self.active: dict[ClientState, None] = {}
        self.strays: dict[str, ClientState | None] = {}
        self._one_token_each: dict[str, bytes] = {}
        self._foretold: bytes | None = None
        self.recent_outputs: deque[tuple[int, bytes]] = deque(maxlen=RECENT_OUTPUTS)

    @property
    def blind(self) -> bool:
        """Whether something runs whose client is unknown, so that no charge can be checked."""
        return None in self.strays.values()

    def dequeue(self, request: RequestState) -> None:
        """A request leaves the waiting queue. O(1)."""
        del self.queued[request.id]
        client = request.client
        client.queued -= 1
        if not client.queued:
            del self.queued_clients[client]

    def enqueue(self, request: RequestState) -> None:
        """A request joins the waiting queue. O(1)."""
        self.queued[request.id] = request
        client = request.client
        client.queued += 1
        if client.queued == 1:
            self.queued_clients[client] = None

    def stop_running(self, request: RequestState) -> None:
        """A request leaves the running batch. O(1)."""
        del self.running[request.id]
        del self._one_token_each[request.id]
        self._foretold = None
        client = request.client
        client.running -= 1
        if not client.running:
            del self.active[client]

    def start_running(self, request: RequestState) -> None:
        """A request joins the running batch. O(1)."""
        self.running[request.id] = request
        self._one_token_each[request.id] = request.one_token
        self._foretold = None
        client = request.client
        client.running += 1
        if client.running == 1:
            self.active[client] = None

    def foretold_tokens(self) -> bytes:
        """What the next output event says if each running request gets one token, in the order of their admission.

        O(1), and O(running requests) where the batch has changed.
        """
        if self._foretold is None:
            self._foretold = b'"tokens":{' + b",".join(self._one_token_each.values()) + b"}"
        return self._foretold

    def violation(
        self,
        rule: str,
        *,
        expected: str,
        found: str,
        client: ClientState | None = None,
        request: str | None = None,
        unmet_hypothesis: str | None = None,
    ) -> None:
        """Report that the line being checked breaks ``rule``. O(clients shown).

        Raises:
            InputError: the line is not an event at all.
            StopCheckingError: one violation was all that was asked for.
        """
        findings = self.findings
        if findings.omit():
            return
        ledger: dict[str, int] = {}
        if self.header.policy in ("dlpm", "vtc"):
            if client is not None:
                ledger[client.id] = client.deficit
            for other in islice(self.clients.values(), MAX_LEDGER - 1):
                ledger[other.id] = other.deficit
        findings.add(
            Violation(
                line=findings.line,
                rule=rule,
                expected=expected,
                found=found,
                worker=self.index,
                step=self.step,
                time_us=findings.time_us(),
                client=client.id if client is not None else None,
                request=request,
                ledger=ledger,
                clients=len(self.clients),
                recent=self._recent(client) if client is not None else (),
                unmet_hypothesis=unmet_hypothesis,
            )
        )

    def _recent(self, client: ClientState) -> tuple[tuple[int, str], ...]:
        """The last events of ``client`` before this line, and the last forward steps among them."""
        source = self.findings.source
        remembered = sorted({*client.recent, *self.recent_outputs})
        return tuple(
            (line, described(raw, client.id, source, line)) for line, raw in remembered if line < self.findings.line
        )
