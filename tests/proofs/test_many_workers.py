"""The theorems about many workers come out as the table says, and their controls bite."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlpm import bounds_cluster
from dlpm.cost import CostModel
from dlpm_engine.conformance.reading import check_path
from dlpm_proofs.cluster_witness import ClusterSetting, replay_cluster
from dlpm_proofs.solve import default_solvers
from dlpm_proofs.theorem import Prover, Theorem
from dlpm_proofs.theorems import t10_latency
from dlpm_proofs.theorems.many_workers import MANY_WORKERS
from dlpm_proofs.witness import STEP_US, call
from tests.proofs.controls import assert_comes_out

PROVER = Prover(default_solvers(check_proofs=False))


@pytest.mark.parametrize("theorem", MANY_WORKERS, ids=[theorem.id for theorem in MANY_WORKERS])
def test_a_theorem_about_many_workers_gets_its_verdict(theorem: Theorem) -> None:
    result = PROVER.decide(theorem)
    assert_comes_out(result)


def test_the_printed_wait_is_the_printed_gap_to_each_other_client() -> None:
    # 3 others, 2 workers, 2 (10 + 7) each.
    assert bounds_cluster.service_while_waiting_as_printed(10, 7, 2, 4) == 3 * 2 * 34


def test_a_wait_ends_where_the_log_says_and_its_slowest_second_counts() -> None:
    """Two workers with steps of one and three seconds: seconds in which only the fast one ends a step serve less."""
    setting = ClusterSetting(kv_tokens=8, quantum=100, worker_quantum=100, step_us=(1, 3))
    calls = [call("a", "f", [1], 6), call("b", "g", [2], 2), call("late", "f", [3], 1, max_output=7, at_step=2)]
    run, _ = replay_cluster(setting, calls, "two speeds")
    sent_us, admitted_us = t10_latency.waited_us(run, "late")
    # Worker 0 has one request and worker 1 has one: the tie goes to worker 0, which is full until second 6.
    assert (sent_us, admitted_us) == (2 * STEP_US, 6 * STEP_US)
    assert t10_latency.least_served_per_second(run, sent_us, admitted_us) == setting.cost().output(1)
    assert t10_latency.least_served_per_second(run, sent_us, 3 * STEP_US) == setting.cost().output(2)


def test_the_logs_of_runs_that_wait_too_long_follow_both_algorithms(tmp_path: Path) -> None:
    """What is refuted is the sentence, not the scheduler."""
    for shown in t10_latency.refutations():
        assert shown.confirmed
        assert shown.replay is not None
        _, log = shown.replay.write(tmp_path, "witness")
        assert check_path(log).holds


def test_the_credit_floor_is_what_a_last_dispatch_and_its_cap_can_cost() -> None:
    # One credit left, 10 input tokens of weight 3, and 4 requests that each still owe 7 output tokens of weight 5.
    assert bounds_cluster.router_credit_floor(CostModel(3, 5), 10, 7, 4) == 1 - 30 - 140
