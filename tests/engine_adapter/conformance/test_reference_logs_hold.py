"""What the reference writes holds: the checker raises no false alarm."""

from __future__ import annotations

from hypothesis import given

from dlpm_engine.conformance import RULES
from tests.engine_adapter.conformance.logs import Log, check, recorded_logs


@given(recorded_logs(memories=["reserving"]))
def test_every_log_of_the_reference_under_reserving_memory_holds(log: Log) -> None:
    report = check(log)
    assert report.violations == ()
    assert report.events == len(log) - 1


@given(recorded_logs(memories=["optimistic"]))
def test_a_log_under_optimistic_memory_breaks_nothing_but_theorems_that_need_reserving_memory(log: Log) -> None:
    for violation in check(log).violations:
        assert RULES[violation.rule].theorem
        assert violation.unmet_hypothesis is not None
        assert "reserving" in violation.unmet_hypothesis


@given(recorded_logs(full=True))
def test_a_full_log_leaves_no_rule_unchecked(log: Log) -> None:
    assert check(log).not_checked == ()
