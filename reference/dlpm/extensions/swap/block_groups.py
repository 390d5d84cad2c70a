"""Physical blocks in contiguous groups, so that what belongs together can be copied at once.

A pool of numbered blocks. Whoever needs a block takes it from a group of its own: a contiguous run that was reserved
for it. Groups are split off free runs, and off each other when no run is free; what is given back is merged with its
neighbours. Every block is free, spare (reserved, unused) or held, by exactly one owner: no operation creates, loses or
shares one. With groups of one block this is a plain paged allocator.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

from dlpm.errors import InputError

Owner = Hashable
"""Who holds a block: a request, a cached block, a copy."""


class Run(NamedTuple):
    """Blocks ``start`` to ``start + length - 1``."""

    start: int
    length: int

    @property
    def end(self) -> int:
        """The block after the last."""
        return self.start + self.length


class OutOfBlocksError(RuntimeError):
    """No block is free or spare: whoever counts memory has counted wrong."""


class BlockPool:
    """``blocks`` numbered blocks, reserved in groups of ``group_blocks``.

    Raises:
        InputError: if one of the two is below 1.
    """

    def __init__(self, blocks: int, group_blocks: int = 1) -> None:
        """All blocks free, as one run."""
        for name, value in (("blocks", blocks), ("group_blocks", group_blocks)):
            if value < 1:
                raise InputError(f"expected an integer > 0, found {value}", field=name)
        self.blocks = blocks
        self.group_blocks = group_blocks
        self._free = [Run(0, blocks)]
        self._spare: dict[Owner, Run] = {}
        self._held: dict[int, Owner] = {}
        self._latest: dict[Owner, int] = {}

    def free_runs(self) -> Sequence[Run]:
        """Free runs by place; no two touch. O(1)."""
        return self._free

    def spare_runs(self) -> Mapping[Owner, Run]:
        """What is reserved and unused of each owner's group. O(1)."""
        return self._spare

    def held_blocks(self) -> Mapping[int, Owner]:
        """Every block in use, with its owner. O(1)."""
        return self._held

    def take(self, owner: Owner) -> int:
        """The next block of the owner's group, or the first of a new group. O(free runs + owners with spare blocks).

        Raises:
            OutOfBlocksError: if every block is held.
        """
        run = self._spare.pop(owner, None) or self._reserve(owner)
        if run.length > 1:
            self._spare[owner] = Run(run.start + 1, run.length - 1)
        self._held[run.start] = owner
        self._latest[owner] = run.start
        return run.start

    def release(self, block: int) -> None:
        """``block`` is free again, and merged with its free neighbours. O(free runs)."""
        del self._held[block]
        self._give_back(Run(block, 1))

    def hand_over(self, block: int, owner: Owner) -> None:
        """``block`` stays where it is and belongs to ``owner`` from now on. O(1).

        Raises:
            KeyError: if nobody holds it.
        """
        if block not in self._held:
            raise KeyError(block)
        self._held[block] = owner

    def close(self, owner: Owner) -> None:
        """``owner`` takes no more blocks: its spare ones are free again. O(free runs)."""
        self._latest.pop(owner, None)
        spare = self._spare.pop(owner, None)
        if spare is not None:
            self._give_back(spare)

    def _reserve(self, owner: Owner) -> Run:
        """A group for ``owner``: right after its latest block, else off the largest free run, else off a spare one."""
        after = self._latest.get(owner, -2) + 1
        place = bisect_left(self._free, (after, 0))
        if place == len(self._free) or self._free[place].start != after:
            place = max(range(len(self._free)), key=lambda at: self._free[at].length, default=-1)
        if place < 0:
            return self._split_spare()
        run = self._free[place]
        if run.length <= self.group_blocks:
            del self._free[place]
            return run
        self._free[place] = Run(run.start + self.group_blocks, run.length - self.group_blocks)
        return Run(run.start, self.group_blocks)

    def _split_spare(self) -> Run:
        """The second half of the longest spare run, all of it if it is one block."""
        if not self._spare:
            raise OutOfBlocksError(f"all {self.blocks} blocks are held")
        donor = max(self._spare, key=lambda owner: self._spare[owner].length)
        run = self._spare.pop(donor)
        kept = run.length // 2
        if kept:
            self._spare[donor] = Run(run.start, kept)
        return Run(run.start + kept, run.length - kept)

    def _give_back(self, run: Run) -> None:
        """Insert a run among the free ones, and merge it with those that it touches."""
        place = bisect_left(self._free, run)
        start, end = run.start, run.end
        if place < len(self._free) and self._free[place].start == end:
            end = self._free.pop(place).end
        if place and self._free[place - 1].end == start:
            place -= 1
            start = self._free.pop(place).start
        self._free.insert(place, Run(start, end - start))


def contiguous_pieces(pairs: Iterable[tuple[int, int]]) -> int:
    """How many copies move ``pairs`` of a source and a target block: one while both go on without a gap. O(pairs)."""
    pieces = 0
    last = (-2, -2)
    for source, target in pairs:
        if (source, target) != (last[0] + 1, last[1] + 1):
            pieces += 1
        last = (source, target)
    return pieces
