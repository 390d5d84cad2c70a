"""Workers behind a router: time, order, notices, dependent calls; and each worker is the worker that it is alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given

from dlpm import events as ev
from dlpm.batch import WorkerConfig
from dlpm.cluster import Cluster
from dlpm.cost import CostModel
from dlpm.dispatch.base import Decision, Router
from dlpm.dispatch.ingress import FrontEnd, Ingress
from dlpm.dispatch.round_robin import RoundRobin
from dlpm.errors import InputError
from dlpm.ledger import Quanta
from dlpm.memory import Reserving
from dlpm.policies.fcfs import FCFS
from dlpm.request import BlockKey, Request, Workload
from dlpm.simulate import StalledError, simulate
from dlpm.speed import AtSpeed
from dlpm.timing import FixedStep, StepWork
from dlpm.worker import Worker
from tests.reference.cluster_runs import ROUTERS, Setting, settings_of_clusters
from tests.reference.lockstep import plain, real_worker
from tests.reference.naive_worker import NaiveWorker
from tests.reference.scene import request
from tests.reference.test_simulate import at


def of_worker(log: Sequence[ev.Event], index: int) -> list[ev.Event]:
    """What one worker did."""
    return [event for event in log if event.worker == index and not isinstance(event, ev.Dispatch)]


@given(settings_of_clusters())
def test_the_same_cluster_and_workload_give_the_same_events(setting: Setting) -> None:
    assert repr(setting.run()) == repr(setting.run())


@given(settings_of_clusters())
def test_time_never_goes_back_and_neither_do_the_steps_of_a_worker(setting: Setting) -> None:
    log = setting.run()
    times = [event.time_us for event in log if event.time_us is not None]
    assert len(times) == len(log)
    assert times == sorted(times)
    for index in range(len(setting.speeds)):
        steps = [event.step for event in of_worker(log, index)]
        assert steps == sorted(steps)


@given(settings_of_clusters())
def test_a_request_is_dispatched_then_arrives_there_and_finishes_there_with_all_its_output(setting: Setting) -> None:
    log = setting.run()
    for one in setting.workload.requests:
        life = [event for event in log if getattr(event, "request", None) == one.id]
        assert isinstance(life[0], ev.Dispatch) and isinstance(life[1], ev.Arrive) and isinstance(life[-1], ev.Finish)
        assert len({event.worker for event in life}) == 1
        assert (life[0].client, life[0].input) == (one.client, one.input_tokens)
        outputs = [event for event in log if isinstance(event, ev.Output) and one.id in event.tokens]
        assert {event.worker for event in outputs} == {life[0].worker}
        assert len(outputs) == one.output_tokens
        for dispatch in life[1:]:
            assert not isinstance(dispatch, ev.Dispatch)


@given(settings_of_clusters())
def test_a_dependent_call_is_dispatched_after_its_parent_finished_and_its_user_thought(setting: Setting) -> None:
    log = setting.run()
    finished = {event.request: event.time_us for event in log if isinstance(event, ev.Finish)}
    sent = {event.request: event.time_us for event in log if isinstance(event, ev.Dispatch)}
    for one in setting.workload.requests:
        due = one.arrival_us
        for parent in one.parents:
            done = finished[parent]
            assert done is not None
            due = max(due, done + one.think_us)
        assert sent[one.id] == due


@given(settings_of_clusters(workers=1))
def test_one_worker_behind_any_router_is_that_worker_alone(setting: Setting) -> None:
    alone: list[ev.Event] = []
    together = setting.run(full_log=True)
    worker = _alone(setting, alone)
    simulate(setting.workload, worker)
    assert repr(of_worker(together, 0)) == repr([replace(event, worker=0) for event in alone])


def _alone(setting: Setting, log: list[ev.Event]) -> Worker:
    """A worker as the cluster has it, without a number."""
    like = real_worker(setting.rules)
    timer = AtSpeed(FixedStep(6), setting.speeds[0])
    return Worker(like.config, like.policy, timer, log.append, full_log=True)


@given(settings_of_clusters())
def test_each_worker_of_a_cluster_does_what_the_naive_worker_does_with_the_same_requests(setting: Setting) -> None:
    log = setting.run()
    requests = {one.id: one for one in setting.workload.requests}
    for index in range(len(setting.speeds)):
        naive = NaiveWorker(setting.rules)
        steps: dict[int, list[ev.Event]] = {}
        for event in of_worker(log, index):
            if not isinstance(event, ev.Evict | ev.Order):
                steps.setdefault(event.step, []).append(event)
        assert list(steps) == list(range(1, len(steps) + 1))
        for events in steps.values():
            for event in events:
                if isinstance(event, ev.Arrive):
                    assert naive.submit(requests[event.request])
            assert naive.begin_step()
            naive.end_step()
            assert [plain(event) for event in events] == [_without_free(event) for event in naive.events]
            naive.events.clear()


def _without_free(event: tuple[object, ...]) -> tuple[object, ...]:
    """The naive worker's event at level `decisions`."""
    return (*event[:-1], None) if event[0] == "admit" else event


@given(settings_of_clusters())
def test_a_worker_with_work_is_never_left_standing(setting: Setting) -> None:
    log = setting.run()
    for index, speed in enumerate(setting.speeds):
        duration = AtSpeed(FixedStep(6), speed).step_us(StepWork((), 1, 1))
        live = 0
        idle_since: int | None = None
        for event in of_worker(log, index):
            assert event.time_us is not None
            if isinstance(event, ev.Arrive):
                live += 1
            if isinstance(event, ev.Output):
                assert idle_since is None or event.time_us - idle_since == duration
            if isinstance(event, ev.Finish):
                live -= 1
            idle_since = event.time_us if live else None


class Listening(RoundRobin):
    """Round robin that writes down when it hears of what."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.heard: list[tuple[str, int]] = []

    def finished(self, request: Request, worker: int) -> None:
        self.heard.append((request.id, worker))

    def evicted(self, prefix: Sequence[BlockKey], worker: int) -> None:
        self.heard.append((f"evicted {prefix}", worker))


@pytest.mark.parametrize(("delay", "hears_after"), [(0, "a"), (1, "b"), (2, "c"), (3, "d")])
def test_the_router_hears_of_an_eviction_as_many_steps_late_as_it_is_told(delay: int, hears_after: str) -> None:
    # Memory for one request, and each takes one step: in the admission of step 2, b evicts the prompt of a.
    config = WorkerConfig(kv_tokens=4, memory=Reserving())
    worker = Worker(config, FCFS(), FixedStep(10), index=0)
    router = Listening(1)
    prompts = {"a": (0, 0), "b": (1, 1, 1), "c": (1, 1, 1), "d": (1, 1, 1), "e": (1, 1, 1)}
    requests = tuple(at(request(name, prompt), 10 * place) for place, (name, prompt) in enumerate(prompts.items()))
    Cluster([worker], router, notice_delay=delay).run(Workload(1, requests))
    heard = [what for what, _ in router.heard]
    position = heard.index("evicted (0,)")
    # A notice is passed on at the beginning of step 2 + delay, when the requests of all steps before have finished.
    assert heard[position - 1] == hears_after
    assert "evicted (0, 0)" not in heard, "a notice for a prefix stands for all below it"


def test_the_router_hears_of_an_eviction_from_the_worker_that_made_it() -> None:
    # Memory for one request each: the second request of a worker evicts the prompt of its first.
    config = WorkerConfig(kv_tokens=4, memory=Reserving())
    router = Listening(2)
    prompts = {"a": (0, 0), "b": (1, 1), "c": (2, 2, 2), "d": (3, 3, 3)}
    requests = tuple(at(request(name, prompt), 10 * place) for place, (name, prompt) in enumerate(prompts.items()))
    Cluster([Worker(config, FCFS(), FixedStep(10), index=index) for index in range(2)], router).run(
        Workload(1, requests)
    )
    assert [heard for heard in router.heard if heard[0].startswith("evicted")] == [
        ("evicted (0,)", 0),
        ("evicted (1,)", 1),
    ]


class WrittenDown(Router):
    """A router, what it decided, and whose evictions it heard of."""

    name = "written down"

    def __init__(self, router: Router) -> None:
        self.router = router
        self.decided: list[tuple[str, Decision]] = []
        self.evicted_at: list[int] = []

    def dispatch(self, request: Request, blocks: Sequence[BlockKey]) -> Decision:
        self.decided.append((request.id, self.router.dispatch(request, blocks)))
        return self.decided[-1][1]

    def finished(self, request: Request, worker: int) -> None:
        self.router.finished(request, worker)

    def evicted(self, prefix: Sequence[BlockKey], worker: int) -> None:
        self.evicted_at.append(worker)
        self.router.evicted(prefix, worker)


@given(settings_of_clusters())
def test_a_dispatch_says_what_the_router_decided_and_at_which_step_of_its_worker(setting: Setting) -> None:
    router = WrittenDown(ROUTERS[setting.router](len(setting.speeds), setting.rules, setting.quantum))
    log = setting.run(router=router)
    logged = [event for event in log if isinstance(event, ev.Dispatch)]
    assert [(event.request, event.worker, event.matched_workers, event.counter) for event in logged] == [
        (name, made.worker, made.matched_workers, made.counter) for name, made in router.decided
    ]
    for index in range(len(setting.speeds)):
        steps = [event.step for event in log if event.worker == index]
        assert steps == sorted(steps)
    evicting = {event.worker for event in log if isinstance(event, ev.Evict)}
    assert set(router.evicted_at) <= evicting


def test_a_front_end_holds_requests_back_until_it_has_a_slot_and_keeps_when_they_came() -> None:
    log: list[ev.Event] = []
    worker = Worker(WorkerConfig(kv_tokens=99, memory=Reserving()), FCFS(), FixedStep(10), log.append, index=0)
    front_end = FrontEnd(1, Quanta(100), CostModel(1, 2))
    requests = (request("a", (0,), output=2), at(request("b", (1,), output=3), 5), at(request("c", (2,)), 6))
    cluster = Cluster([worker], RoundRobin(1), log.append, ingress=Ingress([front_end], lambda one: 0))
    assert cluster.run(Workload(1, requests)) == 3
    # a takes two steps of 10, b three; one slot, so each is dispatched when the one before it has finished.
    assert [(e.request, e.time_us) for e in log if isinstance(e, ev.Dispatch)] == [("a", 0), ("b", 20), ("c", 50)]
    assert [(e.request, e.arrived_us) for e in log if isinstance(e, ev.Arrive)] == [("a", None), ("b", 5), ("c", 6)]


def test_a_faster_worker_takes_its_steps_in_proportion() -> None:
    log: list[ev.Event] = []
    config = WorkerConfig(kv_tokens=100, memory=Reserving())
    speeds = (Fraction(1), Fraction(3), Fraction(2, 3))
    workers = [
        Worker(config, FCFS(), AtSpeed(FixedStep(30), speed), log.append, index=index)
        for index, speed in enumerate(speeds)
    ]
    requests = tuple(request(f"r{index}", (index,), output=2) for index in range(3))
    Cluster(workers, RoundRobin(3), log.append).run(Workload(1, requests))
    times = {index: [e.time_us for e in of_worker(log, index) if isinstance(e, ev.Output)] for index in range(3)}
    assert times == {0: [30, 60], 1: [10, 20], 2: [45, 90]}


def test_step_times_that_a_speed_does_not_divide_are_rounded_up() -> None:
    assert AtSpeed(FixedStep(10), Fraction(3)).step_us(StepWork((), 1, 1)) == 4
    with pytest.raises(InputError, match="expected a number > 0"):
        AtSpeed(FixedStep(10), Fraction(0))


class _Nobody(FCFS):
    """Admits nobody."""

    def admit(self, step: object) -> None:
        """Nothing."""


def test_a_policy_that_serves_nobody_ends_the_run_with_an_error() -> None:
    worker = Worker(WorkerConfig(kv_tokens=9, memory=Reserving()), _Nobody(), FixedStep(1), index=0)
    with pytest.raises(StalledError, match="worker 0: 1 requests wait"):
        Cluster([worker], RoundRobin(1)).run(Workload(1, (request("a", (0,)),)))


def test_a_call_that_waits_for_a_parent_that_is_not_there_is_an_error() -> None:
    worker = Worker(WorkerConfig(kv_tokens=9, memory=Reserving()), FCFS(), FixedStep(1), index=0)
    orphan = at(request("a", (0,)), 0, ("nobody",))
    with pytest.raises(
        InputError,
        match=r"^parents: expected calls of this workload that finish, found request 'a' waiting for one for ever$",
    ):
        Cluster([worker], RoundRobin(1)).run(Workload(1, (orphan,)))


def test_a_cluster_without_workers_or_with_a_negative_delay_is_refused() -> None:
    with pytest.raises(InputError, match=r"^workers: expected at least one worker, found none$"):
        Cluster([], RoundRobin(1))
    worker = Worker(WorkerConfig(kv_tokens=9, memory=Reserving()), FCFS(), FixedStep(1), index=0)
    with pytest.raises(InputError, match=r"^notice_delay: expected a whole number of steps, found -1$"):
        Cluster([worker], RoundRobin(1), notice_delay=-1)


class _Always(RoundRobin):
    """Sends everything to the last worker."""

    def dispatch(self, request: Request, blocks: Sequence[BlockKey]) -> Decision:
        return Decision(1)


def test_a_request_that_comes_during_a_step_joins_after_it_and_progress_is_told() -> None:
    log: list[ev.Event] = []
    config = WorkerConfig(kv_tokens=9, memory=Reserving())
    workers = [Worker(config, FCFS(), FixedStep(10), log.append, index=index) for index in range(2)]
    told: list[int] = []
    requests = (request("a", (0,)), at(request("b", (1,)), 3))
    Cluster(workers, _Always(2), log.append).run(Workload(1, requests), told.append)
    arrived = [(e.time_us, e.arrived_us) for e in log if isinstance(e, ev.Arrive) and e.request == "b"]
    assert arrived == [(10, 3)]
    assert told == [1, 2]
    assert not of_worker(log, 0)
