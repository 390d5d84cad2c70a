"""Faults in the prefix cache: what matches, what is locked and what is evicted."""

from __future__ import annotations

from collections.abc import Sequence

from dlpm.batch import QueuedRequest
from dlpm.policies.base import Waiting
from dlpm.prefix_cache import Match, Node, PrefixCache
from dlpm.request import BlockKey
from dlpm.worker import Worker
from tests.reference.planted_faults.fault import Fault, Patch


def fully_cached_prompt_computes_nothing(patch: Patch) -> None:
    def matched(self: Worker, request: Waiting) -> int:
        assert isinstance(request, QueuedRequest)
        return self.cache.match(request.blocks, request.match).node.end

    patch.setattr(Worker, "matched", matched)


def most_recently_used_goes_first(patch: Patch) -> None:
    honest = PrefixCache.evict

    def evict(self: PrefixCache, tokens: int) -> int:
        self._evictable = sorted((-last_use, serial, node) for last_use, serial, node in self._evictable)
        backwards = [(node.last_use, serial, node) for _, serial, node in self._evictable]
        freed = 0
        for entry in backwards:
            if freed < tokens and entry[2].alive:
                self._evictable = [entry]
                freed += honest(self, 1)
        self._evictable = sorted(backwards)
        return freed

    patch.setattr(PrefixCache, "evict", evict)


def finishing_does_not_count_as_use(patch: Patch) -> None:
    def touch(self: PrefixCache, node: Node) -> None:
        walk = node
        while walk.parent is not None:
            self._offer(walk)
            walk = walk.parent

    patch.setattr(PrefixCache, "touch", touch)


def locks_do_not_protect(patch: Patch) -> None:
    def evict(self: PrefixCache, tokens: int) -> int:
        freed = 0
        leaves = [self.root]
        while freed < tokens and leaves:
            leaves = [node for node in nodes_below(self.root) if not node.children]
            if leaves:
                freed += self._remove(min(leaves, key=lambda node: node.last_use))
        return freed

    patch.setattr(PrefixCache, "evict", evict)


def nodes_below(node: Node) -> list[Node]:
    """All nodes of the tree below ``node``."""
    return [found for child in node.children.values() for found in (child, *nodes_below(child))]


def evicted_blocks_still_match(patch: Patch) -> None:
    def match(self: PrefixCache, blocks: Sequence[BlockKey], last: Match) -> Match:
        while last.depth < len(blocks) and blocks[last.depth] in last.node.children:
            last.node = last.node.children[blocks[last.depth]]
            last.depth += 1
        return last

    patch.setattr(PrefixCache, "match", match)


def replies_are_not_cached(patch: Patch) -> None:
    def keep_sequence(self: Worker, queued: QueuedRequest) -> None:
        self.cache.touch(self.cache.match(queued.blocks, queued.match).node)

    patch.setattr(Worker, "_keep_sequence", keep_sequence)


FAULTS = (
    Fault("a fully cached prompt computes nothing", fully_cached_prompt_computes_nothing),
    Fault("the most recently used block is evicted first", most_recently_used_goes_first, ("lpm",)),
    Fault("finishing does not count as use", finishing_does_not_count_as_use, ("fcfs",)),
    Fault("locked blocks are evicted", locks_do_not_protect, ("lpm",), ("reserving",)),
    Fault("evicted blocks still match", evicted_blocks_still_match, ("lpm",)),
    Fault("replies are not cached", replies_are_not_cached, ("fcfs",)),
)
