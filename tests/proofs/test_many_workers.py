"""The theorems about many workers come out as the table says, and their controls bite."""

from __future__ import annotations

import pytest

from dlpm import bounds_cluster
from dlpm.cost import CostModel
from dlpm_proofs.solve import default_solvers
from dlpm_proofs.theorem import Prover, Theorem
from dlpm_proofs.theorems.many_workers import MANY_WORKERS

PROVER = Prover(default_solvers(check_proofs=False))


@pytest.mark.parametrize("theorem", MANY_WORKERS, ids=[theorem.id for theorem in MANY_WORKERS])
def test_a_theorem_about_many_workers_gets_its_verdict(theorem: Theorem) -> None:
    result = PROVER.decide(theorem)
    assert result.problems() == ()
    assert result.verdict is theorem.expected
    assert result.outcomes or result.demonstrations


def test_the_credit_floor_is_what_a_last_dispatch_and_its_cap_can_cost() -> None:
    # One credit left, 10 input tokens of weight 3, and 4 requests that each still owe 7 output tokens of weight 5.
    assert bounds_cluster.router_credit_floor(CostModel(3, 5), 10, 7, 4) == 1 - 30 - 140
