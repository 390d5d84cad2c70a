"""Double Deficit LPM: Algorithm 2 of [DLPM], line by line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dlpm.cost import CostModel
from dlpm.dispatch.base import Decision, QueueSizes
from dlpm.dispatch.directory import PrefixDirectory
from dlpm.errors import InputError
from dlpm.request import BlockKey, ClientId, Request


def refill(credit: list[int], worker_quantum: int) -> None:
    """Every worker's counter of one client gets ``Q^w``, in place [DLPM Alg. 2 l. 6]. O(workers)."""
    for worker in range(len(credit)):
        credit[worker] += worker_quantum


def select_worker(
    credit: list[int],
    worker_quantum: int,
    longest_match: Sequence[int],
    shortest: Callable[[Sequence[int]], int],
) -> int:
    """``SelectWorker(G, i)`` [DLPM Alg. 2 ll. 3-8]: prefer the prefix, as far as the client's credit goes.

    ``credit`` holds the client's counter at each worker and is refilled in place; ``longest_match`` is ``G``;
    ``shortest`` is ``arg min s_w`` over the workers it is given. O(workers) a refill; a debt of ``k`` quanta takes
    ``k`` refills.
    """
    available = [worker for worker, counter in enumerate(credit) if counter > 0]  # l. 4
    while not available:  # l. 5
        refill(credit, worker_quantum)  # l. 6
        available = [worker for worker, counter in enumerate(credit) if counter > 0]
    candidates = [worker for worker in longest_match if credit[worker] > 0]  # l. 7
    if not candidates:  # l. 8
        return shortest(available)
    return shortest(candidates)


class D2LPM:
    """Stick to the worker that holds the prefix until the client's credit there is spent [DLPM §5.2]."""

    name = "d2lpm"

    def __init__(
        self,
        workers: int,
        worker_quantum: int,
        cost: CostModel,
        *,
        worker_quanta: Mapping[ClientId, int] | None = None,
    ) -> None:
        """A router for ``workers`` replicas; ``worker_quantum`` is ``Q^w`` in weighted tokens.

        ``worker_quanta`` are those of clients that have their own: the weights of tenants, beyond the paper.

        Raises:
            InputError: if a quantum is not positive.
        """
        self.worker_quanta = dict(worker_quanta or {})
        for name, quantum in (("worker_quantum", worker_quantum), *self.worker_quanta.items()):
            if quantum <= 0:
                raise InputError(f"expected an integer > 0, found {quantum}", field=name)
        self.worker_quantum = worker_quantum
        self.cost = cost
        self.queues = QueueSizes(workers)  # l. 1
        self.directory = PrefixDirectory()  # l. 2
        self.credit: dict[ClientId, list[int]] = {}

    def dispatch(self, request: Request, blocks: Sequence[BlockKey]) -> Decision:
        """A request arrives [DLPM Alg. 2 ll. 12-18]. O(blocks + workers), and the refills."""
        credit = self.credit.setdefault(request.client, [0] * len(self.queues.sizes))
        longest_match, matched = self.directory.longest_match_workers(blocks)  # l. 13
        quantum = self.worker_quanta.get(request.client, self.worker_quantum)
        worker = select_worker(credit, quantum, longest_match, self.queues.shortest)  # l. 14
        credit[worker] -= self.cost.extend(request.input_tokens)  # l. 16
        self.queues.dispatched(worker)  # l. 17
        self.directory.insert(blocks, worker)  # l. 18
        return Decision(worker, longest_match, matched, credit[worker])  # l. 15

    def finished(self, request: Request, worker: int) -> None:
        """A request has finished [DLPM Alg. 2 ll. 21-23]."""
        self.credit[request.client][worker] -= self.cost.output(request.output_tokens)  # l. 22
        self.queues.finished(worker)  # l. 23

    def evicted(self, prefix: Sequence[BlockKey], worker: int) -> None:
        """A prefix was evicted [DLPM Alg. 2 ll. 26-27]."""
        self.directory.evict(prefix, worker)
