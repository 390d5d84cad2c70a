"""Operations on the prefix cache of one instance; `dlpm_engine.tensor.batched.cache` says what each means.

Paths are pointers to the numbers of their prefixes. What is cached, or locked, of a path is a first part of it.
"""

from __future__ import annotations

from dlpm_engine.tensor.batched.kernel.dialect import fence, jit, tl
from dlpm_engine.tensor.batched.kernel.rows import LAST, ROOT, Cache


@jit
def depth_in(table: tl.tensor, path: tl.tensor, width: tl.tensor, BLOCK: tl.constexpr) -> tl.tensor:  # noqa: N803
    """Blocks of one path that ``table`` (``cached`` or ``locks``) counts. O(blocks)."""
    depth = tl.zeros([], tl.int64)
    going = depth < width
    while going:
        at = depth + tl.arange(0, BLOCK)
        prefix = tl.load(path + at, mask=at < width, other=ROOT)
        counted = tl.sum((tl.load(table + prefix) > 0).to(tl.int64))
        depth += counted
        going = (counted == BLOCK) & (depth < width)
    return depth


@jit
def end_of(cache: Cache, path: tl.tensor, depth: tl.tensor) -> tl.tensor:
    """Tokens up to the end of the first ``depth`` blocks of a path, which are cached. O(1)."""
    last = tl.load(path + tl.maximum(depth - 1, 0))
    return tl.where(depth > 0, tl.load(cache.ends + last), 0)


@jit
def ends_of_many(
    cache: Cache,
    table: tl.tensor,
    paths: tl.tensor,
    width: tl.tensor,
    slot: tl.tensor,
    chosen: tl.tensor,
) -> tl.tensor:
    """Tokens of many paths, ``[slots]``, that are cached, or locked, as ``table`` says. O(blocks of the deepest)."""
    end = tl.zeros_like(slot)
    depth = tl.zeros([], tl.int64)
    on = chosen
    going = (depth < width) & (tl.max(on.to(tl.int32)) > 0)
    while going:
        prefix = tl.load(paths + slot * width + depth, mask=on, other=ROOT)
        on = on & (tl.load(table + prefix, mask=on, other=0) > 0)
        end = tl.where(on, tl.load(cache.ends + prefix, mask=on, other=0), end)
        depth += 1
        going = (depth < width) & (tl.max(on.to(tl.int32)) > 0)
    return end


@jit
def tokens_of(cache: Cache, prefix: tl.tensor, chosen: tl.tensor) -> tl.tensor:
    """Tokens of cached blocks. O(1)."""
    above = tl.load(cache.parents + prefix, mask=chosen, other=ROOT)
    end = tl.load(cache.ends + prefix, mask=chosen, other=0)
    return end - tl.load(cache.ends + above, mask=chosen, other=0)


@jit
def tick(cache: Cache, blocks: tl.tensor) -> tl.tensor:
    """The time of a use of some blocks, later than all before; no use if there are none. O(1)."""
    now = tl.load(cache.clock) + (blocks > 0).to(tl.int64)
    fence()
    tl.store(cache.clock, now)
    return now


@jit
def use(cache: Cache, path: tl.tensor, blocks: tl.tensor, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """Mark the first blocks of a path used now. O(blocks)."""
    now = tick(cache, blocks)
    for first in range(0, blocks, BLOCK):
        at = first + tl.arange(0, BLOCK)
        prefix = tl.load(path + at, mask=at < blocks, other=ROOT)
        tl.store(cache.last_use + prefix, now, mask=at < blocks)
    fence()


@jit
def lock(cache: Cache, path: tl.tensor, blocks: tl.tensor, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """Lock the first blocks of a path for one more running request, and mark them used now. O(blocks)."""
    fresh = tl.load(cache.locked)
    for first in range(0, blocks, BLOCK):
        at = first + tl.arange(0, BLOCK)
        chosen = at < blocks
        prefix = tl.load(path + at, mask=chosen, other=ROOT)
        before = tl.load(cache.locks + prefix, mask=chosen, other=0)
        fresh += tl.sum(tl.where(chosen & (before == 0), tokens_of(cache, prefix, chosen), 0))
        fence()
        tl.store(cache.locks + prefix, before + 1, mask=chosen)
    fence()
    tl.store(cache.locked, fresh)
    use(cache, path, blocks, BLOCK)


@jit
def unlock(cache: Cache, path: tl.tensor, blocks: tl.tensor, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """Undo one `lock` of the first blocks of a path. O(blocks)."""
    locked = tl.load(cache.locked)
    for first in range(0, blocks, BLOCK):
        at = first + tl.arange(0, BLOCK)
        chosen = at < blocks
        prefix = tl.load(path + at, mask=chosen, other=ROOT)
        before = tl.load(cache.locks + prefix, mask=chosen, other=0)
        locked -= tl.sum(tl.where(chosen & (before == 1), tokens_of(cache, prefix, chosen), 0))
        fence()
        tl.store(cache.locks + prefix, before - 1, mask=chosen)
    fence()
    tl.store(cache.locked, locked)
    fence()


@jit
def insert(
    cache: Cache,
    path: tl.tensor,
    width: tl.tensor,
    blocks: tl.tensor,
    tokens: tl.tensor,
    BLOCK: tl.constexpr,  # noqa: N803
) -> None:
    """Cache the first blocks of a path, a sequence of ``tokens`` tokens. O(blocks)."""
    end = end_of(cache, path, tl.minimum(depth_in(cache.cached, path, width, BLOCK), blocks))
    total = tl.load(cache.total)
    for first in range(0, blocks, BLOCK):
        at = first + tl.arange(0, BLOCK).to(tl.int64)
        chosen = at < blocks
        prefix = tl.load(path + at, mask=chosen, other=ROOT)
        new = chosen & (tl.load(cache.cached + prefix, mask=chosen, other=1) == 0)
        size = tl.where(new, tl.minimum(cache.block_size, tokens - at * cache.block_size), 0)
        fence()
        tl.store(cache.ends + prefix, end + tl.cumsum(size), mask=new)
        tl.store(cache.cached + prefix, tl.full([BLOCK], 1, tl.int64), mask=new)
        added = tl.sum(size)
        end += added
        total += added
    fence()
    tl.store(cache.total, total)
    fence()


@jit
def least_recently_used(cache: Cache, BLOCK: tl.constexpr) -> tl.tensor:  # noqa: N803
    """The unlocked block that was used least recently, the deepest of those; `ROOT` if there is none. O(prefixes)."""
    when = tl.full([], LAST, tl.int64)
    depth = tl.zeros([], tl.int64)
    block = tl.full([], ROOT, tl.int64)
    for first in range(0, cache.prefixes, BLOCK):
        prefix = first + tl.arange(0, BLOCK).to(tl.int64)
        here = prefix < cache.prefixes
        loose = tl.load(cache.cached + prefix, mask=here, other=0) > 0
        loose = loose & (tl.load(cache.locks + prefix, mask=here, other=1) == 0)
        its_use = tl.where(loose, tl.load(cache.last_use + prefix, mask=here, other=0), LAST)
        its_depth = tl.load(cache.depths + prefix, mask=here, other=0)
        least = tl.min(its_use)
        deepest = tl.max(tl.where(loose & (its_use == least), its_depth, 0))
        better = (least < when) | ((least == when) & (deepest > depth))
        its_place = tl.where(loose & (its_use == least) & (its_depth == deepest), prefix, ROOT)
        block = tl.where(better, tl.max(its_place), block)
        when = tl.where(better, least, when)
        depth = tl.where(better, deepest, depth)
    return block


@jit
def evict(cache: Cache, wanted: tl.tensor, BLOCK: tl.constexpr) -> tl.tensor:  # noqa: N803
    """Evict unlocked leaves, least recently used first, until ``wanted`` tokens are freed; returns the tokens freed.

    Less where there are no more. Blocks of one last use lie on one path, so the deepest of them is followed by those
    above it, as long as what lies below is less than wanted. O(prefixes * times of last use).
    """
    freed = tl.zeros([], tl.int64)
    going = freed < wanted
    while going:
        deepest = least_recently_used(cache, BLOCK)
        when = tl.load(cache.last_use + deepest)
        bottom = tl.load(cache.ends + deepest)
        missing = wanted - freed
        for first in range(0, cache.prefixes, BLOCK):
            prefix = first + tl.arange(0, BLOCK).to(tl.int64)
            here = (prefix < cache.prefixes) & (deepest != ROOT)
            leaving = here & (tl.load(cache.cached + prefix, mask=here, other=0) > 0)
            leaving = leaving & (tl.load(cache.locks + prefix, mask=here, other=1) == 0)
            leaving = leaving & (tl.load(cache.last_use + prefix, mask=here, other=0) == when)
            leaving = leaving & (bottom - tl.load(cache.ends + prefix, mask=here, other=0) < missing)
            freed += tl.sum(tl.where(leaving, tokens_of(cache, prefix, leaving), 0))
            fence()
            tl.store(cache.cached + prefix, tl.zeros([BLOCK], tl.int64), mask=leaving)
        going = (deepest != ROOT) & (freed < wanted)
        fence()
    total = tl.load(cache.total)
    fence()
    tl.store(cache.total, total - freed)
    fence()
    return freed


@jit
def children(cache: Cache, block: tl.tensor, BLOCK: tl.constexpr) -> tl.tensor:  # noqa: N803
    """Cached blocks right below a block. O(prefixes)."""
    count = tl.zeros([], tl.int64)
    for first in range(0, cache.prefixes, BLOCK):
        prefix = first + tl.arange(0, BLOCK).to(tl.int64)
        here = prefix < cache.prefixes
        cached = tl.load(cache.cached + prefix, mask=here, other=0)
        above = tl.load(cache.parents + prefix, mask=here, other=ROOT)
        count += tl.sum(tl.where(above == block, cached, 0))
    return count


@jit
def discard(cache: Cache, path: tl.tensor, first: tl.tensor, last: tl.tensor, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """Remove blocks ``first`` to ``last`` of a path, from 0, without ``last``, that were never computed.

    From the end, up to a block that is locked or has other cached blocks below it. O(prefixes * blocks removed).
    """
    depth = last
    total = tl.load(cache.total)
    going = depth > first
    while going:
        block = tl.load(path + depth - 1)
        above = tl.load(cache.parents + block)
        free = (tl.load(cache.locks + block) == 0) & (children(cache, block, BLOCK) == 0)
        tokens = tl.load(cache.ends + block) - tl.load(cache.ends + above)
        fence()
        tl.store(cache.cached + block, tl.zeros([], tl.int64), mask=free)
        total -= tl.where(free, tokens, 0)
        depth -= 1
        going = free & (depth > first)
        fence()
    fence()
    tl.store(cache.total, total)
    fence()
