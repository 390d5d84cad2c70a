"""The tensor scheduler decides what the reference decides."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from dlpm.batch import AFTER_FORWARD  # noqa: E402
from dlpm.errors import InputError  # noqa: E402
from dlpm.request import Request  # noqa: E402
from dlpm_engine.adapter import OPTIMISTIC, EngineConfig  # noqa: E402
from dlpm_engine.bench.families import Families  # noqa: E402
from dlpm_engine.differential.case import Case  # noqa: E402
from dlpm_engine.differential.generate import PROFILES  # noqa: E402
from dlpm_engine.differential.hunt import Settings, run_case  # noqa: E402
from dlpm_engine.differential.report import report  # noqa: E402
from dlpm_engine.tensor.scheduler import TensorScheduler  # noqa: E402
from tests.engine_adapter.cases import cases  # noqa: E402


def assert_same(case: Case) -> None:
    """Both engines decide the same on a case."""
    outcome = run_case(case, Settings("tensor", case_seconds=600))
    assert outcome.divergence is None, report(case, outcome.divergence, "tensor")
    assert not outcome.unfinished


@pytest.mark.parametrize("profile", [name for name in PROFILES if name not in {"many clients", "long queue"}])
@settings(max_examples=10)
@given(data=st.data())
def test_every_decision_and_the_state_after_every_step_are_the_same(profile: str, data: st.DataObject) -> None:
    assert_same(data.draw(cases([profile])))


@pytest.mark.parametrize("profile", ["many clients", "long queue"])
@pytest.mark.parametrize("seed", range(2))
def test_long_queues_and_crowds_of_clients_are_scheduled_the_same(profile: str, seed: int) -> None:
    from dlpm_engine.differential.generate import from_shape

    assert_same(from_shape(PROFILES[profile], Random(seed), profile))


@pytest.mark.parametrize("visibility", ["at_admission", AFTER_FORWARD])
@pytest.mark.parametrize("block_size", [1, 16])
def test_the_benchmark_decides_the_same_as_the_reference(visibility: str, block_size: int) -> None:
    """Prompts of 2,048 tokens in families, memory for a few dozen of them, so that families come and go."""
    made = Families(7, block_size)
    requests = tuple(next(made) for _ in range(60))
    short = tuple(
        Request(
            each.id,
            each.client,
            place // 6 * 1000,
            each.input_tokens,
            1 + place % 5,
            each.max_output,
            each.prompt,
            each.blocks,
        )
        for place, each in enumerate(requests)
    )
    config = EngineConfig(
        quantum=3000, kv_tokens=30_000, block_size=block_size, visibility=visibility, memory=OPTIMISTIC, max_running=9
    )
    assert_same(Case("families", config, short))


def test_a_thousand_equal_prompts_move_to_the_cache_together() -> None:
    config = EngineConfig(quantum=50, kv_tokens=64, max_running=4)
    requests = tuple(Request(f"r{k}", "ABC"[k % 3], 0, 8, 1, 1, prompt=(1, 2, 3, 4, 5, 6, 7, 8)) for k in range(200))
    assert_same(Case("equal prompts", config, requests))


def test_memory_beyond_what_int64_can_add_up_is_refused() -> None:
    with pytest.raises(InputError, match="kv_tokens"):
        TensorScheduler(EngineConfig(quantum=1, kv_tokens=2**61 + 1))


def test_blocks_that_claim_more_tokens_than_the_prompt_has_are_scheduled_the_same() -> None:
    """No reader lets such a request through, but the scheduler must not stumble over one either."""
    config = EngineConfig(quantum=100, kv_tokens=40, block_size=4)
    requests = tuple(
        Request(f"r{k}", "AB"[k % 2], 0, length, 2, 2, blocks=(1, 2, 3)) for k, length in enumerate((12, 9, 11, 12, 10))
    )
    assert_same(Case("short prompts", config, requests))
