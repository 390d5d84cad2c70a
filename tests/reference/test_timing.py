"""The step-time model: laws that any roofline obeys, a step computed by hand, and the figures that vendors publish."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlpm.errors import InputError
from dlpm.timing import (
    DEFAULT_MODELS,
    GPUS,
    MODELS,
    FixedStep,
    Gpu,
    ModelShape,
    Roofline,
    StepWork,
    kv_bytes_per_token,
    kv_tokens_that_fit,
    parameters,
    preset,
    weight_bytes,
    weight_bytes_read,
)

tokens = st.integers(min_value=1, max_value=5_000)
cached = st.integers(min_value=0, max_value=5_000)
rooflines = st.builds(preset, st.sampled_from(sorted(GPUS)), st.none() | st.sampled_from(sorted(MODELS)))


@st.composite
def works(draw: st.DrawFn) -> StepWork:
    prefill = draw(st.lists(st.tuples(tokens, cached), max_size=6))
    decoding = draw(st.integers(min_value=0, max_value=64))
    return StepWork(tuple(prefill), decoding, decoding * draw(tokens))


def both(first: StepWork, second: StepWork) -> StepWork:
    """The two batches in one step."""
    return StepWork(
        first.prefill + second.prefill,
        first.decode_requests + second.decode_requests,
        first.decode_context + second.decode_context,
    )


# -- laws ------------------------------------------------------------------------------------------------------------


@given(roofline=rooflines, work=works())
def test_a_step_takes_at_least_what_memory_and_arithmetic_take_and_no_more_than_both(
    roofline: Roofline, work: StepWork
) -> None:
    step = roofline.step_us(work)
    assert type(step) is int
    assert step >= 1
    if work.prefill or work.decode_requests:
        assert step == max(roofline.memory_us(work), roofline.compute_us(work))


@given(roofline=rooflines, first=works(), second=works())
def test_more_work_never_takes_less_time(roofline: Roofline, first: StepWork, second: StepWork) -> None:
    assert roofline.step_us(both(first, second)) >= max(roofline.step_us(first), roofline.step_us(second))


@given(roofline=rooflines, first=works(), second=works())
def test_one_batch_is_never_slower_than_two(roofline: Roofline, first: StepWork, second: StepWork) -> None:
    """The weights are read once: the reason to batch at all."""
    assert roofline.step_us(both(first, second)) <= roofline.step_us(first) + roofline.step_us(second)


@given(roofline=rooflines, extend=tokens, matched=cached)
def test_a_cached_prefix_never_costs_more_than_computing_it(roofline: Roofline, extend: int, matched: int) -> None:
    """The reason for a prefix cache."""
    with_cache = StepWork(((extend, matched),), 0, 0)
    without = StepWork(((extend + matched, 0),), 0, 0)
    assert roofline.flops(with_cache) <= roofline.flops(without)
    assert roofline.step_us(with_cache) <= roofline.step_us(without)


@given(roofline=rooflines, first=tokens, second=tokens, matched=cached)
def test_a_prompt_computed_in_two_chunks_has_the_arithmetic_of_one_and_a_second_sample(
    roofline: Roofline, first: int, second: int, matched: int
) -> None:
    """Attention is causal: the second chunk sees the first as its prefix. Only the output head runs twice."""
    whole = roofline.flops(StepWork(((first + second, matched),), 0, 0))
    chunks = roofline.flops(StepWork(((first, matched),), 0, 0)) + roofline.flops(
        StepWork(((second, matched + first),), 0, 0)
    )
    assert chunks - whole == 2 * roofline.model.vocab * roofline.model.hidden


@given(roofline=rooflines, context=tokens)
def test_a_decode_is_a_prefill_of_one_token(roofline: Roofline, context: int) -> None:
    decode = StepWork((), 1, context)
    prefill = StepWork(((1, context - 1),), 0, 0)
    assert roofline.flops(decode) == roofline.flops(prefill)
    assert roofline.bytes_moved(decode) == roofline.bytes_moved(prefill)


@given(work=works(), overhead=st.integers(min_value=0, max_value=10_000))
def test_overhead_is_added_to_every_step_that_computes(work: StepWork, overhead: int) -> None:
    gpu, model = GPUS["h100"], MODELS["llama-3.1-8b"]
    bare, loaded = Roofline(gpu, model), Roofline(gpu, model, overhead_us=overhead)
    computes = bool(work.prefill or work.decode_requests)
    assert loaded.step_us(work) == bare.step_us(work) + (overhead if computes else 0)


@given(roofline=rooflines, work=works())
def test_half_the_bandwidth_and_half_the_peak_take_twice_the_time(roofline: Roofline, work: StepWork) -> None:
    gpu = roofline.gpu
    slow = Roofline(Gpu("slow", gpu.memory, gpu.bandwidth // 2, gpu.flops // 2), roofline.model)
    if work.prefill or work.decode_requests:
        assert 2 * roofline.step_us(work) - 2 < slow.step_us(work) <= 2 * roofline.step_us(work)


# -- by hand ---------------------------------------------------------------------------------------------------------

TINY = ModelShape(
    "tiny", layers=2, hidden=4, heads=2, kv_heads=1, head_dim=2, intermediate=8, vocab=10, tied=False, bytes_per_value=2
)


def test_the_size_of_a_tiny_model_by_hand() -> None:
    """A layer: queries 4*4, output 4*4, key 4*2, value 4*2, MLP 3*4*8: 144. Norms 2*(4+4)+4, two tables of 10*4."""
    assert parameters(TINY) == 2 * 144 + 20 + 80
    assert weight_bytes(TINY) == 2 * 388
    assert weight_bytes_read(TINY) == 2 * (388 - 40), "the input embedding table is looked up, not read"
    assert kv_bytes_per_token(TINY) == 2 * 2 * 1 * 2 * 2


def test_a_step_of_a_tiny_model_by_hand() -> None:
    """One request with 3 extend tokens after 5 cached ones, two that decode with 7 tokens of context each.

    Bytes: weights 696, KV of 3 + 5 + 14 tokens at 16 bytes: 1,048.
    FLOPs: 2 * 288 a token for 5 tokens; 2 * 40 a sample for 3; attention 4 * 2 layers * 2 heads * 2 dimensions = 32 a
    pair, where the extend tokens see 6, 7 and 8 tokens and the decodes 7 each: 35. In all 2,880 + 240 + 1,120 = 4,240.
    """
    work = StepWork(((3, 5),), 2, 14)
    gpu = Gpu("tiny", memory=1_000, bandwidth=1_000_000, flops=1_000_000)
    roofline = Roofline(gpu, TINY, memory_percent=50, compute_percent=25, overhead_us=5)
    assert roofline.bytes_moved(work) == 1_048
    assert roofline.flops(work) == 4_240
    assert roofline.memory_us(work) == 2_096, "half a byte a microsecond"
    assert roofline.compute_us(work) == 16_960, "a quarter of a FLOP a microsecond"
    assert roofline.step_us(work) == 16_965


def test_time_is_rounded_up() -> None:
    gpu = Gpu("tiny", memory=1_000, bandwidth=700_000_000, flops=10**15)
    roofline = Roofline(gpu, TINY, memory_percent=100)
    assert roofline.bytes_moved(StepWork((), 1, 1)) == 712
    assert roofline.step_us(StepWork((), 1, 1)) == 2, "712 bytes at 700 a microsecond"


def test_kv_capacity_of_a_tiny_gpu_by_hand() -> None:
    """90 % of 1,000 bytes less 776 of weights are 124: seven tokens of 16 bytes."""
    assert kv_tokens_that_fit(Gpu("tiny", 1_000, 1, 1), TINY) == 7


def test_an_empty_step_takes_one_tick() -> None:
    assert preset("a10g").step_us(StepWork((), 0, 0)) == 1


# -- figures that others publish ---------------------------------------------------------------------------------------


def test_parameter_counts_are_those_of_the_model_cards() -> None:
    """8.03 and 3.21 billion, in the cards of Llama 3.1 and Llama 3.2."""
    assert round(parameters(MODELS["llama-3.1-8b"]) / 10**9, 2) == 8.03
    assert round(parameters(MODELS["llama-3.2-3b"]) / 10**9, 2) == 3.21


def test_a_token_takes_128_kib_of_kv_in_the_8b_model_and_112_kib_in_the_3b_model() -> None:
    assert kv_bytes_per_token(MODELS["llama-3.1-8b"]) == 128 * 1024
    assert kv_bytes_per_token(MODELS["llama-3.2-3b"]) == 112 * 1024


def test_a_short_decode_of_8b_on_h100_takes_the_five_milliseconds_that_vllm_reports() -> None:
    assert round(preset("h100").step_us(StepWork((), 1, 512)) / 1000) == 5


def test_the_papers_measured_decode_step_is_slower_than_the_model_with_full_memory() -> None:
    """[DLPM Fig. 4]: 53 ms for 25 requests. The model is optimistic, on either of the paper's GPUs; docs/timing.md."""
    for name in ("a10g", "a100-80g"):
        roofline = preset(name)
        full = kv_tokens_that_fit(roofline.gpu, roofline.model)
        assert roofline.step_us(StepWork((), 25, full)) < 53_000


def test_the_tables_of_the_documentation_are_what_the_code_computes(repository: Path) -> None:
    text = (repository / "docs" / "timing.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S+) \| (llama\S+) \| ([\d,. |]+) \|$", text, flags=re.MULTILINE)
    assert {gpu for gpu, _, _ in rows} == set(GPUS)
    for gpu, model, cells in rows:
        roofline = preset(gpu, model)
        fit = kv_tokens_that_fit(roofline.gpu, roofline.model)
        steps = [
            StepWork((), 25, 25 * 512),
            StepWork((), 25, 25 * 4_096),
            StepWork((), 25, fit),
            StepWork(((2_048, 0),), 0, 0),
            StepWork(((512, 1_536),), 0, 0),
        ]
        expected = [f"{fit:,}"] + [f"{roofline.step_us(work) / 1000:.1f}" for work in steps]
        assert [cell.strip() for cell in cells.split("|")] == expected


# -- presets and bad input -------------------------------------------------------------------------------------------


def test_presets_run_the_models_of_the_paper_unless_told_otherwise() -> None:
    assert set(DEFAULT_MODELS) == set(GPUS)
    assert preset("a10g").model.name == "llama-3.2-3b"
    assert preset("a100-80g").model.name == "llama-3.1-8b"
    assert preset("a10g", "llama-3.1-8b").model.name == "llama-3.1-8b"


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="gpu: expected one of a10g, a100-80g, h100, h200, found 'tpu'"):
        preset("tpu")
    with pytest.raises(InputError, match=r"model: expected one of llama-3.2-3b, llama-3.1-8b, found 'gpt'"):
        preset("h100", "gpt")


def test_a_model_that_leaves_no_room_for_kv_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected a model that fits in small, found llama-3\.1-8b"):
        kv_tokens_that_fit(Gpu("small", 16 * 10**9, 1, 1), MODELS["llama-3.1-8b"])


@pytest.mark.parametrize("percent", [0, 101])
def test_a_share_of_the_hardware_is_a_percentage(percent: int) -> None:
    with pytest.raises(InputError, match="memory_percent: expected a percentage"):
        Roofline(GPUS["h100"], TINY, memory_percent=percent)
    with pytest.raises(InputError, match="compute_percent: expected a percentage"):
        Roofline(GPUS["h100"], TINY, compute_percent=percent)


def test_overhead_is_not_negative() -> None:
    with pytest.raises(InputError, match="overhead_us"):
        Roofline(GPUS["h100"], TINY, overhead_us=-1)


def test_a_fixed_step_takes_its_time_whatever_the_work() -> None:
    assert FixedStep(10).step_us(StepWork((), 0, 0)) == FixedStep(10).step_us(StepWork(((9, 9),), 9, 9)) == 10
    with pytest.raises(InputError, match="at least 1 microsecond"):
        FixedStep(0)
