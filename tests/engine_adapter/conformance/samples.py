"""Logs of fixed runs, rich enough that every mutation has a place in one of them."""

from __future__ import annotations

import copy
import random
from functools import cache

from dlpm.jsonl import JsonValue
from tests.engine_adapter.conformance.logs import Line, Log, Plan, record
from tests.reference.lockstep import CLIENTS, Shape
from tests.reference.naive_worker import Rules

SEEDS = range(8)

_STEMS = ((0, 0, 0, 0, 0, 0, 0, 0), (0, 0, 1, 0, 1, 1, 0, 1), (1, 0, 1, 1, 0, 0, 1, 0))


def sample_plan(seed: int, requests: int = 24) -> Plan:
    """A fixed plan of ``requests`` requests with steps between them."""
    source = random.Random(seed)
    plan: list[Shape | int] = []
    for _ in range(requests):
        stem = source.choice(_STEMS)
        prompt = stem[: source.randint(1, 8)] + tuple(source.choices((0, 1), k=source.randint(0, 3)))
        output = source.randint(1, 5)
        plan.append(
            Shape(
                client=source.choice(CLIENTS),
                prompt=prompt,
                output=output,
                spare_output=source.choice((0, 0, 2)),
                reply=(),
                hashed=False,
                tail_hashed=False,
            )
        )
        if source.random() < 0.3:
            plan.append(source.randint(1, 3))
    return plan


def sample_rules(policy: str, seed: int, memory: str = "reserving") -> Rules:
    """Rules under which the plans of `sample_plan` queue, refill and share."""
    source = random.Random(1000 + seed)
    return Rules(
        policy=policy,
        memory=memory,
        kv_tokens=source.randint(26, 48),
        block_size=source.choice((1, 1, 2)),
        visibility=source.choice(("at_admission", "after_forward")),
        quantum=source.randint(2, 9),
    )


@cache
def _sample(policy: str, seed: int, memory: str, full: bool) -> Log:
    return record(sample_rules(policy, seed, memory), sample_plan(seed), full=full)


def sample_log(policy: str, seed: int, *, memory: str = "reserving", full: bool = True) -> Log:
    """A fresh copy of the log of a fixed run."""
    return copy.deepcopy(_sample(policy, seed, memory, full))


def kind(line: Line) -> JsonValue:
    """The kind of an event; ``None`` for the header."""
    return line.get("event")
