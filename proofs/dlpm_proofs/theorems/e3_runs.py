"""E3: runs and explored instances of preemption by recomputation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from dlpm import bounds
from dlpm.batch import WorkerConfig
from dlpm.events import Admit, EventSink, Extensions, Preempt
from dlpm.extensions.recompute import Payer, Recompute, RecomputeDLPM, RecomputeWorker, Victim, stated
from dlpm.ledger import Ledger
from dlpm.memory import Optimistic
from dlpm.quanta import Quanta
from dlpm.request import Request
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_proofs.explore import (
    Edge,
    Instance,
    Kind,
    StateGraph,
    fruitless_cycle,
    idle_edges,
    lasso,
    never_done,
)
from dlpm_proofs.witness import STEP_US, Demonstration, Replay, Setting, call, replay

PLAIN = Recompute()
ROUNDS = 8
"""How often a replay goes around a cycle."""


@dataclass(frozen=True, slots=True)
class RecomputeSetting(Setting):
    """An engine with optimistic memory, a watermark, and rules for victims and payers."""

    rules: Recompute = PLAIN
    watermark: int = 0

    def config(self) -> WorkerConfig:
        """The worker's limits."""
        return WorkerConfig(self.kv_tokens, Optimistic(self.watermark), max_running=self.max_running)

    def build_policy(self) -> RecomputeDLPM:
        """DLPM that may charge a causer."""
        return RecomputeDLPM(Ledger(Quanta(self.quantum, dict(self.quanta)), self.cost()))

    def build_worker(self, sink: EventSink) -> Worker:
        """The worker with these rules."""
        timer = FixedStep(STEP_US)
        return RecomputeWorker(self.config(), self.build_policy(), timer, self.rules, sink, full_log=True)

    def extensions(self) -> Extensions:
        """The rules that are not those of the plain worker."""
        return stated(self.rules)


# -- preempted for ever ------------------------------------------------------------------------------------------------

HOT_AND_TWO = (Kind("cold", "f", (1, 2), 2, 2), Kind("hot", "g", (5, 6), 1, 2), Kind("own", "f", (5, 7), 1, 1))
TWO_LONG = (Kind("f", "f", (1, 2), 2, 2), Kind("g", "g", (5,), 3, 3, most=2))
LONG_AND_SHORT = (Kind("f", "f", (1,), 3, 3), Kind("g", "g", (5,), 2, 2, most=2))


def _instance(name: str, kinds: tuple[Kind, ...], kv_tokens: int, quantum: int, victim: Victim, room: int) -> Instance:
    """One small engine and what may be sent to it."""
    setting = RecomputeSetting(kv_tokens, quantum, memory="optimistic", rules=Recompute(victim), watermark=room)
    return Instance(name, setting, kinds)


THRASHING = (
    _instance("last, no watermark", HOT_AND_TWO, 5, 3, Victim.LAST, 0),
    _instance("fewest outputs, no watermark", TWO_LONG, 6, 4, Victim.FEWEST_OUTPUTS, 0),
    _instance("most output left, a watermark of 1", LONG_AND_SHORT, 5, 3, Victim.MOST_OUTPUT_LEFT, 1),
)
WITH_ROOM = (
    _instance("last, a watermark of 3", TWO_LONG, 8, 4, Victim.LAST, 3),
    _instance("fewest outputs, a watermark of 3", TWO_LONG, 8, 4, Victim.FEWEST_OUTPUTS, 3),
    _instance("most output left, a watermark of 3", LONG_AND_SHORT, 7, 3, Victim.MOST_OUTPUT_LEFT, 3),
)


# Where the client pays, who caused a preemption has no part in what follows, and snapshots leave it out.
@cache
def explored(instance: Instance) -> StateGraph:
    """The instance's state graph."""
    return StateGraph(instance)


def preempted_for_ever() -> tuple[Demonstration, ...]:
    """For each rule of victims, a cycle in which f is let in and never done."""
    return tuple(_told(instance) for instance in THRASHING)


def _told(instance: Instance) -> Demonstration:
    """The cycle of one instance, replayed round and round."""
    graph = explored(instance)
    cycle = never_done(graph, "f")
    title = f"f is preempted for ever: {instance.name}"
    if not cycle:
        return Demonstration(title, ("no cycle was found",), confirmed=False)
    run = lasso(graph, cycle, ROUNDS, title)
    times = preemptions(run, "f")
    served = sum(1 for edge in cycle if edge.finished)
    story = (
        f"{graph.states} states can be reached; these {len(cycle)} follow each other for ever.",
        f"In {ROUNDS} rounds f is let in, charged, and preempted {times} times, and nothing of it is done.",
        f"Others go on meanwhile: in {served} of the steps a request of theirs ends.",
    )
    livelock = bool(fruitless_cycle(graph))
    return Demonstration(title, story, times >= ROUNDS and not livelock, run)


def preemptions(run: Replay, client: str) -> int:
    """How often requests of ``client`` are preempted."""
    clients = run.clients()
    return sum(1 for event in run.events if isinstance(event, Preempt) and clients[event.request] == client)


def room_ends_it() -> tuple[Demonstration, ...]:
    """The same kinds of requests with a watermark of the largest batch: no such cycle for anybody."""
    shown = []
    for instance in WITH_ROOM:
        graph = explored(instance)
        stuck = [client for client in instance.clients() if never_done(graph, client)]
        sound = not stuck and not idle_edges(graph) and not fruitless_cycle(graph)
        preempted = any(_preempts(graph, edge) for edge in graph.edges)
        story = (
            f"{instance.name}: {graph.states} states, {len(graph.edges)} edges; preemptions happen: {preempted}.",
            "In none a step runs nothing beside a queue, and no cycle is without somebody's requests being done.",
        )
        shown.append(Demonstration(f"nobody is preempted for ever: {instance.name}", story, sound and preempted))
    return tuple(shown)


def _preempts(graph: StateGraph, edge: Edge) -> bool:
    """Somebody who was running before the step waits after it."""
    before = {run.queued.request.id for run in graph.worker(edge.source).running}
    return bool(before & {queued.request.id for queued in graph.worker(edge.target).waiting()})


# -- work that nobody pays for -----------------------------------------------------------------------------------------


def work_without_limit() -> tuple[Demonstration, ...]:
    """G's long prompts are preempted by g's own growth, and computed again for nothing, while f waits its turn."""
    shown = []
    gaps: list[int] = []
    for length in (6, 12, 24):
        run = _thrifty_run(length)
        gaps.append(run.widest_gap("g", "f"))
        story = (
            f"{length} pairs of requests of g: one decodes, one has a long prompt and is preempted by that.",
            f"What it computes again costs nothing: in work g gets {gaps[-1]} ahead of f, and both always wait.",
        )
        grows = len(gaps) < 2 or gaps[-1] > gaps[-2] + (gaps[-2] - gaps[0]) // 2
        shown.append(Demonstration(f"length {length}: work {gaps[-1]} ahead", story, grows, run))
    return tuple(shown)


def _thrifty_run(length: int) -> Replay:
    """Pairs of g beside a stream of f's small requests."""
    requests: list[Request] = []
    fresh = 100
    for place in range(length):
        requests.append(call(f"grows{place}", "g", [fresh], 12))
        requests.append(call(f"long{place}", "g", range(fresh + 1, fresh + 13), 6))
        fresh += 20
    for place in range(length * 30):
        requests.append(call(f"small{place}", "f", [fresh + place], 2))
    setting = RecomputeSetting(
        26, 40, memory="optimistic", max_running=3, rules=Recompute(payer=Payer.SYSTEM), watermark=3
    )
    return replay(setting, requests, "work that nobody pays for")


# -- the causer sinks --------------------------------------------------------------------------------------------------


def causer_sinks() -> tuple[Demonstration, ...]:
    """C decodes beside one victim after the other; when it has long ended, it is charged for all of them."""
    setting = RecomputeSetting(24, 200, memory="optimistic", max_running=3, rules=Recompute(payer=Payer.CAUSER))
    sizes = [24 - 2 * step for step in range(1, 10)]
    requests = [call(f"c{place}", "c", [1], 10) for place in range(2)]
    fresh = 100
    for place, size in enumerate(sizes):
        requests.append(call(f"v{place}", "v", range(fresh, fresh + size), 1))
        fresh += size
    run = replay(setting, requests, "the causer pays")
    outputs = bounds.outputs_after_admission(24, 10, 3)
    recomputation = bounds.longest_recomputation(max(sizes), 24, 10)
    floor = bounds.deficit_floor(bounds.optimistic_unit(setting.cost(), recomputation, outputs))
    first = max(run.counters("c"))
    fallen = first - _lowest(run, "c")
    story = (
        f"c decodes two requests; in each of {len(sizes)} steps one of v that just fits is let in, and preempted.",
        "c took the memory, so c is charged when they are let in again. By then it runs nothing.",
        f"Its counter falls by {fallen}; the plain floor would allow {1 - floor}.",
    )
    return (Demonstration("a client that runs nothing sinks below the floor", story, fallen > 1 - floor, run),)


def _lowest(run: Replay, client: str) -> int:
    """The lowest counter of a client, what it pays for others included."""
    paid = [event.payer_deficit for event in run.events if isinstance(event, Admit) and event.payer == client]
    return min([*run.counters(client), *(value for value in paid if value is not None)])
