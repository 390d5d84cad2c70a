"""Planted faults in the prefix cache: matching, locks, recency, eviction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from dlpm.request import BlockKey
from dlpm_engine.differential.fault import Fault, swap
from dlpm_engine.tensor.edge import Edge, Node, Path
from dlpm_engine.tensor.group import Queued
from dlpm_engine.tensor.scheduler import TensorScheduler


def _stale_match_after_eviction(scheduler: TensorScheduler) -> None:
    cache = scheduler.cache
    shrink = cache._shrink

    def shrink_unseen(edge: Edge, blocks: int) -> int:
        changed, flipped = dict(cache.changed), set(cache.flipped)
        freed = shrink(edge, blocks)
        cache.changed, cache.flipped = changed, flipped
        return freed

    swap(cache, "_shrink", shrink_unseen)


def _stale_match_after_insertion(scheduler: TensorScheduler) -> None:
    cache = scheduler.cache
    grow = cache._grow

    def grow_unseen(edge: Edge, blocks: int, tokens: int) -> None:
        changed, flipped = dict(cache.changed), set(cache.flipped)
        grow(edge, blocks, tokens)
        cache.changed, cache.flipped = changed, flipped

    swap(cache, "_grow", grow_unseen)


def _stale_locks(scheduler: TensorScheduler) -> None:
    cache = scheduler.cache
    for method in ("lock", "unlock"):
        honest = getattr(cache, method)

        def unseen(node: Node, honest: Callable[[Node], None] = honest) -> None:
            changed = dict(cache.changed)
            honest(node)
            cache.changed = changed

        swap(cache, method, unseen)


def _last_block_never_cached(scheduler: TensorScheduler) -> None:
    keys = scheduler._keys
    honest = keys.tensor

    def tensor(blocks: Sequence[BlockKey]) -> torch.Tensor:
        return honest(blocks[:-1]) if len(blocks) > 1 else honest(blocks)

    swap(keys, "tensor", tensor)


def _evicts_most_recent(scheduler: TensorScheduler) -> None:
    cache = scheduler.cache

    def evict(tokens: int) -> int:
        freed = 0
        while freed < tokens and cache._evictable:
            entry = max(cache._evictable)
            cache._evictable.remove(entry)
            last_use, _, edge = entry
            if edge.is_leaf() and edge.last_use() == last_use:
                freed += cache._shrink(edge, edge.kept_by_eviction(tokens - freed))
        return freed

    swap(cache, "evict", evict)


def _evicts_too_much(scheduler: TensorScheduler) -> None:
    cache = scheduler.cache
    evict = cache.evict
    swap(cache, "evict", lambda tokens: evict(tokens + 1))


def _evicts_what_was_used_later(scheduler: TensorScheduler) -> None:
    cache = scheduler.cache
    shrink = cache._shrink
    wanted = 0

    def evict(tokens: int) -> int:
        nonlocal wanted
        wanted = tokens
        freed = honest(tokens)
        wanted = 0
        return freed

    def shrink_further(edge: Edge, blocks: int) -> int:
        nonlocal wanted
        if wanted:
            uses, edge.uses = edge.uses, edge.uses[-1:]
            blocks = edge.kept_by_eviction(wanted)
            edge.uses = uses
        freed = shrink(edge, blocks)
        wanted = max(0, wanted - freed)
        return freed

    honest = cache.evict
    swap(cache, "evict", evict)
    swap(cache, "_shrink", shrink_further)


def _evicts_the_whole_path(scheduler: TensorScheduler) -> None:
    cache = scheduler.cache
    shrink = cache._shrink
    swap(cache, "_shrink", lambda edge, blocks: shrink(edge, edge.floor()))


def _finish_does_not_touch(scheduler: TensorScheduler) -> None:
    swap(scheduler.cache, "touch", lambda node: None)


def _clock_stands_still(scheduler: TensorScheduler) -> None:
    cache = scheduler.cache
    lock = cache.lock

    def lock_without_use(node: Node) -> None:
        edge = node[0]
        before = []
        while edge.parent is not None:
            before.append((edge, list(edge.uses)))
            edge = edge.parent
        lock(node)
        for used, uses in before:
            # Blocks that are new, and were never used, count as used now all the same.
            if all(clock for _, clock in uses):
                used.uses = uses

    swap(cache, "lock", lock_without_use)


def _unlock_frees_shared(scheduler: TensorScheduler) -> None:
    cache = scheduler.cache
    unlock = cache.unlock

    def unlock_all(node: Node) -> None:
        edge, blocks = node
        while edge.parent is not None:
            edge.locks = {blocks: 1}
            edge, blocks = edge.parent, edge.at
        unlock(node)

    swap(cache, "unlock", unlock_all)


def _reply_not_cached(scheduler: TensorScheduler) -> None:
    cache = scheduler.cache

    def keep_prompt(queued: Queued) -> None:
        cache.touch(cache.match(queued.path))
        cache.release(queued.path)

    swap(scheduler, "_keep_sequence", keep_prompt)


def _uncomputed_blocks_stay(scheduler: TensorScheduler) -> None:
    swap(scheduler.cache, "discard", lambda node, keep: None)


def _partial_block_counts_whole(scheduler: TensorScheduler) -> None:
    cache = scheduler.cache
    insert = cache.insert

    def insert_whole(path: Path, tokens: int) -> Node:
        return insert(path, -(-tokens // cache.block_size) * cache.block_size)

    swap(cache, "insert", insert_whole)


def _finish_leaks_a_token(scheduler: TensorScheduler) -> None:
    batch = scheduler.batch
    finished = batch.finished
    swap(batch, "finished", lambda: [(run, held - 1) for run, held in finished()])


CACHE_FAULTS = (
    Fault("stale-match-after-eviction", "a waiting request keeps an evicted match", _stale_match_after_eviction),
    Fault(
        "stale-match-after-insertion", "a waiting request misses what is new in the cache", _stale_match_after_insertion
    ),
    Fault("stale-locks", "memory is asked for a prefix that is locked already", _stale_locks),
    Fault("last-block-never-cached", "the last block of a prompt is left out", _last_block_never_cached),
    Fault("evicts-most-recent", "the most recently used leaf is evicted first", _evicts_most_recent),
    Fault("evicts-too-much", "one token more than needed is evicted", _evicts_too_much),
    Fault(
        "evicts-what-was-used-later", "a leaf takes along what of its edge was used later", _evicts_what_was_used_later
    ),
    Fault("evicts-the-whole-path", "a leaf takes its unlocked prefix along", _evicts_the_whole_path),
    Fault("finish-does-not-touch", "a finished request does not count as used", _finish_does_not_touch),
    Fault("clock-stands-still", "an admission does not renew the blocks it matched", _clock_stands_still),
    Fault("unlock-frees-shared", "a finish unlocks blocks that others still use", _unlock_frees_shared),
    Fault("reply-not-cached", "the reply of a finished request is not kept", _reply_not_cached),
    Fault(
        "uncomputed-blocks-stay",
        "a preemption leaves blocks that were never computed",
        _uncomputed_blocks_stay,
    ),
    Fault("partial-block-counts-whole", "a partial block takes the memory of a whole one", _partial_block_counts_whole),
    Fault("finish-leaks-a-token", "a finish gives back one token less than it held", _finish_leaks_a_token),
)
