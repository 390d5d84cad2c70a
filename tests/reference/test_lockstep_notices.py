"""The lockstep comparison has teeth: each of these faults, planted in the real worker, is found within seconds."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.reference.lockstep import lockstep_machine
from tests.reference.planted_faults import FAULTS
from tests.reference.planted_faults.fault import Fault, Patch


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.sentence)
def test_the_machine_notices_when(fault: Fault, monkeypatch: Patch) -> None:
    """The examples are always the same, and never shrunk: what counts is that one of them fails."""
    fault.plant(monkeypatch)
    bounded = settings(
        max_examples=3000,
        stateful_step_count=40,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(lockstep_machine(fault.policies, fault.memories), settings=bounded)


def test_the_machine_finds_nothing_where_nothing_was_planted() -> None:
    """The control of the tests above: same examples, no fault."""
    clean = settings(max_examples=40, stateful_step_count=40, derandomize=True, database=None, phases=(Phase.generate,))
    run_state_machine_as_test(lockstep_machine(), settings=clean)
