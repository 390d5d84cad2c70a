"""Chunked prefill, naively: what `dlpm.extensions.chunked_prefill` must do, counted afresh at every question."""

from __future__ import annotations

from dlpm.extensions.chunked_prefill import Charge, ChunkedPrefill, Gate
from tests.reference.naive_state import Prefix, Runner, Waiter
from tests.reference.naive_worker import NaiveWorker, Rules


class NaiveChunks(NaiveWorker):
    """The naive model with a budget of tokens a step.

    ``left`` are the extend tokens of each running request that no step has taken yet; ``now`` those that this step
    takes; ``spent`` is what this step has taken of its budget.
    """

    def __init__(self, rules: Rules, chunks: ChunkedPrefill) -> None:
        super().__init__(rules)
        self.chunks = chunks
        self.left: dict[str, int] = {}
        self.now: dict[str, int] = {}
        self.spent = 0
        self.overdrafts = 0

    def half_computed(self) -> list[Runner]:
        return [runner for runner in self.running if self.left.get(runner.waiter.request.id, 0) > 0]

    def gated(self) -> list[Runner]:
        """Those that wait for credit for their next chunk."""
        if self.chunks.gate is Gate.REQUEST:
            return []
        return [runner for runner in self.half_computed() if runner.waiter.request.id not in self.now]

    def yielding(self) -> list[Runner]:
        return [runner for runner in self.running if self.left.get(runner.waiter.request.id, 0) == 0]

    # One step.

    def begin_step(self) -> bool:
        self.queue.sort(key=lambda waiter: waiter.rank)
        self.now = {}
        self.spent = sum(1 for runner in self.running if runner.computed)
        assert self.spent <= self.chunks.budget, "decodes alone are over the budget"
        if self.chunks.gate is Gate.REQUEST:
            for runner in self.half_computed():
                self.ungated_chunk(runner)
        if self.queue or self.gated():
            self.admit_by_policy()
        self.preempt_until_outputs_fit()
        if not self.busy() and self.half_computed():
            self.overdrafts += 1
            self.spent = 0
            self.ungated_chunk(self.half_computed()[0])
            self.preempt_until_outputs_fit()
        assert self.spent <= self.chunks.budget
        return self.busy()

    def busy(self) -> bool:
        running = [runner.waiter.request.id for runner in self.running]
        return bool(self.yielding()) or any(name in running for name in self.now)

    def ungated_chunk(self, runner: Runner) -> None:
        tokens = self.take(runner)
        if tokens:
            if self.chunks.charge is Charge.CHUNK:
                self.counters[runner.client()] -= self.rules.extend_weight * tokens
            self.log_chunk(runner)

    def log_chunk(self, runner: Runner) -> None:
        name = runner.waiter.request.id
        self.events.append(("chunk", name, self.now[name], self.counters[runner.client()]))

    def take(self, runner: Runner) -> int:
        """As many tokens as it needs, may have, and are left of the budget."""
        name = runner.waiter.request.id
        tokens = 0
        while self.left[name] > 0 and self.spent < self.chunks.budget and tokens != self.chunks.most:
            self.left[name] -= 1
            self.spent += 1
            tokens += 1
        if tokens:
            self.now[name] = tokens
            if self.rules.visibility == "at_admission":
                self.show(runner)
        return tokens

    def admit_by_policy(self) -> None:
        longest_first = sorted(self.queue, key=lambda waiter: (-self.matched(waiter), waiter.rank))
        self.order = [(waiter.request.id, self.matched(waiter)) for waiter in longest_first]
        order = [*(runner.waiter for runner in self.gated()), *longest_first]
        while self.one_pass(order):
            pass

    def one_pass(self, order: list[Waiter]) -> bool:
        happened = False
        for waiter in order:
            halves = [runner for runner in self.gated() if runner.waiter is waiter]
            if not halves and not any(waiter is queued for queued in self.queue):
                continue
            client = waiter.client()
            if self.counters[client] <= 0 and self.check_refill():
                happened = True
            if self.counters[client] > 0:
                for runner in halves:
                    tokens = self.take(runner)
                    if tokens:
                        self.counters[client] -= self.rules.extend_weight * tokens
                        self.log_chunk(runner)
                        happened = True
                if not halves and self.fits(waiter):
                    self.admit(waiter)
                    happened = True
        return happened

    def check_refill(self) -> bool:
        """Those who wait for their next chunk wait, too."""
        if any(self.counters[runner.client()] > 0 for runner in self.gated()):
            return False
        return super().check_refill()

    def fits(self, waiter: Waiter) -> bool:
        if self.spent >= self.chunks.budget:
            return False
        if self.chunks.gate is Gate.CHUNK and any(r.client() == waiter.client() for r in self.half_computed()):
            return False
        return super().fits(waiter)

    def admit(self, waiter: Waiter) -> None:
        matched = self.matched(waiter)
        extend = waiter.resident() - matched
        runner = Runner(waiter, matched, extend, self.matched_path(waiter), False, [])
        name = waiter.request.id
        self.use(runner.locks)
        self.queue.remove(waiter)
        self.running.append(runner)
        self.left[name] = extend
        self.evict_until_it_fits()
        first = self.take(runner)
        paid = first if self.chunks.charge is Charge.CHUNK else extend
        self.counters[waiter.client()] -= self.rules.extend_weight * paid
        chunk = () if first == extend else (first,)
        counter = self.counters[waiter.client()]
        self.events.append(("admit", name, matched, extend, counter, self.free_tokens(), *chunk))

    def show(self, runner: Runner) -> None:
        """The blocks that are full of computed tokens, or end with the prompt."""
        request = runner.waiter.request
        computed = runner.waiter.resident() - self.left[request.id]
        blocks: Prefix = self.prompt_blocks(request)
        if computed < request.input_tokens:
            blocks = tuple(block for k, block in enumerate(blocks) if (k + 1) * self.rules.block_size <= computed)
        if len(blocks) > len(runner.locks):
            runner.own_blocks = self.insert(blocks, request.input_tokens)
            runner.locks = blocks
            self.use(blocks)

    def preempt_until_outputs_fit(self) -> None:
        while True:
            needed = sum(1 for runner in self.yielding() if self.reserved_tokens(runner.waiter) == 0)
            if needed <= self.free_tokens():
                break
            youngest = self.running.pop()
            if not youngest.computed:
                others = [r.locks for r in self.running]
                self.cached = [
                    block
                    for block in self.cached
                    if block.prefix not in youngest.own_blocks or any(starts(path, block.prefix) for path in others)
                ]
            del self.left[youngest.waiter.request.id]
            self.queue.append(youngest.waiter)
            client = youngest.client()
            self.events.append(("preempt", youngest.waiter.request.id, "recompute", self.counters[client]))
        self.evict_until_it_fits(more=needed)

    def work(self) -> tuple[list[tuple[int, int]], int, int]:
        prefill = []
        for runner in self.running:
            tokens = self.now.get(runner.waiter.request.id, 0)
            if tokens:
                before = runner.waiter.resident() - self.left[runner.waiter.request.id] - tokens
                prefill.append((tokens, before))
        decode = [runner.waiter.resident() for runner in self.running if runner.computed]
        return prefill, len(decode), sum(decode)

    def forward(self) -> None:
        tokens = {}
        counters = {}
        for runner in self.yielding():
            runner.waiter.generated += 1
            if not runner.computed and self.rules.visibility == "after_forward":
                self.show(runner)
            runner.computed = True
            tokens[runner.waiter.request.id] = 1
            self.counters[runner.client()] -= self.rules.output_weight
        for runner in self.running:
            if runner.computed:
                counters[runner.client()] = self.counters[runner.client()]
            elif runner.waiter.request.id in self.now and self.rules.visibility == "after_forward":
                self.show(runner)
            runner.own_blocks = []
        self.events.append(("output", tokens, counters))

    def finish(self) -> None:
        """A finished request needs nothing more."""
        before = {runner.waiter.request.id for runner in self.running}
        super().finish()
        for name in before - {runner.waiter.request.id for runner in self.running}:
            del self.left[name]


def starts(longer: Prefix, shorter: Prefix) -> bool:
    return longer[: len(shorter)] == shorter
