"""The virtual token counter: fair, and blind to prefixes [VTC Alg. 2], the baseline of [DLPM §6.1]."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from dlpm.cost import CostModel
from dlpm.policies.base import AdmissionStep, Waiting
from dlpm.request import ClientId


class VirtualCounters:
    """One counter ``c_i`` a client: the service it has received, lifted when it comes back [VTC Alg. 2].

    Counts whole inputs, cached or not, and output tokens, in weighted tokens.
    """

    def __init__(self, cost: CostModel) -> None:
        """Start without clients."""
        self.cost = cost
        self.counters: dict[ClientId, int] = {}
        self.last_to_leave: ClientId | None = None

    def lift(self, client: ClientId, queued_clients: Iterable[ClientId]) -> None:
        """A request of ``client`` arrives: one that was away gets no credit for its absence [VTC Alg. 2].

        A client with nothing queued is lifted to the least counter among ``queued_clients``, or, if nobody is
        queued, to the counter of the client that left the queue last. O(queued clients).
        """
        counter = self.counters.get(client, 0)
        lowest: int | None = None
        for other in queued_clients:
            if other == client:
                self.counters[client] = counter
                return
            if lowest is None or self.counters[other] < lowest:
                lowest = self.counters[other]
        if lowest is None and self.last_to_leave is not None:
            lowest = self.counters[self.last_to_leave]
        if lowest is not None and lowest > counter:
            counter = lowest
        self.counters[client] = counter

    def least_served(self, clients: Iterable[ClientId]) -> ClientId | None:
        """``arg min c_i`` over ``clients``, the first of them among equals [VTC Alg. 2]. O(clients)."""
        least: ClientId | None = None
        for client in clients:
            if least is None or self.counters[client] < self.counters[least]:
                least = client
        return least

    def charge_input(self, client: ClientId, tokens: int) -> None:
        """Charge the whole input of an admitted request [VTC Alg. 2]."""
        self.counters[client] += self.cost.extend(tokens)

    def charge_outputs(self, tokens: Mapping[ClientId, int]) -> None:
        """Charge the output tokens of one forward step, per client [VTC Alg. 2]."""
        for client, count in tokens.items():
            self.counters[client] += self.cost.output(count)


def visit(
    counters: VirtualCounters,
    clients: Iterable[ClientId],
    try_add: Callable[[ClientId], int | None],
) -> ClientId | None:
    """One turn of VTC's admission loop: the least served client's earliest request, if it fits [VTC Alg. 2].

    ``clients`` have a request in the queue. ``try_add`` adds the earliest request of a client and returns the input
    tokens to charge, or ``None`` if it does not fit. Returns the client that was served, or ``None``.
    """
    client = counters.least_served(clients)
    if client is None:
        return None
    tokens = try_add(client)
    if tokens is None:
        return None
    counters.charge_input(client, tokens)
    return client


class VTC:
    """Serve the client with the least virtual counter, first come first served within a client [VTC Alg. 2]."""

    name = "vtc"

    def __init__(self, cost: CostModel) -> None:
        """Count service in weighted tokens of ``cost``."""
        self.counters = VirtualCounters(cost)
        self._refused: ClientId | None = None

    def arrive(self, client: ClientId, queued_clients: Iterable[ClientId]) -> None:
        """Lift the counter of a client that comes back [VTC Alg. 2]. O(queued clients)."""
        self.counters.lift(client, queued_clients)

    def leave(self, client: ClientId) -> None:
        """Remember who left the queue last [VTC Alg. 2]."""
        self.counters.last_to_leave = client

    def admission_due(self, queued_clients: Iterable[ClientId]) -> bool:
        """The least served client may be another by now: outputs were charged. O(queued clients).

        What the client whose request did not fit has waiting still does not.
        """
        if self._refused is None:
            return False
        counters = self.counters.counters
        bar = counters[self._refused]
        return any(client != self._refused and counters[client] <= bar for client in queued_clients)

    def admit(self, step: AdmissionStep) -> None:
        """Admit until the least served client's earliest request does not fit. O(queue + admissions * clients).

        Ties between counters go to the client whose earliest request came first.
        """
        earliest: dict[ClientId, deque[Waiting]] = {}
        for request in step.waiting():
            earliest.setdefault(request.client, deque()).append(request)
        step.considered(step.waiting())

        def try_add(client: ClientId) -> int | None:
            request = earliest[client][0]
            return None if step.try_admit(request) is None else request.resident

        while True:
            queued = sorted(earliest, key=lambda client: earliest[client][0].rank)
            served = visit(self.counters, queued, try_add)
            if served is None:
                self._refused = self.counters.least_served(queued)
                break
            step.admitted(earliest[served].popleft(), self.counters.counters[served])
            if not earliest[served]:
                del earliest[served]

    def charge_outputs(self, tokens: Mapping[ClientId, int]) -> None:
        """Charge each client for the output tokens of its running requests [VTC Alg. 2]."""
        self.counters.charge_outputs(tokens)

    def counter(self, client: ClientId) -> int | None:
        """The client's virtual counter ``c_i``."""
        return self.counters.counters[client]
