"""One replica: its waiting queue, its running batch, its memory, and the step loop of [DLPM Alg. 1]."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence

from dlpm.batch import AFTER_FORWARD, AT_ADMISSION, QueuedRequest, RunningRequest, StepResult, WorkerConfig
from dlpm.errors import InputError
from dlpm.events import Admit, Arrive, EventSink, Evict, Finish, Order, Output, Preempt, Refill
from dlpm.policies.base import Policy, Waiting
from dlpm.prefix_cache import Match, Node, PrefixCache
from dlpm.request import BlockKey, ClientId, Request, cacheable_blocks, sequence_blocks
from dlpm.timing import StepTimer, StepWork


class Worker:
    """The step loop of Algorithm 1 around any policy: arrivals, admission, forward, finish.

    Deterministic: the same submissions and steps give the same events. Without a ``sink`` no event is built.
    """

    def __init__(
        self,
        config: WorkerConfig,
        policy: Policy,
        timer: StepTimer,
        sink: EventSink | None = None,
        *,
        index: int | None = None,
        full_log: bool = False,
    ) -> None:
        """A worker at time 0; ``index`` is its number in a cluster, ``full_log`` adds `order` events."""
        self.config = config
        self.policy = policy
        self.timer = timer
        self.index = index
        self.step_number = 0
        self.time_us = 0
        self.cache = PrefixCache(config.block_size)
        self.running: list[RunningRequest] = []
        self._sink = sink
        self._full_log = full_log
        self._queue: list[QueuedRequest] = []
        self._queued_per_client: dict[ClientId, int] = {}
        self._set_aside = 0
        self._rank = 0
        self._changed = False

    # -- state that others may read ------------------------------------------------------------------------------

    def waiting(self) -> Sequence[QueuedRequest]:
        """The waiting queue in order of arrival. During admission: as it was at the start of the step. O(1)."""
        return self._queue

    def queued_clients(self) -> Iterable[ClientId]:
        """Clients with a request in the queue now. O(1)."""
        return self._queued_per_client.keys()

    def free_tokens(self) -> int:
        """``M`` less all tokens that running requests lock or have set aside. O(1)."""
        return self.config.kv_tokens - self.cache.locked - self._set_aside

    def idle(self) -> bool:
        """Nothing waits and nothing runs. O(1)."""
        return not self.running and not self._queue

    # -- monitoring stream [Alg. 1 ll. 10-13] ----------------------------------------------------------------------

    def submit(self, request: Request, arrived_us: int) -> None:
        """A request that was sent at ``arrived_us`` joins the waiting queue [DLPM Alg. 1 ll. 11-13]. O(its blocks).

        Raises:
            InputError: if input and maximum output together could never fit into ``M``.
        """
        if request.input_tokens + request.max_output > self.config.kv_tokens:
            raise InputError(
                f"expected input + max_output <= {self.config.kv_tokens} KV tokens, "
                f"found {request.input_tokens} + {request.max_output} in request {request.id!r}",
                field="max_output",
            )
        self.policy.arrive(request.client, self.queued_clients())
        blocks = cacheable_blocks(request, self.config.block_size)
        self._rank += 1
        self._enqueue(
            QueuedRequest(
                id=request.id,
                client=request.client,
                request=request,
                rank=self._rank,
                blocks=blocks,
                match=self.cache.start(),
                resident=request.input_tokens,
            )
        )
        if self._sink:
            self._sink(
                Arrive(
                    step=self.step_number + 1,
                    worker=self.index,
                    time_us=self.time_us,
                    request=request.id,
                    client=request.client,
                    input=request.input_tokens,
                    max_output=request.max_output,
                    arrived_us=arrived_us if arrived_us != self.time_us else None,
                )
            )

    def _enqueue(self, queued: QueuedRequest) -> None:
        """Put a request at its place in the order of arrival. O(1) at the end, else O(queue)."""
        insort(self._queue, queued, key=lambda other: other.rank)
        per_client = self._queued_per_client
        per_client[queued.client] = per_client.get(queued.client, 0) + 1
        self._changed = True

    def _dequeued(self, client: ClientId) -> None:
        """One request of ``client`` has left the queue [Alg. 1 l. 24]."""
        per_client = self._queued_per_client
        per_client[client] -= 1
        if not per_client[client]:
            del per_client[client]
            self.policy.leave(client)

    # -- execution stream [Alg. 1 ll. 14-27] -----------------------------------------------------------------------

    def step(self) -> StepResult:
        """Admission, one forward, finish [DLPM Alg. 1 ll. 16-27].

        Admission is left out when it could do nothing: since it last came to rest no request arrived, finished, was
        preempted or became visible, and the policy has nothing due. Then O(queued clients + running requests).
        """
        ends_us = self.begin_step()
        if ends_us is None:
            return StepResult((), False, self.time_us)
        return StepResult(self.end_step(ends_us), True, self.time_us)

    def begin_step(self) -> int | None:
        """Admission [DLPM Alg. 1 ll. 16-24]: when the forward step will end, or ``None`` if the batch is empty.

        `step` is this and `end_step`; a cluster calls the two apart, so that its workers' clocks interleave.
        """
        self.step_number += 1
        self._admission_phase()
        self._make_room_for_outputs()
        return self.time_us + self.timer.step_us(self._work()) if self.running else None

    def _admission_phase(self) -> None:
        """Let the policy admit, if anything could come of it; who was admitted leaves the queue. O(queue)."""
        if self._queue and (self._changed or self.policy.admission_due(self.queued_clients())):
            self._changed = False
            self.policy.admit(self)
            self._queue = [queued for queued in self._queue if not queued.admitted]

    def end_step(self, ends_us: int) -> tuple[Request, ...]:
        """Forward and finish [DLPM Alg. 1 ll. 25-27], at time ``ends_us``: the requests that finished."""
        self.time_us = ends_us
        self._forward()
        return self._finish()

    # What the policy sees (dlpm.policies.base.AdmissionStep), and hands back: this worker's own queued requests.

    def matched(self, request: Waiting) -> int:
        """Tokens of ``request`` in the cache now, at most all but one [DLPM §4.1]. Amortized O(1)."""
        assert isinstance(request, QueuedRequest)
        cached = self.cache.match(request.blocks, request.match).node.end
        return cached if cached < request.resident else request.resident - 1

    def may_fit(self, request: Waiting) -> bool:
        """False only if ``request`` could not be admitted even with all but one of its tokens cached. O(1)."""
        assert isinstance(request, QueuedRequest)
        return self._can_add(request, self.free_tokens(), 1)

    def try_admit(self, request: Waiting) -> int | None:
        """``CanAdd(r)`` and ``B <- B + r``: the extend tokens, or ``None`` [DLPM Alg. 1 ll. 21-24].

        Asked twice: do the extend tokens fit beside all that is locked, and does what its locked blocks do not hold
        fit once they are locked too? The second is less where the last token of a cached block is computed again.
        O(1) if it plainly does not fit, O(its blocks) if it is admitted.
        """
        assert isinstance(request, QueuedRequest)
        matched = self.matched(request)
        extend = request.resident - matched
        if not self._can_add(request, self.free_tokens(), extend):
            return None
        node = self._locked_end(request.match.node, matched)
        private = request.resident - node.end
        if not self._can_add(request, self.free_tokens() - self.cache.unlocked_above(node), private):
            return None
        self._admit(request, node, matched, private)
        return extend

    def considered(self, order: Sequence[Waiting]) -> None:
        """Record the order of this step (event `order`, level `full`). O(queue)."""
        if self._sink and self._full_log:
            self._sink(
                Order(
                    step=self.step_number,
                    worker=self.index,
                    time_us=self.time_us,
                    requests=tuple(request.id for request in order),
                    matched=tuple(self.matched(request) for request in order),
                    free=self.free_tokens(),
                )
            )

    def admitted(self, request: Waiting, deficit: int | None) -> None:
        """Record the admission just made (event `admit`)."""
        if self._sink:
            self._sink(self._admission(request, deficit))

    def _admission(self, request: Waiting, deficit: int | None) -> Admit:
        """The event of the admission just made."""
        latest = self.running[-1]
        return Admit(
            step=self.step_number,
            worker=self.index,
            time_us=self.time_us,
            request=request.id,
            matched=latest.matched,
            extend=latest.extend,
            deficit=deficit,
            free=self.free_tokens() if self._full_log else None,
        )

    def refilled(self, deficits: Mapping[ClientId, int]) -> None:
        """Record a refill that fired (event `refill`)."""
        if self._sink:
            self._sink(Refill(step=self.step_number, worker=self.index, time_us=self.time_us, deficits=dict(deficits)))

    # Memory and batch.

    def _can_add(self, queued: QueuedRequest, free: int, extend: int) -> bool:
        """``CanAdd`` for a request that needs ``extend`` tokens of the ``free`` ones before its output. O(1)."""
        config = self.config
        if config.max_running is not None and len(self.running) >= config.max_running:
            return False
        return config.memory.can_add(free, extend, queued.output_left, len(self.running))

    @staticmethod
    def _locked_end(node: Node, matched: int) -> Node:
        """The shortest matched path that holds ``matched`` tokens: a block is not locked for nothing."""
        parent = node.parent
        return parent if parent is not None and parent.end >= matched else node

    def _admit(self, queued: QueuedRequest, node: Node, matched: int, private: int) -> None:
        """``B <- B + r``, ``Queue <- Queue - r`` [Alg. 1 ll. 22, 24]: lock, make room, set aside, perhaps insert."""
        self.cache.lock(node)
        reserved = self.config.memory.reserve(queued.output_left)
        self._set_aside += private + reserved
        run = RunningRequest(queued, node, matched, queued.resident - matched, private, reserved, node)
        self.running.append(run)
        queued.admitted = True
        self._changed = True
        self._dequeued(queued.client)
        self._evict_for(0)
        if self.config.visibility == AT_ADMISSION:
            self._insert(run)

    def _insert(self, run: RunningRequest) -> None:
        """Move the prompt of a running request into the cache, where others can match it. O(its blocks)."""
        queued = run.queued
        self._insert_blocks(run, queued.blocks, self.cache.match(queued.blocks, queued.match))

    def _insert_blocks(self, run: RunningRequest, blocks: Sequence[BlockKey], match: Match) -> None:
        """Move the first ``blocks`` of its prompt into the cache, ``match`` being what is there. O(those blocks)."""
        queued = run.queued
        end = self.cache.insert(blocks, match, queued.request.input_tokens)
        self.cache.lock(end)
        self.cache.unlock(run.node)
        run.kept = match.node
        run.node = end
        private = max(0, queued.resident - end.end)
        self._set_aside += private - run.private
        run.private = private

    def _evict_for(self, tokens: int) -> None:
        """Evict until ``tokens`` more fit beside all that is cached or set aside."""
        excess = self.cache.total + self._set_aside + tokens - self.config.kv_tokens
        if excess > 0:
            freed = self.cache.evict(excess)
            if freed and self._sink:
                self._sink(Evict(step=self.step_number, worker=self.index, time_us=self.time_us, tokens=freed))

    def _make_room_for_outputs(self) -> None:
        """Every running request is about to yield a token: preempt until all that is unreserved fits."""
        while True:
            unreserved = sum(1 for run in self._yielding() if not run.reserved)
            if unreserved <= self.free_tokens():
                break
            self._preempt(self._victim())
        self._evict_for(unreserved)

    def _victim(self) -> RunningRequest:
        """Who is preempted when memory runs out: the youngest. O(1)."""
        return self.running[-1]

    def _preempt(self, run: RunningRequest) -> None:
        """Back to the queue; what it computed of its prompt stays cached, the rest is recomputed when it returns."""
        self.running.remove(run)
        self._release(run)
        if not run.computed:
            self.cache.discard(run.node, run.kept)
        run.queued.admitted = False
        self._enqueue(run.queued)
        if self._sink:
            self._sink(
                Preempt(
                    step=self.step_number,
                    worker=self.index,
                    time_us=self.time_us,
                    request=run.queued.id,
                    kind="recompute",
                    deficit=self.policy.counter(run.queued.client),
                )
            )

    def _release(self, run: RunningRequest) -> None:
        """Unlock and give back what a request that leaves the batch held."""
        self.cache.unlock(run.node)
        self._set_aside -= run.private + run.reserved

    def _work(self) -> StepWork:
        """What the forward step of the running batch will compute. O(running requests)."""
        prefill: list[tuple[int, int]] = []
        decoding = 0
        context = 0
        for run in self.running:
            if run.computed:
                decoding += 1
                context += run.queued.resident
            else:
                prefill.append((run.extend, run.matched))
        return StepWork(tuple(prefill), decoding, context)

    def _yielding(self) -> Sequence[RunningRequest]:
        """The running requests that the coming forward step gives a token: all of them. O(1)."""
        return self.running

    def _forward(self) -> None:
        """One forward step: every running request yields one token, and its client pays [Alg. 1 ll. 25-26]."""
        batch: dict[ClientId, int] = {}
        yielding = self._yielding()
        for run in yielding:
            client = run.queued.client
            batch[client] = batch.get(client, 0) + 1
            run.queued.resident += 1
            run.private += 1
            if run.reserved:
                run.reserved -= 1
            else:
                self._set_aside += 1
            if not run.computed:
                run.computed = True
                if self.config.visibility == AFTER_FORWARD:
                    self._insert(run)
                    self._changed = True
        self.policy.charge_outputs(batch)
        if self._sink:
            deficits = {client: self.policy.counter(client) for client in batch}
            self._sink(
                Output(
                    step=self.step_number,
                    worker=self.index,
                    time_us=self.time_us,
                    tokens={run.queued.id: 1 for run in yielding},
                    deficits={client: value for client, value in deficits.items() if value is not None},
                )
            )

    def _finish(self) -> tuple[Request, ...]:
        """``B <- filter_finished_requests(B)`` [Alg. 1 l. 27]; prompt and known reply stay cached until evicted."""
        finished = [run for run in self.running if run.queued.generated >= run.queued.request.output_tokens]
        if not finished:
            return ()
        self.running = [run for run in self.running if run.queued.generated < run.queued.request.output_tokens]
        for run in finished:
            self._release(run)
            self._keep_sequence(run.queued)
            if self._sink:
                self._sink(
                    Finish(step=self.step_number, worker=self.index, time_us=self.time_us, request=run.queued.id)
                )
        self._changed = True
        return tuple(run.queued.request for run in finished)

    def _keep_sequence(self, queued: QueuedRequest) -> None:
        """Leave prompt and known reply of a finished request in the cache, as most recently used. O(its blocks)."""
        request = queued.request
        if request.reply or request.reply_blocks:
            blocks = sequence_blocks(request, self.config.block_size)
            match = self.cache.match(blocks, self.cache.start())
            end = self.cache.insert(blocks, match, request.input_tokens + request.output_tokens)
            self.cache.touch(end)
            self._evict_for(0)
        else:
            self.cache.touch(self.cache.match(queued.blocks, queued.match).node)
