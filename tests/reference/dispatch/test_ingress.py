"""Front ends that hold requests back, and routers that do not know of each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlpm.cost import CostModel
from dlpm.dispatch.d2lpm import D2LPM
from dlpm.dispatch.ingress import FrontEnd, Ingress
from dlpm.dispatch.round_robin import RoundRobin
from dlpm.dispatch.split import SplitRouter
from dlpm.errors import InputError
from dlpm.ledger import Quanta
from dlpm.request import Request
from tests.reference.scene import request

COST = CostModel(1, 2)


def sized(name: str, tokens: int) -> Request:
    """A request that costs ``tokens`` + 2."""
    return request(name, tuple(range(tokens)))


@given(
    sizes=st.lists(st.tuples(st.sampled_from("ABC"), st.integers(1, 9)), min_size=1, max_size=30),
    slots=st.integers(1, 4),
    quantum=st.integers(1, 20),
)
def test_a_front_end_releases_everything_once_in_order_of_a_tenant_and_never_more_than_its_slots(
    sizes: list[tuple[str, int]], slots: int, quantum: int
) -> None:
    front_end = FrontEnd(slots, Quanta(quantum), COST)
    for number, (client, tokens) in enumerate(sizes):
        front_end.arrive(number, sized(f"{client}{number}", tokens))
    released: list[tuple[int, Request]] = []
    in_flight = 0
    while len(released) < len(sizes):
        now = front_end.release()
        in_flight += len(now)
        assert now, "slots are free and requests wait"
        assert in_flight == slots or len(released) + len(now) == len(sizes)
        released += now
        front_end.finished()
        in_flight -= 1
    assert not front_end.release()
    for client in "ABC":
        of_client = [arrived for arrived, one in released if one.client == client]
        assert of_client == [number for number, (owner, _) in enumerate(sizes) if owner == client]


@given(quanta=st.tuples(st.integers(5, 40), st.integers(5, 40)), tokens=st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_tenants_that_always_wait_share_a_front_end_by_their_quanta_but_for_a_quantum_and_a_request_each(
    quanta: tuple[int, int], tokens: tuple[int, int]
) -> None:
    """The bound of deficit round robin: over whole turns each gets its quanta, less or more one largest request."""
    front_end = FrontEnd(1, Quanta(1, {"A": quanta[0], "B": quanta[1]}), COST)
    for number in range(300):
        front_end.arrive(0, sized(f"A{number}", tokens[0]))
        front_end.arrive(0, sized(f"B{number}", tokens[1]))
    service = {"A": 0, "B": 0}
    largest = max(tokens) + 2
    for _ in range(150):
        [(_, one)] = front_end.release()
        front_end.finished()
        service[one.client] += one.input_tokens + 2
        # In units of quanta: how many turns each has had, up to one turn and one request.
        apart = abs(service["A"] * quanta[1] - service["B"] * quanta[0])
        assert apart <= quanta[0] * quanta[1] + largest * (quanta[0] + quanta[1])


def textbook(waiting: dict[str, list[int]], quanta: dict[str, int]) -> list[str]:
    """Deficit round robin as it is written: in a turn a tenant is paid, then served as far as that goes."""
    order = []
    line = list(waiting)
    deficits = dict.fromkeys(line, 0)
    while line:
        client = line.pop(0)
        deficits[client] += quanta[client]
        while waiting[client] and waiting[client][0] + 2 <= deficits[client]:
            deficits[client] -= waiting[client].pop(0) + 2
            order.append(client)
        if waiting[client]:
            line.append(client)
    return order


@given(
    sizes=st.lists(st.tuples(st.sampled_from("ABC"), st.integers(1, 9)), min_size=1, max_size=30),
    slots=st.integers(1, 4),
    quanta=st.fixed_dictionaries({client: st.integers(1, 20) for client in "ABC"}),
)
def test_a_front_end_releases_in_the_order_of_deficit_round_robin(
    sizes: list[tuple[str, int]], slots: int, quanta: dict[str, int]
) -> None:
    front_end = FrontEnd(slots, Quanta(1000, quanta), COST)
    waiting: dict[str, list[int]] = {}
    for number, (client, tokens) in enumerate(sizes):
        front_end.arrive(number, sized(f"{client}{number}", tokens))
        waiting.setdefault(client, []).append(tokens)
    order: list[str] = []
    while len(order) < len(sizes):
        now = front_end.release()
        assert len(now) == min(slots, len(sizes) - len(order)), "every slot that was given back is used"
        order += [one.client for _, one in now]
        for _ in now:
            front_end.finished()
    assert order == textbook(waiting, quanta)


def test_a_tenant_that_joins_a_line_is_paid_when_its_turn_comes_and_not_before() -> None:
    front_end = FrontEnd(1, Quanta(5), COST)
    for name in ("A1", "A2"):
        front_end.arrive(0, sized(name, 3))
    assert [one.id for _, one in front_end.release()] == ["A1"]
    # 6 + 2 take two turns of B; had it been paid on arrival, one would do, and B1 would go before A2.
    front_end.arrive(1, sized("B1", 6))
    order = []
    for name in ("A3", "A4"):
        front_end.arrive(1, sized(name, 3))
    for _ in range(4):
        front_end.finished()
        order += [one.id for _, one in front_end.release()]
    assert order == ["A2", "B1", "A3", "A4"]


def test_a_front_end_without_slots_is_refused() -> None:
    with pytest.raises(InputError, match="slots: expected an integer > 0, found 0"):
        FrontEnd(0, Quanta(1), COST)


def test_a_finish_frees_a_slot_of_the_front_end_at_which_the_request_came_in() -> None:
    ingress = Ingress([FrontEnd(1, Quanta(9), COST) for _ in range(2)], lambda one: int(one.id[1]) % 2)
    for place, name in enumerate(("a0", "b1", "c2", "d3")):
        ingress.arrive(10 * place, request(name, (0,)))
    assert [(arrived, one.id) for arrived, one in ingress.release()] == [(0, "a0"), (10, "b1")]
    ingress.finished(request("b1", (0,)))
    assert [one.id for _, one in ingress.release()] == ["d3"]
    ingress.finished(request("a0", (0,)))
    assert [one.id for _, one in ingress.release()] == ["c2"]


def test_routers_that_are_split_know_of_their_own_requests_alone() -> None:
    routers = [D2LPM(2, 10, COST) for _ in range(2)]
    split = SplitRouter(routers, lambda one: int(one.id[1]))
    first, second = request("a0", (1, 2, 3)), request("a1", (1, 2, 3))
    assert split.dispatch(first, (1, 2, 3)).worker == 0
    # The second router has not heard of the first request: no prefix, and no queue.
    decision = split.dispatch(second, (1, 2, 3))
    assert (decision.worker, decision.matched) == (0, 0)
    assert [router.queues.sizes for router in routers] == [[1, 0], [1, 0]]
    split.finished(second, 0)
    assert [router.queues.sizes for router in routers] == [[1, 0], [0, 0]]
    assert [router.credit["a"] for router in routers] == [[7, 10], [5, 10]]
    split.evicted((1,), 0)
    assert [router.directory.blocks() for router in routers] == [0, 0]
    assert SplitRouter([RoundRobin(2), D2LPM(2, 1, COST)], lambda one: 0).name == "2 x round-robin"


def test_a_tenant_with_a_worker_quantum_of_its_own_is_refilled_by_it() -> None:
    router = D2LPM(2, 10, COST, worker_quanta={"a": 30})
    assert router.dispatch(request("a", (1, 2)), ()).counter == 28
    assert router.dispatch(request("b", (1, 2)), ()).counter == 8
    with pytest.raises(InputError, match="b: expected an integer > 0, found 0"):
        D2LPM(2, 10, COST, worker_quanta={"b": 0})
