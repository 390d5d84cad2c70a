"""The theorems about whole engines come out as the table says, and the bound of a profile is theirs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlpm.bounds_engine import for_engine
from dlpm.cost import CostModel
from dlpm.engine_profile import OPTIMISTIC, RESERVING, EngineProfile
from dlpm.errors import InputError
from dlpm.ledger import Quanta
from dlpm_proofs.engine_setting import setting_of
from dlpm_proofs.run import chosen
from dlpm_proofs.solve import default_solvers
from dlpm_proofs.theorem import Prover, Theorem
from dlpm_proofs.theorems.e8_late import lowest_true_counter
from dlpm_proofs.theorems.engine_runs import SINKS, deepest, widest
from dlpm_proofs.witness import call, replay
from tests.proofs.controls import assert_comes_out

ENGINES = chosen(["ENGINE"])
PROVER = Prover(default_solvers(check_proofs=False))

PROFILES = st.builds(
    EngineProfile,
    engine=st.just("drawn"),
    cost=st.builds(CostModel, st.integers(1, 3), st.integers(1, 3)),
    quanta=st.builds(Quanta, st.integers(1, 40)),
    memory=st.sampled_from([RESERVING, OPTIMISTIC]),
    kv_tokens=st.integers(8, 24),
    max_input=st.integers(1, 6),
    max_output=st.integers(1, 8),
    max_running=st.integers(1, 6),
    late_steps=st.integers(0, 3),
)


def with_a_budget(profile: EngineProfile, spare: int | None) -> EngineProfile:
    """The profile with ``spare`` tokens in a step beside all decodes, or without chunks."""
    assert profile.max_running is not None
    return replace(profile, chunk_budget=None if spare is None else profile.max_running + spare)


@pytest.mark.parametrize("theorem", ENGINES, ids=[theorem.id for theorem in ENGINES])
def test_a_theorem_about_whole_engines_gets_its_verdict(theorem: Theorem) -> None:
    result = PROVER.decide(theorem)
    assert_comes_out(result)
    assert result.outcomes and result.mutants


@given(drawn=PROFILES, spare=st.none() | st.integers(0, 6), data=st.data())
def test_no_run_of_a_late_engine_falls_below_the_floor_of_its_profile_in_chunks_or_not(
    drawn: EngineProfile, spare: int | None, data: st.DataObject
) -> None:
    profile = with_a_budget(drawn, spare)
    assert profile.max_output is not None
    requests = []
    for place in range(data.draw(st.integers(1, 12), label="requests")):
        tokens = data.draw(st.integers(1, min(profile.max_input, profile.kv_tokens - 1)), label="input")
        most = min(profile.max_output, profile.kv_tokens - tokens)
        first = data.draw(st.integers(0, 2), label="prefix") * 100
        requests.append(
            call(
                f"r{place}",
                data.draw(st.sampled_from([SINKS, "f"]), label="client"),
                range(first, first + tokens),
                data.draw(st.integers(1, most), label="output"),
                max_output=most,
                at_step=data.draw(st.integers(0, 6), label="arrival"),
            )
        )
    run = replay(setting_of(profile), sorted(requests, key=lambda request: request.arrival_us), "drawn")
    floor = for_engine(profile).floor
    assert all(lowest_true_counter(run, client) >= floor for client in (SINKS, "f"))


def test_a_plain_engine_gets_the_plain_floor_and_lateness_deepens_it_and_chunks_do_not() -> None:
    plain = EngineProfile("plain", CostModel(1, 2), Quanta(64), OPTIMISTIC, 64, 12, 12, 8)
    # E = 12 + 12 - 1; S = 8 running for 7 steps (63 div 8), then 63 div s each until step 12.
    outputs = 8 * 7 + sum(63 // step for step in range(8, 13))
    assert for_engine(plain).floor == 1 - 23 - 2 * outputs
    late = replace(plain, late_steps=2)
    assert for_engine(late).floor == for_engine(plain).floor - 2 * 8 * 2
    assert for_engine(replace(late, chunk_budget=8)).floor == for_engine(late).floor


def test_the_bound_and_its_parts_add_up() -> None:
    for memory in (RESERVING, OPTIMISTIC):
        profile = EngineProfile("parts", CostModel(3, 2), Quanta(50), memory, 64, 12, 12, 8, late_steps=1)
        found = for_engine(profile)
        assert found.unit == found.of_extends + found.of_outputs + found.of_lateness
        assert found.of_lateness == 2 * 8
        assert found.gap == 2 * (50 - found.floor)


def test_what_no_theorem_is_about_has_no_bound() -> None:
    profile = EngineProfile("drafts", CostModel(1, 2), Quanta(64), OPTIMISTIC, 64, 12, 12, 8, most_accepted=3)
    with pytest.raises(InputError, match=r"speculation\.most_accepted.*no theorem"):
        for_engine(profile)
    assert for_engine(replace(profile, memory=RESERVING, late_steps=1)).of_lateness == 2 * 8 * 3


def test_the_constructed_run_comes_near_the_floor_at_an_engine_s_real_size() -> None:
    profile = EngineProfile(
        "a quarter of a real one", CostModel(1, 2), Quanta(2000), OPTIMISTIC, 32768, 2048, 512, 128, late_steps=1
    )
    assert deepest(profile).within(21, 20)
    assert deepest(replace(profile, chunk_budget=1024)).within(21, 20)


def test_a_second_construction_comes_near_the_gap() -> None:
    profile = EngineProfile(
        "half a real one", CostModel(1, 2), Quanta(2000), RESERVING, 65536, 4096, 1024, 64, late_steps=1
    )
    assert widest(profile).within(3, 2)
