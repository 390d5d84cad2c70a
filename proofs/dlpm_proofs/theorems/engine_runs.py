"""Workloads that drive a client's counter towards the floor of an engine's profile (`dlpm.bounds_engine.for_engine`).

The construction puts the worst of each departure into one run. ``f`` comes, is served, and leaves with credit. ``a``
spends until its counter, as the gate will see it, is what a batch costs; then a full batch of ``a`` decodes d steps
that the gate does not hear of. On the credit that it still sees the gate lets in one more full batch: requests of one
shared prompt token with outputs as long as memory allows (the r-th of them yields ``(M - 1) / r`` tokens, or
``L_out``), and last a request with the longest input. ``f`` has come back with a prompt that does not fit: it has
credit, so no refill interrupts the fall.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

from dlpm import bounds
from dlpm.bounds_engine import for_engine, most_running
from dlpm.engine_profile import RESERVING, EngineProfile
from dlpm.request import Request
from dlpm_proofs.theorems.e8_late import LateSetting, lowest_true_counter
from dlpm_proofs.witness import Replay, call, replay

SINKS, WAITS = "a", "f"
SHARED = [0]


@dataclass(frozen=True, slots=True)
class Depth:
    """How deep a run got: the lowest true counter, the floor, and the run itself. In weighted tokens."""

    lowest: int
    floor: int
    run: Replay

    def within(self, numerator: int, denominator: int) -> bool:
        """Whether the floor is at most ``numerator / denominator`` times as deep as the run."""
        return -self.floor * denominator <= -self.lowest * numerator


def deepest(profile: EngineProfile) -> Depth:
    """The constructed run on the reference, for one profile. O(steps * B)."""
    run = replay(_setting(profile), _requests(profile), profile.engine)
    return Depth(lowest_true_counter(run, SINKS), for_engine(profile).floor, run)


def _setting(profile: EngineProfile) -> LateSetting:
    """The reference as that engine."""
    return LateSetting(
        profile.kv_tokens,
        profile.quanta.default,
        profile.cost.extend_weight,
        profile.cost.output_weight,
        memory=profile.memory,
        max_running=profile.max_running,
        delay=profile.late_steps,
    )


def _requests(profile: EngineProfile) -> list[Request]:
    """The requests of the run, in order of arrival."""
    batch = min(most_running(profile.kv_tokens, profile.max_running), _affordable(profile))
    longest, outputs = _last_batch(profile, batch)
    tokens = count(1)
    requests = [call("f1", WAITS, SHARED, 1)]
    requests += _spending(profile, (batch if profile.late_steps else 0) + len(outputs), tokens)
    ended = [requests[-1].id]
    if profile.late_steps:
        unheard = [call(f"unheard{k}", SINKS, SHARED, profile.late_steps, after=ended) for k in range(batch)]
        requests += unheard
        ended = [request.id for request in unheard]
    requests += [call(f"deep{place}", SINKS, SHARED, output, after=ended) for place, output in enumerate(outputs)]
    requests.append(call("long", SINKS, list(islice(tokens, longest)), 1, after=ended))
    requests.append(call("f2", WAITS, list(islice(tokens, profile.max_input)), 1, after=ended))
    return requests


def _affordable(profile: EngineProfile) -> int:
    """How many one-token prompts a quantum pays for, with something left."""
    return (profile.quanta.default - 1) // profile.cost.extend(1) + 1


def _spending(profile: EngineProfile, cheap: int, tokens: Iterator[int]) -> list[Request]:
    """Requests of ``a``, one after another, that leave its counter at 1 when ``cheap`` one-token prompts are paid."""
    quantum, cost = profile.quanta.default, profile.cost

    def left(size: int) -> int:
        return (-1 - cost.service(size + cheap, -(-size // profile.max_input))) % quantum

    spent = min(range(1, quantum), key=lambda size: (left(size), size))
    found: list[Request] = []
    while spent > 0:
        size = min(spent, profile.max_input)
        after = [found[-1].id if found else "f1"]
        found.append(call(f"spent{len(found)}", SINKS, list(islice(tokens, size)), 1, after=after))
        spent -= size
    return found


def _last_batch(profile: EngineProfile, batch: int) -> tuple[int, list[int]]:
    """The longest input of the last batch, and the outputs of the others, of which memory holds one prompt token."""
    most = profile.kv_tokens if profile.max_output is None else profile.max_output
    longest = min(profile.max_input, profile.kv_tokens - batch)
    if profile.memory != RESERVING:
        return longest, [min(most, bounds.requests_that_fit(profile.kv_tokens, place)) for place in range(1, batch)]
    if profile.cost.output(1) >= profile.cost.extend(1):
        longest = 1
    # The long one reserves a token as well.
    full, rest = divmod(profile.kv_tokens - 2 - longest, most)
    return longest, ([most] * full + [rest] * (rest > 0))[: batch - 1]
