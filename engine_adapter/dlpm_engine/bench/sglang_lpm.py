"""Times SGLang's own longest-prefix-match order; run by an interpreter that has SGLang (docs/benchmarks.md).

Needs nothing of this project: `dlpm bench --sglang PYTHON` runs it as a program of its own and reads one line of JSON
a queue length. It stands in for the packages that SGLang imports for a GPU and does not use for this: triton and
torchvision. As shipped, SGLang orders by arrival above 128 waiting requests; that limit is lifted here.
"""

from __future__ import annotations

import gc
import importlib
import importlib.abc
import importlib.machinery
import json
import logging
import random
import sys
import time
from array import array
from collections.abc import Sequence
from types import ModuleType

_ABSENT = ("torchvision", "triton")
_FAMILIES = 64
_PROMPT = 2048
_SHARED = (512, 1024, 1536)
_VOCABULARY = 32_000
_CACHE_TOKENS = 400_000
_NO_LIMIT = 10**9


class _Anything:
    """A value that can be called, subscripted and asked for attributes, and is good for nothing."""

    def __init__(self, *values: object, **named: object) -> None:
        del values, named

    def __call__(self, *values: object, **named: object) -> object:
        del named
        return values[0] if values and callable(values[0]) else self

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()

    def __getitem__(self, key: object) -> object:
        del key
        return self

    def __or__(self, other: object) -> object:
        del other
        return self

    __ror__ = __or__


class _StandIn(ModuleType):
    """A module that has whatever is asked of it: classes for capitalized names, values for others."""

    __version__ = "3.9.0"

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        whole = f"{self.__name__}.{name}"
        if whole in sys.modules:
            return sys.modules[whole]
        value: object = type(name, (_Anything,), {}) if name[:1].isupper() else _Anything()
        setattr(self, name, value)
        return value


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the stand-ins."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname.partition(".")[0] not in _ABSENT:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = _StandIn(spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module: ModuleType) -> None:
        del module


def _settle(module_name: str, prefix: str) -> None:
    """Let a package find out what is missing before the stand-ins are there."""
    module = importlib.import_module(module_name)
    for name in dir(module):
        if name.startswith(prefix):
            try:
                getattr(module, name)()
            # Whatever such a question raises, it has been asked.
            except Exception as error:
                logging.debug("%s: %s", name, error)


def _prompts(waiting: int, draw: random.Random) -> tuple[list[array[int]], list[array[int]]]:
    """The families' prefixes, and the prompts that share them and no token more."""
    torch = importlib.import_module("torch")
    generator = torch.Generator().manual_seed(waiting)

    def tokens(count: int, least: int) -> array[int]:
        drawn = torch.randint(least, least + _VOCABULARY, (count,), generator=generator, dtype=torch.int64)
        return array("q", drawn.numpy().tobytes())

    families = [tokens(max(_SHARED), 1) for _ in range(_FAMILIES)]
    prompts = []
    for _ in range(waiting):
        shared = draw.choice(_SHARED)
        prompts.append(draw.choice(families)[:shared] + tokens(_PROMPT - shared, 1 + _VOCABULARY))
    return families, prompts


def _order_us(waiting: int, repetitions: int) -> tuple[list[float], list[float]]:
    """Microseconds that SGLang takes to order a queue by prefix match, all families cached.

    Processor time of all threads, and time by the clock on the wall, of each repetition but the first.
    """
    modules = {
        name: importlib.import_module(f"sglang.srt.{path}")
        for name, path in (
            ("policy", "managers.schedule_policy"),
            ("batch", "managers.schedule_batch"),
            ("sampling", "sampling.sampling_params"),
            ("allocator", "mem_cache.allocator"),
            ("base", "mem_cache.base_prefix_cache"),
            ("parameters", "mem_cache.cache_init_params"),
            ("pool", "mem_cache.memory_pool"),
            ("radix", "mem_cache.radix_cache"),
            ("unified", "mem_cache.unified_radix_cache"),
            ("component", "mem_cache.unified_cache.components.base"),
        )
    }
    torch = importlib.import_module("torch")
    pool = modules["pool"].MHATokenToKVPool(
        size=_CACHE_TOKENS,
        page_size=1,
        dtype=torch.bfloat16,
        head_num=1,
        head_dim=1,
        layer_num=1,
        device="cpu",
        enable_memory_saver=False,
    )
    allocator = modules["allocator"].TokenToKVPoolAllocator(
        size=_CACHE_TOKENS, dtype=torch.bfloat16, device="cpu", kvcache=pool, need_sort=False
    )
    requests_pool = modules["pool"].ReqToTokenPool(
        size=16, max_context_len=2 * _PROMPT, device="cpu", enable_memory_saver=False
    )
    tree = modules["unified"].UnifiedRadixCache(
        params=modules["parameters"].CacheInitParams(
            disable=False,
            req_to_token_pool=requests_pool,
            token_to_kv_pool_allocator=allocator,
            page_size=1,
            tree_components=(modules["component"].ComponentType.FULL,),
            tree_core_backend="rust",
        )
    )
    draw = random.Random(waiting)
    families, prompts = _prompts(waiting, draw)
    for tokens in families:
        key = modules["radix"].RadixKey(token_ids=tokens)
        tree.insert(modules["base"].InsertParams(key=key, value=allocator.alloc(len(tokens))))
    queue = [
        modules["batch"].Req(
            rid=f"r{place}",
            origin_input_text="",
            origin_input_ids=prompt,
            sampling_params=modules["sampling"].SamplingParams(max_new_tokens=64),
        )
        for place, prompt in enumerate(prompts)
    ]
    policy = modules["policy"].SchedulePolicy("lpm", tree, False, False, False)
    vars(modules["policy"])["WAITING_QUEUE_PREFIX_MATCH_MAX"] = _NO_LIMIT
    gc.collect()
    gc.freeze()
    processor = []
    wall = []
    for _ in range(repetitions + 1):
        draw.shuffle(queue)
        wall_before, before = time.perf_counter_ns(), time.process_time_ns()
        policy.calc_priority(queue)
        processor.append((time.process_time_ns() - before) / 1000)
        wall.append((time.perf_counter_ns() - wall_before) / 1000)
    gc.unfreeze()
    matched = [request.num_matched_prefix_tokens for request in queue]
    if matched != sorted(matched, reverse=True) or set(matched) - set(_SHARED):
        raise RuntimeError("SGLang did not order by the shared prefixes: its interface has changed")
    return processor[1:], wall[1:]


def main() -> None:
    """Usage: python sglang_lpm.py REPETITIONS WAITING..."""
    repetitions, *lengths = map(int, sys.argv[1:])
    _settle("transformers.utils.import_utils", "is_")
    _settle("torch.utils._triton", "has_triton")
    sys.meta_path.insert(0, _Finder())
    importlib.import_module("torch").set_num_threads(1)
    importlib.import_module("sglang.srt.runtime_context").get_context().override_server_args().install()
    logging.getLogger("sglang").setLevel(logging.ERROR)
    version = importlib.import_module("importlib.metadata").version("sglang")
    for waiting in lengths:
        processor, wall = _order_us(waiting, repetitions)
        row = {"sglang": version, "waiting": waiting, "processor_us": processor, "wall_us": wall}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
