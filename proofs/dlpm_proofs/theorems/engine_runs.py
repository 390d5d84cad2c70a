"""Workloads that drive a client's counter towards the floor of an engine's profile (`dlpm.bounds_engine.for_engine`).

The construction puts the worst of each departure into one run. ``f`` comes, is served, and leaves with credit. ``a``
spends until its counter, as the gate will see it, is what a batch costs; then a full batch of ``a`` decodes d steps
that the gate does not hear of. On the credit that it still sees the gate lets in one more full batch: requests of one
shared prompt token with outputs as long as memory allows (the r-th of them yields ``(M - 1) / r`` tokens, or
``L_out``), and last a request with the longest input. ``f`` has come back with a prompt that does not fit: it has
credit, so no refill interrupts the fall.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

from dlpm import bounds
from dlpm.bounds_engine import for_engine, most_running
from dlpm.engine_profile import RESERVING, EngineProfile
from dlpm.request import ClientId, Request, RequestId
from dlpm_proofs.engine_setting import setting_of
from dlpm_proofs.theorems.e8_late import lowest_true_counter
from dlpm_proofs.witness import Replay, call, replay

SINKS, WAITS = "a", "f"
SHARED = [0]


@dataclass(frozen=True, slots=True)
class Reached:
    """What a run reached of a bound, and the run itself. Both numbers are sizes, in weighted tokens."""

    found: int
    bound: int
    run: Replay

    def within(self, numerator: int, denominator: int) -> bool:
        """Whether the bound is at most ``numerator / denominator`` times what was found."""
        return self.bound * denominator <= self.found * numerator


def deepest(profile: EngineProfile) -> Reached:
    """The run that sinks a counter, on the reference: how far below zero it gets. O(steps * B)."""
    run = replay(setting_of(profile), _sinking(profile, count(1)), f"{profile.engine}: floor")
    return Reached(-lowest_true_counter(run, SINKS), -for_engine(profile).floor, run)


def widest(profile: EngineProfile) -> Reached:
    """The same, and then ``f`` does to ``a`` what ``a`` did to it: how far it gets ahead. O(steps * B).

    While ``a`` is in debt, each refill pays both alike, and ``f`` spends it. When ``a`` is out of debt, ``f`` sinks.
    ``a`` has a request queued throughout.
    """
    tokens = count(1)
    requests = _sinking(profile, tokens)
    bound = for_engine(profile)
    longest = profile.max_input

    def long(name: RequestId, client: ClientId, after: Sequence[RequestId]) -> Request:
        return call(name, client, list(islice(tokens, longest)), 1, after=after)

    freed = requests[-1].parents
    refunds = -(-bound.unit // profile.cost.service(longest, 1))
    requests += [long(f"next{place}", SINKS, freed) for place in range(refunds)]
    requests += [long(f"paid{place}", WAITS, freed) for place in range(refunds + 1)]
    requests += _last_batch(profile, WAITS, [f"paid{refunds - 1}"], tokens)
    requests.append(long("rest", WAITS, [f"paid{refunds - 1}"]))
    run = replay(setting_of(profile), requests, f"{profile.engine}: gap")
    return Reached(run.widest_gap(WAITS, SINKS, both_backlogged=False), bound.gap, run)


def _sinking(profile: EngineProfile, tokens: Iterator[int]) -> list[Request]:
    """``a`` sinks while ``f`` waits with credit: the requests in order of arrival, that of ``f`` the last."""
    batch = _batch(profile)
    heard_late = batch if profile.late_steps else 0
    requests = [call("f1", WAITS, SHARED, 1)]
    requests += _spending(profile, heard_late + len(_last_outputs(profile, batch)[1]) - 1, tokens)
    after = [requests[-1].id]
    unheard = [call(f"unheard{place}", SINKS, SHARED, profile.late_steps, after=after) for place in range(heard_late)]
    ended = [request.id for request in unheard] or after
    requests += [*unheard, *_last_batch(profile, SINKS, ended, tokens)]
    requests.append(call("f2", WAITS, list(islice(tokens, profile.max_input)), 1, after=ended))
    return requests


def _last_batch(
    profile: EngineProfile, client: ClientId, after: Sequence[RequestId], tokens: Iterator[int]
) -> list[Request]:
    """The batch that costs most."""
    longest, outputs = _last_outputs(profile, _batch(profile))
    *others, of_the_long = outputs
    deep = [call(f"deep{place} {client}", client, SHARED, output, after=after) for place, output in enumerate(others)]
    return [*deep, call(f"long {client}", client, list(islice(tokens, longest)), of_the_long, after=after)]


def _batch(profile: EngineProfile) -> int:
    """How many requests are let in together: as many as may run, or as a quantum pays for."""
    return min(most_running(profile.kv_tokens, profile.max_running), _affordable(profile))


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


def _last_outputs(profile: EngineProfile, batch: int) -> tuple[int, list[int]]:
    """The longest input of the last batch, and everybody's outputs, its own the last.

    It stays as long as any, so that no place in the batch is free. The others share one prompt token.
    """
    most = profile.kv_tokens if profile.max_output is None else profile.max_output
    longest = min(profile.max_input, profile.kv_tokens - batch)
    if profile.memory != RESERVING:
        room = profile.kv_tokens - longest
        fitting = [min(most, bounds.requests_that_fit(room, place)) for place in range(1, batch + 1)]
        return longest, [*fitting[1:], fitting[0]]
    if profile.cost.output(1) >= profile.cost.extend(1):
        longest = 1
    full, rest = divmod(profile.kv_tokens - 1 - longest, most)
    reserved = ([most] * full + [rest] * (rest > 0))[:batch]
    return longest, reserved[::-1]
