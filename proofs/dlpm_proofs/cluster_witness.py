"""Runs of a whole cluster that show something, and what is measured of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from dlpm.cluster import Cluster
from dlpm.dispatch.base import Decision, Router
from dlpm.dispatch.d2lpm import D2LPM
from dlpm.dispatch.moving import MovingD2LPM
from dlpm.dispatch.round_robin import RoundRobin
from dlpm.events import Admit, Dispatch, Event, Extensions, Header, Output
from dlpm.extensions import shared_ledger
from dlpm.extensions.shared_cluster import MovableWorker, SharedCluster
from dlpm.extensions.shared_ledger import SharedDLPM, SharedLedger
from dlpm.jsonl import JsonValue
from dlpm.ledger import Quanta
from dlpm.request import BlockKey, ClientId, Request, RequestId, Workload
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_proofs.witness import STEP_US, Replay, Setting, call

PER_CLIENT = "per-client-round-robin"


@dataclass(frozen=True, slots=True)
class ClusterSetting(Setting):
    """A cluster of workers that differ in speed only.

    ``step_us`` holds for each worker how many ticks its step takes, a tick being `STEP_US`; ``router`` is ``d2lpm`` or
    ``per-client-round-robin``; ``worker_quantum`` is ``Q^w``.
    """

    router: str = D2LPM.name
    worker_quantum: int = 1
    step_us: tuple[int, ...] = (1, 1)

    @property
    def workers(self) -> int:
        """How many workers."""
        return len(self.step_us)

    def build_router(self) -> Router:
        """The router of that name."""
        if self.router == PER_CLIENT:
            return RoundRobin(self.workers, per_client=True)
        return D2LPM(self.workers, self.worker_quantum, self.cost())

    def header(self, workload: Workload) -> Header:
        """The first line of the log, with what is known of the cluster."""
        router: dict[str, JsonValue] = {"router": self.router, "workers": self.workers, "notice_delay": 0}
        if self.router != PER_CLIENT:
            router["worker_quantum"] = self.worker_quantum
        extra: dict[str, JsonValue] = {"dispatch": router}
        return replace(Setting.header(self, workload), level="decisions", extra=extra)


@dataclass(frozen=True, slots=True)
class SharedSetting(ClusterSetting):
    """Workers that share a ledger, and keep back up to ``late`` updates of it."""

    late: int = 0

    def extensions(self) -> Extensions:
        """One ledger for all."""
        return shared_ledger.stated(self.late)


@dataclass
class WatchedRouter:
    """A router, and what became of its counters and of the requests in flight.

    ``lowest`` is each client's lowest credit at any worker, ``most_in_flight`` the most requests that any client had
    at one worker.
    """

    router: Router
    lowest: dict[ClientId, int] = field(default_factory=dict)
    most_in_flight: int = 0
    _in_flight: dict[tuple[ClientId, int], int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The watched router's name."""
        return self.router.name

    def dispatch(self, request: Request, blocks: Sequence[BlockKey]) -> Decision:
        """Let the router decide, and count."""
        decision = self.router.dispatch(request, blocks)
        key = (request.client, decision.worker)
        self._in_flight[key] = self._in_flight.get(key, 0) + 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight[key])
        self._look(request.client)
        return decision

    def finished(self, request: Request, worker: int) -> None:
        """Pass it on, and count."""
        self.router.finished(request, worker)
        self._in_flight[request.client, worker] -= 1
        self._look(request.client)

    def evicted(self, prefix: Sequence[BlockKey], worker: int) -> None:
        """Pass it on."""
        self.router.evicted(prefix, worker)

    def _look(self, client: ClientId) -> None:
        """Remember the lowest counter."""
        if isinstance(self.router, D2LPM):
            self.lowest[client] = min(self.lowest.get(client, 0), *self.router.credit[client])


def replay_cluster(setting: ClusterSetting, requests: Sequence[Request], name: str) -> tuple[Replay, WatchedRouter]:
    """Run ``requests`` through the reference's cluster, block size 1, and keep every event."""
    workload = Workload(1, tuple(requests), name)
    events: list[Event] = []
    router = WatchedRouter(setting.build_router())
    workers = [
        Worker(setting.config(), setting.build_policy(), FixedStep(ticks * STEP_US), events.append, index=index)
        for index, ticks in enumerate(setting.step_us)
    ]
    Cluster(workers, router, events.append).run(workload)
    return Replay(setting, workload, tuple(events)), router


def replay_shared(
    setting: ClusterSetting, requests: Sequence[Request], name: str, *, late: int, moving: bool = True
) -> tuple[Replay, SharedCluster]:
    """Run ``requests`` through a cluster with a shared ledger (E9), and keep every event."""
    workload = Workload(1, tuple(requests), name)
    events: list[Event] = []
    ledger = SharedLedger(setting.workers, Quanta(setting.quantum), setting.cost(), late)
    workers = [
        MovableWorker(
            setting.config(), SharedDLPM(ledger.views[index]), FixedStep(ticks * STEP_US), events.append, index=index
        )
        for index, ticks in enumerate(setting.step_us)
    ]
    router = MovingD2LPM(setting.workers, setting.worker_quantum, setting.cost())
    cluster = SharedCluster(workers, router, ledger, events.append, moving=moving)
    cluster.run(workload)
    shared = SharedSetting(**{item.name: getattr(setting, item.name) for item in fields(setting)}, late=late)
    return Replay(replace(shared, router=router.name), workload, tuple(events)), cluster


@dataclass(frozen=True, slots=True)
class Moment:
    """What had happened by some time: service of each client, and how many of its requests waited where.

    A request waits from its dispatch to its admission.
    """

    time_us: int
    service: dict[ClientId, int]
    waiting: dict[tuple[ClientId, int], int]

    def waits_somewhere(self, client: ClientId) -> bool:
        """Some worker has a request of ``client`` in its queue, or is about to."""
        return any(count > 0 for (who, _), count in self.waiting.items() if who == client)

    def waits_at(self, client: ClientId, worker: int) -> bool:
        """``worker`` has one."""
        return self.waiting.get((client, worker), 0) > 0


def moments(replay: Replay) -> list[Moment]:
    """The state of a cluster's run after each time at which something happened.

    O(events + moments * clients * workers).
    """
    clients = replay.clients()
    cost = replay.setting.cost()
    home: dict[RequestId, int] = {}
    service: dict[ClientId, int] = dict.fromkeys(sorted(set(clients.values())), 0)
    waiting: dict[tuple[ClientId, int], int] = {}
    found: list[Moment] = []
    now_us = 0
    for event in replay.events:
        assert event.time_us is not None
        if event.time_us != now_us:
            found.append(Moment(now_us, dict(service), dict(waiting)))
            now_us = event.time_us
        if isinstance(event, Dispatch):
            _leave(waiting, clients[event.request], home.get(event.request))
            assert event.worker is not None
            home[event.request] = event.worker
            key = (clients[event.request], event.worker)
            waiting[key] = waiting.get(key, 0) + 1
        elif isinstance(event, Admit):
            _leave(waiting, clients[event.request], home.pop(event.request))
            service[clients[event.request]] += cost.extend(event.extend)
        elif isinstance(event, Output):
            for request, tokens in event.tokens.items():
                service[clients[request]] += cost.output(tokens)
    return [*found, Moment(now_us, service, waiting)]


def _leave(waiting: dict[tuple[ClientId, int], int], client: ClientId, worker: int | None) -> None:
    """One request less waits there."""
    if worker is not None:
        waiting[client, worker] -= 1


def flood(client: ClientId, requests: int, output: int) -> list[Request]:
    """So many requests of one token each, all there from the start."""
    return [call(f"{client}{k}", client, [_first_token(client, k)], output) for k in range(requests)]


def _first_token(client: ClientId, number: int) -> int:
    """A token that no other request begins with."""
    return 10_000_000 * (1 + ord(client[0])) + number


@dataclass(frozen=True, slots=True)
class Drift:
    """What two clients were served from the first to the last moment of an interval."""

    start: Moment
    end: Moment
    ahead: int
    behind: int

    @property
    def gap(self) -> int:
        """How much more one got than the other."""
        return self.ahead - self.behind


def drift(found: Sequence[Moment], ahead: ClientId, behind: ClientId, workers: int) -> Drift | None:
    """The longest interval in which ``behind`` always waits somewhere and ``ahead`` at every worker."""
    best: tuple[Moment, Moment] | None = None
    start: Moment | None = None
    for moment in found:
        if not (moment.waits_somewhere(behind) and all(moment.waits_at(ahead, w) for w in range(workers))):
            start = None
            continue
        start = start or moment
        if best is None or moment.time_us - start.time_us > best[1].time_us - best[0].time_us:
            best = (start, moment)
    if best is None:
        return None
    first, last = best
    served = [last.service[client] - first.service[client] for client in (ahead, behind)]
    return Drift(first, last, served[0], served[1])


def widest(found: Sequence[Moment], ahead: ClientId, behind: ClientId) -> int:
    """The largest ``W_ahead - W_behind`` over all intervals in which both always wait somewhere."""
    largest = 0
    lowest: int | None = None
    for moment in found:
        if not (moment.waits_somewhere(behind) and moment.waits_somewhere(ahead)):
            lowest = None
            continue
        difference = moment.service[ahead] - moment.service[behind]
        lowest = difference if lowest is None else min(lowest, difference)
        largest = max(largest, difference - lowest)
    return largest
