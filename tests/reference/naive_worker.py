"""A worker that is naive on purpose: what `dlpm.worker` must do, from lists and loops alone.

There is no tree, no lock count, no counter of free memory and no remembered match here: every quantity is computed
afresh from the requests that run, the requests that wait and the list of cached prefixes. Written from the rules
(DESIGN of the project, section 3; [DLPM Alg. 1]; [VTC Alg. 2]; docs/decisions), not from the worker. It shares
nothing with the code under test but the type of a request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dlpm.request import Request
from tests.reference.naive_state import Cached, Prefix, Runner, Waiter, cut, starts_with

PlainEvent = tuple[object, ...]
"""An event as a plain tuple: its name, then its fields."""


class NaiveEndlessLoopError(Exception):
    """The printed `while not Queue.empty()` found nothing to do, and would ask again for ever."""


@dataclass(frozen=True)
class Rules:
    """Everything that decides a run, but its requests."""

    policy: str = "dlpm"
    kv_tokens: int = 12
    memory: str = "reserving"
    visibility: str = "at_admission"
    block_size: int = 1
    watermark: int = 0
    max_running: int | None = None
    extend_weight: int = 1
    output_weight: int = 2
    quantum: int = 4
    quanta: Mapping[str, int] = field(default_factory=dict)

    def quantum_of(self, client: str) -> int:
        return self.quanta.get(client, self.quantum)


class NaiveWorker:
    """One replica under ``rules``; `events` grows by what each step did."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.counters: dict[str, int] = {}
        self.queue: list[Waiter] = []
        self.running: list[Runner] = []
        self.cached: list[Cached] = []
        self.events: list[PlainEvent] = []
        self.evicted = 0
        self.arrived = 0
        self.uses = 0
        self.last_to_leave: str | None = None
        self.order: list[tuple[str, int]] = []

    # Requests as blocks.

    def prompt_blocks(self, request: Request) -> Prefix:
        return request.blocks if request.blocks else cut(request.prompt, self.rules.block_size)

    def sequence_blocks(self, request: Request) -> Prefix:
        """Prompt and known reply."""
        if not request.blocks:
            return cut(request.prompt + request.reply, self.rules.block_size)
        if not request.reply_blocks:
            return request.blocks
        return request.blocks[: request.input_tokens // self.rules.block_size] + request.reply_blocks

    # The cache: a list of prefixes.

    def is_cached(self, prefix: Prefix) -> bool:
        return any(block.prefix == prefix for block in self.cached)

    def longest_cached(self, blocks: Prefix) -> Prefix:
        longest: Prefix = ()
        for length in range(1, len(blocks) + 1):
            if not self.is_cached(blocks[:length]):
                break
            longest = blocks[:length]
        return longest

    def tokens_of(self, prefix: Prefix) -> int:
        """Tokens of all cached blocks of ``prefix``."""
        return sum(block.tokens for block in self.cached if starts_with(prefix, block.prefix))

    def matched(self, waiter: Waiter) -> int:
        """At least one token is always computed."""
        cached_tokens = self.tokens_of(self.longest_cached(self.prompt_blocks(waiter.request)))
        return min(cached_tokens, waiter.resident() - 1)

    def matched_path(self, waiter: Waiter) -> Prefix:
        """The shortest cached prefix that holds the matched tokens."""
        path: Prefix = ()
        for block in self.longest_cached(self.prompt_blocks(waiter.request)):
            if self.tokens_of(path) >= self.matched(waiter):
                break
            path = (*path, block)
        return path

    def use(self, blocks: Prefix) -> None:
        """The cached blocks of ``blocks`` have been used just now."""
        self.uses += 1
        for block in self.cached:
            if starts_with(blocks, block.prefix):
                block.last_use = self.uses

    def insert(self, blocks: Prefix, tokens: int) -> list[Prefix]:
        """Cache a sequence of ``tokens`` tokens; returns the prefixes that are new."""
        new: list[Prefix] = []
        for length in range(1, len(blocks) + 1):
            if not self.is_cached(blocks[:length]):
                start = (length - 1) * self.rules.block_size
                self.cached.append(Cached(blocks[:length], min(self.rules.block_size, tokens - start), 0))
                new.append(blocks[:length])
        return new

    # Memory: everything counted afresh.

    def is_locked(self, block: Cached) -> bool:
        return any(starts_with(runner.locks, block.prefix) for runner in self.running)

    def locked_tokens(self, also: Prefix = ()) -> int:
        return sum(block.tokens for block in self.cached if self.is_locked(block) or starts_with(also, block.prefix))

    def private_tokens(self, runner: Runner) -> int:
        """Tokens that it has in memory, or is about to compute, outside of the blocks it locks."""
        return runner.waiter.resident() - self.tokens_of(runner.locks)

    def reserved_tokens(self, waiter: Waiter) -> int:
        return waiter.request.max_output - waiter.generated if self.rules.memory == "reserving" else 0

    def set_aside(self) -> int:
        return sum(self.private_tokens(runner) + self.reserved_tokens(runner.waiter) for runner in self.running)

    def total_cached(self) -> int:
        return sum(block.tokens for block in self.cached)

    def free_tokens(self) -> int:
        return self.rules.kv_tokens - self.locked_tokens() - self.set_aside()

    def fits(self, waiter: Waiter) -> bool:
        """CanAdd: its extend tokens fit beside what is locked or set aside, and so they do once its path is locked."""
        if self.rules.max_running is not None and len(self.running) >= self.rules.max_running:
            return False
        extend = waiter.resident() - self.matched(waiter)
        path = self.matched_path(waiter)
        beside = self.set_aside() + self.reserved_tokens(waiter)
        if self.rules.memory == "optimistic" and self.running:
            beside += self.rules.watermark
        fits_now = self.locked_tokens() + beside + extend <= self.rules.kv_tokens
        outside_of_path = waiter.resident() - self.tokens_of(path)
        fits_locked = self.locked_tokens(also=path) + beside + outside_of_path <= self.rules.kv_tokens
        return fits_now and fits_locked

    def evict_until_it_fits(self, more: int = 0) -> None:
        """Least recently used leaf first, never a locked block."""
        while self.total_cached() + self.set_aside() + more > self.rules.kv_tokens:
            leaves = [
                block
                for block in self.cached
                if not self.is_locked(block)
                and not any(other is not block and starts_with(other.prefix, block.prefix) for other in self.cached)
            ]
            if not leaves:
                break
            oldest = min(leaves, key=lambda block: block.last_use)
            self.cached.remove(oldest)
            self.evicted += oldest.tokens

    # Arrivals.

    def submit(self, request: Request) -> bool:
        """False if it could never fit."""
        if request.input_tokens + request.max_output > self.rules.kv_tokens:
            return False
        client = request.client
        if client not in self.counters:
            self.counters[client] = 0
        if self.rules.policy == "vtc":
            self.lift(client)
        self.arrived += 1
        self.queue.append(Waiter(request, self.arrived, 0))
        self.events.append(("arrive", request.id, client, request.input_tokens, request.max_output))
        return True

    def lift(self, client: str) -> None:
        """A client that had nothing queued is lifted [VTC Alg. 2]."""
        queued = [waiter.client() for waiter in self.queue]
        if client in queued:
            return
        if queued:
            self.counters[client] = max(self.counters[client], min(self.counters[other] for other in queued))
        elif self.last_to_leave is not None:
            self.counters[client] = max(self.counters[client], self.counters[self.last_to_leave])

    # One step.

    def begin_step(self) -> bool:
        """Admission; False if there is nothing to run."""
        self.queue.sort(key=lambda waiter: waiter.rank)
        self.admit_by_policy()
        self.preempt_until_outputs_fit()
        return bool(self.running)

    def work(self) -> tuple[list[tuple[int, int]], int, int]:
        """What the forward computes: (extend, matched) of each prefill, how many decode, and their contexts."""
        prefill = [(runner.extend, runner.matched) for runner in self.running if not runner.computed]
        decode = [runner.waiter.resident() for runner in self.running if runner.computed]
        return prefill, len(decode), sum(decode)

    def end_step(self) -> None:
        """Forward and finish."""
        self.forward()
        self.finish()

    def admit_by_policy(self) -> None:
        policy = self.rules.policy
        arrival_order = list(self.queue)
        longest_first = sorted(self.queue, key=lambda waiter: (-self.matched(waiter), waiter.rank))
        order = longest_first if policy in ("lpm", "dlpm", "dlpm-literal", "dlpm-one-pass") else arrival_order
        self.order = [(waiter.request.id, self.matched(waiter)) for waiter in order]
        if policy == "fcfs":
            for waiter in order:
                if not self.fits(waiter):
                    break
                self.admit(waiter)
        elif policy == "lpm":
            for waiter in order:
                if self.fits(waiter):
                    self.admit(waiter)
        elif policy == "vtc":
            self.admit_vtc()
        elif policy == "dlpm":
            while self.one_pass(order):
                pass
        elif policy == "dlpm-one-pass":
            self.one_pass(order)
        elif policy == "dlpm-literal":
            while self.queue:
                if not self.one_pass(order):
                    raise NaiveEndlessLoopError

    def one_pass(self, order: list[Waiter]) -> bool:
        """Lines 18-24 of [DLPM Alg. 1] for every request still queued; True if it refilled or admitted."""
        happened = False
        for waiter in order:
            if not any(waiter is queued for queued in self.queue):
                continue
            client = waiter.client()
            if self.counters[client] <= 0 and self.check_refill():
                happened = True
            if self.counters[client] > 0 and self.fits(waiter):
                self.admit(waiter)
                happened = True
        return happened

    def check_refill(self) -> bool:
        """Lines 3-8 of [DLPM Alg. 1]; True if it refilled."""
        for waiter in self.queue:
            if self.counters[waiter.client()] > 0:
                return False
        refilled = {}
        for client in self.counters:
            if self.counters[client] <= 0:
                self.counters[client] += self.rules.quantum_of(client)
                refilled[client] = self.counters[client]
        self.events.append(("refill", refilled))
        return True

    def admit_vtc(self) -> None:
        """The least served client's earliest request, until it does not fit [VTC Alg. 2]."""
        while self.queue:
            earliest = min(self.queue, key=lambda waiter: (self.counters[waiter.client()], waiter.rank))
            if not self.fits(earliest):
                break
            self.admit(earliest)

    def admit(self, waiter: Waiter) -> None:
        """Lock the matched path, make room, charge; with visibility at admission, show the prompt to others."""
        matched = self.matched(waiter)
        extend = waiter.resident() - matched
        runner = Runner(waiter, matched, extend, self.matched_path(waiter), False, [])
        self.use(runner.locks)
        self.queue.remove(waiter)
        if all(other.client() != waiter.client() for other in self.queue):
            self.last_to_leave = waiter.client()
        self.running.append(runner)
        self.evict_until_it_fits()
        if self.rules.visibility == "at_admission":
            self.show(runner)
        if self.rules.policy == "vtc":
            self.counters[waiter.client()] += self.rules.extend_weight * waiter.resident()
        elif self.rules.policy.startswith("dlpm"):
            self.counters[waiter.client()] -= self.rules.extend_weight * extend
        self.events.append(
            ("admit", waiter.request.id, matched, extend, self.counter(waiter.client()), self.free_tokens())
        )

    def show(self, runner: Runner) -> None:
        """The prompt goes into the cache, and is locked there."""
        blocks = self.prompt_blocks(runner.waiter.request)
        runner.own_blocks = self.insert(blocks, runner.waiter.request.input_tokens)
        runner.locks = blocks
        self.use(blocks)

    def counter(self, client: str) -> int | None:
        return None if self.rules.policy in ("fcfs", "lpm") else self.counters[client]

    def preempt_until_outputs_fit(self) -> None:
        """Each running request needs a token more, unless that is reserved already."""
        while True:
            needed = sum(1 for runner in self.running if self.reserved_tokens(runner.waiter) == 0)
            if needed <= self.free_tokens():
                break
            youngest = self.running.pop()
            if not youngest.computed:
                self.cached = [block for block in self.cached if block.prefix not in youngest.own_blocks]
            self.queue.append(youngest.waiter)
            client = youngest.client()
            self.events.append(("preempt", youngest.waiter.request.id, "recompute", self.counter(client)))
        self.evict_until_it_fits(more=needed)

    def forward(self) -> None:
        for runner in self.running:
            runner.waiter.generated += 1
            if not runner.computed and self.rules.visibility == "after_forward":
                self.show(runner)
            runner.computed = True
            if self.rules.policy == "vtc":
                self.counters[runner.client()] += self.rules.output_weight
            elif self.rules.policy.startswith("dlpm"):
                self.counters[runner.client()] -= self.rules.output_weight
        tokens = {runner.waiter.request.id: 1 for runner in self.running}
        counters = {runner.client(): self.counter(runner.client()) for runner in self.running}
        logged = {client: counter for client, counter in counters.items() if counter is not None}
        self.events.append(("output", tokens, logged))

    def finish(self) -> None:
        for runner in list(self.running):
            request = runner.waiter.request
            if runner.waiter.generated == request.output_tokens:
                self.running.remove(runner)
                blocks = self.sequence_blocks(request)
                replied = bool(request.reply or request.reply_blocks)
                if replied:
                    self.insert(blocks, request.input_tokens + request.output_tokens)
                self.use(blocks)
                self.evict_until_it_fits()
                self.events.append(("finish", request.id))
