"""E9: a cluster whose workers share one ledger, and take over queued requests where their own queue has no credit.

With early binding alone a shared ledger bounds every gap, but a worker whose queued clients are all out of credit
idles while a client with credit waits elsewhere. So a worker without a credited request of its own takes one over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dlpm.batch import QueuedRequest
from dlpm.cluster import Cluster
from dlpm.dispatch.moving import MovingD2LPM
from dlpm.errors import InputError
from dlpm.events import Deliver, Dispatch, EventSink
from dlpm.extensions.shared_ledger import SharedLedger
from dlpm.memory import Reserving
from dlpm.request import ClientId, Request, cacheable_blocks
from dlpm.worker import Worker


class MovableWorker(Worker):
    """A worker whose queued requests can be given to another."""

    def give_up(self, queued: QueuedRequest) -> Request:
        """Take a request that waits here, and has generated nothing yet, out of the queue. O(queue)."""
        self._queue.remove(queued)
        self._dequeued(queued.client)
        return queued.request

    def take_over(self, request: Request) -> None:
        """A request that arrived elsewhere joins this queue, as its last; its arrival was recorded there. O(blocks)."""
        sink, self._sink = self._sink, None
        try:
            self.submit(request, self.time_us)
        finally:
            self._sink = sink

    def matched_here(self, request: Request) -> int:
        """Tokens of ``request`` that this worker's cache holds, at most all but one. O(blocks)."""
        blocks = cacheable_blocks(request, self.config.block_size)
        cached = self.cache.match(blocks, self.cache.start()).node.end
        return min(cached, request.input_tokens - 1)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A request that could move: from where, and how many tokens of its prompt each side has cached."""

    source: int
    queued: QueuedRequest
    matched_there: int
    matched_here: int

    def loss(self) -> tuple[int, int, int]:
        """Cached tokens given up by moving; ties to the one that came first, at the lowest worker."""
        return (self.matched_there - self.matched_here, self.queued.rank, self.source)


class SharedCluster(Cluster):
    """A cluster with one ledger. Deterministic.

    ``ledger`` is what the workers share; ``moves`` counts requests that changed workers.
    """

    def __init__(
        self,
        workers: Sequence[MovableWorker],
        router: MovingD2LPM,
        ledger: SharedLedger,
        sink: EventSink | None = None,
        *,
        notice_delay: int = 0,
        moving: bool = True,
    ) -> None:
        """Each worker's policy must be a `SharedDLPM` around its view of ``ledger``. Without ``moving``, early binding.

        Raises:
            InputError: if a worker's memory is not reserving: a preempted request would be queued unheard of.
        """
        super().__init__(workers, router, sink, notice_delay=notice_delay)
        for worker in workers:
            if not isinstance(worker.config.memory, Reserving):
                raise InputError(f"expected reserving memory, found {worker.config.memory.kind}", field="memory")
        self.moves = 0
        self._workers = tuple(workers)
        self._moving_router = router
        self.ledger = ledger
        self._moving = moving

    def _dispatch(self, release_us: int, request: Request) -> None:
        """The keeper hears of an arrival at once: it sits at the router."""
        self.ledger.arrived(request.client)
        super()._dispatch(release_us, request)

    def _begin_steps(self) -> None:
        """Free workers begin steps, those with credited requests of their own first, until nothing more comes of it."""
        for replica in self._replicas:
            if not replica.stepping:
                self._take_in(replica)
        happened = True
        while happened:
            before = (self.ledger.changes, self.moves)
            self._begin_where(credited=True)
            self._begin_where(credited=False)
            happened = before != (self.ledger.changes, self.moves)

    def _begin_where(self, *, credited: bool) -> None:
        """Begin a step at every free worker that has, or has not, a credited client in its queue."""
        for index, replica in enumerate(self._replicas):
            if replica.stepping or self._has_credited(index) != credited:
                continue
            if not credited and self._moving:
                self._move_in(index)
            if not replica.worker.idle():
                self._begin_step(replica, index)
            if not replica.stepping:
                self._flush(index)

    def _flush(self, index: int) -> None:
        """A worker that has come to rest keeps nothing back; recorded, because nothing else in a log shows it."""
        kept = len(self.ledger.on_the_way(index))
        self.ledger.flush(index)
        if kept and self._sink:
            # Like an arrival: it comes before the worker's next step, and after those that arrived for it and moved on.
            step = self._workers[index].step_number + 1
            self._sink(Deliver(step=step, worker=index, time_us=self.time_us, updates=kept))

    def _has_credited(self, index: int) -> bool:
        """Does ``index`` have a queued client with credit, as it sees it? O(queued clients)."""
        view = self.ledger.views[index]
        return any(view.has_credit(client) for client in self._workers[index].queued_clients())

    def _move_in(self, target: int) -> None:
        """Take over requests of credited clients from other queues, as far as memory and their credit go.

        O(requests queued elsewhere * their blocks) for each.
        """
        worker = self._workers[target]
        room = worker.free_tokens()
        spent: dict[ClientId, int] = {}
        while True:
            best = min(self._candidates(target, room, spent), key=_Candidate.loss, default=None)
            if best is None:
                return
            self._move(best, target)
            request = best.queued.request
            extend = request.input_tokens - best.matched_here
            room -= extend + request.max_output
            client = request.client
            spent[client] = spent.get(client, 0) + self.ledger.views[target].cost.extend(extend)

    def _candidates(self, target: int, room: int, spent: dict[ClientId, int]) -> list[_Candidate]:
        """Requests queued elsewhere that ``target`` could admit now, as far as it knows."""
        worker = self._workers[target]
        deficits = self.ledger.views[target].deficits
        found = []
        for source, other in enumerate(self._workers):
            if source == target:
                continue
            for queued in other.waiting():
                request = queued.request
                if queued.admitted or deficits.get(request.client, 0) - spent.get(request.client, 0) <= 0:
                    continue
                if request.input_tokens + request.max_output > worker.config.kv_tokens:
                    continue
                matched_here = worker.matched_here(request)
                if request.input_tokens - matched_here + request.max_output <= room:
                    found.append(_Candidate(source, queued, other.matched(queued), matched_here))
        return found

    def _move(self, chosen: _Candidate, target: int) -> None:
        """Move one request, tell the router, and record it as a dispatch to its new worker."""
        request = self._workers[chosen.source].give_up(chosen.queued)
        worker = self._workers[target]
        worker.take_over(request)
        blocks = cacheable_blocks(request, worker.config.block_size)
        self._moving_router.moved(request, blocks, chosen.source, target)
        self.moves += 1
        if self._sink:
            self._sink(
                Dispatch(
                    step=worker.step_number,
                    worker=target,
                    time_us=self.time_us,
                    request=request.id,
                    matched_workers=(),
                    counter=self._moving_router.credit[request.client][target],
                    client=request.client,
                    input=request.input_tokens,
                )
            )
