"""DLPM on tensors, one replica: the decisions of `dlpm.worker` under `dlpm.policies.dlpm`, faster on long queues."""

from __future__ import annotations

import torch

from dlpm.batch import AFTER_FORWARD, AT_ADMISSION
from dlpm.errors import InputError
from dlpm.events import Admit, EventSink, Evict, Finish, Order, Output, Preempt, Refill
from dlpm.request import Request, cacheable_blocks, sequence_blocks
from dlpm_engine.adapter import RESERVING, EngineConfig
from dlpm_engine.tensor.batch import CLIENT, GENERATED, PRIVATE, RESERVED, Running, RunningBatch
from dlpm_engine.tensor.edge import Node, block_above
from dlpm_engine.tensor.group import Queued
from dlpm_engine.tensor.keys import BlockKeys
from dlpm_engine.tensor.ledger import TensorLedger
from dlpm_engine.tensor.radix import RadixCache
from dlpm_engine.tensor.waiting import START, Place, WaitingGroups

_MOST_KV_TOKENS = 2**61


class TensorScheduler:
    """The step loop of Algorithm 1 with its state in int64 tensors.

    Deterministic, and equal to the reference decision by decision; the differential tester holds it to that. Without a
    ``sink`` no event is built. ``full_log`` adds `order` events. Nothing here is differentiated: in torch's inference
    mode a small operation costs a quarter less.

    Raises:
        InputError: a parameter is beyond int64.
    """

    @torch.inference_mode()
    def __init__(self, config: EngineConfig, sink: EventSink | None = None, *, full_log: bool = False) -> None:
        """An empty worker under ``config``."""
        if config.kv_tokens > _MOST_KV_TOKENS:
            raise InputError(f"expected at most 2^61 tokens, found {config.kv_tokens}", field="kv_tokens")
        self.config = config
        self.step_number = 0
        self.ledger = TensorLedger(config.quanta_table(), config.cost())
        self.cache = RadixCache(config.block_size)
        self.queue = WaitingGroups(self.cache)
        self.batch = RunningBatch()
        self._keys = BlockKeys()
        self._memory = config.admission_control()
        self._sink = sink
        self._full_log = full_log
        self._set_aside = 0
        self._rank = 0
        self._changed = False

    def free_tokens(self) -> int:
        """``M`` less all tokens that running requests lock or have set aside. O(1)."""
        return self.config.kv_tokens - self.cache.locked - self._set_aside

    # -- monitoring stream [Alg. 1 ll. 10-13] --------------------------------------------------------------------------

    @torch.inference_mode()
    def submit(self, request: Request) -> None:
        """A request joins the waiting queue. O(its blocks) to read them, O(edges on its path) beyond that.

        Raises:
            InputError: if input and maximum output together could never fit into ``M``.
        """
        if request.input_tokens + request.max_output > self.config.kv_tokens:
            raise InputError(
                f"expected input + max_output <= {self.config.kv_tokens} KV tokens, "
                f"found {request.input_tokens} + {request.max_output} in request {request.id!r}",
                field="max_output",
            )
        client = self.ledger.register(request.client)
        path = self.cache.path(self._keys.tensor(cacheable_blocks(request, self.config.block_size)))
        self._rank += 1
        self._enqueue(Queued(path, request, client, self._rank))

    def _enqueue(self, queued: Queued) -> None:
        """Put a request at its place in the order of arrival."""
        queued.size = queued.resident + self._memory.reserve(queued.request.max_output - queued.generated)
        self.queue.add(queued)
        self.ledger.joined(queued.client)
        self._changed = True

    # -- execution stream [Alg. 1 ll. 14-27] ---------------------------------------------------------------------------

    @torch.inference_mode()
    def step(self) -> None:
        """Admission, one forward, finish [DLPM Alg. 1 ll. 16-27].

        As in the reference, admission is left out when it could do nothing.

        Raises:
            OutOfRangeError: a counter would leave int64; the scheduler is of no further use then.
        """
        self.step_number += 1
        if len(self.queue) and (self._changed or not self.ledger.credit_queued()):
            self._changed = False
            self._admission_phase()
        self._make_room_for_outputs()
        if len(self.batch):
            self._forward()
            self._finish()

    def _admission_phase(self) -> None:
        """Pass over the queue until a pass neither admits nor refills [DLPM Alg. 1 ll. 16-24].

        A pass jumps from one admission to the next. While a queued client has credit, visits in between do nothing:
        a gated request cannot refill, and one that does not fit is passed over. While none has, the next request in
        the order, whoever's it is, refills.
        """
        self.queue.freeze()
        if self._sink and self._full_log:
            self._record_order(self._sink)
        happened = True
        while happened:
            happened = False
            place = START
            self.queue.start_pass()
            while True:
                if self.ledger.credit_queued():
                    request = self.queue.next_fitting(place, self._room(), self.ledger.deficits)
                    admissible = True
                else:
                    request = self.queue.next_any(place)
                    admissible = request is not None and self._refill_for(request)
                if request is None:
                    break
                assert request.group is not None
                place = Place(request.group.order, request.rank)
                happened = True
                if admissible:
                    self._admit(request)
        self.queue.thaw()

    def _refill_for(self, request: Queued) -> bool:
        """Check-refill fires at the visit of ``request``; whether it can be admitted now [Alg. 1 ll. 6-8, 21]."""
        deficits = self.ledger.refill()
        self.queue.credit_given()
        if self._sink:
            self._sink(Refill(step=self.step_number, deficits=deficits))
        return self.ledger.has_credit(request.client) and self.queue.fits(request, self._room())

    def _room(self) -> int:
        """The largest request, in tokens not locked yet and tokens to be reserved, that can be admitted now."""
        config = self.config
        if config.max_running is not None and len(self.batch) >= config.max_running:
            return -1
        watermark = config.watermark if config.memory != RESERVING and len(self.batch) else 0
        return self.free_tokens() - watermark

    def _admit(self, queued: Queued) -> None:
        """``B <- B + r``, ``Queue <- Queue - r``, and the charge [DLPM Alg. 1 ll. 22-24]."""
        free = self.free_tokens()
        match = self.cache.match(queued.path)
        end = match[0].tokens(match[1])
        matched = min(end, queued.resident - 1)
        node = self._locked_end(match, end, matched)
        self.queue.remove(queued)
        self.ledger.left(queued.client)
        self.cache.lock(node)
        reserved = self._memory.reserve(queued.request.max_output - queued.generated)
        private = queued.resident - node[0].tokens(node[1])
        self._set_aside += private + reserved
        self.batch.append(Running(queued, node, node), private, reserved)
        self._changed = True
        self._evict_for(0)
        if self.config.visibility == AT_ADMISSION:
            self._insert(len(self.batch) - 1)
        if self.free_tokens() > free:
            # Only where prompts disagree about the tokens of an equal block: what was passed over may fit after all.
            self.queue.start_pass()
        deficit = self.ledger.charge_extend(queued.client, queued.resident - matched)
        if self._sink:
            self._sink(
                Admit(
                    step=self.step_number,
                    request=queued.request.id,
                    matched=matched,
                    extend=queued.resident - matched,
                    deficit=deficit,
                    free=self.free_tokens() if self._full_log else None,
                )
            )

    @staticmethod
    def _locked_end(node: Node, end: int, matched: int) -> Node:
        """The shortest matched path that holds ``matched`` tokens: a block is not locked for nothing."""
        if end > matched:
            edge, blocks = above = block_above(node)
            if edge.tokens(blocks) >= matched:
                return above
        return node

    def _insert(self, place: int) -> None:
        """Move the prompt of a running request into the cache, where others can match it."""
        run = self.batch.requests[place]
        queued = run.queued
        match = self.cache.match(queued.path)
        end = self.cache.insert(queued.path, queued.request.input_tokens)
        self.cache.lock(end)
        self.cache.unlock(run.node)
        run.kept = match
        run.node = end
        resident = queued.request.input_tokens + self.batch.value(GENERATED, place)
        self._set_aside += self.batch.set_private(place, max(0, resident - end[0].tokens(end[1])))

    def _evict_for(self, tokens: int) -> None:
        """Evict until ``tokens`` more fit beside all that is cached or set aside."""
        excess = self.cache.total + self._set_aside + tokens - self.config.kv_tokens
        if excess > 0:
            freed = self.cache.evict(excess)
            if freed and self._sink:
                self._sink(Evict(step=self.step_number, tokens=freed))

    def _make_room_for_outputs(self) -> None:
        """Every running request is about to yield a token: preempt the youngest until all that is unreserved fits."""
        while (unreserved := self.batch.unreserved()) > self.free_tokens():
            self._preempt()
        self._evict_for(unreserved)

    def _preempt(self) -> None:
        """The youngest goes back to the queue; what it computed of its prompt stays cached."""
        last = len(self.batch) - 1
        held = self.batch.value(PRIVATE, last) + self.batch.value(RESERVED, last)
        run = self.batch.pop()
        self.cache.unlock(run.node)
        self._set_aside -= held
        if not run.computed:
            self.cache.discard(run.node, run.kept)
        self._enqueue(run.queued)
        if self._sink:
            self._sink(
                Preempt(
                    step=self.step_number,
                    request=run.queued.request.id,
                    kind="recompute",
                    deficit=int(self.ledger.deficits[run.queued.client]),
                )
            )

    def _forward(self) -> None:
        """Every running request yields one token, and its client pays [DLPM Alg. 1 ll. 25-26]."""
        self._set_aside += self.batch.generate()
        for place, run in enumerate(self.batch.requests):
            if not run.computed:
                run.computed = True
                if self.config.visibility == AFTER_FORWARD:
                    self._insert(place)
                    self._changed = True
        clients = self.batch.rows()[CLIENT]
        self.ledger.charge_outputs(clients)
        if self._sink:
            deficits = self.ledger.deficits.tolist()
            self._sink(
                Output(
                    step=self.step_number,
                    tokens={run.queued.request.id: 1 for run in self.batch.requests},
                    deficits={self.ledger.clients[client]: deficits[client] for client in clients.tolist()},
                )
            )

    def _finish(self) -> None:
        """Finished requests leave; prompt and known reply stay cached until evicted [DLPM Alg. 1 l. 27]."""
        for run, held in self.batch.finished():
            self.cache.unlock(run.node)
            self._set_aside -= held
            self._keep_sequence(run.queued)
            if self._sink:
                self._sink(Finish(step=self.step_number, request=run.queued.request.id))
            self._changed = True

    def _keep_sequence(self, queued: Queued) -> None:
        """Leave prompt and known reply of a finished request in the cache, as most recently used."""
        request = queued.request
        if request.reply or request.reply_blocks:
            path = self.cache.path(self._keys.tensor(sequence_blocks(request, self.config.block_size)))
            self.cache.touch(self.cache.insert(path, request.input_tokens + request.output_tokens))
            self._evict_for(0)
            self.cache.release(path)
        else:
            self.cache.touch(self.cache.match(queued.path))
        self.cache.release(queued.path)

    def _record_order(self, sink: EventSink) -> None:
        """Record the order of this step (event `order`). O(queue)."""
        order = self.queue.in_order()
        sink(
            Order(
                step=self.step_number,
                requests=tuple(queued.request.id for queued in order),
                matched=tuple(queued.group.order for queued in order if queued.group is not None),
                free=self.free_tokens(),
            )
        )
