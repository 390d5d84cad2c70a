"""A run follows the simulation, and its gap curve the gap."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlpm.events import Event, Finish
from dlpm.workload import random_workload
from dlpm_engine.run.compare import CURVE_POINTS, Setup, run_policy
from dlpm_engine.run.options import EngineOptions, PolicyChoice
from dlpm_engine.run.result import amount

CHOICES = [PolicyChoice("fcfs"), PolicyChoice("lpm"), PolicyChoice("vtc"), PolicyChoice("dlpm", 20)]


def setup_of(seed: int) -> Setup:
    many = random_workload(Random(seed), requests=40, span_us=200_000, parent_chance=0.2)
    needed = max(request.input_tokens + request.max_output for request in many.requests)
    return Setup.of(many, EngineOptions(kv_tokens=2 * needed))


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from(CHOICES))
def test_progress_ends_at_the_number_of_requests_and_never_goes_back(seed: int, choice: PolicyChoice) -> None:
    setup = setup_of(seed)
    told: list[int] = []
    result = run_policy(setup, choice, on_progress=told.append)
    assert told == sorted(set(told))
    assert told[-1] == result.summary.finished == len(setup.workload.requests)


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from(CHOICES))
def test_the_gap_curve_never_falls_and_ends_at_the_largest_gap(seed: int, choice: PolicyChoice) -> None:
    result = run_policy(setup_of(seed), choice)
    gaps = [point.amount for point in result.gap_curve]
    times = [point.time_us for point in result.gap_curve]
    assert gaps == sorted(gaps) and times == sorted(times)
    assert gaps[0] == 0
    assert gaps[-1] == amount(result.max_gap)
    assert len(gaps) <= 2 * CURVE_POINTS + 2


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from(CHOICES))
def test_a_log_changes_nothing_and_gets_every_event(seed: int, choice: PolicyChoice) -> None:
    setup = setup_of(seed)
    heard: list[Event] = []
    logged = run_policy(setup, choice, log=heard.append, full_log=True)
    quiet = run_policy(setup, choice)
    assert logged.summary == quiet.summary
    assert sum(isinstance(event, Finish) for event in heard) == quiet.summary.finished


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 200))
def test_under_reserving_memory_the_bound_holds_for_both_notions_of_backlogged(seed: int, quantum: int) -> None:
    """[DLPM Thm 4.1]."""
    result = run_policy(setup_of(seed), PolicyChoice("dlpm", quantum))
    assert result.bound is not None
    assert result.bound_holds
    assert amount(result.max_gap) <= amount(result.judged_gap) <= result.bound


@pytest.mark.parametrize("choice", CHOICES[:3])
def test_no_bound_is_claimed_for_other_policies(choice: PolicyChoice) -> None:
    result = run_policy(setup_of(1), choice)
    assert result.bound is None and result.bound_holds is None
