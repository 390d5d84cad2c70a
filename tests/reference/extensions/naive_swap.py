"""The naive worker with preemption by swap: lists of requests and of copied prefixes, and a clock.

Written from the rules (docs/extensions/swap.md), not from the worker: there is no allocator, no state machine and no
tree of copies here. Every block is one copy of ``copy_us`` microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.reference.naive_state import Cached, Prefix, Runner, Waiter, starts_with
from tests.reference.naive_worker import NaiveWorker, Rules


@dataclass(frozen=True)
class SwapRules:
    """Everything about swapping that decides a run."""

    cpu_blocks: int = 100
    copy_us: int = 0
    asynchronous: bool = False
    ahead: int = 0
    resume_first: bool = True


@dataclass
class Gone:
    """A request on its way ``out``, ``there``, or on its way ``back``; ``done`` is when its copy ends."""

    runner: Runner
    where: str
    done: int
    began: int
    copy: Prefix


@dataclass
class CopiedBlock:
    """One block in CPU memory, named by its whole prefix."""

    prefix: Prefix
    last_use: int


class NaiveSwap(NaiveWorker):
    """One replica that swaps; ``now`` is its clock, with what the present step has waited."""

    def __init__(self, rules: Rules, swap: SwapRules) -> None:
        super().__init__(rules)
        self.swap = swap
        self.gone: list[Gone] = []
        self.copied: list[CopiedBlock] = []
        self.copy_uses = 0
        self.start = 0
        self.now = 0
        self.out_until = 0
        self.back_until = 0

    # Memory: who is on its way holds what it holds.

    def on_gpu(self) -> list[Runner]:
        return self.running + [gone.runner for gone in self.gone if gone.where != "there"]

    def is_locked(self, block: Cached) -> bool:
        return any(starts_with(runner.locks, block.prefix) for runner in self.on_gpu())

    def set_aside(self) -> int:
        return sum(self.private_tokens(runner) for runner in self.on_gpu())

    # CPU memory.

    def context(self, waiter: Waiter) -> Prefix:
        """All blocks of a request, named by content where the workload tells it."""
        size = self.rules.block_size
        full = waiter.resident() // size
        known = self.sequence_blocks(waiter.request)[:full]
        rest = [("own", waiter.rank, place) for place in range(len(known), full)]
        filled = waiter.resident() - full * size
        tail = [("tail", waiter.rank, full, filled)] if filled else []
        return (*known, *rest, *tail)

    def has_copy(self, prefix: Prefix) -> bool:
        return any(block.prefix == prefix for block in self.copied)

    def copy_is_needed(self, prefix: Prefix, also: Prefix = ()) -> bool:
        return any(starts_with(gone.copy, prefix) for gone in self.gone) or starts_with(also, prefix)

    def use_copy(self, prefix: Prefix) -> None:
        self.copy_uses += 1
        for block in self.copied:
            if starts_with(prefix, block.prefix):
                block.last_use = self.copy_uses

    def copy_fits(self, context: Prefix) -> int | None:
        """How many leading blocks are there already, once there is room for the rest; or that there is none."""
        valid = 0
        while valid < len(context) and self.has_copy(context[: valid + 1]):
            valid += 1
        found = context[:valid]
        self.use_copy(found)
        needed = [block for block in self.copied if self.copy_is_needed(block.prefix, also=found)]
        if len(needed) + len(context) - valid > self.swap.cpu_blocks:
            return None
        while len(self.copied) + len(context) - valid > self.swap.cpu_blocks:
            leaves = [
                block
                for block in self.copied
                if not self.copy_is_needed(block.prefix, also=found)
                and not any(other is not block and starts_with(other.prefix, block.prefix) for other in self.copied)
            ]
            self.copied.remove(min(leaves, key=lambda block: block.last_use))
        for length in range(valid + 1, len(context) + 1):
            self.copied.append(CopiedBlock(context[:length], 0))
        self.use_copy(context)
        return valid

    # The step.

    def begin_step(self) -> bool:
        self.now = self.start
        self.queue.sort(key=lambda waiter: waiter.rank)
        self.end_copies()
        self.send_back()
        if not (self.gone and self.swap.resume_first):
            self.admit_by_policy()
        self.preempt_until_outputs_fit()
        while self.gone and not self.running:
            self.send_back()
            if not self.running:
                self.wait(min(gone.done for gone in self.gone if gone.where != "there"))
            self.preempt_until_outputs_fit()
        self.evict_until_it_fits(more=len(self.running))
        return bool(self.running)

    def end_copies(self) -> None:
        for gone in sorted(self.gone, key=lambda gone: gone.done):
            if gone.done <= self.now and gone.where == "out":
                gone.where = "there"
            elif gone.done <= self.now and gone.where == "back":
                self.rejoin(gone)

    def rejoin(self, gone: Gone) -> None:
        runner = gone.runner
        copied = runner.waiter.resident() - runner.matched
        self.gone.remove(gone)
        if runner.waiter.resident() % self.rules.block_size and not self.copy_is_needed(gone.copy):
            self.copied = [block for block in self.copied if block.prefix != gone.copy]
        self.running.append(runner)
        request = runner.waiter.request
        self.events.append(("resume", request.id, copied, gone.began, gone.done, self.counter(request.client)))
        self.show(runner)

    def wait(self, until: int) -> None:
        self.now = max(self.now, until)
        self.end_copies()

    def send_back(self) -> None:
        for gone in sorted(self.gone, key=lambda gone: gone.runner.waiter.rank):
            if gone.where != "there":
                continue
            others = len(self.running) + sum(1 for other in self.gone if other.where == "back")
            if self.rules.max_running is not None and others >= self.rules.max_running:
                return
            runner = gone.runner
            path = self.longest_cached(self.prompt_blocks(runner.waiter.request))
            private = runner.waiter.resident() - self.tokens_of(path)
            left = self.rules.kv_tokens - self.locked_tokens(also=path) - self.set_aside() - private
            margin = self.rules.watermark + self.swap.ahead if others else 0
            if left < others + 1 + margin:
                return
            gone.where = "back"
            gone.began = self.now
            runner.locks = path
            runner.matched = self.tokens_of(path)
            runner.extend = 0
            self.use(path)
            self.evict_until_it_fits()
            blocks = len(gone.copy) - len(path)
            self.back_until = max(self.back_until, self.now) + blocks * self.swap.copy_us
            gone.done = self.back_until
            if not self.swap.asynchronous:
                self.wait(gone.done)

    def preempt_until_outputs_fit(self) -> None:
        while self.running:
            lacking = len(self.running) - self.free_tokens()
            leaving = [gone for gone in self.gone if gone.where == "out"]
            coming_free = sum(self.private_tokens(gone.runner) for gone in leaving)
            youngest = self.running[-1]
            if lacking > coming_free and len(self.running) > 1:
                self.swap_out(youngest) or self.recompute(youngest)
            elif lacking > 0 and leaving:
                self.wait(min(gone.done for gone in leaving))
            elif lacking > 0:
                self.swap_out(youngest) or self.recompute(youngest)
            elif lacking + self.swap.ahead <= coming_free or len(self.running) == 1 or not self.swap_out(youngest):
                return

    def swap_out(self, runner: Runner) -> bool:
        leaving = [gone for gone in self.gone if gone.where == "out"]
        if not runner.computed or (self.rules.max_running is not None and len(leaving) >= self.rules.max_running):
            return False
        context = self.context(runner.waiter)
        valid = self.copy_fits(context)
        if valid is None:
            return False
        self.running.remove(runner)
        self.out_until = max(self.out_until, self.now) + (len(context) - valid) * self.swap.copy_us
        gone = Gone(runner, "out", self.out_until, self.now, context)
        self.gone.append(gone)
        tokens = max(0, runner.waiter.resident() - valid * self.rules.block_size)
        request = runner.waiter.request
        self.events.append(("preempt", request.id, "swap", self.counter(request.client), tokens, gone.done))
        if not self.swap.asynchronous:
            self.wait(gone.done)
        return True

    def recompute(self, runner: Runner) -> bool:
        self.running.remove(runner)
        if not runner.computed:
            self.cached = [block for block in self.cached if block.prefix not in runner.own_blocks]
        self.queue.append(runner.waiter)
        self.events.append(
            ("preempt", runner.waiter.request.id, "recompute", self.counter(runner.client()), None, None)
        )
        return True
