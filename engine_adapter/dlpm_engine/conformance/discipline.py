"""The seam between the life of requests, which is the same for all, and the rules of one policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dlpm_engine.conformance.state import ClientState, RequestState
from dlpm_engine.conformance.worker_state import WorkerState


class Discipline:
    """The rules of one policy for one worker. This one has none: it is what an unknown policy is held to.

    Each method is told an event before the state of the worker changes, unless it says otherwise. All raise
    `InputError` where the event lacks what the policy must log, and `StopCheckingError` once the check is over.
    """

    def __init__(self, state: WorkerState) -> None:
        """Rules about the worker with this state."""
        self.state = state

    def conserves_work(self) -> bool:
        """Whether a step in which requests wait or run must have a forward."""
        return True

    def arrives(self, request: RequestState) -> None:
        """A request is about to join the queue."""

    def considers(self, requests: Sequence[str], matched: Sequence[int], free: int | None) -> None:
        """The order in which this step considers the queue; without rules about it, it only has to be readable."""
        self.state.findings.strictly_parsed()

    def refills(self, deficits: Mapping[str, int]) -> None:
        """A check-refill has fired; without rules about it, it only has to be readable."""
        self.state.findings.strictly_parsed()

    def admits(self, request: RequestState, extend: int, deficit: int | None, free: int | None) -> None:
        """A queued request is about to join the batch; ``free`` is what memory has left after it."""
        if deficit is not None:
            self.state.findings.strictly_parsed()

    def admitted(self, request: RequestState) -> None:
        """It has joined the batch."""

    def adopts(self, client: ClientState, deficit: int | None) -> None:
        """An event about a request that the log contradicted itself on: its counter is taken as it is."""
        if deficit is not None:
            client.deficit = deficit

    def forwards(self) -> None:
        """Admission is over: a forward step is about to be charged."""

    def outputs(self, deficits: Mapping[str, int], served: Mapping[ClientState, int] | None) -> None:
        """A forward step: tokens of each client, or ``None`` where each of its running requests got one."""
        if deficits:
            self.state.findings.strictly_parsed()

    def adopts_outputs(self, deficits: Mapping[str, int]) -> None:
        """A forward step whose tokens contradict the batch: its counters are taken as they are."""
        clients = self.state.clients
        for name, deficit in deficits.items():
            client = clients.get(name)
            if client is not None:
                client.deficit = deficit

    def finished(self, request: RequestState) -> None:
        """A request has left the batch, finished."""

    def withdrawn(self, request: RequestState) -> None:
        """A queued request has left the queue without having been admitted: the log has contradicted itself."""

    def preempts(self, request: RequestState, deficit: int | None) -> None:
        """A running request is about to go back to the queue."""
        if deficit is not None:
            self.state.findings.strictly_parsed()

    def not_checked(self) -> Mapping[str, str]:
        """Rules that this log does not carry enough for, and why."""
        return {}
