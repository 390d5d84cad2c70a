"""A worker that preempts by swap: what was computed goes to CPU memory and comes back, and nobody pays for it twice.

Who has been swapped out comes back in order of arrival, as soon as GPU memory holds it, and without asking the gate:
its admission has been paid for. With ``resume_first`` no new request is admitted while one is swapped out, which is
what vLLM's scheduler did as long as it swapped; without it, both may happen in one step.

Copies take time and no service. Synchronous copies hold the next forward step up; asynchronous ones go on beside it,
and a step waits only for memory that it needs. Either way GPU blocks are given back when their copy-out is done, and a
request joins the batch when its copy-in is. Where CPU memory cannot hold a request, it is recomputed as ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dlpm.batch import QueuedRequest, RunningRequest, WorkerConfig
from dlpm.errors import InputError
from dlpm.events import EventSink, Preempt, Resume
from dlpm.extensions.swap.block_groups import contiguous_pieces
from dlpm.extensions.swap.config import SwapConfig
from dlpm.extensions.swap.cpu_copies import Copy, CpuCopies, WatchedCache
from dlpm.extensions.swap.links import Link, Traffic
from dlpm.extensions.swap.placement import Placement
from dlpm.extensions.swap.states import State, States
from dlpm.memory import Optimistic
from dlpm.policies.base import Policy
from dlpm.prefix_cache import Node
from dlpm.request import Request, RequestId, sequence_blocks
from dlpm.swap_timing import CopyTimer
from dlpm.timing import StepTimer
from dlpm.worker import Worker


@dataclass(slots=True)
class Away:
    """A request that is being swapped out, is in CPU memory, or is being swapped in.

    ``run`` is what it holds on the GPU, if it does; the copy under way, or the latest, takes from ``began_us`` to
    ``done_us``.
    """

    queued: QueuedRequest
    run: RunningRequest
    copy: Copy
    began_us: int
    done_us: int


class SwapWorker(Worker):
    """The worker of Algorithm 1 under optimistic memory, with preemption by swap.

    Attributes:
        states: where every request stands.
        away: requests that are in CPU memory, or on the way there or back.
        traffic: what swapping has come to so far.
    """

    def __init__(
        self,
        config: WorkerConfig,
        policy: Policy,
        timer: StepTimer,
        swap: SwapConfig,
        copies: CopyTimer,
        sink: EventSink | None = None,
        *,
        index: int | None = None,
        full_log: bool = False,
    ) -> None:
        """A worker at time 0; ``copies`` says how long copies take.

        Raises:
            InputError: if memory reserves outputs, or blocks of several tokens come without a limit on the batch.
        """
        super().__init__(config, policy, timer, sink, index=index, full_log=full_log)
        if not isinstance(config.memory, Optimistic):
            raise InputError(f"expected {Optimistic.kind}, found {config.memory.kind}", field="memory")
        self.swap = swap
        self.states = States()
        self.away: dict[RequestId, Away] = {}
        self.traffic = Traffic()
        self.link = Link(copies)
        self.placement = Placement(_gpu_blocks(config), config.block_size, swap.group_blocks)
        self.cpu = CpuCopies(swap.cpu_tokens // config.block_size, config.block_size, swap.group_blocks)
        self.cache = WatchedCache(config.block_size, self.placement.evicted)
        self._watermark = config.memory.watermark
        self._stall_us = 0

    def idle(self) -> bool:
        """Nothing waits, runs, or is away. O(1)."""
        return super().idle() and not self.away

    def submit(self, request: Request, arrived_us: int) -> None:
        """A request joins the waiting queue. O(its blocks).

        Raises:
            InputError: as `Worker.submit`, and if the last hashed block of its prompt is partly filled.
        """
        if len(request.blocks) * self.config.block_size > request.input_tokens:
            raise InputError(
                f"expected hashes of full blocks, found a partly filled one in request {request.id!r}", field="blocks"
            )
        super().submit(request, arrived_us)
        self.states.arrive(request.id)

    # -- the step loop -------------------------------------------------------------------------------------------------

    def begin_step(self) -> int | None:
        """As ever; the step ends later by as long as it waited for copies."""
        self._stall_us = 0
        ends_us = super().begin_step()
        self.traffic.stalled_us += self._stall_us
        return ends_us if ends_us is None else ends_us + self._stall_us

    def _admission_phase(self) -> None:
        """Who is back joins the batch; who can come back is sent for; then, unless they come first, new requests."""
        self._finish_copies()
        self._begin_copies_in()
        if not (self.away and self.swap.resume_first):
            super()._admission_phase()

    def _make_room_for_outputs(self) -> None:
        """Preempt the youngest until all that runs can go on; an empty batch waits for the next that comes back."""
        self._preempt_until_outputs_fit()
        while self.away and not self.running:
            self._begin_copies_in()
            if not self.running:
                self._wait_for(min(self._ends_of_copies()))
            self._preempt_until_outputs_fit()
        self._evict_for(len(self.running))

    def _preempt_until_outputs_fit(self) -> None:
        """Make room for a token each; memory that a copy-out under way will free is waited for."""
        while self.running:
            lacking = len(self.running) - self.free_tokens()
            leaving = [away for away in self.away.values() if self.states.of(away.queued.id) is State.SWAPPING_OUT]
            on_its_way = sum(away.run.private for away in leaving)
            if lacking > on_its_way and len(self.running) > 1:
                self._preempt(self.running[-1])
            elif lacking > 0 and leaving:
                self._wait_for(min(away.done_us for away in leaving))
            elif lacking > 0:
                self._preempt(self.running[-1])
            elif self._is_room_ahead(on_its_way) or not self._try_swap_out(self.running[-1]):
                break

    def _is_room_ahead(self, on_its_way: int) -> bool:
        """Nobody needs to leave early. O(1)."""
        wanted = len(self.running) + self.swap.ahead
        return wanted <= self.free_tokens() + on_its_way or len(self.running) == 1

    # -- out -----------------------------------------------------------------------------------------------------------

    def _can_leave(self, run: RunningRequest) -> bool:
        """Only what has been computed can be copied, and only as many at a time as may run."""
        copying = len(self.states.all_in(State.SWAPPING_OUT))
        most = self.config.max_running
        return run.computed and (most is None or copying < most)

    def _preempt(self, run: RunningRequest) -> None:
        """Swap out if there is anything to keep and CPU memory to keep it in, else recompute."""
        if not self._try_swap_out(run):
            self.states.move(run.queued.id, State.WAITING)
            super()._preempt(run)
            self.placement.leave(run.queued.id)
            self.traffic.recomputed += 1

    def _try_swap_out(self, run: RunningRequest) -> bool:
        """Begin to swap ``run`` out, if that is possible; whether it was."""
        if not self._can_leave(run):
            return False
        copy = self.cpu.begin(run.queued)
        if copy is None:
            self.traffic.fallbacks += 1
            return False
        self._swap_out(run, copy)
        return True

    def _swap_out(self, run: RunningRequest, copy: Copy) -> None:
        """Begin to copy what CPU memory lacks of ``run``. Until that is done it holds all that it held."""
        queued = run.queued
        self.states.move(queued.id, State.SWAPPING_OUT)
        self.running.remove(run)
        tokens = queued.resident - min(copy.valid * self.config.block_size, queued.resident)
        done_us = self._copy_out(run, self.placement.table(run)[copy.valid :], copy.new_blocks, tokens)
        self.away[queued.id] = Away(queued, run, copy, self._now_us(), done_us)
        self.traffic.swapped_out += 1
        self.traffic.reused_tokens += queued.resident - tokens
        if self._sink:
            self._sink(
                Preempt(
                    step=self.step_number,
                    worker=self.index,
                    time_us=self.time_us,
                    request=queued.id,
                    kind="swap",
                    deficit=self.policy.counter(queued.client),
                    copied=tokens,
                    copied_us=done_us,
                )
            )
        if not self.swap.asynchronous:
            self._wait_for(done_us)

    def _copied_out(self, away: Away) -> None:
        """The copy-out of a request is done: only now may others use its GPU memory."""
        self.states.move(away.queued.id, State.SWAPPED)
        self._release(away.run)
        self.placement.leave(away.queued.id)
        self._changed = True

    # -- in ------------------------------------------------------------------------------------------------------------

    def _begin_copies_in(self) -> None:
        """Send for swapped requests, in order of arrival, while GPU memory holds them and a token each.

        O(requests away), and O(blocks) for each that comes back.
        """
        ready = [away for away in self.away.values() if self.states.of(away.queued.id) is State.SWAPPED]
        for away in sorted(ready, key=lambda one: one.queued.rank):
            coming = len(self.states.all_in(State.SWAPPING_IN))
            most = self.config.max_running
            if most is not None and len(self.running) + coming >= most:
                break
            queued = away.queued
            node = self.cache.match(queued.blocks, queued.match).node
            private = queued.resident - node.end
            room = self.free_tokens() - self.cache.unlocked_above(node) - private
            others = len(self.running) + coming
            if room < others + 1 + (self._watermark + self.swap.ahead if others else 0):
                break
            self._swap_in(away, private)

    def _swap_in(self, away: Away, private: int) -> None:
        """Take GPU memory for a swapped request, and begin to copy into it what the prefix cache does not hold."""
        queued = away.queued
        self.states.move(queued.id, State.SWAPPING_IN)
        node = queued.match.node
        self.cache.lock(node)
        self._set_aside += private
        run = RunningRequest(queued, node, node.end, 0, private, 0, node, computed=True)
        self._evict_for(0)
        self.placement.grow(run)
        first = node.end // self.config.block_size
        sources = self.cpu.blocks_from(away.copy, first)
        away.run = run
        away.began_us = self._now_us()
        away.done_us = self._copy_in(run, sources, self.placement.private_blocks(queued.id), private)
        if not self.swap.asynchronous:
            self._wait_for(away.done_us)

    def _copied_in(self, away: Away) -> None:
        """The copy-in of a request is done: it decodes from now on, and others may match its prompt. Nobody pays."""
        queued = away.queued
        run = away.run
        self.states.move(queued.id, State.RUNNING)
        del self.away[queued.id]
        self.cpu.copied_back(away.copy)
        self.running.append(run)
        self.traffic.swapped_in += 1
        self._changed = True
        if self._sink:
            self._sink(
                Resume(
                    step=self.step_number,
                    worker=self.index,
                    time_us=self.time_us,
                    request=queued.id,
                    deficit=self.policy.counter(queued.client),
                    copied=run.queued.resident - run.matched,
                    began_us=away.began_us,
                    copied_us=away.done_us,
                )
            )
        self._insert(run)

    # -- copies and places ---------------------------------------------------------------------------------------------

    def _now_us(self) -> int:
        """The time, with what this step has waited so far."""
        return self.time_us + self._stall_us

    def _ends_of_copies(self) -> list[int]:
        """When each copy under way will be done. O(requests away)."""
        return [away.done_us for name, away in self.away.items() if self.states.of(name) is not State.SWAPPED]

    def _wait_for(self, done_us: int) -> None:
        """This step goes on at ``done_us``, if that is not past; what is done by then is done."""
        self._stall_us = max(self._stall_us, done_us - self.time_us)
        self._finish_copies()

    def _finish_copies(self) -> None:
        """Take in every copy that is done by now, in the order in which they ended. O(requests away)."""
        now_us = self._now_us()
        for away in sorted(self.away.values(), key=lambda one: one.done_us):
            if away.done_us > now_us:
                break
            state = self.states.of(away.queued.id)
            if state is State.SWAPPING_OUT:
                self._copied_out(away)
            elif state is State.SWAPPING_IN:
                self._copied_in(away)

    def _copy_out(self, run: RunningRequest, sources: Sequence[int], targets: Sequence[int], tokens: int) -> int:
        """Begin to copy GPU blocks ``sources`` of ``run`` to CPU blocks: when it will be done. O(blocks)."""
        del run
        pieces = self._pieces(sources, targets)
        self.traffic.pieces_out += pieces
        self.traffic.tokens_out += tokens
        return self.link.out(self._now_us(), pieces, tokens)

    def _copy_in(self, run: RunningRequest, sources: Sequence[int], targets: Sequence[int], tokens: int) -> int:
        """Begin to copy CPU blocks ``sources`` to GPU blocks of ``run``: when it will be done. O(blocks)."""
        del run
        pieces = self._pieces(sources, targets)
        self.traffic.pieces_in += pieces
        self.traffic.tokens_in += tokens
        return self.link.back(self._now_us(), pieces, tokens)

    def _pieces(self, sources: Sequence[int], targets: Sequence[int]) -> int:
        """How many copies move these blocks, as many of each."""
        pairs = zip(sources, targets, strict=True)
        return contiguous_pieces(pairs) if self.swap.piecewise else len(sources)

    def _admit(self, queued: QueuedRequest, node: Node, matched: int, private: int) -> None:
        """As ever, with blocks for what is computed."""
        super()._admit(queued, node, matched, private)
        self.states.move(queued.id, State.RUNNING)
        self.placement.grow(self.running[-1])

    def _insert(self, run: RunningRequest) -> None:
        """As ever; the blocks of the prompt are the cache's from now on."""
        self.placement.grow(run)
        super()._insert(run)
        self.placement.hand_over(run.queued.id, run.node)

    def _forward(self) -> None:
        """As ever, with blocks for the tokens that came."""
        super()._forward()
        for run in self.running:
            self.placement.grow(run)

    def _finish(self) -> tuple[Request, ...]:
        """As ever; what the cache did not keep is free again."""
        finished = super()._finish()
        for request in finished:
            self.states.move(request.id, State.FINISHED)
            self.placement.leave(request.id)
        return finished

    def _keep_sequence(self, queued: QueuedRequest) -> None:
        """As ever; the blocks of a known reply are the cache's from now on."""
        super()._keep_sequence(queued)
        blocks = sequence_blocks(queued.request, self.config.block_size)
        self.placement.hand_over(queued.id, self.cache.match(blocks, self.cache.start()).node)


def _gpu_blocks(config: WorkerConfig) -> int:
    """Blocks that hold ``M`` tokens, and one more for each request whose last block is partly filled.

    The worker counts tokens. A request that runs, or is being copied out or in, has at most one such block, and at most
    twice the largest batch does so at a time.

    Raises:
        InputError: if blocks hold several tokens and the batch is not limited.
    """
    if config.block_size == 1:
        return config.kv_tokens
    if config.max_running is None:
        raise InputError("expected a limit: blocks of several tokens may be partly filled", field="max_running")
    return config.kv_tokens // config.block_size + 2 * config.max_running
