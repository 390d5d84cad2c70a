"""The order of the waiting queue of one instance, and the next request in it."""

from __future__ import annotations

from dlpm_engine.tensor.batched.kernel.cache_ops import ends_of_many
from dlpm_engine.tensor.batched.kernel.dialect import fence, jit, tl
from dlpm_engine.tensor.batched.kernel.rows import LAST, RUNNING, WAITING, Cache, Ledger, Requests, Worker


@jit
def in_phase(requests: Requests, phase: tl.constexpr, BLOCK: tl.constexpr) -> tl.tensor:  # noqa: N803
    """How many requests are in a phase. O(slots)."""
    count = tl.zeros([], tl.int64)
    for first in range(0, requests.slots, BLOCK):
        slot = first + tl.arange(0, BLOCK)
        its_phase = tl.load(requests.phase + slot, mask=slot < requests.slots, other=0)
        count += tl.sum((its_phase == phase).to(tl.int64))
    return count


@jit
def free_tokens(worker: Worker, cache: Cache) -> tl.tensor:
    """``M`` less what running requests lock or have set aside. O(1)."""
    return worker.kv_tokens - tl.load(cache.locked) - tl.load(worker.set_aside)


@jit
def room(worker: Worker, cache: Cache, requests: Requests, BLOCK: tl.constexpr) -> tl.tensor:  # noqa: N803
    """Tokens of memory that the next admission may take; -1 where the batch is full. O(slots)."""
    running = in_phase(requests, RUNNING, BLOCK)
    tokens = free_tokens(worker, cache) - tl.where(running > 0, worker.watermark, 0)
    return tl.where(running < worker.max_running, tokens, -1)


@jit
def freeze_order(cache: Cache, requests: Requests, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """Write down what each waiting request matches as an admission phase begins. O(slots * blocks)."""
    for first in range(0, requests.slots, BLOCK):
        slot = first + tl.arange(0, BLOCK).to(tl.int64)
        here = slot < requests.slots
        waiting = tl.load(requests.phase + slot, mask=here, other=0) == WAITING
        resident = tl.load(requests.input + slot, mask=here, other=1)
        resident += tl.load(requests.generated + slot, mask=here, other=0)
        end = ends_of_many(cache, cache.cached, requests.paths, requests.path_width, slot, waiting)
        tl.store(requests.order + slot, tl.minimum(end, resident - 1), mask=here)
    fence()


@jit
def measure(worker: Worker, cache: Cache, requests: Requests, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """Write down the memory that each waiting request would take if it were admitted now. O(slots * blocks)."""
    for first in range(0, requests.slots, BLOCK):
        slot = first + tl.arange(0, BLOCK).to(tl.int64)
        here = slot < requests.slots
        waiting = tl.load(requests.phase + slot, mask=here, other=0) == WAITING
        generated = tl.load(requests.generated + slot, mask=here, other=0)
        resident = tl.load(requests.input + slot, mask=here, other=1) + generated
        output = tl.load(requests.limit + slot, mask=here, other=0) - generated
        end = ends_of_many(cache, cache.locks, requests.paths, requests.path_width, slot, waiting)
        need = resident - tl.minimum(end, resident - 1) + tl.where(worker.reserving, output, 0)
        tl.store(requests.need + slot, need, mask=here)
    fence()


@jit
def first_of(
    wanted: tl.tensor,
    slot: tl.tensor,
    order: tl.tensor,
    rank: tl.tensor,
    best: tl.tensor,
    best_order: tl.tensor,
    best_rank: tl.tensor,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """The first request in the order, of those wanted here and the best before: its slot, match and rank. O(1)."""
    longest = tl.max(tl.where(wanted, order, -1))
    longest_here = wanted & (order == longest)
    earliest = tl.min(tl.where(longest_here, rank, LAST))
    its_slot = tl.max(tl.where(longest_here & (rank == earliest), slot, -1))
    better = (longest > best_order) | ((longest == best_order) & (earliest < best_rank))
    return (
        tl.where(better, its_slot, best),
        tl.where(better, longest, best_order),
        tl.where(better, earliest, best_rank),
    )


@jit
def next_request(
    ledger: Ledger,
    requests: Requests,
    after_order: tl.tensor,
    after_rank: tl.tensor,
    tokens: tl.tensor,
    BLOCK: tl.constexpr,  # noqa: N803
) -> tuple[tl.tensor, tl.tensor]:
    """The slot of the next request of a pass, -1 at its end; and whether some queued client has credit.

    While one has, the next that has credit and takes ``tokens`` at most; else the next, whoever's it is. O(slots).
    """
    credited = tl.zeros([], tl.int64)
    fit, fit_order, fit_rank = tl.full([], -1, tl.int64), tl.full([], -1, tl.int64), tl.full([], LAST, tl.int64)
    anyone, any_order, any_rank = tl.full([], -1, tl.int64), tl.full([], -1, tl.int64), tl.full([], LAST, tl.int64)
    for first in range(0, requests.slots, BLOCK):
        slot = first + tl.arange(0, BLOCK).to(tl.int64)
        here = slot < requests.slots
        waiting = tl.load(requests.phase + slot, mask=here, other=0) == WAITING
        client = tl.load(requests.client + slot, mask=here, other=0)
        credit = waiting & (tl.load(ledger.deficits + client, mask=waiting, other=0) > 0)
        credited += tl.sum(credit.to(tl.int64))
        order = tl.load(requests.order + slot, mask=here, other=-1)
        rank = tl.load(requests.rank + slot, mask=here, other=0)
        ahead = waiting & ((order < after_order) | ((order == after_order) & (rank > after_rank)))
        fits = tl.load(requests.need + slot, mask=here, other=LAST) <= tokens
        fit, fit_order, fit_rank = first_of(ahead & credit & fits, slot, order, rank, fit, fit_order, fit_rank)
        anyone, any_order, any_rank = first_of(ahead, slot, order, rank, anyone, any_order, any_rank)
    return tl.where(credited > 0, fit, anyone), credited > 0


@jit
def earliest_admitted(
    requests: Requests,
    only_uncomputed: tl.constexpr,
    only_complete: tl.constexpr,
    BLOCK: tl.constexpr,  # noqa: N803
) -> tl.tensor:
    """The slot of the running request that was admitted first, of those meant; -1 if there is none. O(slots)."""
    best = tl.full([], -1, tl.int64)
    best_admitted = tl.full([], LAST, tl.int64)
    for first in range(0, requests.slots, BLOCK):
        slot = first + tl.arange(0, BLOCK).to(tl.int64)
        here = slot < requests.slots
        meant = tl.load(requests.phase + slot, mask=here, other=0) == RUNNING
        if only_uncomputed:
            meant = meant & (tl.load(requests.computed + slot, mask=here, other=1) == 0)
        if only_complete:
            generated = tl.load(requests.generated + slot, mask=here, other=0)
            meant = meant & (generated >= tl.load(requests.output + slot, mask=here, other=1))
        admitted = tl.where(meant, tl.load(requests.admitted + slot, mask=here, other=0), LAST)
        least = tl.min(admitted)
        its_slot = tl.max(tl.where(meant & (admitted == least), slot, -1))
        best = tl.where(least < best_admitted, its_slot, best)
        best_admitted = tl.minimum(least, best_admitted)
    return best


@jit
def latest_admitted(requests: Requests, BLOCK: tl.constexpr) -> tl.tensor:  # noqa: N803
    """The slot of the running request that was admitted last, the youngest; -1 if there is none. O(slots)."""
    best = tl.full([], -1, tl.int64)
    best_admitted = tl.full([], -1, tl.int64)
    for first in range(0, requests.slots, BLOCK):
        slot = first + tl.arange(0, BLOCK).to(tl.int64)
        here = slot < requests.slots
        running = tl.load(requests.phase + slot, mask=here, other=0) == RUNNING
        admitted = tl.where(running, tl.load(requests.admitted + slot, mask=here, other=0), -1)
        most = tl.max(admitted)
        best = tl.where(most > best_admitted, tl.max(tl.where(running & (admitted == most), slot, -1)), best)
        best_admitted = tl.maximum(most, best_admitted)
    return best
