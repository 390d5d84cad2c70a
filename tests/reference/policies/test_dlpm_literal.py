"""Algorithm 1 as printed, and where each of its two readings fails."""

from __future__ import annotations

import pytest

from dlpm.cost import CostModel
from dlpm.ledger import Ledger, Quanta
from dlpm.policies.dlpm_literal import DLPMLiteral, EndlessLoopError
from dlpm.request import Workload
from dlpm.simulate import StalledError, simulate
from tests.reference.lockstep import real_worker
from tests.reference.naive_worker import Rules
from tests.reference.scene import Scene, request


def test_line_17_asks_for_ever_when_memory_is_full() -> None:
    """Memory holds one of the two requests, so the queue never empties. [DLPM Alg. 1 l. 17]"""
    stage = Scene(Rules(policy="dlpm-literal", kv_tokens=4, quantum=10))
    stage.submit(request("A1", (1, 2), output=2), request("A2", (3, 4), output=2))
    with pytest.raises(EndlessLoopError, match=r"^1 requests wait, memory holds none of them"):
        stage.step()
    assert stage.admitted() == ["A1"]


def test_line_17_ends_when_the_queue_is_empty_and_refills_as_often_as_it_takes() -> None:
    """A owes 11: two passes refill, the second admits. [DLPM Alg. 1 ll. 17-20]"""
    stage = Scene(Rules(policy="dlpm-literal", kv_tokens=100, quantum=10))
    stage.submit(request("A1", tuple(range(19))))
    stage.step()
    stage.submit(request("A2", (50,)))
    assert [event[:2] for event in stage.step()[:3]] == [("refill", {"A": -1}), ("refill", {"A": 9}), ("admit", "A2")]


def test_one_pass_runs_a_forward_step_on_an_empty_batch_when_one_quantum_lifts_nobody() -> None:
    """A owes 11, and the step that could serve it only refills. [DLPM Alg. 1 ll. 18-25]"""
    stage = Scene(Rules(policy="dlpm-one-pass", kv_tokens=100, quantum=10))
    stage.submit(request("A1", tuple(range(19))))
    stage.step()
    stage.submit(request("A2", (50,)))
    assert stage.step() == [("refill", {"A": -1})]
    assert not stage.worker.running
    assert [event[:2] for event in stage.step()[:2]] == [("refill", {"A": 9}), ("admit", "A2")]


def test_one_pass_leaves_a_request_waiting_that_the_fixpoint_admits() -> None:
    """B, gated, is visited while A has credit; A's admission spends it and ends the pass. [DLPM Alg. 1 ll. 18-24]"""
    for policy, expected in (("dlpm-one-pass", ["B1", "A1", "A2"]), ("dlpm", ["B1", "A1", "A2", "B2"])):
        stage = Scene(Rules(policy=policy, kv_tokens=100, quantum=10))
        stage.submit(request("B1", tuple(range(19))), request("A1", (50,)))
        stage.step()
        assert stage.deficits() == {"B": -11, "A": 7}
        stage.submit(request("B2", tuple(range(19))), request("A2", tuple(range(60, 70))))
        stage.step()
        assert stage.admitted() == expected


def test_a_workload_stalls_on_one_pass_and_says_so() -> None:
    """The same debt, run to its end: the fixpoint serves both requests, one pass leaves the second beside nothing."""
    workload = Workload(1, (request("A1", tuple(range(19))), request("A2", (50,), arrival_us=5)))
    assert simulate(workload, real_worker(Rules(policy="dlpm", kv_tokens=100, quantum=10))) == 2
    with pytest.raises(StalledError, match=r"^step 2: 1 requests wait beside an empty batch$"):
        simulate(workload, real_worker(Rules(policy="dlpm-one-pass", kv_tokens=100, quantum=10)))


def test_while_something_is_to_come_a_stalled_run_goes_on_with_it() -> None:
    """One pass leaves A2 beside an empty batch until B1 arrives; the step after that lifts A and serves both."""
    requests = (request("A1", tuple(range(19))), request("A2", (50,), arrival_us=5), request("B1", (51,), arrival_us=9))
    assert simulate(Workload(1, requests), real_worker(Rules(policy="dlpm-one-pass", kv_tokens=100, quantum=10))) == 3


def test_one_pass_is_due_at_every_step_and_the_printed_loop_when_no_queued_client_has_credit() -> None:
    """One pass may leave off where the next one would go on, so it never comes to rest. [DLPM Alg. 1 ll. 15-18]"""
    ledger = Ledger(Quanta(10), CostModel())
    ledger.deficits.update({"A": 0, "B": 1})
    assert DLPMLiteral(ledger, one_pass=True).admission_due(["A", "B"])
    assert not DLPMLiteral(ledger).admission_due(["A", "B"])
    assert DLPMLiteral(ledger).admission_due(["A"])
