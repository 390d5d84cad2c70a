"""Small instances of the real worker, explored to the last state: what can happen, and what can go on for ever.

An instance has a few kinds of requests, and an environment that may send, before every step, any of them in any
order, as long as few enough are in the system. States are the worker's snapshots; an edge is one move of the
environment and one step of the worker. The worker is deterministic, so every infinite path is a possible run.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

import networkx as nx

from dlpm.events import Admit, Event, Finish
from dlpm.request import ClientId, Request
from dlpm.worker import Worker
from dlpm_proofs.snapshot import Snapshot, snapshot
from dlpm_proofs.witness import Replay, Setting, call, replay

MAX_STATES = 50_000
"""More than this is not a small instance."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A request that the environment may send again and again, at most ``most`` of them in the system at a time."""

    name: str
    client: ClientId
    prompt: tuple[int, ...]
    output: int
    max_output: int
    most: int = 1


@dataclass(frozen=True, slots=True)
class Instance:
    """A worker and what may be sent to it."""

    name: str
    setting: Setting
    kinds: tuple[Kind, ...]

    def clients(self) -> tuple[ClientId, ...]:
        """Everybody who sends."""
        return tuple(dict.fromkeys(kind.client for kind in self.kinds))


@dataclass(frozen=True, slots=True)
class Edge:
    """One move and one step: kinds sent, kinds admitted and finished, and who waits or runs when.

    ``waiting`` are the kinds queued both before admission (after the arrivals) and after the step.
    """

    source: int
    target: int
    sent: tuple[int, ...]
    admitted: tuple[int, ...]
    finished: tuple[int, ...]
    waiting: frozenset[int]
    running: frozenset[int]
    idle_beside_work: bool


class StateGraph:
    """All states of an instance that can be reached, and every edge between them."""

    def __init__(self, instance: Instance) -> None:
        """Explore breadth first. O(states * moves) steps of the worker.

        Raises:
            ValueError: if there are more than `MAX_STATES` states.
        """
        self.instance = instance
        self.edges: list[Edge] = []
        self._images: list[bytes] = []
        self._numbers: dict[Snapshot, int] = {}
        self._kinds = {kind.name: number for number, kind in enumerate(instance.kinds)}
        self._log: list[Event] = []
        self._serial = 0
        setting = instance.setting
        worker = setting.build_worker(self._log.append)
        worker._sink = None
        self._keep(worker)
        todo = deque([0])
        while todo:
            for edge, new in self._moves(todo.popleft()):
                self.edges.append(edge)
                if new:
                    todo.append(edge.target)

    @property
    def states(self) -> int:
        """How many states there are."""
        return len(self._images)

    def worker(self, state: int) -> Worker:
        """A worker in that state."""
        worker = pickle.loads(self._images[state])
        assert isinstance(worker, Worker)
        return worker

    def graph(self, keep: Callable[[Edge], bool]) -> nx.MultiDiGraph[int]:
        """The edges to ``keep``, each with its `Edge`."""
        found: nx.MultiDiGraph[int] = nx.MultiDiGraph()
        found.add_nodes_from(range(self.states))
        found.add_edges_from((edge.source, edge.target, {"edge": edge}) for edge in self.edges if keep(edge))
        return found

    def _moves(self, state: int) -> Iterator[tuple[Edge, bool]]:
        """Every move of the environment in ``state``, and the step that follows."""
        present = self._present(self.worker(state))
        able = [number for number, kind in enumerate(self.instance.kinds) if present.count(number) < kind.most]
        for length in range(len(able) + 1):
            for sent in permutations(able, length):
                if present or sent:
                    yield self._step(state, sent)

    def _step(self, state: int, sent: tuple[int, ...]) -> tuple[Edge, bool]:
        """Send, step, and keep the state that comes out."""
        worker = self.worker(state)
        for number in sent:
            worker.submit(self._request(number), worker.time_us)
        before = {self._kind(queued.request) for queued in worker.waiting()}
        log: list[Event] = []
        worker._sink = log.append
        result = worker.step()
        worker._sink = None
        after = {self._kind(queued.request) for queued in worker.waiting()}
        target, new = self._keep(worker)
        admitted = tuple(self._number(event.request) for event in log if isinstance(event, Admit))
        finished = tuple(self._number(event.request) for event in log if isinstance(event, Finish))
        running = frozenset({*finished, *(self._kind(run.queued.request) for run in worker.running)})
        idle = not result.ran and bool(before or after)
        return Edge(state, target, sent, admitted, finished, frozenset(before & after), running, idle), new

    def _keep(self, worker: Worker) -> tuple[int, bool]:
        """The number of the worker's state, and whether it is new."""
        seen = snapshot(worker, self._kind)
        number = self._numbers.get(seen)
        if number is not None:
            return number, False
        if len(self._images) >= MAX_STATES:
            raise ValueError(f"{self.instance.name} has more than {MAX_STATES} states")
        self._numbers[seen] = len(self._images)
        self._images.append(pickle.dumps(worker))
        return len(self._images) - 1, True

    def _present(self, worker: Worker) -> list[int]:
        """Kinds of all requests in the system."""
        running = (run.queued.request for run in worker.running)
        return [self._kind(request) for request in (*(queued.request for queued in worker.waiting()), *running)]

    def _request(self, number: int) -> Request:
        """A new request of a kind."""
        kind = self.instance.kinds[number]
        self._serial += 1
        return call(f"{kind.name}.{self._serial}", kind.client, kind.prompt, kind.output, max_output=kind.max_output)

    def _kind(self, request: Request) -> int:
        """Which kind a request is."""
        return self._number(request.id)

    def _number(self, name: str) -> int:
        """Which kind the request of that name is."""
        return self._kinds[name.rpartition(".")[0]]


# -- what can be asked of a graph --------------------------------------------------------------------------------------


def idle_edges(graph: StateGraph) -> list[Edge]:
    """Steps in which nothing ran although something waited: deadlock, or work not conserved."""
    return [edge for edge in graph.edges if edge.idle_beside_work]


def fruitless_cycle(graph: StateGraph) -> list[Edge]:
    """A cycle in which no request ever finishes: livelock. Empty if there is none."""
    return _cycle(graph.graph(lambda edge: not edge.finished))


def starving(graph: StateGraph, client: ClientId) -> nx.MultiDiGraph[int]:
    """The edges in which ``client`` waits throughout and is not served by any admission."""
    own = _kinds_of(graph, client)
    return graph.graph(lambda edge: bool(edge.waiting & own) and not set(edge.admitted) & own)


def starvation(graph: StateGraph, client: ClientId) -> list[Edge]:
    """A cycle in which ``client`` waits for ever. Empty if there is none."""
    return _cycle(starving(graph, client))


def request_starvation(graph: StateGraph, kind: int) -> list[Edge]:
    """A cycle in which the one request of a kind waits for ever, whatever else its client gets."""
    return _cycle(graph.graph(lambda edge: kind in edge.waiting and kind not in edge.admitted))


def never_done(graph: StateGraph, client: ClientId) -> list[Edge]:
    """A cycle in which ``client`` always waits or runs, is let in, and gets no request done. Empty if there is none."""
    own = _kinds_of(graph, client)
    present = graph.graph(lambda edge: bool((edge.waiting | edge.running) & own) and not set(edge.finished) & own)
    return _cycle(present)


def longest_wait(graph: StateGraph, client: ClientId) -> int:
    """The most steps in a row in which ``client`` waits, runs nothing and is not admitted; needs no starvation."""
    own = _kinds_of(graph, client)
    waits = graph.graph(
        lambda edge: bool(edge.waiting & own) and not set(edge.admitted) & own and not edge.running & own
    )
    return int(nx.dag_longest_path_length(nx.DiGraph(waits), weight=None, default_weight=1))


def lasso(graph: StateGraph, cycle: Sequence[Edge], rounds: int, name: str) -> Replay:
    """The way to a cycle and ``rounds`` times around it, as a workload that the reference replays."""
    way = nx.shortest_path(graph.graph(lambda edge: True), 0, cycle[0].source)
    chosen: dict[tuple[int, int], Edge] = {}
    for edge in graph.edges:
        chosen.setdefault((edge.source, edge.target), edge)
    path = [chosen[pair] for pair in pairwise(way)] + list(cycle) * rounds
    calls: list[Request] = []
    for step, edge in enumerate(path):
        for number in edge.sent:
            kind = graph.instance.kinds[number]
            calls.append(
                call(
                    f"{kind.name}{len(calls) + 1}",
                    kind.client,
                    kind.prompt,
                    kind.output,
                    max_output=kind.max_output,
                    at_step=step,
                )
            )
    return replay(graph.instance.setting, calls, name)


def _kinds_of(graph: StateGraph, client: ClientId) -> set[int]:
    """The kinds that a client sends."""
    return {number for number, kind in enumerate(graph.instance.kinds) if kind.client == client}


def _cycle(graph: nx.MultiDiGraph[int]) -> list[Edge]:
    """A shortest cycle through some state that lies on one, or nothing."""
    for component in nx.strongly_connected_components(graph):
        inner = graph.subgraph(component)
        if not inner.number_of_edges():
            continue
        start = min(component)
        best: list[int] = []
        for after in inner.successors(start):
            way = [start, *nx.shortest_path(inner, after, start)]
            if not best or len(way) < len(best):
                best = way
        return [next(iter(inner[a][b].values()))["edge"] for a, b in pairwise(best)]
    return []
