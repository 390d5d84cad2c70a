"""Workers behind a router, each with its own clock, driven by events in the order of time [DLPM §5.2]."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush

from dlpm.arrivals import Arrivals
from dlpm.dispatch.base import Router
from dlpm.dispatch.ingress import Ingress
from dlpm.errors import InputError
from dlpm.events import Dispatch, EventSink
from dlpm.prefix_cache import Node, prefix_of
from dlpm.request import BlockKey, Request, Workload, cacheable_blocks
from dlpm.simulate import StalledError
from dlpm.worker import Worker


class _Replica:
    """One worker as the cluster sees it: requests on their way to it, and eviction notices on their way from it."""

    def __init__(self, worker: Worker, notice_delay: int) -> None:
        self.worker = worker
        self.stepping = False
        self.inbox: deque[tuple[int, Request]] = deque()
        self._notice_delay = notice_delay
        self._evicted: list[Node] = []
        self._notices: deque[tuple[int, tuple[BlockKey, ...]]] = deque()
        worker.cache.on_evict = self._evicted.append

    def collect_notices(self) -> None:
        """Turn what was evicted since the last call into notices, one for each topmost block."""
        due = self.worker.step_number + self._notice_delay
        for node in self._evicted:
            if node.parent is not None and node.parent.alive:
                self._notices.append((due, prefix_of(node)))
        self._evicted.clear()

    def due_notices(self) -> list[tuple[BlockKey, ...]]:
        """Remove and return the notices that are due at the worker's present step."""
        due = []
        while self._notices and self._notices[0][0] <= self.worker.step_number:
            due.append(self._notices.popleft()[1])
        return due


class Cluster:
    """``n`` workers behind one router; deterministic.

    At each moment: first the steps that end, in the order of the workers; then the requests that are due, each
    dispatched at once; then every worker that is free and has work begins a step, in the order of the workers. A
    request sent to a worker that is in the middle of a step joins its queue when that step ends.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        router: Router,
        sink: EventSink | None = None,
        *,
        notice_delay: int = 0,
        ingress: Ingress | None = None,
    ) -> None:
        """``notice_delay``: steps of the evicting worker until the router hears of an eviction, >= 0.

        ``ingress``: front ends that hold requests back before they are dispatched; without it none is.

        The workers' indices are their positions; each should have been made with that index and the same sink.

        Raises:
            InputError: there is no worker, or the delay is negative.
        """
        if not workers:
            raise InputError("expected at least one worker, found none", field="workers")
        if notice_delay < 0:
            raise InputError(f"expected a whole number of steps, found {notice_delay}", field="notice_delay")
        self.router = router
        self.time_us = 0
        self._ingress = ingress
        self._replicas = [_Replica(worker, notice_delay) for worker in workers]
        self._sink = sink
        self._step_ends: list[tuple[int, int]] = []
        # The workers that may begin a step: new requests, or no step in progress and something to do.
        self._ready: set[int] = set()

    @property
    def steps(self) -> int:
        """Steps of all workers together. O(workers)."""
        return sum(replica.worker.step_number for replica in self._replicas)

    def run(self, workload: Workload, on_progress: Callable[[int], None] | None = None) -> int:
        """Run ``workload`` to its end; returns how many requests finished.

        O(log workers + log requests) a step or request, beside what router and workers do. ``on_progress`` is told the
        number of finished requests whenever it grew.

        Raises:
            InputError: if a request cannot fit into a worker's memory at all, or waits for a call that never finishes.
            StalledError: if a policy leaves fitting requests waiting beside an empty batch, with nothing left to come.
        """
        arrivals = Arrivals(workload.requests)
        finished = 0
        while True:
            moments = [self._step_ends[0][0]] if self._step_ends else []
            next_us = arrivals.next_us()
            if next_us is not None:
                moments.append(next_us)
            if not moments:
                break
            self.time_us = max(self.time_us, min(moments))
            ended = self._end_steps(arrivals)
            for release_us, request in self._let_in(arrivals.take_due(self.time_us)):
                self._dispatch(release_us, request)
            self._begin_steps()
            if ended:
                finished += ended
                if on_progress is not None:
                    on_progress(finished)
        self._check_all_done(arrivals)
        return finished

    def _let_in(self, due: list[tuple[int, Request]]) -> list[tuple[int, Request]]:
        """What is dispatched now of what is due, and of what was held back before."""
        if self._ingress is None:
            return due
        for release_us, request in due:
            self._ingress.arrive(release_us, request)
        return self._ingress.release()

    def _check_all_done(self, arrivals: Arrivals) -> None:
        """Nothing is to come: nobody may be waiting. O(workers)."""
        for index, replica in enumerate(self._replicas):
            if not replica.worker.idle():
                waiting = len(replica.worker.waiting())
                raise StalledError(f"worker {index}: {waiting} requests wait beside an empty batch")
        if arrivals.held():
            found = f"found request {arrivals.held()[0]!r} waiting for one for ever"
            raise InputError(f"expected calls of this workload that finish, {found}", field="parents")

    def _end_steps(self, arrivals: Arrivals) -> int:
        """End the steps that are due now; returns how many requests finished in them."""
        ended = 0
        while self._step_ends and self._step_ends[0][0] == self.time_us:
            _, index = heappop(self._step_ends)
            replica = self._replicas[index]
            replica.stepping = False
            self._ready.add(index)
            for request in replica.worker.end_step(self.time_us):
                ended += 1
                self.router.finished(request, index)
                arrivals.finished(request, self.time_us)
                if self._ingress is not None:
                    self._ingress.finished(request)
            self._pass_on_notices(replica, index)
        return ended

    def _dispatch(self, release_us: int, request: Request) -> None:
        """Send one request to the worker that the router chooses [DLPM Alg. 2 ll. 12-18]."""
        block_size = self._replicas[0].worker.config.block_size
        decision = self.router.dispatch(request, cacheable_blocks(request, block_size))
        replica = self._replicas[decision.worker]
        if self._sink:
            self._sink(
                Dispatch(
                    step=replica.worker.step_number,
                    worker=decision.worker,
                    time_us=self.time_us,
                    request=request.id,
                    matched_workers=decision.matched_workers,
                    counter=decision.counter,
                    client=request.client,
                    input=request.input_tokens,
                )
            )
        replica.inbox.append((release_us, request))
        if not replica.stepping:
            self._ready.add(decision.worker)

    def _begin_steps(self) -> None:
        """Every worker that is free and has work takes in its new requests and begins a step. O(such workers).

        A worker whose policy left its batch empty is asked again at the next moment.
        """
        for index in sorted(self._ready):
            replica = self._replicas[index]
            worker = replica.worker
            if not replica.inbox and worker.idle():
                self._ready.discard(index)
                continue
            self._take_in(replica)
            self._begin_step(replica, index)

    def _take_in(self, replica: _Replica) -> None:
        """Requests on their way to a free worker join its queue."""
        worker = replica.worker
        worker.time_us = self.time_us
        while replica.inbox:
            arrived_us, request = replica.inbox.popleft()
            worker.submit(request, arrived_us)

    def _begin_step(self, replica: _Replica, index: int) -> None:
        """A free worker with work begins a step, if its admission leaves anything to run. O(log workers)."""
        ends_us = replica.worker.begin_step()
        self._pass_on_notices(replica, index)
        if ends_us is not None:
            replica.stepping = True
            self._ready.discard(index)
            heappush(self._step_ends, (ends_us, index))

    def _pass_on_notices(self, replica: _Replica, index: int) -> None:
        """Tell the router of the evictions whose notice is due [DLPM Alg. 2 ll. 24-27]."""
        replica.collect_notices()
        for prefix in replica.due_notices():
            self.router.evicted(prefix, index)
