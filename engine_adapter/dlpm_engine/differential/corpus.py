"""Hand-made cases: each is one thing that a scheduler, ours or somebody else's, has got wrong or could get wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from dlpm.batch import AFTER_FORWARD
from dlpm.request import Request, Workload
from dlpm_engine.adapter import OPTIMISTIC, EngineConfig
from dlpm_engine.differential.case import STEP_US, Case
from dlpm_engine.differential.generate import hashed

_FAR = 2**62


def _request(
    number: int,
    client: str,
    prompt: Iterable[int],
    output: int = 1,
    *,
    at: int = 0,
    limit: int | None = None,
    reply: tuple[int, ...] = (),
    after: tuple[str, ...] = (),
) -> Request:
    """Request ``r<number>``, arriving for step ``at``; ``limit`` is its declared output where that is more."""
    tokens = tuple(prompt)
    return Request(
        id=f"r{number}",
        client=client,
        arrival_us=at * STEP_US,
        input_tokens=len(tokens),
        output_tokens=output,
        max_output=output if limit is None else limit,
        prompt=tokens,
        reply=reply,
        parents=after,
    )


def _family(family: int, shared: int, own: int, length: int) -> list[int]:
    """A prompt that shares its first tokens with its family and ends in tokens of its own."""
    return [family] * shared + [1000 + own] * (length - shared)


_PLAIN = EngineConfig(quantum=10, kv_tokens=100)


def _cases() -> Iterable[tuple[str, EngineConfig, list[Request]]]:
    """Name, parameters and requests of each case."""
    yield (
        "equal matches of two clients go by arrival",
        _PLAIN,
        [_request(0, "A", [1, 1, 1]), *(_request(k, "BA"[k % 2], [1, 1, k], at=1) for k in range(1, 7))],
    )
    yield (
        "credit of exactly zero is no credit",
        replace(_PLAIN, quantum=4, extend_weight=1, output_weight=1),
        [_request(k, "AB"[k % 2], [k, k, k], 1) for k in range(8)],
    )
    yield (
        "a refill in the middle of a pass goes on from where it fired",
        replace(_PLAIN, quantum=3),
        [_request(k, "ABC"[k % 3], [k] * 5, 2) for k in range(9)],
    )
    yield (
        "debt of many quanta takes many refills",
        replace(_PLAIN, quantum=1, output_weight=3),
        [_request(k, "AB"[k % 2], [k] * 20, 10) for k in range(4)],
    )
    yield (
        "memory holds exactly one request, and then exactly two",
        replace(_PLAIN, kv_tokens=8),
        [
            _request(0, "A", [1] * 6, 2),
            _request(1, "B", [2] * 3, 1),
            _request(2, "A", [3] * 3, 1),
            _request(3, "B", [4] * 7),
        ],
    )
    yield (
        "what does not fit lets what stands behind it pass",
        replace(_PLAIN, kv_tokens=20, quantum=100),
        [
            _request(0, "A", [1] * 8, 4),
            _request(1, "A", [2] * 12, 8, at=1),
            *(_request(k, "B", [k], 1, at=k // 3) for k in (2, 3, 4)),
        ],
    )
    yield (
        "a prompt that is evicted and comes back",
        replace(_PLAIN, kv_tokens=12),
        [_request(k, "AB"[k % 2], [k % 3] * 8, 2, at=3 * k) for k in range(9)],
    )
    yield (
        "the beginning of a prompt, used again, outlives what was used in between",
        replace(_PLAIN, kv_tokens=15, quantum=100),
        [
            _request(0, "A", [1] * 8),
            _request(1, "B", [2] * 4, at=2),
            _request(2, "A", [1] * 4, at=4),
            _request(3, "B", [3] * 8, at=6),
            _request(4, "A", [1] * 4 + [4], at=8),
        ],
    )
    yield (
        "a prompt evicted by the admission before its own",
        replace(_PLAIN, kv_tokens=24, quantum=100),
        [
            *(_request(k, "AB"[k % 2], [k] * 6, 1, at=2 * k) for k in range(3)),
            _request(3, "A", [1] * 6 + [3] * 6, 1, at=6),
            _request(4, "B", [0] * 6 + [4], 1, at=6),
        ],
    )
    yield (
        "a client leaves in debt and returns",
        replace(_PLAIN, quantum=5),
        [
            _request(0, "A", [1] * 10, 10),
            *(_request(k, "B", [k] * 3, 2, at=4 * k) for k in range(1, 6)),
            _request(6, "A", [9] * 2, 2, at=22),
        ],
    )
    yield (
        "a client leaves with credit and returns",
        replace(_PLAIN, quantum=50),
        [
            _request(0, "A", [1], 1),
            *(_request(k, "B", [k] * 10, 8, at=k) for k in range(1, 6)),
            _request(6, "A", [2] * 4, 2, at=12),
        ],
    )
    yield (
        "one-token prompts, one-token outputs",
        replace(_PLAIN, quantum=1, kv_tokens=6),
        [_request(k, "ABC"[k % 3], [k % 2], 1, at=k // 4) for k in range(16)],
    )
    yield (
        "the same prompt over and over, all of it cached",
        replace(_PLAIN, block_size=4, kv_tokens=64),
        [_request(k, "AB"[k % 2], [7] * 8, 2, at=k // 3) for k in range(10)],
    )
    yield (
        "a cached prompt admitted in full memory",
        replace(_PLAIN, block_size=4, kv_tokens=9),
        [_request(0, "A", [7] * 8, 1), _request(1, "B", [7] * 8, 1, at=2)],
    )
    yield (
        "weights near 2^62, in range to the last unit",
        replace(_PLAIN, quantum=_FAR, extend_weight=_FAR - 1, output_weight=_FAR),
        [_request(0, "A", [1], 1), _request(1, "B", [2, 2], 1)],
    )
    yield (
        "weights near 2^62, out of range",
        replace(_PLAIN, quantum=_FAR, extend_weight=2 * _FAR - 1, output_weight=_FAR),
        [_request(0, "A", [1], 3), _request(1, "B", [2, 2], 2)],
    )
    yield (
        "a product beyond int64 whose difference is not",
        replace(_PLAIN, quantum=2 * _FAR - 1, extend_weight=_FAR, output_weight=1),
        [_request(0, "A", [1, 2, 3], 1)],
    )
    yield (
        "preemption of the youngest, again and again",
        replace(_PLAIN, kv_tokens=16, memory=OPTIMISTIC, quantum=100),
        [_request(k, "AB"[k % 2], [k] * 2, 10) for k in range(5)],
    )
    yield (
        "preempted in the step of its admission, its blocks discarded",
        replace(_PLAIN, kv_tokens=8, memory=OPTIMISTIC, quantum=100),
        [_request(0, "A", [1] * 4, 4), _request(1, "B", [2] * 4, 4)],
    )
    yield (
        "a preempted request finds its prompt in the cache when it returns",
        replace(_PLAIN, kv_tokens=20, memory=OPTIMISTIC, quantum=100, block_size=2, visibility=AFTER_FORWARD),
        [_request(k, "AB"[k % 2], [5, 5, 5, k, k], 8) for k in range(3)],
    )
    yield (
        "a watermark holds a batch back, but never the first request",
        replace(_PLAIN, kv_tokens=10, memory=OPTIMISTIC, watermark=4),
        [_request(0, "A", [1] * 9, 1), _request(1, "B", [2] * 2, 2), _request(2, "A", [3] * 4, 2, at=1)],
    )
    yield (
        "full memory does not stall the scheduler for ever",
        replace(_PLAIN, kv_tokens=12, quantum=2),
        [_request(k, "ABCD"[k % 4], [k] * 8, 4) for k in range(8)],
    )
    yield (
        "cold requests are not starved by a stream of warm ones",
        replace(_PLAIN, kv_tokens=40, quantum=6, max_running=2),
        [
            _request(0, "cold", [9] * 5, 1, at=1),
            *(_request(k, "warm", [1] * 6 + [k], 2, at=k // 2) for k in range(1, 15)),
        ],
    )
    yield (
        "quanta of four to one",
        replace(_PLAIN, quanta={"A": 40, "B": 10}, kv_tokens=30, max_running=2),
        [_request(k, "AB"[k % 2], [k] * 5, 3) for k in range(16)],
    )
    yield (
        "families that share a prefix, visible at admission",
        replace(_PLAIN, kv_tokens=60, quantum=30),
        [_request(k, "ABC"[k % 3], _family(k % 2, 4 + 2 * (k % 3), k, 10), 2, at=k // 5) for k in range(12)],
    )
    yield (
        "families that share a prefix, visible after the forward",
        replace(_PLAIN, kv_tokens=30, quantum=30, visibility=AFTER_FORWARD),
        [_request(k, "ABC"[k % 3], _family(k % 2, 4 + 2 * (k % 3), k, 10), 2, at=k // 5) for k in range(12)],
    )
    yield (
        "a conversation: every turn continues the reply before it",
        replace(_PLAIN, kv_tokens=60, quantum=15),
        [
            _request(0, "A", [1, 2, 3], 3, reply=(4, 5, 6)),
            _request(1, "A", [1, 2, 3, 4, 5, 6, 7], 2, reply=(8, 9), after=("r0",)),
            _request(2, "A", [1, 2, 3, 4, 5, 6, 7, 8, 9, 1], 2, after=("r1",)),
            _request(3, "B", [1, 2, 3, 4, 5, 6, 2], 2, after=("r0",)),
            _request(4, "B", [3] * 8, 4),
        ],
    )
    yield (
        "replies fill the cache",
        replace(_PLAIN, kv_tokens=12, quantum=40),
        [_request(k, "AB"[k % 2], [k, k, k], 4, reply=(5, 6, 7, k), at=2 * k) for k in range(6)],
    )
    yield (
        "a reply that leaves a partial block of its prompt behind",
        replace(_PLAIN, kv_tokens=6),
        [_request(k, "A", [1, 2], 1, reply=(7 + k,), at=k) for k in range(2)],
    )
    yield (
        "a request that can never fit is refused",
        replace(_PLAIN, kv_tokens=10),
        [_request(0, "A", [1] * 9, 2), _request(1, "B", [2] * 9, 1), _request(2, "C", [3] * 2, 2, limit=9)],
    )


def _hashed(number: int, client: str, blocks: tuple[int, ...], tokens: int, output: int = 1, *, at: int = 0) -> Request:
    """A request whose prompt of so many tokens is known by hashes of its blocks alone."""
    return Request(
        id=f"r{number}",
        client=client,
        arrival_us=at * STEP_US,
        input_tokens=tokens,
        output_tokens=output,
        max_output=output,
        blocks=blocks,
    )


_GIVES_MEMORY_BACK = Case(
    "an admission that gives memory back, because a longer prompt has cached its last block",
    replace(_PLAIN, quantum=100, kv_tokens=14, block_size=4, memory=OPTIMISTIC, visibility=AFTER_FORWARD),
    (
        # Block 2 holds 4 tokens to r1, which runs, and 2 to r3, which then holds less than its share of what is locked.
        # So r4 fits after r3, and goes before r5, which fits already.
        _hashed(0, "D", (1, 9), 5),
        _hashed(1, "A", (1, 2), 8, 4, at=1),
        _hashed(2, "C", (1, 9, 11), 12, at=2),
        _hashed(3, "B", (1, 2), 6, at=2),
        _hashed(4, "C", (1, 9, 12), 10, at=2),
        _hashed(5, "C", (1, 9, 13), 9, at=2),
    ),
)

_HASHED = (
    ("a prompt that is evicted and comes back", 3),
    ("replies fill the cache", 2),
    ("a reply that leaves a partial block of its prompt behind", 3),
)


def corpus() -> Mapping[str, Case]:
    """All hand-made cases by name, the largest last; some are there with hashed prompts, too. O(their tokens)."""
    cases: dict[str, Case] = {}
    for name, config, requests in _cases():
        cases[name] = Case(name, config, tuple(requests))
    for name, block_size in _HASHED:
        plain = cases[name]
        for partial in (False, True):
            workload = Workload(block_size=block_size, requests=plain.requests)
            label = f"{name}, hashed in blocks of {block_size}{', partial blocks too' if partial else ''}"
            config = replace(plain.config, block_size=block_size)
            cases[label] = Case(label, config, hashed(workload, partial=partial))
    cases[_GIVES_MEMORY_BACK.name] = _GIVES_MEMORY_BACK
    crowd = "a thousand clients, one request each"
    many = tuple(_request(k, f"c{k:03}", [k % 7, k % 11, k], 1) for k in range(1000))
    cases[crowd] = Case(crowd, replace(_PLAIN, kv_tokens=100, quantum=3, max_running=16), many)
    crowd = "thousands of clients, of whom every fourth returns in debt or with credit left"
    once = [_request(k, f"c{k:04}", [k % 5, k % 13, k], 1 + k % 2) for k in range(2400)]
    back = [_request(len(once) + k, f"c{4 * k:04}", [k % 5, k], 1, at=10) for k in range(len(once) // 4)]
    cases[crowd] = Case(crowd, replace(_PLAIN, kv_tokens=3000, quantum=4, max_running=400), (*once, *back))
    return cases
