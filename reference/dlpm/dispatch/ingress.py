"""Fairness at the front ends instead of at the workers: deficit round robin over what each front end holds back.

Shreedhar and Varghese, "Efficient Fair Queuing using Deficit Round Robin", SIGCOMM 1995. A front end knows its own
tenants alone, and its share of the cluster's slots: it is fair among those who come in at it, and to nobody else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.ledger import Quanta
from dlpm.request import ClientId, Request, RequestId


class FrontEnd:
    """One queue a tenant, served by deficit round robin; at most ``slots`` requests are released and not finished."""

    def __init__(self, slots: int, quanta: Quanta, cost: CostModel) -> None:
        """A front end without requests.

        Raises:
            InputError: there is no slot.
        """
        if slots < 1:
            raise InputError(f"expected an integer > 0, found {slots}", field="slots")
        self._free = slots
        self._quanta = quanta
        self._cost = cost
        self._queues: dict[ClientId, deque[tuple[int, Request]]] = {}
        self._deficits: dict[ClientId, int] = {}
        self._turns: deque[ClientId] = deque()

    def arrive(self, arrived_us: int, request: Request) -> None:
        """A request comes in. O(1)."""
        queue = self._queues.setdefault(request.client, deque())
        queue.append((arrived_us, request))
        if len(queue) == 1:
            self._turns.append(request.client)
            self._deficits[request.client] = self._quanta.of(request.client) if len(self._turns) == 1 else 0

    def release(self) -> list[tuple[int, Request]]:
        """Take what may go now. O(what goes, and the turns that pass)."""
        released = []
        while self._free and self._turns:
            client = self._turns[0]
            queue = self._queues[client]
            request = queue[0][1]
            needed = self._cost.service(request.input_tokens, request.max_output)
            if self._deficits[client] < needed:
                self._next_turn()
                continue
            self._deficits[client] -= needed
            released.append(queue.popleft())
            self._free -= 1
            if not queue:
                self._turns.popleft()
                if self._turns:
                    self._pay_first()
        return released

    def finished(self) -> None:
        """A request that was released has finished. O(1)."""
        self._free += 1

    def _next_turn(self) -> None:
        """The first in line goes to its end, and the next gets its quantum."""
        self._turns.rotate(-1)
        self._pay_first()

    def _pay_first(self) -> None:
        """Whose turn begins gets its quantum."""
        client = self._turns[0]
        self._deficits[client] += self._quanta.of(client)


class Ingress:
    """Front ends before a cluster's router: what they release is dispatched, the rest waits at them."""

    def __init__(self, front_ends: list[FrontEnd], place: Callable[[Request], int]) -> None:
        """``place`` says at which front end a request comes in."""
        self._front_ends = front_ends
        self._place = place
        self._came_in: dict[RequestId, int] = {}

    def arrive(self, arrived_us: int, request: Request) -> None:
        """A request comes in."""
        index = self._place(request)
        self._came_in[request.id] = index
        self._front_ends[index].arrive(arrived_us, request)

    def release(self) -> list[tuple[int, Request]]:
        """What is to be dispatched now, front end by front end. O(front ends), and what goes."""
        return [released for front_end in self._front_ends for released in front_end.release()]

    def finished(self, request: Request) -> None:
        """A request has finished: its front end has a slot again."""
        self._front_ends[self._came_in.pop(request.id)].finished()
