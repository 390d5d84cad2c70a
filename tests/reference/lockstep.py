"""The real worker and the naive one, side by side: the same requests, the same steps, and everything compared.

`Lockstep` is the comparison itself; `lockstep_machine` wraps it in a Hypothesis state machine, in which small alphabets
make prefixes collide and small memories make requests wait, be evicted and be preempted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dlpm import events as ev
from dlpm.batch import WorkerConfig
from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.ledger import Ledger, Quanta
from dlpm.memory import Optimistic, Reserving
from dlpm.policies.base import Policy
from dlpm.policies.dlpm import DLPM
from dlpm.policies.dlpm_literal import DLPMLiteral, EndlessLoopError
from dlpm.policies.fcfs import FCFS
from dlpm.policies.lpm import LPM
from dlpm.policies.vtc import VTC
from dlpm.prefix_cache import Node
from dlpm.request import Request
from dlpm.timing import FixedStep, StepTimer, StepWork
from dlpm.worker import Worker
from tests.reference.naive_state import Prefix
from tests.reference.naive_worker import NaiveEndlessLoopError, NaiveWorker, PlainEvent, Rules

POLICIES = ("fcfs", "lpm", "vtc", "dlpm", "dlpm-literal", "dlpm-one-pass")
MEMORIES = ("reserving", "optimistic")
CONSERVING = ("fcfs", "lpm", "vtc", "dlpm")
"""Policies that never leave the batch empty while requests wait."""

CLIENTS = ("A", "B", "C")
HASHES_FROM = 1000
"""Block hashes of the tests start here, so that they are told from token ids."""


ONE_MICROSECOND = FixedStep(1)


def real_policy(rules: Rules) -> Policy:
    """The policy under test that ``rules`` names."""
    cost = CostModel(rules.extend_weight, rules.output_weight)
    ledger = Ledger(Quanta(rules.quantum, rules.quanta), cost)
    policies: dict[str, Policy] = {
        "fcfs": FCFS(),
        "lpm": LPM(),
        "vtc": VTC(cost),
        "dlpm": DLPM(ledger),
        "dlpm-literal": DLPMLiteral(ledger),
        "dlpm-one-pass": DLPMLiteral(ledger, one_pass=True),
    }
    return policies[rules.policy]


def real_worker(
    rules: Rules,
    log: list[ev.Event] | None = None,
    *,
    full_log: bool = True,
    timer: StepTimer = ONE_MICROSECOND,
    index: int | None = None,
) -> Worker:
    """A worker under ``rules`` that appends its events to ``log``; unless told, each step takes one microsecond."""
    config = WorkerConfig(
        kv_tokens=rules.kv_tokens,
        memory=Reserving() if rules.memory == "reserving" else Optimistic(rules.watermark),
        block_size=rules.block_size,
        visibility=rules.visibility,
        max_running=rules.max_running,
    )
    sink = None if log is None else log.append
    return Worker(config, real_policy(rules), timer, sink, index=index, full_log=full_log)


def plain(event: ev.Event) -> PlainEvent:
    """An event of the real worker in the naive model's words."""
    match event:
        case ev.Arrive():
            return ("arrive", event.request, event.client, event.input, event.max_output)
        case ev.Refill():
            return ("refill", dict(event.deficits))
        case ev.Admit():
            chunk = () if event.chunk is None else (event.chunk,)
            payer = () if event.payer is None else (event.payer, event.payer_deficit)
            return ("admit", event.request, event.matched, event.extend, event.deficit, event.free, *chunk, *payer)
        case ev.Chunk():
            return ("chunk", event.request, event.tokens, event.deficit)
        case ev.Output():
            return ("output", dict(event.tokens), dict(event.deficits))
        case ev.Finish():
            return ("finish", event.request)
        case ev.Preempt():
            return ("preempt", event.request, event.kind, event.deficit)
        case _:
            raise AssertionError(f"a worker does not emit {event}")


@dataclass(frozen=True)
class Shape:
    """A request before it has a name: prompts are drawn as tokens, and hashed where ``hashed`` says so."""

    client: str
    prompt: tuple[int, ...]
    output: int
    spare_output: int
    reply: tuple[int, ...]
    hashed: bool
    tail_hashed: bool

    def request(self, name: str, block_size: int) -> Request:
        """The request; hashes are equal exactly where blocks are."""
        request = Request(
            id=name,
            client=self.client,
            arrival_us=0,
            input_tokens=len(self.prompt),
            output_tokens=self.output,
            max_output=self.output + self.spare_output,
            prompt=self.prompt,
            reply=self.reply,
        )
        full = len(self.prompt) // block_size
        blocks = hashed_blocks(self.prompt, block_size, with_tail=self.tail_hashed)
        if not self.hashed or not blocks:
            return request
        followed_by = hashed_blocks(self.prompt + self.reply, block_size, with_tail=False)[full:]
        return replace(request, prompt=(), reply=(), blocks=blocks, reply_blocks=followed_by)


def hashed_blocks(tokens: Sequence[int], block_size: int, *, with_tail: bool) -> tuple[int, ...]:
    """One number a block, equal exactly for equal blocks: the tokens as digits, behind a leading 1."""
    hashes = []
    for start in range(0, len(tokens), block_size):
        block = tokens[start : start + block_size]
        if len(block) == block_size or with_tail:
            number = 1
            for token in block:
                number = number * 3 + token
            hashes.append(HASHES_FROM + number)
    return tuple(hashes)


class WorkTimer:
    """A step takes as long as it computes tokens, so that times tell work; `work` is that of the last step."""

    def __init__(self) -> None:
        self.work = StepWork((), 0, 0)

    def step_us(self, work: StepWork) -> int:
        self.work = work
        return sum(extend for extend, _ in work.prefill) + work.decode_requests


class Lockstep:
    """Both workers, and the assertions that they agree."""

    index = 3
    """Of the real worker, as if it were one of a cluster."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.log: list[ev.Event] = []
        self.timer = WorkTimer()
        self.real = real_worker(rules, self.log, timer=self.timer, index=self.index)
        self.naive = NaiveWorker(rules)
        self.seen = 0
        self.evicted = 0
        self.stuck = False

    def submit(self, request: Request) -> None:
        """Both take it, or both refuse it."""
        taken = True
        try:
            self.real.submit(request, self.real.time_us)
        except InputError:
            taken = False
        assert taken == self.naive.submit(request)
        self.compare_events()

    def step(self, meanwhile: Sequence[Request] = ()) -> None:
        """Both do the same, or both are stuck; ``meanwhile`` arrives between admission and the end of the forward."""
        try:
            ran = self.naive.begin_step()
        except NaiveEndlessLoopError:
            self.stuck = True
            ran = False
        try:
            ends_us = self.real.begin_step()
        except EndlessLoopError:
            assert self.stuck, "the real worker found an endless loop where there is none"
            return
        assert not self.stuck, "the real worker missed an endless loop"
        assert (ends_us is not None) == ran
        self.compare_events()
        for request in meanwhile:
            self.submit(request)
        if ends_us is None:
            assert not self.naive.queue or self.rules.policy not in CONSERVING or meanwhile, "work waits beside nothing"
            return
        work = self.timer.work
        assert (list(work.prefill), work.decode_requests, work.decode_context) == self.naive.work()
        done = self.real.end_step(ends_us)
        assert self.real.time_us == ends_us
        self.naive.end_step()
        assert [request.id for request in done] == [e[1] for e in self.naive.events if e[0] == "finish"]
        self.compare_events()

    def compare_events(self) -> None:
        """The events since the last comparison are the same, one by one; evictions are compared in sum."""
        new = self.log[self.seen :]
        self.seen = len(self.log)
        for event in new:
            step = self.real.step_number + (1 if isinstance(event, ev.Arrive) else 0)
            assert (event.step, event.worker, event.time_us) == (step, self.index, self.real.time_us)
            if isinstance(event, ev.Evict):
                assert event.tokens is not None and event.tokens > 0
                self.evicted += event.tokens
            elif isinstance(event, ev.Order):
                assert list(zip(event.requests, event.matched, strict=True)) == self.naive.order
        assert [plain(event) for event in new if not isinstance(event, ev.Evict | ev.Order)] == self.naive.events
        self.naive.events.clear()
        assert self.evicted == self.naive.evicted

    def compare_state(self) -> None:
        """Queue, batch, counters, memory, and the cache block by block."""
        real, naive = self.real, self.naive
        queue = [(waiter.request.id, waiter.generated) for waiter in sorted(naive.queue, key=lambda w: w.rank)]
        assert [(queued.id, queued.generated) for queued in real.waiting()] == queue
        assert set(real.queued_clients()) == self.waiting_clients()
        running = [(runner.waiter.request.id, runner.waiter.generated) for runner in naive.running]
        assert [(run.queued.id, run.queued.generated) for run in real.running] == running
        for client in naive.counters:
            assert real.policy.counter(client) == naive.counter(client)
        assert real.free_tokens() == naive.free_tokens()
        assert real.idle() == (not queue and not running)
        tree = walk(real.cache.root, (), self.rules.block_size)
        assert {prefix: node.tokens for prefix, node in tree} == {b.prefix: b.tokens for b in naive.cached}
        assert {prefix for prefix, node in tree if node.locks} == {b.prefix for b in naive.cached if naive.is_locked(b)}
        assert recency([(node.last_use, prefix) for prefix, node in tree]) == recency(
            [(block.last_use, block.prefix) for block in naive.cached]
        )

    def waiting_clients(self) -> set[str]:
        """Whom check-refill asks."""
        return {waiter.client() for waiter in self.naive.queue}

    def check_memory(self) -> None:
        """Nothing is overbooked, and locks are what the running requests hold, with all above them."""
        cache = self.real.cache
        tree = [node for _, node in walk(cache.root, (), self.rules.block_size)]
        set_aside = sum(run.private + run.reserved for run in self.real.running)
        assert cache.total == sum(node.tokens for node in tree)
        assert cache.locked == sum(node.tokens for node in tree if node.locks > 0)
        assert cache.locked + set_aside <= self.rules.kv_tokens
        assert cache.total + set_aside <= self.rules.kv_tokens
        assert self.real.free_tokens() == self.rules.kv_tokens - cache.locked - set_aside
        for node in tree:
            assert node.alive
            assert node.parent is cache.root or (node.parent is not None and node.parent.locks >= node.locks)
        held: dict[int, int] = {}
        for run in self.real.running:
            node = run.node
            while node.parent is not None:
                assert node.alive, "a locked block was evicted"
                held[id(node)] = held.get(id(node), 0) + 1
                node = node.parent
        assert {id(node): node.locks for node in tree if node.locks} == held


def walk(node: Node, prefix: Prefix, block_size: int) -> list[tuple[Prefix, Node]]:
    """All cached blocks below ``node``, each with its prefix in the naive model's words."""
    found: list[tuple[Prefix, Node]] = []
    for key, child in node.children.items():
        assert child.parent is node
        assert child.end == node.end + child.tokens
        name: object = (key,) if block_size == 1 and isinstance(key, int) and key < HASHES_FROM else key
        found.append(((*prefix, name), child))
        found.extend(walk(child, (*prefix, name), block_size))
    return found


def recency(uses: list[tuple[int, Prefix]]) -> list[set[Prefix]]:
    """Prefixes from the least to the most recently used; those used together stand together."""
    stamps = sorted({last_use for last_use, _ in uses})
    return [{prefix for last_use, prefix in uses if last_use == stamp} for stamp in stamps]


STEMS = ((0, 0, 0, 0, 0, 0, 0, 0), (0, 0, 1, 0, 1, 1, 0, 1), (1, 0, 1, 1, 0, 0, 1, 0))
PROMPTS = tuple(
    dict.fromkeys(
        stem[:length] + tail
        for length in range(9)
        for stem in STEMS
        for tail in ((), (0,), (1,), (0, 1), (1, 1, 0))
        if stem[:length] + tail
    )
)
"""Prompts of at most eleven tokens; most of them share a prefix with many others."""


def shapes() -> st.SearchStrategy[Shape]:
    """Small requests, from few draws: what repeats is found sooner."""

    def shape(prompt: tuple[int, ...], outputs: tuple[int, int], kind: tuple[str, str, str]) -> Shape:
        output, spare = outputs
        client, form, answer = kind
        replies = {"none": (), "on the stem": STEMS[1][:output], "its own": (2,) * output}
        hashed = form != "tokens"
        return Shape(client, prompt, output, spare, replies[answer], hashed, form == "hashed with its tail")

    return st.builds(
        shape,
        st.sampled_from(PROMPTS),
        st.sampled_from([(output, spare) for spare in (0, 1, 3) for output in (1, 2, 3, 5, 8)]),
        st.sampled_from(
            [
                (client, form, answer)
                for form in ("tokens", "hashed", "hashed with its tail")
                for answer in ("none", "on the stem", "its own")
                for client in CLIENTS
            ]
        ),
    )


@st.composite
def all_rules(draw: st.DrawFn, policies: Sequence[str], memories: Sequence[str]) -> Rules:
    """Small memories, every block size up to 4, and quanta from far too small to ample."""
    return Rules(
        policy=draw(st.sampled_from(policies)),
        kv_tokens=draw(st.integers(4, 16)),
        memory=draw(st.sampled_from(memories)),
        visibility=draw(st.sampled_from(("at_admission", "after_forward"))),
        block_size=draw(st.integers(1, 4)),
        watermark=draw(st.sampled_from((0, 0, 1, 3))),
        max_running=draw(st.sampled_from((None, None, 1, 2, 3))),
        extend_weight=draw(st.integers(1, 3)),
        output_weight=draw(st.integers(1, 3)),
        quantum=draw(st.integers(1, 9)),
        quanta=draw(st.dictionaries(st.sampled_from(CLIENTS), st.integers(1, 9), max_size=2)),
    )


def lockstep_machine(
    policies: Sequence[str] = POLICIES, memories: Sequence[str] = MEMORIES
) -> type[RuleBasedStateMachine]:
    """A state machine class that submits and steps under one of ``policies`` and one of ``memories``."""

    class LockstepMachine(RuleBasedStateMachine):
        """Submit, step, and after each of the two: both workers agree, and memory is in order."""

        def __init__(self) -> None:
            super().__init__()
            self.pair = Lockstep(Rules())
            self.submitted = 0

        @initialize(rules=all_rules(policies, memories))
        def start(self, rules: Rules) -> None:
            self.pair = Lockstep(rules)

        def named(self, several: list[Shape]) -> list[Request]:
            self.submitted += len(several)
            first = self.submitted - len(several) + 1
            size = self.pair.rules.block_size
            return [shape.request(f"r{number}", size) for number, shape in enumerate(several, first)]

        @rule(several=st.lists(shapes(), min_size=1, max_size=4))
        def submit(self, several: list[Shape]) -> None:
            for request in self.named(several):
                self.pair.submit(request)

        @precondition(lambda self: not self.pair.stuck)
        @rule(times=st.integers(1, 6), late=st.one_of(st.just([]), st.just([]), st.lists(shapes(), max_size=2)))
        def step(self, times: int, late: list[Shape]) -> None:
            for remaining in reversed(range(times)):
                self.pair.step(meanwhile=() if remaining else self.named(late))
                if self.pair.stuck:
                    break

        @invariant()
        def agree(self) -> None:
            if not self.pair.stuck:
                self.pair.compare_state()
                self.pair.check_memory()

    return LockstepMachine
