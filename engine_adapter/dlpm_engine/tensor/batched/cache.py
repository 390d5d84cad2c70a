"""The prefix caches of all instances, one number a cached block: int64 ``[instances, prefixes]``.

A prefix is cached if its last block is, and then all shorter ones are; so how much of a path is cached, or locked, is a
sum along it. Least recently used leaf first, over and over, is the order by last use and then by depth, deepest
first: a block is never used later than the block above it, and blocks of one last use lie on one path.
"""

from __future__ import annotations

import torch

from dlpm_engine.tensor.batched.layout import ROOT, Layout
from dlpm_engine.tensor.exact import INT64

_NEVER = 2**62


class Caches:
    """Cached blocks, their locks and last uses.

    Attributes:
        cached: whether a prefix is cached, 0 or 1.
        ends: tokens up to its end, while it is cached; 0 at the root.
        locks: running requests whose locked path goes through it.
        last_use: when it was last used.
        total: tokens cached, ``[instances]``.
        locked: tokens locked, likewise.
        clock: uses so far, likewise.
    """

    def __init__(self, layout: Layout, block_sizes: torch.Tensor) -> None:
        """Empty caches; ``block_sizes`` are in tokens, ``[instances]``."""
        self._layout = layout
        self._block_sizes = block_sizes
        shape = (len(layout), 1)
        self.cached, self.ends, self.locks, self.last_use = (
            torch.zeros(shape, dtype=INT64, device=layout.device) for _ in range(4)
        )
        self.total = torch.zeros(len(layout), dtype=INT64, device=layout.device)
        self.locked = self.total.clone()
        self.clock = self.total.clone()

    def make_room(self) -> None:
        """Follow the layout to more prefixes. O(prefixes) when there are any."""
        missing = self._layout.parents.shape[1] - self.cached.shape[1]
        if missing:
            more = self.cached.new_zeros((len(self._layout), missing))
            self.cached, self.ends, self.locks, self.last_use = (
                torch.cat((table, more), dim=1) for table in (self.cached, self.ends, self.locks, self.last_use)
            )

    # -- reading: paths are [instances, blocks] or [instances, slots, blocks] ------------------------------------------

    def depth(self, paths: torch.Tensor) -> torch.Tensor:
        """Blocks of each path that are cached. O(paths)."""
        return _along(self.cached, paths).sum(-1)

    def locked_depth(self, paths: torch.Tensor) -> torch.Tensor:
        """Blocks of each path that are locked. O(paths)."""
        return (_along(self.locks, paths) > 0).sum(-1)

    def end(self, paths: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
        """Tokens up to the end of the first ``depth`` blocks of each path, which are cached. O(paths)."""
        last = paths.gather(-1, (depth - 1).clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return _along(self.ends, torch.where(depth > 0, last, ROOT).unsqueeze(-1)).squeeze(-1)

    # -- changing: paths are [instances, blocks], only instances where a block is chosen are concerned -----------------

    def use(self, paths: torch.Tensor, chosen: torch.Tensor) -> None:
        """Mark the chosen blocks (bool, ``[instances, blocks]``) used now. O(paths)."""
        self.clock += chosen.any(1)
        _put(self.last_use, paths, chosen, self.clock.unsqueeze(1).expand_as(paths))

    def lock(self, paths: torch.Tensor, chosen: torch.Tensor) -> None:
        """Lock the chosen blocks for one more running request, and mark them used now. O(paths)."""
        fresh = chosen & (_along(self.locks, paths) == 0)
        self.locked += torch.where(fresh, self._tokens(paths), 0).sum(1)
        _add(self.locks, paths, chosen, 1)
        self.use(paths, chosen)

    def unlock(self, paths: torch.Tensor, chosen: torch.Tensor) -> None:
        """Undo one `lock` of the chosen blocks. O(paths)."""
        _add(self.locks, paths, chosen, -1)
        freed = chosen & (_along(self.locks, paths) == 0)
        self.locked -= torch.where(freed, self._tokens(paths), 0).sum(1)

    def insert(self, paths: torch.Tensor, chosen: torch.Tensor, tokens: torch.Tensor) -> None:
        """Cache the chosen blocks, the first ones of sequences of ``tokens`` tokens ``[instances]``. O(paths)."""
        size = self._block_sizes.unsqueeze(1)
        before = torch.arange(paths.shape[1], dtype=INT64, device=paths.device) * size
        new = chosen & (_along(self.cached, paths) == 0)
        tokens_of = torch.where(new, torch.minimum(size, tokens.unsqueeze(1) - before), 0)
        start = self.end(paths, torch.where(chosen.any(1), self.depth(paths), 0)).unsqueeze(1)
        _put(self.ends, paths, new, start + tokens_of.cumsum(1))
        _put(self.cached, paths, new, torch.ones_like(paths))
        self.total += tokens_of.sum(1)

    def evict(self, wanted: torch.Tensor) -> torch.Tensor:
        """Evict unlocked leaves, least recently used first, until ``wanted`` tokens ``[instances]`` are freed.

        Returns the tokens freed; less where there are no more. O(prefixes * log prefixes).
        """
        loose = (self.cached > 0) & (self.locks == 0)
        deepest = self._layout.depths.amax() + 1
        keys = torch.where(loose, self.last_use * deepest - self._layout.depths, _NEVER)
        order = keys.argsort(dim=1)
        tokens = torch.where(loose, self.ends - self.ends.gather(1, self._layout.parents), 0)
        ordered = tokens.gather(1, order)
        leave = (ordered.cumsum(1) - ordered < wanted.unsqueeze(1)) & loose.gather(1, order)
        freed = torch.where(leave, ordered, 0).sum(1)
        self.cached.scatter_add_(1, order, -leave.to(INT64))
        self.total -= freed
        return freed

    def discard(self, paths: torch.Tensor, first: torch.Tensor, last: torch.Tensor) -> None:
        """Remove blocks that were never computed: ``first`` to ``last`` ``[instances]``, from 0, without ``last``.

        From the end, up to a block that is locked or has other cached blocks below it. O(prefixes).
        """
        place = torch.arange(paths.shape[1], dtype=INT64, device=paths.device)
        mine = (place >= first.unsqueeze(1)) & (place < last.unsqueeze(1))
        below = torch.zeros_like(self.cached).scatter_add_(1, self._layout.parents, self.cached)
        own_child = mine & (place < last.unsqueeze(1) - 1)
        free = (_along(self.locks, paths) == 0) & (_along(below, paths) - own_child.to(INT64) == 0)
        kept = mine & ~free
        # A block goes if it is free and so are all of them below it.
        blocked = kept.flip(1).cumsum(1).flip(1) > 0
        gone = mine & ~blocked
        self.total -= torch.where(gone, self._tokens(paths), 0).sum(1)
        _put(self.cached, paths, gone, torch.zeros_like(paths))

    def _tokens(self, paths: torch.Tensor) -> torch.Tensor:
        """Tokens of each block of the paths, where it is cached."""
        return _along(self.ends, paths) - _along(self.ends, _along(self._layout.parents, paths))


def _along(table: torch.Tensor, paths: torch.Tensor) -> torch.Tensor:
    """The entries ``[instances, prefixes]`` of the prefixes on paths ``[instances, ...]``."""
    return table.gather(1, paths.flatten(1)).view(paths.shape)


def _put(table: torch.Tensor, paths: torch.Tensor, chosen: torch.Tensor, values: torch.Tensor) -> None:
    """Write values where chosen; what is not goes to the root, which stays 0."""
    table.scatter_(1, torch.where(chosen, paths, ROOT), torch.where(chosen, values, 0))
    table[:, ROOT] = 0


def _add(table: torch.Tensor, paths: torch.Tensor, chosen: torch.Tensor, change: int) -> None:
    """Add a number where chosen."""
    table.scatter_add_(1, torch.where(chosen, paths, ROOT), chosen.to(INT64) * change)
