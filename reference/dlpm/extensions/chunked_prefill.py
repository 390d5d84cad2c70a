"""E2, chunked prefill: extend tokens are computed in chunks, under a budget of tokens a step.

Decodes come first: each running request whose prompt is computed takes one token of the budget. Then partially
prefilled requests get chunks in the order of their admission, then the queue is let in with what is left. The step that
computes the last token of a prompt yields the first output token. This is the order in which vLLM fills a step.

Chunks are charged as they are computed, or all extend tokens at admission. The gate is asked once a request, at
admission, as engines do; or for every chunk. Then a partially prefilled request is, to its policy, one more request
that waits: at the head of the queue, keeping its memory, and *admitting* it gives it its next chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from dlpm.batch import AFTER_FORWARD, AT_ADMISSION, QueuedRequest, RunningRequest, WorkerConfig
from dlpm.errors import InputError
from dlpm.events import Admit, Chunk, EventSink, JsonValue
from dlpm.policies.base import Policy, Waiting
from dlpm.policies.dlpm import DLPM
from dlpm.prefix_cache import Match
from dlpm.request import BlockKey, ClientId, RequestId
from dlpm.timing import StepTimer, StepWork
from dlpm.worker import Worker


class Gate(StrEnum):
    """When a client's credit is looked at: once a request, or for every chunk."""

    REQUEST = "request"
    CHUNK = "chunk"


class Charge(StrEnum):
    """When extend tokens are paid for: as they are computed, or all at admission."""

    CHUNK = "chunk"
    ADMISSION = "admission"


class OnStall(StrEnum):
    """What happens if nothing can run because those who hold memory have no credit, and those with credit do not fit.

    The oldest partially prefilled request gets a chunk on debt; or all who have no credit are refilled although
    somebody who waits has some; or nothing, which is for ever. The last two are here to show what they do.
    """

    OVERDRAFT = "overdraft"
    REFILL = "refill"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class ChunkedPrefill:
    """The options of chunked prefill.

    Attributes:
        budget: tokens that a step may compute, decodes included.
        gate: asked once a request, or for every chunk.
        charge: as computed, or at admission; at admission only where the gate is asked there.
        most: the most extend tokens of one request in a step, or ``None``: all that the budget leaves. With it several
            requests are partially prefilled at a time.
        on_stall: for the gate asked for every chunk.

    Raises:
        InputError: if a number is below 1, or extend tokens are charged where the gate is not asked.
    """

    budget: int
    gate: Gate = Gate.REQUEST
    charge: Charge = Charge.CHUNK
    most: int | None = None
    on_stall: OnStall = OnStall.OVERDRAFT

    def __post_init__(self) -> None:
        """Refuse a budget under which nothing is ever computed."""
        for name, value in (("budget", self.budget), ("most", self.most)):
            if value is not None and value < 1:
                raise InputError(f"expected an integer > 0, found {value}", field=f"chunked_prefill.{name}")
        if self.gate is Gate.CHUNK and self.charge is Charge.ADMISSION:
            raise InputError("expected chunk: each chunk is gated", field="chunked_prefill.charge")

    def largest_chunk(self) -> int:
        """The most extend tokens of one request that a step computes."""
        return self.budget if self.most is None else min(self.budget, self.most)

    def stated(self) -> Mapping[str, Mapping[str, JsonValue]]:
        """What the header of a log states (``extensions``); an option that is left out is as by default."""
        options: dict[str, JsonValue] = {"budget": self.budget, "gate": self.gate.value}
        if self.charge is Charge.ADMISSION:
            options["charge"] = self.charge.value
        if self.most is not None:
            options["most"] = self.most
        return {"chunked_prefill": options}


class ChunkPolicy(Policy, Protocol):
    """A policy that is also told of chunks for which its gate is not asked."""

    def charge_chunk(self, client: ClientId, tokens: int) -> None:
        """Charge the extend tokens of a chunk, whatever the counter."""

    def refill_the_poor(self) -> Mapping[ClientId, int]:
        """Pay everybody without credit a quantum, whoever waits with some: the new counters. O(clients)."""


class ChunkedDLPM(DLPM):
    """DLPM for a worker with chunks."""

    def charge_chunk(self, client: ClientId, tokens: int) -> None:
        """Charge the extend tokens of a chunk, whatever the counter."""
        self.ledger.charge_extend(client, tokens)

    def refill_the_poor(self) -> Mapping[ClientId, int]:
        """A refill that asks nobody who waits. O(clients)."""
        return self.ledger.check_refill(())


@dataclass(slots=True)
class Prefill:
    """A running request whose prompt is not computed yet.

    ``left`` are its extend tokens that no step has computed or is computing, ``chunk`` those that this step computes;
    ``depth`` is how many blocks of its prompt its locked path holds.
    """

    run: RunningRequest
    left: int
    depth: int
    chunk: int = 0


class ChunkedWorker(Worker):
    """The worker of Algorithm 1 with prompts computed in chunks.

    A request takes the memory of its whole prompt when it is admitted; blocks can be matched by others as chunks fill
    them.
    """

    policy: ChunkPolicy

    def __init__(
        self,
        config: WorkerConfig,
        policy: ChunkPolicy,
        timer: StepTimer,
        chunks: ChunkedPrefill,
        sink: EventSink | None = None,
        *,
        index: int | None = None,
        full_log: bool = False,
    ) -> None:
        """A worker at time 0 whose steps compute at most ``chunks.budget`` tokens."""
        super().__init__(config, policy, timer, sink, index=index, full_log=full_log)
        self.chunks = chunks
        self._budget = chunks.budget
        self._prefills: dict[RequestId, Prefill] = {}
        self._offered: Sequence[QueuedRequest] | None = None

    # -- what waits ------------------------------------------------------------------------------------------------

    def waiting(self) -> Sequence[QueuedRequest]:
        """The waiting queue; during admission, behind the requests whose next chunk is gated. O(1)."""
        return self._queue if self._offered is None else self._offered

    def queued_clients(self) -> Iterable[ClientId]:
        """Clients with a request in the queue, or with one whose next chunk is gated. O(partially prefilled)."""
        queued = super().queued_clients()
        gated = self._gated()
        return dict.fromkeys((*queued, *(prefill.run.queued.client for prefill in gated))) if gated else queued

    def _gated(self) -> list[Prefill]:
        """Who waits for credit with its prompt half computed, in order of admission."""
        if self.chunks.gate is Gate.REQUEST:
            return []
        return [prefill for prefill in self._prefills.values() if not prefill.chunk]

    # -- one step --------------------------------------------------------------------------------------------------

    def begin_step(self) -> int | None:
        """Decodes, chunks, admission: when the forward step will end, or ``None`` if there is nothing to compute."""
        self.step_number += 1
        if self._prefills or self._budget < 1:
            self._changed = True
        self._start_budget()
        if self.chunks.gate is Gate.REQUEST:
            self._continue_prefills()
        if (self._queue or self._gated()) and (self._changed or self.policy.admission_due(self.queued_clients())):
            self._changed = False
            self._take_turn()
        self._make_room_for_outputs()
        if self._prefills and not self._busy():
            self._stalled()
            self._make_room_for_outputs()
        return self.time_us + self.timer.step_us(self._work()) if self._busy() else None

    def _start_budget(self) -> None:
        """Decodes come first: each takes a token. They are never too many: who decodes took one in the last step."""
        self._budget = self.chunks.budget - sum(1 for run in self.running if run.computed)

    def _continue_prefills(self) -> None:
        """Chunks for those who passed the gate when they were admitted. O(partially prefilled requests)."""
        for prefill in self._prefills.values():
            self._ungated_chunk(prefill)

    def _ungated_chunk(self, prefill: Prefill) -> None:
        """The next chunk of a request, whatever its client's credit."""
        tokens = self._next_chunk(prefill)
        if tokens is None:
            return
        client = prefill.run.queued.client
        if self.chunks.charge is Charge.CHUNK:
            self.policy.charge_chunk(client, tokens)
        self._record_chunk(prefill, self.policy.counter(client))

    def _take_turn(self) -> None:
        """The policy's turn. O(what it costs)."""
        self._offered = (*(prefill.run.queued for prefill in self._gated()), *self._queue)
        self.policy.admit(self)
        self._offered = None
        self._queue = [queued for queued in self._queue if not queued.admitted]

    def _busy(self) -> bool:
        """Something is computed in this step. O(running requests)."""
        return bool(self._yielding()) or any(prefill.chunk for prefill in self._prefills.values())

    def _stalled(self) -> None:
        """Nothing can run: see `OnStall`."""
        self._budget = self.chunks.budget
        if self.chunks.on_stall is OnStall.OVERDRAFT:
            self._ungated_chunk(next(iter(self._prefills.values())))
        elif self.chunks.on_stall is OnStall.REFILL:
            self.refilled(self.policy.refill_the_poor())
            self._take_turn()

    def _yielding(self) -> Sequence[RunningRequest]:
        """Who gets a token: those whose prompt is computed when the step ends. O(running requests)."""
        return [run for run in self.running if self._left(run) == 0]

    def _left(self, run: RunningRequest) -> int:
        """Extend tokens that remain after this step."""
        prefill = self._prefills.get(run.queued.id)
        return 0 if prefill is None else prefill.left

    def _work(self) -> StepWork:
        """What the forward step computes: chunks, each behind what is cached or computed of its prompt, and decodes."""
        chunks = [
            (prefill.chunk, prefill.run.queued.resident - prefill.left - prefill.chunk)
            for prefill in self._prefills.values()
            if prefill.chunk
        ]
        decodes = [run.queued.resident for run in self.running if run.computed]
        return StepWork(tuple(chunks), len(decodes), sum(decodes))

    def _forward(self) -> None:
        """One forward step: a token for each request whose prompt is computed now; the others are further on."""
        super()._forward()
        for prefill in list(self._prefills.values()):
            if prefill.left == 0:
                del self._prefills[prefill.run.queued.id]
            elif prefill.chunk and self.config.visibility == AFTER_FORWARD:
                self._show(prefill)
            prefill.chunk = 0
            prefill.run.kept = prefill.run.node

    def _preempt(self, run: RunningRequest) -> None:
        """Back to the queue, whatever has been computed of it."""
        self._prefills.pop(run.queued.id, None)
        super()._preempt(run)

    # -- what the policy sees --------------------------------------------------------------------------------------

    def matched(self, request: Waiting) -> int:
        """Cached tokens; more than anybody can have, where a prompt is half computed: it goes first, like a decode."""
        return self.config.kv_tokens if request.id in self._prefills else super().matched(request)

    def may_fit(self, request: Waiting) -> bool:
        """False only if the request could not be admitted, or given a chunk, in this step. O(partially prefilled)."""
        return self._budget >= 1 if request.id in self._prefills else super().may_fit(request)

    def try_admit(self, request: Waiting) -> int | None:
        """Admit a request with its first chunk, or give it its next one: the extend tokens to be charged now."""
        prefill = self._prefills.get(request.id)
        if prefill is not None:
            return self._next_chunk(prefill)
        extend = super().try_admit(request)
        if extend is None:
            return None
        run = self.running[-1]
        match = run.queued.match
        prefill = Prefill(run, extend, match.depth if run.node is match.node else match.depth - 1)
        self._prefills[request.id] = prefill
        tokens = self._next_chunk(prefill)
        return tokens if self.chunks.charge is Charge.CHUNK else extend

    def considered(self, order: Sequence[Waiting]) -> None:
        """Record the order of the queue, without those whose next chunk is gated. O(queue)."""
        super().considered([request for request in order if request.id not in self._prefills])

    def admitted(self, request: Waiting, deficit: int | None) -> None:
        """Record the admission just made, or the chunk."""
        prefill = self._prefills[request.id]
        run = prefill.run
        if prefill.left + prefill.chunk < run.extend:
            self._record_chunk(prefill, deficit)
        elif self._sink:
            self._sink(
                Admit(
                    step=self.step_number,
                    worker=self.index,
                    time_us=self.time_us,
                    request=request.id,
                    matched=run.matched,
                    extend=run.extend,
                    deficit=deficit,
                    free=self.free_tokens() if self._full_log else None,
                    chunk=prefill.chunk if prefill.left else None,
                )
            )

    def _record_chunk(self, prefill: Prefill, deficit: int | None) -> None:
        """Record a chunk that is not a request's first (event `chunk`)."""
        if self._sink:
            self._sink(
                Chunk(
                    step=self.step_number,
                    worker=self.index,
                    time_us=self.time_us,
                    request=prefill.run.queued.id,
                    tokens=prefill.chunk,
                    deficit=deficit,
                )
            )

    # -- budget and cache ------------------------------------------------------------------------------------------

    def _can_add(self, queued: QueuedRequest, free: int, extend: int) -> bool:
        """``CanAdd``, with a token of the budget left; where chunks are gated, one half-computed prompt a client."""
        if self._budget < 1:
            return False
        if self.chunks.gate is Gate.CHUNK:
            client = queued.client
            if any(prefill.left and prefill.run.queued.client == client for prefill in self._prefills.values()):
                return False
        return super()._can_add(queued, free, extend)

    def _next_chunk(self, prefill: Prefill) -> int | None:
        """All that the budget leaves of what a request needs, within ``most``; ``None`` if that is nothing."""
        if self._budget < 1:
            return None
        tokens = min(prefill.left, self._budget)
        if self.chunks.most is not None:
            tokens = min(tokens, self.chunks.most)
        self._budget -= tokens
        prefill.left -= tokens
        prefill.chunk = tokens
        if self.config.visibility == AT_ADMISSION:
            self._show(prefill)
        return tokens

    def _insert(self, run: RunningRequest) -> None:
        """At admission nothing is computed yet; after the forward that ends its prefill, the whole prompt is."""
        prefill = self._prefills.get(run.queued.id)
        if prefill is not None:
            self._show(prefill)

    def _show(self, prefill: Prefill) -> None:
        """Move the blocks that are computed into the cache, where others can match them. O(new blocks)."""
        run = prefill.run
        blocks = self._computed_blocks(prefill)
        if len(blocks) > prefill.depth:
            self._insert_blocks(run, blocks, self.cache.match(blocks, Match(run.node, prefill.depth)))
            prefill.depth = len(blocks)
            self._changed = True

    def _computed_blocks(self, prefill: Prefill) -> Sequence[BlockKey]:
        """The blocks of its prompt that are full of tokens computed by the end of this step, or end with it."""
        queued = prefill.run.queued
        computed = queued.resident - prefill.left
        if computed >= queued.request.input_tokens:
            return queued.blocks
        return queued.blocks[: computed // self.config.block_size]
