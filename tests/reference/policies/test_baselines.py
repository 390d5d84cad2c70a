"""First come first served, and longest prefix match without fairness, in examples."""

from __future__ import annotations

import pytest

from tests.reference.naive_worker import Rules
from tests.reference.scene import Scene, request


def crowded(policy: str) -> Scene:
    """Ten tokens of memory, four of them taken by a running request; one large and two small ones wait."""
    stage = Scene(Rules(policy=policy, kv_tokens=10))
    stage.submit(request("A1", (1, 2), output=2))
    stage.step()
    stage.submit(request("A2", (3, 4, 5, 6), output=3), request("B1", (7,)), request("B2", (8,)))
    return stage


def test_fcfs_stops_at_the_first_request_that_does_not_fit() -> None:
    stage = crowded("fcfs")
    stage.step()
    assert stage.admitted() == ["A1"]
    stage.finish_all()
    assert stage.admitted() == ["A1", "A2", "B1", "B2"]


def test_lpm_passes_over_a_request_that_does_not_fit() -> None:
    """[DLPM §4.1, first paragraph]"""
    stage = crowded("lpm")
    stage.step()
    assert stage.admitted() == ["A1", "B1", "B2"]
    stage.finish_all()
    assert stage.admitted() == ["A1", "B1", "B2", "A2"]


def test_fcfs_ignores_the_cache_and_lpm_lives_by_it() -> None:
    """[DLPM §4.1, first paragraph]"""
    for policy, expected in (("fcfs", ["A1", "B1", "A2"]), ("lpm", ["A1", "A2", "B1"])):
        stage = Scene(Rules(policy=policy, kv_tokens=100))
        stage.submit(request("A1", (1, 2, 3)))
        stage.step()
        stage.submit(request("B1", (7, 8)), request("A2", (1, 2, 4)))
        stage.step()
        assert stage.admitted() == expected


def test_lpm_breaks_ties_by_arrival() -> None:
    stage = Scene(Rules(policy="lpm", kv_tokens=100))
    stage.submit(request("C1", (5,)), request("B1", (6,)), request("A1", (7,)))
    stage.step()
    assert stage.admitted() == ["C1", "B1", "A1"]


@pytest.mark.parametrize("policy", ["fcfs", "lpm"])
def test_a_policy_without_a_ledger_logs_no_deficit(policy: str) -> None:
    stage = Scene(Rules(policy=policy, kv_tokens=100))
    stage.submit(request("A1", (1, 2)))
    assert stage.step() == [
        ("admit", "A1", 0, 2, None, 100 - 2 - 1),
        ("output", {"A1": 1}, {}),
        ("finish", "A1"),
    ]
    assert stage.worker.policy.counter("A") is None
    assert not stage.worker.policy.admission_due(["A"])
