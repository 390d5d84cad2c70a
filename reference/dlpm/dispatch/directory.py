"""The router's global radix tree: which workers are believed to hold each prefix [DLPM Alg. 2 ll. 2, 13, 18, 27]."""

from __future__ import annotations

from collections.abc import Sequence

from dlpm.request import BlockKey


class _Entry:
    """One block below its prefix, and the workers believed to hold it."""

    __slots__ = ("children", "holders")

    def __init__(self) -> None:
        self.children: dict[BlockKey, _Entry] = {}
        self.holders: set[int] = set()


class PrefixDirectory:
    """A radix tree over blocks; each block knows the workers that were sent it and have not given it up since.

    It is a belief, not the truth: a prompt is entered when it is dispatched, and evictions are heard of late.
    """

    def __init__(self) -> None:
        """An empty tree."""
        self._root = _Entry()
        self._held: dict[int, int] = {}

    def held(self, worker: int) -> int:
        """Blocks that ``worker`` is believed to hold. O(1)."""
        return self._held.get(worker, 0)

    def blocks(self) -> int:
        """Blocks in the tree, each held by somebody. O(blocks)."""
        count = 0
        stack = [self._root]
        while stack:
            children = stack.pop().children.values()
            count += len(children)
            stack.extend(children)
        return count

    def longest_match_workers(self, blocks: Sequence[BlockKey]) -> tuple[tuple[int, ...], int]:
        """Workers that hold the longest known prefix of ``blocks``, and its length in blocks [DLPM Alg. 2 l. 13].

        No worker at all where nothing matches. O(matched blocks).
        """
        entry = self._root
        depth = 0
        while depth < len(blocks):
            child = entry.children.get(blocks[depth])
            if child is None:
                break
            entry = child
            depth += 1
        return tuple(sorted(entry.holders)), depth

    def matched_at(self, blocks: Sequence[BlockKey], worker: int) -> int:
        """Length in blocks of the prefix of ``blocks`` that ``worker`` is believed to hold. O(that length)."""
        entry = self._root
        depth = 0
        while depth < len(blocks):
            child = entry.children.get(blocks[depth])
            if child is None or worker not in child.holders:
                break
            entry = child
            depth += 1
        return depth

    def insert(self, blocks: Sequence[BlockKey], worker: int) -> None:
        """``worker`` is about to hold all of ``blocks`` [DLPM Alg. 2 l. 18]. O(blocks)."""
        entry = self._root
        for block in blocks:
            child = entry.children.get(block)
            if child is None:
                child = entry.children[block] = _Entry()
            if worker not in child.holders:
                child.holders.add(worker)
                self._held[worker] = self._held.get(worker, 0) + 1
            entry = child

    def evict(self, prefix: Sequence[BlockKey], worker: int) -> None:
        """``worker`` gave up the block that ends ``prefix`` and all below it [DLPM Alg. 2 l. 27].

        Unknown prefixes are ignored. Blocks that nobody holds are forgotten. O(prefix + blocks given up).
        """
        path = [self._root]
        for block in prefix:
            child = path[-1].children.get(block)
            if child is None:
                return
            path.append(child)
        if len(path) == 1 or worker not in path[-1].holders:
            return
        parent, top = path[-2], path[-1]
        stack: list[tuple[_Entry, BlockKey, _Entry]] = [(parent, prefix[-1], top)]
        emptied: list[tuple[_Entry, BlockKey]] = []
        while stack:
            above, key, entry = stack.pop()
            entry.holders.discard(worker)
            self._held[worker] -= 1
            if not entry.holders:
                emptied.append((above, key))
            stack.extend((entry, below, child) for below, child in entry.children.items() if worker in child.holders)
        for above, key in reversed(emptied):
            del above.children[key]
