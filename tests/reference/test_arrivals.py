"""Which requests are due, and when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dlpm.arrivals import Arrivals
from dlpm.request import Request


def request(name: str, arrival_us: int = 0, parents: tuple[str, ...] = (), think_us: int = 0) -> Request:
    """A request of which only its release matters."""
    return Request(name, "A", arrival_us, 1, 1, 1, prompt=(1,), parents=parents, think_us=think_us)


def names(due: list[tuple[int, Request]]) -> list[tuple[int, str]]:
    """Release time and name of each."""
    return [(release_us, request.id) for release_us, request in due]


@given(times=st.lists(st.integers(0, 5), min_size=1), now=st.integers(0, 6))
def test_what_is_due_comes_in_order_of_time_and_then_of_the_file(times: list[int], now: int) -> None:
    arrivals = Arrivals(request(str(position), time) for position, time in enumerate(times))
    expected = sorted((time, position) for position, time in enumerate(times) if time <= now)
    assert arrivals.next_us() == min(times)
    assert [(time, int(name)) for time, name in names(arrivals.take_due(now))] == expected
    later = [time for time in times if time > now]
    assert arrivals.next_us() == (min(later) if later else None)
    assert arrivals.take_due(now) == []


def test_a_dependent_call_is_released_when_its_last_parent_has_finished_and_it_has_thought() -> None:
    first, second = request("first"), request("second")
    child = request("child", parents=("first", "second"), think_us=7)
    arrivals = Arrivals([child, first, second])
    assert names(arrivals.take_due(0)) == [(0, "first"), (0, "second")]
    arrivals.finished(second, 10)
    assert arrivals.next_us() is None
    assert arrivals.held() == ("child",)
    arrivals.finished(first, 30)
    assert arrivals.held() == ()
    assert arrivals.take_due(36) == []
    assert names(arrivals.take_due(37)) == [(37, "child")]


def test_a_dependent_call_is_not_released_before_its_own_arrival() -> None:
    parent = request("parent")
    arrivals = Arrivals([parent, request("child", 100, ("parent",), 5)])
    arrivals.take_due(0)
    arrivals.finished(parent, 20)
    assert arrivals.next_us() == 100


def test_children_released_together_come_in_the_order_of_the_file() -> None:
    parent = request("parent")
    late, early = request("late", parents=("parent",)), request("early", parents=("parent",))
    arrivals = Arrivals([late, parent, early])
    arrivals.take_due(0)
    arrivals.finished(parent, 3)
    assert names(arrivals.take_due(3)) == [(3, "late"), (3, "early")]


def test_a_finished_call_without_children_releases_nothing() -> None:
    alone = request("alone")
    arrivals = Arrivals([alone])
    arrivals.take_due(0)
    arrivals.finished(alone, 1)
    assert arrivals.next_us() is None
    assert arrivals.held() == ()
