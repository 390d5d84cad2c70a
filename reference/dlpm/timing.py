"""How long one forward step takes: a roofline model in exact integers, so that a run has seconds.

A step moves bytes (the weights once, and the KV cache it touches) and computes (matrix products and attention); the
slower of the two is its time. Sources, and what the model leaves out: docs/timing.md. Every number is an integer and
every division is rounded up once, at the end, so the same run takes the same microseconds on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from dlpm.errors import InputError

MICROSECONDS = 1_000_000
"""In one second."""

KV_MEMORY_PERCENT = 90
"""Share of GPU memory that weights and KV cache may fill together: what vLLM takes by default."""


@dataclass(frozen=True, slots=True)
class StepWork:
    """What one forward step computes; all counts are >= 0.

    Attributes:
        prefill: for each request admitted in this step, its extend tokens and the matched (cached) tokens before them.
        decode_requests: running requests that compute one token each and were not admitted in this step.
        decode_context: tokens in the contexts of those requests, summed, each with the token it computes now: the KV
            entries that the step reads, or writes.
    """

    prefill: tuple[tuple[int, int], ...]
    decode_requests: int
    decode_context: int


class StepTimer(Protocol):
    """Turns the work of a step into its duration."""

    def step_us(self, work: StepWork) -> int:
        """Duration of one forward step in microseconds, >= 1, the same for the same work."""
        ...


@dataclass(frozen=True, slots=True)
class Gpu:
    """What a vendor states of one GPU: memory in bytes, memory bandwidth in bytes/s, dense BF16 peak in FLOP/s."""

    name: str
    memory: int
    bandwidth: int
    flops: int


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Shape of a decoder-only transformer with grouped-query attention and a gated MLP (the Llama family).

    ``tied``: the output head reuses the input embedding table. ``bytes_per_value`` is 2 for BF16, for weights and KV.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    bytes_per_value: int = 2


@dataclass(frozen=True, slots=True)
class FixedStep:
    """Every step takes ``us`` microseconds: for examples and tests in which only the order of things matters.

    Raises:
        InputError: if ``us`` is below 1.
    """

    us: int

    def __post_init__(self) -> None:
        """Refuse a clock that stands still."""
        if self.us < 1:
            raise InputError(f"expected at least 1 microsecond, found {self.us}", field="step_us")

    def step_us(self, work: StepWork) -> int:
        """``us``, whatever the work."""
        del work
        return self.us


class Roofline:
    """Step time of one model on one GPU: ``max(bytes / bandwidth, FLOPs / peak) + overhead``, rounded up.

    ``memory_percent`` and ``compute_percent`` are the shares of the stated bandwidth and of the stated peak that real
    kernels reach, and ``overhead_us`` is added to every step that computes anything (scheduler, kernel
    launches, sampling); docs/timing.md says where the defaults come from.

    Raises:
        InputError: if a share is not in 1..100 or the overhead is negative.
    """

    def __init__(
        self,
        gpu: Gpu,
        model: ModelShape,
        *,
        memory_percent: int = 90,
        compute_percent: int = 60,
        overhead_us: int = 0,
    ) -> None:
        """Precompute what does not depend on the step."""
        for name, percent in (("memory_percent", memory_percent), ("compute_percent", compute_percent)):
            if not 1 <= percent <= 100:
                raise InputError(f"expected a percentage from 1 to 100, found {percent}", field=name)
        if overhead_us < 0:
            raise InputError(f"expected microseconds >= 0, found {overhead_us}", field="overhead_us")
        self.gpu = gpu
        self.model = model
        self.overhead_us = overhead_us
        self._kv_bytes = kv_bytes_per_token(model)
        self._weight_bytes = weight_bytes_read(model)
        self._layer_flops = 2 * model.layers * _layer_matrices(model)
        self._head_flops = 2 * model.vocab * model.hidden
        self._attention_flops = 4 * model.layers * model.heads * model.head_dim
        self._bytes_per_second_x100 = gpu.bandwidth * memory_percent
        self._flops_per_second_x100 = gpu.flops * compute_percent

    def bytes_moved(self, work: StepWork) -> int:
        """Bytes that a step must move: weights once, KV of all contexts read, KV of new tokens written. O(admitted).

        Attention over a cached prefix reads that prefix once: a perfectly tiled kernel.
        """
        touched = work.decode_context
        for extend, cached in work.prefill:
            touched += cached + extend
        return self._weight_bytes + self._kv_bytes * touched

    def flops(self, work: StepWork) -> int:
        """Floating-point operations of a step, a multiply-add counting as two. O(admitted).

        Two per weight and token in the layers; the output head only for the one position of each request that is
        sampled; and attention, four per layer, dimension of a head, head, and pair of a query with a key it may see: an
        extend token sees the cached prefix, the extend tokens before it, and itself.
        """
        tokens = work.decode_requests
        pairs = work.decode_context
        for extend, cached in work.prefill:
            tokens += extend
            pairs += extend * cached + extend * (extend + 1) // 2
        sampled = work.decode_requests + len(work.prefill)
        return self._layer_flops * tokens + self._head_flops * sampled + self._attention_flops * pairs

    def memory_us(self, work: StepWork) -> int:
        """Time to move the step's bytes, in microseconds, rounded up. O(admitted)."""
        return _ceil_div(self.bytes_moved(work) * MICROSECONDS * 100, self._bytes_per_second_x100)

    def compute_us(self, work: StepWork) -> int:
        """Time to compute the step's FLOPs, in microseconds, rounded up. O(admitted)."""
        return _ceil_div(self.flops(work) * MICROSECONDS * 100, self._flops_per_second_x100)

    def step_us(self, work: StepWork) -> int:
        """The slower of memory and compute, plus the overhead; 1 for a step without any request. O(admitted).

        Nothing runs on an empty batch; it still takes a tick, so that time moves in a scheduler that spins.
        """
        if not work.prefill and not work.decode_requests:
            return 1
        return max(1, self.memory_us(work), self.compute_us(work)) + self.overhead_us


def parameters(model: ModelShape) -> int:
    """Number of weights of the whole model: embeddings, layers, norms and output head."""
    norms = model.hidden * (2 * model.layers + 1)
    tables = model.vocab * model.hidden * (1 if model.tied else 2)
    return model.layers * _layer_matrices(model) + norms + tables


def weight_bytes(model: ModelShape) -> int:
    """Bytes of GPU memory that the weights take."""
    return parameters(model) * model.bytes_per_value


def weight_bytes_read(model: ModelShape) -> int:
    """Bytes of weights that one step reads: all, but for an input embedding table of its own.

    Of that table a step reads one row a token, which is nothing beside the rest; a tied table is read whole, as output
    head.
    """
    unread = 0 if model.tied else model.vocab * model.hidden
    return (parameters(model) - unread) * model.bytes_per_value


def kv_bytes_per_token(model: ModelShape) -> int:
    """Bytes of KV cache that one token takes: a key and a value per layer and KV head."""
    return 2 * model.layers * model.kv_heads * model.head_dim * model.bytes_per_value


def kv_tokens_that_fit(gpu: Gpu, model: ModelShape) -> int:
    """KV cache capacity in tokens: what `KV_MEMORY_PERCENT` of the memory leaves beside the weights.

    Raises:
        InputError: if not even one token fits.
    """
    room = gpu.memory * KV_MEMORY_PERCENT // 100 - weight_bytes(model)
    tokens = room // kv_bytes_per_token(model)
    if tokens < 1:
        raise InputError(f"expected a model that fits in {gpu.name}, found {model.name}", field="model")
    return tokens


GPUS: Mapping[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        Gpu("a10g", memory=24 * 10**9, bandwidth=600 * 10**9, flops=70 * 10**12),
        Gpu("a100-80g", memory=80 * 10**9, bandwidth=2_039 * 10**9, flops=312 * 10**12),
        Gpu("h100", memory=80 * 10**9, bandwidth=3_350 * 10**9, flops=9_895 * 10**11),
        Gpu("h200", memory=141 * 10**9, bandwidth=4_800 * 10**9, flops=9_895 * 10**11),
    )
}
"""GPUs by name, from their data sheets (docs/timing.md); the SXM modules of A100, H100 and H200."""

MODELS: Mapping[str, ModelShape] = {
    model.name: model
    for model in (
        ModelShape(
            "llama-3.2-3b",
            layers=28,
            hidden=3_072,
            heads=24,
            kv_heads=8,
            head_dim=128,
            intermediate=8_192,
            vocab=128_256,
            tied=True,
        ),
        ModelShape(
            "llama-3.1-8b",
            layers=32,
            hidden=4_096,
            heads=32,
            kv_heads=8,
            head_dim=128,
            intermediate=14_336,
            vocab=128_256,
            tied=False,
        ),
    )
}
"""The two models of [DLPM §6.1] by name, from the configuration files published with them (docs/timing.md)."""

DEFAULT_MODELS: Mapping[str, str] = {
    "a10g": "llama-3.2-3b",
    "a100-80g": "llama-3.1-8b",
    "h100": "llama-3.1-8b",
    "h200": "llama-3.1-8b",
}
"""The model that a preset runs unless told otherwise: the pairs of [DLPM §6.1], and the 8B model on newer GPUs."""


def preset(gpu_name: str, model_name: str | None = None) -> Roofline:
    """The roofline of a known GPU with a known model, or with its default model.

    Raises:
        InputError: for a name that is not in `GPUS` or `MODELS`; the message lists the known ones.
    """
    gpu = GPUS.get(gpu_name)
    if gpu is None:
        raise InputError(f"expected one of {', '.join(GPUS)}, found {gpu_name!r}", field="gpu")
    chosen = DEFAULT_MODELS[gpu_name] if model_name is None else model_name
    model = MODELS.get(chosen)
    if model is None:
        raise InputError(f"expected one of {', '.join(MODELS)}, found {chosen!r}", field="model")
    return Roofline(gpu, model)


def _layer_matrices(model: ModelShape) -> int:
    """Weights in the matrices of one layer: queries and output, keys and values, and the three of the gated MLP."""
    query = model.hidden * model.heads * model.head_dim
    key = model.hidden * model.kv_heads * model.head_dim
    return 2 * query + 2 * key + 3 * model.hidden * model.intermediate


def _ceil_div(numerator: int, denominator: int) -> int:
    """Quotient rounded up, exactly, for a denominator > 0."""
    return -(-numerator // denominator)
