"""The virtual token counter, in examples and by its definition. Weights are 1 and 2."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dlpm.cost import CostModel
from dlpm.policies.vtc import VTC, VirtualCounters, visit
from tests.reference.naive_worker import Rules
from tests.reference.policies.counting_step import CountingStep, queue
from tests.reference.scene import Scene, request

CLIENTS = ("A", "B", "C")


def scene(kv_tokens: int = 1000) -> Scene:
    """A worker under VTC."""
    return Scene(Rules(policy="vtc", kv_tokens=kv_tokens))


@given(
    counters=st.dictionaries(st.sampled_from(CLIENTS), st.integers(0, 50)),
    queued=st.sets(st.sampled_from(CLIENTS)),
    last=st.sampled_from((None, *CLIENTS)),
    client=st.sampled_from(CLIENTS),
)
def test_the_lift_is_its_definition(counters: dict[str, int], queued: set[str], last: str | None, client: str) -> None:
    """[VTC Alg. 2, monitoring stream]"""
    queued &= counters.keys()
    known_last = last if last in counters else None
    virtual = VirtualCounters(CostModel())
    virtual.counters.update(counters)
    virtual.last_to_leave = known_last
    virtual.lift(client, sorted(queued))
    before = counters.get(client, 0)
    if client in queued:
        expected = before
    elif queued:
        expected = max(before, min(counters[other] for other in queued))
    elif known_last is not None:
        expected = max(before, counters[known_last])
    else:
        expected = before
    assert virtual.counters == {**counters, client: expected}


@given(counters=st.dictionaries(st.sampled_from(CLIENTS), st.integers(0, 5)))
def test_the_least_served_client_is_the_first_among_the_least(counters: dict[str, int]) -> None:
    """[VTC Alg. 2, arg min]"""
    virtual = VirtualCounters(CostModel())
    virtual.counters.update(counters)
    order = list(counters)
    least = virtual.least_served(order)
    if not counters:
        assert least is None
    else:
        assert least == next(client for client in order if counters[client] == min(counters.values()))


def test_whole_inputs_are_charged_cached_or_not() -> None:
    """Both prompts have three tokens; the second finds two of them cached and pays for three. [VTC Alg. 2]"""
    stage = scene()
    stage.submit(request("A1", (1, 2, 3)))
    assert stage.step() == [
        ("admit", "A1", 0, 3, 3, 1000 - 3 - 1),
        ("output", {"A1": 1}, {"A": 3 + 2}),
        ("finish", "A1"),
    ]
    stage.submit(request("A2", (1, 2, 4)))
    assert stage.step()[0] == ("admit", "A2", 2, 1, 5 + 3, 1000 - 3 - 1)


def test_the_least_served_client_goes_first_and_its_requests_in_order_of_arrival() -> None:
    """A1 costs 3; then B is served at 0, 1 and 2, and only then A again. [VTC Alg. 2]"""
    stage = scene()
    stage.submit(request("A1", (1, 2, 3)), request("A2", (4,)))
    stage.submit(request("B1", (5,)), request("B2", (6,)), request("B3", (7, 7, 7, 7, 7)))
    stage.step()
    assert stage.admitted() == ["A1", "B1", "B2", "B3", "A2"]


def test_a_tie_goes_to_the_client_whose_request_came_first() -> None:
    stage = scene()
    stage.submit(request("B1", (1, 2)), request("A1", (3, 4)), request("B2", (5,)))
    stage.step()
    assert stage.admitted() == ["B1", "A1", "B2"]


def test_a_client_that_was_away_gets_no_credit_for_its_absence() -> None:
    """B arrives beside A, which stands at 25 and is queued, and starts there. [VTC Alg. 2, line on lifting]"""
    stage = scene(kv_tokens=30)
    stage.submit(request("A1", tuple(range(23)), output=3))
    stage.step()
    stage.submit(request("A2", tuple(range(30, 40))))
    stage.submit(request("B1", tuple(range(50, 60))))
    assert stage.deficits() == {"A": 25, "B": 25}


def test_who_comes_to_an_empty_queue_starts_where_the_last_to_leave_stood() -> None:
    """[VTC Alg. 2, line on lifting]"""
    stage = scene()
    stage.submit(request("A1", (1, 2, 3)))
    stage.step()
    stage.submit(request("B1", (4,)))
    assert stage.deficits() == {"A": 5, "B": 5}


def test_a_client_ahead_of_the_others_is_not_set_back() -> None:
    """[VTC Alg. 2, max]"""
    stage = scene()
    stage.submit(request("B1", (9,)), request("A1", (1, 2, 3, 4)))
    stage.step()
    assert stage.deficits() == {"B": 3, "A": 6}
    stage.submit(request("B2", (9, 9)), request("A2", (1, 2)))
    assert stage.deficits() == {"B": 6, "A": 6}


def test_admission_stops_when_the_least_served_client_s_request_does_not_fit() -> None:
    """Both stand at 5 and A came first: it needs 6 of 4 free tokens, B needs 2. [VTC Alg. 2, CanAdd and break]"""
    stage = scene(kv_tokens=10)
    stage.submit(request("B1", (1, 2, 3), output=3))
    stage.step()
    stage.submit(request("A1", (4, 5, 6), output=3), request("B2", (7,)))
    assert (stage.deficits(), stage.worker.free_tokens()) == ({"B": 5, "A": 5}, 4)
    stage.step()
    assert stage.admitted() == ["B1"]


def test_outputs_alone_can_make_another_client_the_least_served() -> None:
    """Both stand at 4; A came first and needs 5 of 4 tokens. A's running request pays, and B is next. [VTC Alg. 2]"""
    stage = scene(kv_tokens=12)
    stage.submit(request("A1", (1, 2), output=6), request("B1", (3,)))
    stage.step()
    stage.submit(request("A2", (5, 6, 7), output=2), request("B2", (8, 9), output=1))
    assert (stage.deficits(), stage.worker.free_tokens()) == ({"A": 4, "B": 4}, 4)
    assert stage.step() == [("output", {"A1": 1}, {"A": 6})]
    assert stage.step()[0][:2] == ("admit", "B2")


def test_a_visit_serves_the_least_served_client_and_charges_the_tokens_it_is_told() -> None:
    """[VTC Alg. 2, execution stream]"""
    virtual = VirtualCounters(CostModel(3, 2))
    virtual.counters.update({"A": 5, "B": 4})
    assert visit(virtual, ["A", "B"], lambda client: 7) == "B"
    assert virtual.counters == {"A": 5, "B": 4 + 3 * 7}
    assert visit(virtual, ["A", "B"], lambda client: None) is None
    assert visit(virtual, [], lambda client: 7) is None
    assert virtual.counters == {"A": 5, "B": 25}


def test_admission_is_not_due_before_anything_was_refused() -> None:
    assert not VTC(CostModel()).admission_due([])


def test_admission_is_due_again_only_when_another_client_has_become_the_least_served() -> None:
    """B, at 4, is refused. A, at 6, came first: it is next as soon as B's outputs bring B to 6. [VTC Alg. 2]"""
    policy = VTC(CostModel(1, 2))
    policy.counters.counters.update({"A": 6, "B": 4})
    step = CountingStep(queue("A", "B"))
    policy.admit(step)
    assert step.asked == {"considered": 1, "try_admit": 1}
    assert not policy.admission_due(["A", "B"])
    policy.charge_outputs({"B": 1})
    assert policy.admission_due(["A", "B"])
