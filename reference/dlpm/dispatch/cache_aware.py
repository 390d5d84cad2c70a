"""The cache-aware router of SGLang's gateway, from its documentation: affinity while balanced, else shortest queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from dlpm.dispatch.base import Decision, QueueSizes
from dlpm.dispatch.directory import PrefixDirectory
from dlpm.request import BlockKey, Request


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The gateway's three documented settings with its defaults; loads are counted in unfinished requests.

    ``match`` is the share of the prompt that must be known at a worker to send it there (``--cache-threshold``). The
    queues
    are unbalanced if the longest exceeds the shortest by more than ``absolute`` requests *and* more than
    ``relative`` times (``--balance-abs-threshold``, ``--balance-rel-threshold``).
    """

    match: Fraction = Fraction(3, 10)
    absolute: int = 64
    relative: Fraction = Fraction(3, 2)


class CacheAware:
    """Where the queues are unbalanced, the shortest; else the worker with the longest known prefix, if long enough.

    A prompt that is known nowhere goes to the worker believed to hold the fewest blocks.
    """

    name = "cache-aware"

    def __init__(self, workers: int, thresholds: Thresholds | None = None) -> None:
        """A router for ``workers`` replicas."""
        self._thresholds = thresholds or Thresholds()
        self._queues = QueueSizes(workers)
        self._directory = PrefixDirectory()
        self._all = range(workers)

    def dispatch(self, request: Request, blocks: Sequence[BlockKey]) -> Decision:
        """O(blocks + workers)."""
        longest_match, matched = self._directory.longest_match_workers(blocks)
        worker = self._choose(longest_match, matched, len(blocks))
        self._queues.dispatched(worker)
        self._directory.insert(blocks, worker)
        return Decision(worker, longest_match, matched)

    def _choose(self, longest_match: Sequence[int], matched: int, blocks: int) -> int:
        """The decision itself, on numbers."""
        sizes = self._queues.sizes
        longest, shortest = max(sizes), min(sizes)
        limits = self._thresholds
        if longest - shortest > limits.absolute and longest > limits.relative * shortest:
            return self._queues.shortest(self._all)
        if longest_match and matched > limits.match * blocks:
            return longest_match[0]
        return min(self._all, key=lambda worker: (self._directory.held(worker), worker))

    def finished(self, request: Request, worker: int) -> None:
        """One request less at ``worker``."""
        self._queues.finished(worker)

    def evicted(self, prefix: Sequence[BlockKey], worker: int) -> None:
        """A prefix was evicted."""
        self._directory.evict(prefix, worker)
