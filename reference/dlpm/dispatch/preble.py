"""Preble's E2: exploit a cached prefix where it outweighs the rest of the prompt, else explore by load [Preble §3].

Srivatsa et al., "Preble: Efficient Distributed Prompt Scheduling for LLM Serving" (arXiv:2407.00023), as the
baseline of [DLPM §6.1] describes it: a prefix-matching ratio decides between exploiting and exploring. Two parts of
the original need what a router here does not see, and are left out: load counts the work dispatched and
unfinished instead of the work of a time window, and the cost of evicting other prefixes is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from dlpm.cost import CostModel
from dlpm.dispatch.base import Decision
from dlpm.dispatch.directory import PrefixDirectory
from dlpm.request import BlockKey, Request, RequestId


class Preble:
    """Exploit where the match exceeds ``ratio`` of the prompt, explore the least loaded worker otherwise.

    Load is weighted tokens dispatched and not finished: those not matched, and the mean output seen so far. A worker
    whose
    load exceeds ``rebalance`` times the least is not exploited (E2's redirection).
    """

    name = "preble"

    def __init__(
        self,
        workers: int,
        block_size: int,
        cost: CostModel,
        *,
        ratio: Fraction = Fraction(1, 2),
        rebalance: Fraction | None = None,
    ) -> None:
        """A router for ``workers`` replicas with cached blocks of ``block_size`` tokens."""
        self._block_size = block_size
        self._cost = cost
        self._ratio = ratio
        self._rebalance = rebalance
        self._directory = PrefixDirectory()
        self._load = [0] * workers
        self._booked: dict[RequestId, int] = {}
        self._outputs = 0
        self._finished = 0

    def dispatch(self, request: Request, blocks: Sequence[BlockKey]) -> Decision:
        """O(blocks + workers)."""
        longest_match, matched = self._directory.longest_match_workers(blocks)
        matched_tokens = min(matched * self._block_size, request.input_tokens)
        candidates: Sequence[int] = range(len(self._load))
        if longest_match and matched_tokens > self._ratio * request.input_tokens:
            candidates = self._exploitable(longest_match)
        worker = min(candidates, key=lambda index: (self._load[index] + self._prefill(index, request, blocks), index))
        booked = self._prefill(worker, request, blocks) + self._cost.output(self._mean_output())
        self._booked[request.id] = booked
        self._load[worker] += booked
        self._directory.insert(blocks, worker)
        return Decision(worker, longest_match, matched)

    def _exploitable(self, longest_match: Sequence[int]) -> Sequence[int]:
        """The holders of the prefix, less those that are overloaded; all workers if none is left."""
        if self._rebalance is None:
            return longest_match
        limit = self._rebalance * min(self._load)
        return [worker for worker in longest_match if self._load[worker] <= limit] or range(len(self._load))

    def _prefill(self, worker: int, request: Request, blocks: Sequence[BlockKey]) -> int:
        """Weighted tokens that ``worker`` would have to compute of the prompt. O(blocks it holds)."""
        held = self._directory.matched_at(blocks, worker) * self._block_size
        return self._cost.extend(max(1, request.input_tokens - held))

    def _mean_output(self) -> int:
        """Mean output tokens of the requests finished so far, rounded up; 1 before the first."""
        return -(-self._outputs // self._finished) if self._finished else 1

    def finished(self, request: Request, worker: int) -> None:
        """Take the work of a finished request off its worker, and learn its output length."""
        self._load[worker] -= self._booked.pop(request.id)
        self._outputs += request.output_tokens
        self._finished += 1

    def evicted(self, prefix: Sequence[BlockKey], worker: int) -> None:
        """A prefix was evicted."""
        self._directory.evict(prefix, worker)
