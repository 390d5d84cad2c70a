"""The worker does, step by step, what the naive model does."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.reference.lockstep import POLICIES, lockstep_machine


@pytest.mark.parametrize("policy", POLICIES)
def test_worker_and_naive_model_do_the_same_at_every_step(policy: str) -> None:
    run_state_machine_as_test(lockstep_machine((policy,)), settings=settings(stateful_step_count=30))
