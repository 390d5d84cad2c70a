"""E7, the worker: it settles with those who hold a prefix whenever a request that uses it is let in."""

from __future__ import annotations

from dataclasses import replace

from dlpm.batch import QueuedRequest, RunningRequest, WorkerConfig
from dlpm.errors import InputError
from dlpm.events import Admit, EventSink
from dlpm.extensions.shared_prefixes import (
    ALONE,
    FIRST,
    PAYERS,
    SPLIT,
    HeldCache,
    SharingPolicy,
    charged_alone,
    join,
    path_to,
)
from dlpm.policies.base import Waiting
from dlpm.prefix_cache import Node
from dlpm.request import ClientId, sequence_blocks
from dlpm.timing import StepTimer
from dlpm.worker import Worker


class SharingWorker(Worker):
    """The worker of Algorithm 1 with a choice of who pays for shared prefixes. `FIRST` is the plain worker.

    Who is let in, in which order, and what is computed, is decided as ever; only the charge of an admission is another.
    """

    policy: SharingPolicy

    def __init__(
        self,
        config: WorkerConfig,
        policy: SharingPolicy,
        timer: StepTimer,
        payer: str,
        sink: EventSink | None = None,
        *,
        index: int | None = None,
        full_log: bool = False,
    ) -> None:
        """``payer`` is one of `PAYERS`.

        Raises:
            InputError: it is none of them.
        """
        super().__init__(config, policy, timer, sink, index=index, full_log=full_log)
        if payer not in PAYERS:
            raise InputError(f"expected one of {', '.join(PAYERS)}, found {payer!r}", field="payer")
        self.holdings = HeldCache(config.block_size)
        self.cache = self.holdings
        self._payer = payer
        self._charged = 0
        self._refunds: dict[ClientId, int] = {}

    def try_admit(self, request: Waiting) -> int | None:
        """As ever, but it returns the tokens that the client is charged for, not those that it makes compute."""
        return None if super().try_admit(request) is None else self._charged

    def _admit(self, queued: QueuedRequest, node: Node, matched: int, private: int) -> None:
        """Settle while the whole match is cached, then admit. O(blocks and shares of the match)."""
        self._charged, self._refunds = self._settle(queued, matched)
        self.policy.refund(self._refunds)
        super()._admit(queued, node, matched, private)

    def _settle(self, queued: QueuedRequest, matched: int) -> tuple[int, dict[ClientId, int]]:
        """What the client is charged for, and what others get back, in tokens.

        Who has paid holds what it paid for, even where its own prompt becomes visible later. A block is joined where at
        least one of its tokens is not computed again.
        """
        extend = queued.resident - matched
        if self._payer == ALONE:
            held = self._held(queued)
            self.holdings.hold_free(queued.client, path_to(queued.match.node))
            return charged_alone(queued.resident, held), {}
        if self._payer == SPLIT:
            used = [node for node in path_to(queued.match.node) if node.end - node.tokens < matched]
            refunds = join([self.holdings.shares[node] for node in used], queued.client)
            paid = {client: tokens for client, tokens in refunds.items() if tokens}
            return extend + sum(paid.values()), paid
        return extend, {}

    def _held(self, queued: QueuedRequest) -> int:
        """Tokens of the matched prefix that the client holds. O(blocks that it does not hold)."""
        return self.holdings.held(queued.client, queued.match.node)

    def _insert(self, run: RunningRequest) -> None:
        """As ever; the client holds the whole prompt now. O(its blocks)."""
        super()._insert(run)
        self._hold(run)

    def _hold(self, run: RunningRequest) -> None:
        """Enter who holds the prompt: what the match did not use was computed here, even if it was cached meanwhile."""
        if self._payer != FIRST:
            self.holdings.hold(run.queued.client, path_to(run.node))

    def _keep_sequence(self, queued: QueuedRequest) -> None:
        """As ever; what was generated has been paid as output, and nobody owes anything for it."""
        super()._keep_sequence(queued)
        if self._payer != FIRST and (queued.request.reply or queued.request.reply_blocks):
            blocks = sequence_blocks(queued.request, self.config.block_size)
            kept = self.cache.match(blocks, self.cache.start()).node
            self.holdings.hold_free(queued.client, path_to(kept))

    def _admission(self, request: Waiting, deficit: int | None) -> Admit:
        """As ever, with what was charged and given back."""
        event = super()._admission(request, deficit)
        if self._payer == FIRST:
            return event
        counters = {client: self.policy.counter(client) for client in self._refunds}
        deficits = {client: value for client, value in counters.items() if value is not None}
        return replace(event, charged=self._charged, refunds=self._refunds or None, deficits=deficits or None)
