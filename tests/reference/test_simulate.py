"""A whole workload on one worker: time, dependent calls, progress, and the same bytes every time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlpm import events as ev
from dlpm.errors import InputError
from dlpm.request import Request, Workload
from dlpm.simulate import simulate
from dlpm.timing import Roofline, preset
from dlpm.worker import Worker
from tests.reference.lockstep import MEMORIES, Shape, all_rules, real_policy, real_worker, shapes
from tests.reference.naive_worker import Rules
from tests.reference.scene import request

ORDINARY = ("fcfs", "lpm", "vtc", "dlpm")


def fitting(rules: Rules, drawn: list[Shape], gaps: list[int]) -> Workload:
    """Those of the drawn requests that fit at all, ``gaps`` microseconds apart."""
    requests: list[Request] = []
    now = 0
    for position, (shape, gap) in enumerate(zip(drawn, gaps, strict=False)):
        now += gap
        made = shape.request(f"r{position}", rules.block_size)
        if made.input_tokens + made.max_output <= rules.kv_tokens:
            requests.append(at(made, now))
    return Workload(rules.block_size, tuple(requests))


def at(made: Request, arrival_us: int, parents: tuple[str, ...] = (), think_us: int = 0) -> Request:
    """The same request, sent at another time."""
    values = {name: getattr(made, name) for name in Request.__slots__}
    return Request(**{**values, "arrival_us": arrival_us, "parents": parents, "think_us": think_us})


@given(
    rules=all_rules(ORDINARY, MEMORIES),
    drawn=st.lists(shapes(), max_size=12),
    gaps=st.lists(st.integers(0, 4), min_size=12, max_size=12),
)
def test_every_request_finishes_once_and_the_same_run_gives_the_same_events(
    rules: Rules, drawn: list[Shape], gaps: list[int]
) -> None:
    workload = fitting(rules, drawn, gaps)
    logs: list[list[ev.Event]] = [[], []]
    for log in logs:
        assert simulate(workload, real_worker(rules, log)) == len(workload.requests)
    assert repr(logs[0]) == repr(logs[1])
    finished = sorted(event.request for event in logs[0] if isinstance(event, ev.Finish))
    assert finished == sorted(request.id for request in workload.requests)
    for one in workload.requests:
        tokens = sum(event.tokens.get(one.id, 0) for event in logs[0] if isinstance(event, ev.Output))
        assert tokens == one.output_tokens


@given(drawn=st.lists(shapes(), max_size=12), gaps=st.lists(st.integers(0, 4), min_size=12, max_size=12))
def test_time_and_steps_never_go_back(drawn: list[Shape], gaps: list[int]) -> None:
    rules = Rules(kv_tokens=14)
    log: list[ev.Event] = []
    simulate(fitting(rules, drawn, gaps), real_worker(rules, log))
    times = [event.time_us for event in log if event.time_us is not None]
    assert len(times) == len(log)
    assert times == sorted(times)
    assert [event.step for event in log] == sorted(event.step for event in log)


def test_the_clock_jumps_over_idle_time() -> None:
    log: list[ev.Event] = []
    worker = real_worker(Rules(kv_tokens=20), log)
    workload = Workload(1, (request("A1", (1,), arrival_us=5), request("A2", (2,), output=2, arrival_us=1000)))
    assert simulate(workload, worker) == 2
    assert [(event.request, event.time_us) for event in log if isinstance(event, ev.Finish)] == [
        ("A1", 6),
        ("A2", 1002),
    ]


def test_a_request_that_comes_during_a_step_joins_after_it_and_says_when_it_was_sent() -> None:
    log: list[ev.Event] = []
    rules = Rules(kv_tokens=4000)
    worker = Worker(real_worker(rules).config, real_policy(rules), preset("a10g"), log.append)
    workload = Workload(1, (request("A1", (1, 2)), request("A2", (3, 4), arrival_us=1)))
    simulate(workload, worker)
    first_step_ends = next(event.time_us for event in log if isinstance(event, ev.Output))
    second = [event for event in log if isinstance(event, ev.Arrive)][1]
    assert isinstance(preset("a10g"), Roofline)
    assert (second.time_us, second.arrived_us, second.step) == (first_step_ends, 1, 2)


def test_a_dependent_call_waits_for_its_parent_and_its_user_to_think() -> None:
    """The parent finishes at 3, the user thinks for 10, and the child's one step ends at 14."""
    log: list[ev.Event] = []
    child = at(request("A2", (2,)), 0, parents=("A1",), think_us=10)
    simulate(Workload(1, (request("A1", (1,), output=3), child)), real_worker(Rules(kv_tokens=20), log))
    assert [(event.request, event.time_us) for event in log if isinstance(event, ev.Finish)] == [("A1", 3), ("A2", 14)]


def test_progress_is_told_whenever_requests_finish() -> None:
    told: list[int] = []
    requests = tuple(request(f"A{number}", (number,), output=1 + number % 2) for number in range(4))
    simulate(Workload(1, requests), real_worker(Rules(kv_tokens=50)), told.append)
    assert told == [2, 4]


def test_a_request_too_large_for_memory_ends_the_run_with_one_clear_line() -> None:
    with pytest.raises(InputError, match=r"max_output: expected input \+ max_output <= 3 KV tokens"):
        simulate(Workload(1, (request("A1", (1, 2, 3)),)), real_worker(Rules(kv_tokens=3)))


def test_a_call_that_waits_for_a_parent_that_is_not_there_is_an_error_not_a_short_run() -> None:
    orphan = at(request("A2", (2,)), 0, parents=("nobody",))
    with pytest.raises(InputError, match=r"^parents: expected calls of this workload that finish, found request 'A2'"):
        simulate(Workload(1, (request("A1", (1,)), orphan)), real_worker(Rules(kv_tokens=20)))


def test_an_empty_workload_ends_at_once() -> None:
    assert simulate(Workload(1, ()), real_worker(Rules())) == 0
