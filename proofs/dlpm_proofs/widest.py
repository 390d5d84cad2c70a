"""Workloads that drive two backlogged clients apart by exactly the gap of `dlpm.bounds`.

Every request declares all memory that its prompt leaves, so that one runs at a time and the order of arrival
decides. What is left is a search over the two counters: who has credit may be served, with any size; when nobody has,
both are refilled. First ``g`` must be at its floor while ``f`` has a full quantum, then the other way round.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from dlpm import bounds
from dlpm.request import ClientId
from dlpm_proofs.deepest import Limits
from dlpm_proofs.witness import Replay, Setting, call, replay

F, G = "f", "g"

Counters = tuple[int, int]
"""Of f and of g."""


@dataclass(frozen=True, slots=True)
class Service:
    """One request to be served: whose, and how many tokens it computes and yields."""

    client: ClientId
    extend: int
    output: int


def widest_run(limits: Limits, other_quantum: int | None = None) -> Replay | None:
    """A run of the reference that reaches the gap, or ``None`` if the counters cannot be brought there.

    ``limits`` must leave outputs and batch unlimited: ``L_out >= M - 1``. The quantum is that of both clients, or of f
    alone where that of g is ``other_quantum``. O(counters^2 * sizes).
    """
    of_g = replace(limits, quantum=other_quantum or limits.quantum)
    quanta = (limits.quantum, of_g.quantum)
    deep = _costliest(limits)
    plan = _path(limits, quanta, (0, 0), (limits.quantum, of_g.unit()))
    back = _path(limits, quanta, (limits.quantum, of_g.floor()), (limits.unit(), of_g.quantum))
    if plan is None or back is None:
        return None
    served = [*plan, Service(G, *deep), *back, Service(F, *deep)]
    requests = []
    fresh = 0
    for k, service in enumerate([*served, Service(G, 1, 1), Service(F, 1, 1)]):
        prompt = range(fresh, fresh + service.extend)
        most = limits.kv_tokens - service.extend
        requests.append(call(f"{service.client}{k + 1}", service.client, prompt, service.output, max_output=most))
        fresh += service.extend
    own = ((G, other_quantum),) if other_quantum else ()
    setting = Setting(limits.kv_tokens, limits.quantum, limits.extend_weight, limits.output_weight, quanta=own)
    return replay(setting, requests, "widest gap")


def gap(limits: Limits) -> int:
    """The gap that is to be reached."""
    return bounds.service_gap(limits.quantum, limits.floor())


def _sizes(limits: Limits) -> Iterator[tuple[int, int]]:
    """All requests that fit."""
    for extend in range(1, min(limits.max_input, limits.kv_tokens - 1) + 1):
        for output in range(1, limits.kv_tokens - extend + 1):
            yield extend, output


def _costliest(limits: Limits) -> tuple[int, int]:
    """The request that costs most."""
    return max(_sizes(limits), key=lambda size: limits.cost().service(*size))


def _path(limits: Limits, quanta: Counters, start: Counters, end: Counters) -> list[Service] | None:
    """Services that lead the counters from ``start`` to ``end``, refills happening when they must."""
    cheapest = {limits.cost().service(*size): size for size in _sizes(limits)}
    reached: dict[Counters, list[Service]] = {start: []}
    todo = deque([start])
    while todo:
        counters = todo.popleft()
        if counters == end:
            return reached[counters]
        for after, service in _moves(counters, quanta, cheapest):
            if after not in reached:
                reached[after] = [*reached[counters], service] if service else reached[counters]
                todo.append(after)
    return None


def _moves(
    counters: Counters, quanta: Counters, cheapest: dict[int, tuple[int, int]]
) -> Iterator[tuple[Counters, Service | None]]:
    """A refill of both if nobody has credit, else a service of anybody who has."""
    of_f, of_g = counters
    if of_f <= 0 and of_g <= 0:
        yield (of_f + quanta[0], of_g + quanta[1]), None
    for price, size in cheapest.items():
        if of_f > 0:
            yield (of_f - price, of_g), Service(F, *size)
        if of_g > 0:
            yield (of_f, of_g - price), Service(G, *size)
