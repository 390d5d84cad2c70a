"""Which runs a command line asks for, and on which engine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlpm import timing
from dlpm.batch import AFTER_FORWARD
from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.memory import Optimistic, Reserving
from dlpm.request import Request, Workload
from dlpm_engine.run.build import log_header, make_policy
from dlpm_engine.run.compare import Setup
from dlpm_engine.run.options import (
    DEFAULT_QUANTUM,
    POLICIES,
    WITH_QUANTUM,
    EngineOptions,
    PolicyChoice,
    parse_weights,
    policy_choices,
)

quanta = st.lists(st.integers(1, 10**9), unique=True, max_size=4)
names = st.lists(st.sampled_from(POLICIES), unique=True, min_size=1)


def tokens(count: int, output: int = 1, name: str = "r") -> Request:
    """A request whose prompt is given as token ids."""
    return Request(name, "A", 0, count, output, output, prompt=tuple(range(count)))


def workload(*requests: Request, block_size: int = 16) -> Workload:
    return Workload(block_size, requests)


@given(names, quanta)
def test_each_policy_runs_once_and_those_with_a_quantum_once_for_each(chosen: list[str], sizes: list[int]) -> None:
    fair = [name for name in chosen if name in WITH_QUANTUM]
    if sizes and not fair:
        with pytest.raises(InputError):
            policy_choices(chosen, sizes)
        return
    runs = policy_choices(chosen, sizes)
    assert list(dict.fromkeys(run.name for run in runs)) == chosen
    for name in chosen:
        expected = (sizes or [DEFAULT_QUANTUM]) if name in fair else [None]
        assert [run.quantum for run in runs if run.name == name] == expected


@given(names, quanta)
def test_no_two_runs_of_a_comparison_share_a_label_or_a_file_name(chosen: list[str], sizes: list[int]) -> None:
    runs = policy_choices([*chosen, "dlpm"] if "dlpm" not in chosen else chosen, sizes)
    assert len({run.label for run in runs}) == len(runs)
    assert len({run.slug for run in runs}) == len(runs)


@given(names)
def test_a_policy_is_made_by_its_name_with_fresh_counters(chosen: list[str]) -> None:
    for choice in policy_choices(chosen, ()):
        policy = make_policy(choice, CostModel())
        assert policy.name == choice.name
        policy.arrive("A", ())
        assert policy.counter("A") in (0, None)


def test_a_policy_with_a_quantum_is_not_made_without_one() -> None:
    with pytest.raises(InputError):
        make_policy(PolicyChoice("dlpm"), CostModel())


@given(st.integers(1, 10**9 - 1), st.integers(1, 10**9 - 1))
def test_weights_are_read_as_they_are_written(extend: int, output: int) -> None:
    assert parse_weights(f"{extend},{output}") == CostModel(extend, output)
    assert parse_weights(f" {extend}, {output} ") == CostModel(extend, output)


@pytest.mark.parametrize("text", ["", "1", "1,", ",1", "1,2,3", "1.5,2", "one,two", "1;2", "-1,2", "1,-2", "١,٢"])
def test_weights_that_are_not_two_whole_numbers_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--weights"):
        parse_weights(text)


@pytest.mark.parametrize("gpu", timing.GPUS)
def test_memory_is_what_the_gpu_holds_beside_the_model_unless_told_otherwise(gpu: str) -> None:
    timer = timing.preset(gpu)
    fits = timing.kv_tokens_that_fit(timer.gpu, timer.model)
    assert EngineOptions(gpu=gpu).worker_config(workload(tokens(5))).kv_tokens == fits
    assert EngineOptions(gpu=gpu, kv_tokens=99).worker_config(workload(tokens(5))).kv_tokens == 99


def test_every_option_reaches_the_worker() -> None:
    engine = EngineOptions(
        kv_tokens=77, block_size=4, max_running=3, memory="optimistic", watermark=5, visibility=AFTER_FORWARD
    )
    config = engine.worker_config(workload(tokens(5)))
    assert (config.kv_tokens, config.block_size, config.max_running) == (77, 4, 3)
    assert (config.memory, config.visibility) == (Optimistic(5), AFTER_FORWARD)
    assert EngineOptions(kv_tokens=77).worker_config(workload(tokens(5))).memory == Reserving()


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=6), st.integers(1, 110))
def test_a_memory_is_refused_exactly_if_some_request_could_never_fit(
    sizes: list[tuple[int, int]], kv_tokens: int
) -> None:
    needed = max(count + output for count, output in sizes)
    requests = [tokens(count, output, f"r{number}") for number, (count, output) in enumerate(sizes)]
    engine = EngineOptions(kv_tokens=kv_tokens)
    if needed > kv_tokens:
        with pytest.raises(InputError, match=f"at least {needed}"):
            engine.worker_config(workload(*requests))
    else:
        assert engine.worker_config(workload(*requests)).kv_tokens == kv_tokens


def test_hashed_prompts_keep_the_block_size_they_were_hashed_with_and_token_prompts_do_not() -> None:
    hashed = workload(Request("r", "A", 0, 32, 1, 1, blocks=(1, 2)))
    assert EngineOptions(block_size=16).worker_config(hashed).block_size == 16
    with pytest.raises(InputError, match="expected 16"):
        EngineOptions(block_size=8).worker_config(hashed)
    assert EngineOptions(block_size=8).worker_config(workload(tokens(32))).block_size == 8
    assert EngineOptions().worker_config(workload(tokens(32))).block_size == 16


def test_the_header_of_a_log_states_the_run() -> None:
    many = workload(tokens(40, 2), tokens(3, 9, "s"))
    engine = EngineOptions(kv_tokens=500, max_running=4, memory="optimistic", watermark=7, cost=CostModel(3, 5))
    setup = Setup.of(many, engine)
    header = log_header(PolicyChoice("dlpm", 11), setup.config, setup.cost, many, full=True)
    assert (header.policy, header.default_quantum, header.level) == ("dlpm", 11, "full")
    assert (header.extend_weight, header.output_weight) == (3, 5)
    assert (header.limits.max_input, header.limits.max_output) == (40, 9)
    assert (header.limits.kv_tokens, header.limits.max_running) == (500, 4)
    assert (header.memory, header.watermark, header.visibility) == ("optimistic", 7, "at_admission")
    assert header.block_size == 16
    plain = log_header(PolicyChoice("fcfs"), setup.config, setup.cost, many, full=False)
    assert (plain.default_quantum, plain.level) == (None, "decisions")
