"""Random cases, by profile: each profile leans on one thing that schedulers get wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random

from dlpm.batch import AFTER_FORWARD, AT_ADMISSION
from dlpm.request import Request, Workload
from dlpm.workload.fuzz import random_workload
from dlpm_engine.adapter import OPTIMISTIC, RESERVING, EngineConfig
from dlpm_engine.differential.case import STEP_US, Case

_WEIGHT = 2**62


@dataclass(frozen=True, slots=True)
class Shape:
    """What a profile draws from: inclusive ranges, choices, and chances.

    Attributes:
        clients: how many at most.
        requests: how many.
        alphabet: distinct token ids; few make prompts collide.
        longest: longest prompt in tokens.
        output: largest declared output in tokens.
        span: arrivals are spread over so many steps.
        block_sizes: tokens a block.
        reply: chance that a reply is known, and cached.
        parents: chance that a request waits for earlier ones.
        hashed: chance that prompts are given as block hashes.
        quanta: quantum in weighted tokens.
        weights: of extend and of output tokens.
        slack: tokens of memory beyond the largest request.
        optimistic: chance of optimistic memory.
        watermark: tokens kept free then.
        batch: largest batch, or None.
        after_forward: chance that prompts become visible after the forward only.
        own_quanta: chance that clients have quanta of their own.
    """

    clients: tuple[int, int] = (1, 4)
    requests: tuple[int, int] = (1, 14)
    alphabet: tuple[int, int] = (1, 3)
    longest: tuple[int, int] = (2, 12)
    output: tuple[int, int] = (1, 6)
    span: tuple[int, int] = (0, 12)
    block_sizes: tuple[int, ...] = (1, 1, 2, 3, 4)
    reply: float = 0.5
    parents: float = 0.1
    hashed: float = 0.3
    quanta: tuple[int, ...] = (1, 3, 8, 20, 60)
    weights: tuple[int, ...] = (1, 1, 2, 3)
    slack: tuple[int, ...] = (0, 0, 1, 3, 8, 20, 100)
    optimistic: float = 0.5
    watermark: tuple[int, ...] = (0, 0, 1, 3)
    batch: tuple[int | None, ...] = (None, None, 1, 2, 4)
    after_forward: float = 0.4
    own_quanta: float = 0.3


PROFILES: Mapping[str, Shape] = {
    "mixed": Shape(),
    "equal matches": Shape(alphabet=(1, 1), longest=(1, 6), slack=(3, 8, 20, 100), reply=0.2, batch=(None, 1, 2)),
    "zero credit": Shape(quanta=(2, 4, 6, 8), weights=(1, 2), longest=(2, 4), alphabet=(2, 4), clients=(2, 5)),
    "memory exactly full": Shape(slack=(0, 1, 2), longest=(2, 6), output=(1, 4), optimistic=0.3, quanta=(60,)),
    "evicted and matched again": Shape(slack=(0, 1, 2, 4), alphabet=(2, 3), reply=0.8, span=(10, 40), quanta=(20, 60)),
    "clients come and go": Shape(span=(20, 60), clients=(2, 6), requests=(6, 20), parents=0.3, slack=(8, 20)),
    "huge weights": Shape(
        weights=(1, _WEIGHT // 8, _WEIGHT // 3, _WEIGHT - 1, _WEIGHT, 2 * _WEIGHT - 1),
        quanta=(_WEIGHT // 2, _WEIGHT - 1, _WEIGHT, 2 * _WEIGHT - 1),
        longest=(1, 5),
        output=(1, 3),
    ),
    "one-token prompts": Shape(longest=(1, 1), output=(1, 2), alphabet=(1, 2), block_sizes=(1,), requests=(2, 20)),
    "many clients": Shape(clients=(30, 150), requests=(40, 160), span=(0, 10), quanta=(3, 8), slack=(20, 100)),
    "everything cached": Shape(alphabet=(1, 1), longest=(4, 12), reply=1.0, slack=(100, 400), requests=(4, 20)),
    "preemption": Shape(optimistic=1.0, output=(4, 20), longest=(1, 6), slack=(0, 1, 3, 8), batch=(None, 4, 8)),
    "deep debt": Shape(quanta=(1, 2, 3), output=(4, 12), longest=(4, 16), clients=(2, 5), requests=(3, 10)),
    "partial blocks": Shape(block_sizes=(2, 3, 4, 7), hashed=1.0, reply=0.7),
    "long queue": Shape(requests=(60, 160), clients=(2, 8), span=(0, 4), output=(1, 4), slack=(8, 20, 100), reply=0.2),
    "reply of a reply": Shape(reply=1.0, parents=0.7, span=(0, 6), alphabet=(1, 2), slack=(3, 8, 20)),
    "preempted over and over": Shape(
        optimistic=1.0,
        output=(8, 16),
        longest=(1, 4),
        slack=(0, 1),
        quanta=(200,),
        block_sizes=(1, 2),
        after_forward=0.7,
    ),
}
"""By name. Together they reach every kind of decision in `kinds.KINDS`."""

# Cases of these take as long as dozens of the others.
_RARE = {"many clients": 1, "long queue": 1}
_OFTEN = 6
_NAMES = tuple(name for name in PROFILES for _ in range(_RARE.get(name, _OFTEN)))


def generate(seed: int, number: int, most_requests: int | None = None) -> Case:
    """Case ``number`` of the campaign with ``seed``: always the same. O(its requests).

    With ``most_requests`` it is another case, of so many requests at most.
    """
    label = f"{seed}/{number}" if most_requests is None else f"{seed}/{number}/{most_requests}"
    draw = Random(label)
    profile = draw.choice(_NAMES)
    shape = PROFILES[profile]
    if most_requests is not None:
        shape = replace(shape, requests=(1, most_requests))
    return from_shape(shape, draw, f"{profile} {label}")


def from_shape(shape: Shape, draw: Random, name: str) -> Case:
    """A case of a shape; all randomness comes from ``draw``. O(its requests)."""
    block_size = draw.choice(shape.block_sizes)
    workload = random_workload(
        draw,
        clients=draw.randint(*shape.clients),
        requests=draw.randint(*shape.requests),
        alphabet=draw.randint(*shape.alphabet),
        max_input=draw.randint(*shape.longest),
        max_output=draw.randint(*shape.output),
        block_size=block_size,
        span_us=draw.randint(*shape.span),
        reply_chance=shape.reply,
        parent_chance=shape.parents,
    )
    requests = tuple(
        replace(request, arrival_us=request.arrival_us * STEP_US, think_us=request.think_us * STEP_US)
        for request in workload.requests
    )
    config = _config(shape, draw, requests, block_size)
    if draw.random() < shape.hashed:
        requests = hashed(replace(workload, requests=requests), partial=draw.random() < 0.5)
    return Case(name, config, requests)


def _config(shape: Shape, draw: Random, requests: tuple[Request, ...], block_size: int) -> EngineConfig:
    """Parameters to go with the requests."""
    largest = max(request.input_tokens + request.max_output for request in requests)
    kv_tokens = largest + draw.choice(shape.slack)
    if draw.random() < 0.02:
        kv_tokens = max(1, largest - 1)
    clients = sorted({request.client for request in requests})
    own = draw.random() < shape.own_quanta
    return EngineConfig(
        quantum=draw.choice(shape.quanta),
        quanta={client: draw.choice(shape.quanta) for client in clients if own and draw.random() < 0.5},
        extend_weight=draw.choice(shape.weights),
        output_weight=draw.choice(shape.weights),
        kv_tokens=kv_tokens,
        block_size=block_size,
        max_running=draw.choice(shape.batch),
        memory=OPTIMISTIC if draw.random() < shape.optimistic else RESERVING,
        watermark=draw.choice(shape.watermark),
        visibility=AFTER_FORWARD if draw.random() < shape.after_forward else AT_ADMISSION,
    )


def hashed(workload: Workload, *, partial: bool) -> tuple[Request, ...]:
    """The same requests with prompts as hashes of their blocks. O(tokens).

    Equal prefixes get equal hashes. With ``partial``, a tail shorter than a block gets a hash, too, as in some traces.
    """
    size = workload.block_size
    known: dict[tuple[int, ...], int] = {}

    def hashes(tokens: tuple[int, ...], last: int) -> tuple[int, ...]:
        ends = [min(end, len(tokens)) for end in range(size, last + size, size)]
        return tuple(known.setdefault(tokens[:end], len(known)) for end in ends)

    def whole(tokens: int) -> int:
        return tokens - tokens % size

    made = []
    for request in workload.requests:
        blocks = hashes(request.prompt, request.input_tokens if partial else whole(request.input_tokens))
        if not blocks:
            made.append(request)
            continue
        sequence = request.prompt + request.reply
        after = hashes(sequence, whole(len(sequence)))[request.input_tokens // size :] if request.reply else ()
        made.append(replace(request, prompt=(), blocks=blocks, reply=(), reply_blocks=after))
    return tuple(made)
