"""Preble's waiting-queue levels: proportional service by hit ratio, and nobody left behind for ever."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from dlpm.policies.base import Waiting
from dlpm.policies.preble import LEVELS, PrebleLevels
from dlpm.request import ClientId


@dataclass(frozen=True)
class Waiter:
    """A waiting request."""

    id: str
    client: str
    rank: int
    resident: int
    cached: int


class Stage:
    """An admission step whose memory holds so many requests, of at most so many tokens each."""

    def __init__(self, waiters: list[Waiter], room: int, largest: int) -> None:
        self.waiters = waiters
        self.room = room
        self.largest = largest
        self.order: list[str] = []
        self.log: list[str] = []

    def waiting(self) -> Sequence[Waiting]:
        return self.waiters

    def queued_clients(self) -> Iterable[ClientId]:
        return {waiter.client for waiter in self.waiters}

    def matched(self, request: Waiting) -> int:
        assert isinstance(request, Waiter)
        return request.cached

    def may_fit(self, request: Waiting) -> bool:
        return self.room > 0 and request.resident <= self.largest

    def try_admit(self, request: Waiting) -> int | None:
        if not self.may_fit(request):
            return None
        self.room -= 1
        return request.resident - self.matched(request)

    def considered(self, order: Sequence[Waiting]) -> None:
        self.order = [request.id for request in order]

    def admitted(self, request: Waiting, deficit: int | None) -> None:
        assert deficit is None
        self.log.append(request.id)

    def refilled(self, deficits: Mapping[ClientId, int]) -> None:
        raise AssertionError("there is nothing to refill")


@st.composite
def waiters(draw: st.DrawFn) -> list[Waiter]:
    found = []
    for rank in range(draw(st.integers(0, 40))):
        resident = draw(st.integers(1, 30))
        found.append(Waiter(f"r{rank}", "A", rank, resident, draw(st.integers(0, resident - 1))))
    return found


@given(waiters(), st.integers(0, 8), st.integers(1, 30))
def test_a_round_takes_one_more_of_a_level_than_its_number_and_the_oldest_first(
    queue: list[Waiter], room: int, largest: int
) -> None:
    stage = Stage(queue, room, largest)
    PrebleLevels().admit(stage)
    # The k-th oldest of level l is in round k // (l + 1); a round goes from the highest level down.
    keys = {}
    seen = [0] * LEVELS
    for waiter in queue:
        level = LEVELS * waiter.cached // waiter.resident
        keys[waiter.id] = (seen[level] // (level + 1), -level, seen[level])
        seen[level] += 1
    expected = sorted(keys, key=lambda name: keys[name])
    fitting = [name for name in expected if queue[int(name[1:])].resident <= largest]
    assert stage.log == fitting[:room]
    assert stage.order == (expected if fitting and room else [])


def test_a_cold_request_waits_for_one_round_of_hot_ones_however_many_there_are() -> None:
    queue = [Waiter(f"hot{rank}", "A", rank, 100, 99) for rank in range(50)]
    queue.append(Waiter("cold", "B", 50, 100, 0))
    stage = Stage(queue, 100, 100)
    PrebleLevels().admit(stage)
    assert stage.log.index("cold") == LEVELS


def test_it_keeps_no_counters_and_is_never_due() -> None:
    policy = PrebleLevels()
    policy.arrive("A", [])
    policy.charge_outputs({"A": 3})
    policy.leave("A")
    assert policy.counter("A") is None
    assert not policy.admission_due(["A"])
    assert policy.name == "preble"
