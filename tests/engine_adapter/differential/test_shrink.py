"""Shrinking keeps the failure, and ends at something small."""

from __future__ import annotations

import time
from dataclasses import replace
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from dlpm_engine.adapter import EngineConfig
from dlpm_engine.differential import hunt
from dlpm_engine.differential.case import Case
from dlpm_engine.differential.corpus import corpus
from dlpm_engine.differential.generate import generate
from dlpm_engine.differential.reference_engine import ReferenceEngine
from dlpm_engine.differential.shrink import SHRUNK, shrink
from tests.engine_adapter.cases import cases


@settings(max_examples=15)
@given(case=cases(), least=st.integers(1, 3))
def test_what_is_left_still_fails_and_nothing_can_be_left_out(case: Case, least: int) -> None:
    def fails(candidate: Case) -> bool:
        return sum(request.output_tokens > 1 for request in candidate.requests) >= least

    if fails(case):
        small = shrink(case, fails)
        assert fails(small)
        assert len(small.requests) == least
        assert all(request.input_tokens == 1 or request.blocks for request in small.requests)


def test_requests_lose_what_does_not_matter() -> None:
    case = next(case for case in (generate(3, number) for number in range(100)) if len(case.requests) > 8)
    last = case.requests[-1].id
    small = shrink(case, lambda candidate: any(request.id == last for request in candidate.requests))
    (left,) = small.requests
    assert (left.id, left.output_tokens, left.max_output, left.arrival_us, left.parents) == (last, 1, 1, 0, ())
    assert small.config.extend_weight == small.config.output_weight == small.config.quantum == 1
    assert small.config.max_running is None
    assert small.name.endswith(SHRUNK)
    assert shrink(small, lambda candidate: True).name == small.name


def test_a_case_that_only_fails_as_it_is_stays_as_it_is() -> None:
    case = generate(0, 5)
    assert shrink(case, lambda candidate: candidate == case).requests == case.requests


def test_shrinking_stops_when_its_time_is_over() -> None:
    case = generate(0, 0)
    assert shrink(case, lambda candidate: True, seconds=0.0).requests == case.requests


class StartsSlowly(ReferenceEngine):
    """A reference that takes time to start, as one that compiles, and that gives too much of a quantum."""

    def configure(self, config: EngineConfig, *, full_log: bool) -> None:
        """Wait, and take more than was given."""
        time.sleep(0.2)
        super().configure(replace(config, quantum=config.quantum + 1), full_log=full_log)


def test_a_case_of_an_engine_that_starts_slowly_is_made_small_all_the_same() -> None:
    case = corpus()["debt of many quanta takes many refills"]
    slow = hunt.Settings(f"{__name__}:StartsSlowly", shrink_seconds=8)
    with patch.object(hunt, "_SHRINK_CASE_SECONDS", 0.05):
        small, outcome = hunt.smallest(case, slow)
    assert outcome.divergence is not None
    assert len(small.requests) < len(case.requests)
