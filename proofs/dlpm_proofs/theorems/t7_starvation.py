"""T7: no client starves under DLPM; clients starve under longest prefix match; single requests may starve under both.

For clients and any number of anything, T5 says so: a client that waits and runs nothing is let in within boundedly many
steps. Here small instances of the real worker are explored to the last state, which also shows what T5 does not speak
of: that steps always run something, and that something always ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from dlpm import bounds
from dlpm.events import Admit, Arrive
from dlpm.policies.dlpm import DLPM
from dlpm.policies.lpm import LPM
from dlpm.request import ClientId
from dlpm_proofs import mutants
from dlpm_proofs.drawing import draw_cycle
from dlpm_proofs.explore import (
    Edge,
    Instance,
    Kind,
    StateGraph,
    fruitless_cycle,
    idle_edges,
    lasso,
    longest_wait,
    request_starvation,
    starvation,
)
from dlpm_proofs.passes import Call, OpenStep, matched_of
from dlpm_proofs.solve import Named, Obligation, possible
from dlpm_proofs.symbolic import Exploration
from dlpm_proofs.terms import all_of, any_of, at_least
from dlpm_proofs.theorem import Theorem, Verdict
from dlpm_proofs.theorems.t5_latency import obligations as latency
from dlpm_proofs.theorems.t5_latency import own_service_is_unbounded
from dlpm_proofs.transitions import F, G
from dlpm_proofs.witness import Demonstration, Replay, Setting

ROUNDS = 12
"""How often a replay goes around a cycle."""

HOT_AND_COLD = (Kind("cold", "f", (1, 2, 3), 1, 1), Kind("hot", "g", (5, 6), 2, 2, most=2))
OWN_RIVAL = (Kind("cold", "f", (1, 2), 2, 2), Kind("hot", "g", (5, 6), 1, 2), Kind("own", "f", (5, 7), 1, 1))
THREE_CLIENTS = (Kind("long", "f", (1,), 2, 2), Kind("short", "g", (2,), 1, 2), Kind("warm", "h", (1, 3), 1, 1))

UNDER_DLPM = (
    Instance("two clients, one prefix each", Setting(4, quantum=3), HOT_AND_COLD),
    Instance("two clients that share a prefix", Setting(5, quantum=3), OWN_RIVAL),
    Instance("three clients", Setting(4, quantum=2), THREE_CLIENTS),
    Instance("preemption", Setting(5, quantum=3, memory="optimistic"), OWN_RIVAL),
)
UNDER_LPM = Instance("LPM", Setting(4, quantum=3, policy="lpm"), HOT_AND_COLD)


@cache
def explored(instance: Instance) -> StateGraph:
    """The instance's state graph."""
    return StateGraph(instance)


def nobody_starves() -> tuple[Demonstration, ...]:
    """Every instance under DLPM: no idle step beside work, no livelock, no starvation, no wait beyond T5's steps."""
    shown = []
    for instance in UNDER_DLPM:
        graph = explored(instance)
        starved = [client for client in instance.clients() if starvation(graph, client)]
        sound = not idle_edges(graph) and not fruitless_cycle(graph) and not starved
        waits = max(longest_wait(graph, client) for client in instance.clients()) if sound else 0
        most = steps_allowed(graph)
        story = (
            f"{instance.name}: {graph.states} states, {len(graph.edges)} edges, all that can be reached.",
            "In none a step runs nothing beside a queue; no cycle is without a finish, none without f's, g's turn.",
            f"Nobody who runs nothing waits for more than {waits} steps; T5 allows {most}.",
        )
        shown.append(Demonstration(f"explored: {instance.name}", story, sound and waits <= most))
    return tuple(shown)


def steps_allowed(graph: StateGraph) -> int:
    """What T5 says of the longest wait, from the deepest counter of the instance."""
    setting = graph.instance.setting
    lowest = 0
    for state in range(graph.states):
        policy = graph.worker(state).policy
        assert isinstance(policy, DLPM)
        lowest = min(lowest, *policy.ledger.deficits.values(), 0)
    clients = len(graph.instance.clients())
    served = bounds.service_while_waiting(setting.quantum, lowest, lowest, clients)
    return bounds.steps_while_waiting(setting.cost(), served)


def _told(graph: StateGraph, cycle: list[Edge], client: ClientId, title: str) -> Demonstration:
    """A starvation cycle: replayed round and round, and drawn."""
    if not cycle:
        return Demonstration(title, ("no cycle was found",), confirmed=False)
    run = lasso(graph, cycle, ROUNDS, title)
    waited = longest_queued(run, client)
    story = (
        f"{graph.states} states can be reached; these {len(cycle)} follow each other for ever while {client} waits.",
        f"Replayed {ROUNDS} times around, a request of {client} waits for {waited} steps; it could be any number.",
    )
    return Demonstration(title, story, waited >= ROUNDS * len(cycle), run, draw_cycle(graph, cycle, title))


def longest_queued(run: Replay, client: ClientId) -> int:
    """The most steps from an arrival of a request of ``client`` to its admission."""
    arrived = {event.request: event.step for event in run.events if isinstance(event, Arrive)}
    clients = run.clients()
    return max(
        event.step - arrived[event.request]
        for event in run.events
        if isinstance(event, Admit) and clients[event.request] == client
    )


def lpm_starves() -> tuple[Demonstration, ...]:
    """The cycle under longest prefix match."""
    graph = explored(UNDER_LPM)
    return (_told(graph, starvation(graph, "f"), "f", "Longest prefix match: f waits for ever"),)


def a_request_starves() -> tuple[Demonstration, ...]:
    """Under DLPM a request may wait for ever behind its own client's, and only there."""
    graph = explored(UNDER_DLPM[1])
    return (_told(graph, request_starvation(graph, 0), "f", "DLPM: a cold request of f waits for ever behind f's own"),)


def longer_match_first() -> Iterator[Obligation]:
    """LPM's own pass over two open requests: the later one may go in first and take the memory that the other needs."""
    calls = (Call("r1", F, 1), Call("r2", G, 2))
    sizes: tuple[Named, ...] = (("matches are counts", all_of(*(at_least(matched_of(call.id), 0) for call in calls))),)
    exploration = Exploration([formula for _, formula in sizes])

    def admissions() -> tuple[str, ...]:
        step = OpenStep(exploration, calls, open_matches=True)
        LPM().admit(step)
        return tuple(step.admissions)

    overtaken = any_of(*(path.condition() for path in exploration.paths(admissions) if path.result == ("r2",)))
    yield possible("the request that came later goes in, and the other one does not", sizes, overtaken)


T7 = Theorem(
    id="T7/dlpm",
    title="No client starves under DLPM",
    source="[DLPM §3, §4.2]",
    statement="A client with a queued request is let in again and again; every step runs something.",
    hypotheses=("the environment may send anything within the instance, at any time", "T5, for instances of any size"),
    expected=Verdict.PROVED,
    checked="Every state of four small instances of the real worker, preemption included: no idle step beside a queue,"
    " no cycle without a finish, no cycle in which a client waits. The longest wait keeps T5's bound.",
    argued="Larger instances: T5 and T6.",
    obligations=latency,
    demonstrations=nobody_starves,
    mutants=mutants.to_be_noticed(latency, "refill-ignores-queue", "free-outputs"),
)

T7_LPM = Theorem(
    id="T7/lpm",
    title="No client starves under longest prefix match",
    source="[DLPM §1, Fig. 2a]",
    statement="Under longest prefix match a client with a queued request is let in again and again.",
    hypotheses=(),
    expected=Verdict.REFUTED,
    checked="A cycle in the state graph of the real worker, replayed.",
    argued="Nothing.",
    obligations=longer_match_first,
    demonstrations=lpm_starves,
)

T7_REQUEST = Theorem(
    id="T7/request",
    title="No single request starves under DLPM",
    source="ours",
    statement="Under DLPM a queued request is let in at last, however many others its own client sends.",
    hypotheses=(),
    expected=Verdict.REFUTED,
    checked="A cycle in the state graph of the real worker, replayed.",
    argued="Nothing.",
    obligations=own_service_is_unbounded,
    demonstrations=a_request_starves,
)
