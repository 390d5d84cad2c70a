"""A naive worker that settles shared prefixes: who paid for what is a list of rows, and parts are exact fractions."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import floor

from tests.reference.naive_state import Prefix, Runner, Waiter
from tests.reference.naive_worker import NaiveWorker, Rules


@dataclass
class Row:
    """``client`` holds the cached block ``prefix``, for which ``tokens`` are paid and not given back."""

    prefix: Prefix
    client: str
    tokens: int


class NaiveSharing(NaiveWorker):
    """The naive worker, with a choice of who pays; `settled` has what was charged and given back, by request."""

    def __init__(self, rules: Rules, payer: str) -> None:
        super().__init__(rules)
        self.payer = payer
        self.rows: list[Row] = []
        self.settled: list[tuple[str, int, dict[str, int]]] = []

    # Who holds what.

    def forget_what_is_gone(self) -> None:
        self.rows = [row for row in self.rows if self.is_cached(row.prefix)]

    def holds(self, client: str, prefix: Prefix) -> bool:
        return any(row.prefix == prefix and row.client == client for row in self.rows)

    def block_tokens(self, prefix: Prefix) -> int:
        return self.tokens_of(prefix) - self.tokens_of(prefix[:-1])

    def cached_prefixes(self, waiter: Waiter) -> list[Prefix]:
        """Every cached block of the prompt."""
        longest = self.longest_cached(self.prompt_blocks(waiter.request))
        return [longest[:length] for length in range(1, len(longest) + 1)]

    def evict_until_it_fits(self, more: int = 0) -> None:
        super().evict_until_it_fits(more)
        self.forget_what_is_gone()

    def preempt_until_outputs_fit(self) -> None:
        super().preempt_until_outputs_fit()
        self.forget_what_is_gone()

    # Settling.

    def charge(self, waiter: Waiter) -> tuple[int, dict[str, int]]:
        """What the client is charged for and what others get back, in tokens."""
        client = waiter.client()
        matched = self.matched(waiter)
        extend = waiter.resident() - matched
        cached = self.cached_prefixes(waiter)
        if self.payer == "alone":
            own = sum(self.block_tokens(prefix) for prefix in cached if self.holds(client, prefix))
            self.rows += [Row(prefix, client, 0) for prefix in cached if not self.holds(client, prefix)]
            return max(1, waiter.resident() - own), {}
        if self.payer == "split":
            used = [prefix for prefix in cached if self.tokens_of(prefix[:-1]) < matched]
            refunds = self.join(client, [prefix for prefix in used if not self.holds(client, prefix)])
            return extend + sum(refunds.values()), refunds
        return extend, {}

    def join(self, client: str, prefixes: list[Prefix]) -> dict[str, int]:
        """Holders give a newcomer its part: what they have given is the whole part of what they should have."""
        refunds: dict[str, int] = {}
        holders: list[str] = []
        should: dict[str, Fraction] = {}
        given: dict[str, int] = {}
        for prefix in prefixes:
            rows = [row for row in self.rows if row.prefix == prefix]
            if [row.client for row in rows] != holders:
                holders = [row.client for row in rows]
                should = dict.fromkeys(holders, Fraction(0))
                given = dict.fromkeys(holders, 0)
            paid = 0
            for row in rows:
                should[row.client] += Fraction(row.tokens, len(rows) + 1)
                back = floor(should[row.client]) - given[row.client]
                given[row.client] += back
                row.tokens -= back
                refunds[row.client] = refunds.get(row.client, 0) + back
                paid += back
            self.rows.append(Row(prefix, client, paid))
        return {other: tokens for other, tokens in refunds.items() if tokens}

    def admit(self, waiter: Waiter) -> None:
        """Charge as ever, then what is charged beside it; give back to others first."""
        extend = waiter.resident() - self.matched(waiter)
        charged, refunds = self.charge(waiter)
        for client, tokens in refunds.items():
            self.counters[client] += self.rules.extend_weight * tokens
        super().admit(waiter)
        self.counters[waiter.client()] -= self.rules.extend_weight * (charged - extend)
        name, request, matched, computed, _, free = self.events[-1]
        self.events[-1] = (name, request, matched, computed, self.counters[waiter.client()], free)
        self.settled.append((waiter.request.id, charged, refunds))

    def show(self, runner: Runner) -> None:
        """The client holds its whole prompt, and has paid for what is new."""
        super().show(runner)
        if self.payer != "first":
            blocks = self.prompt_blocks(runner.waiter.request)
            for length in range(1, len(blocks) + 1):
                prefix = blocks[:length]
                tokens = self.block_tokens(prefix) if all(row.prefix != prefix for row in self.rows) else 0
                if not self.holds(runner.client(), prefix):
                    self.rows.append(Row(prefix, runner.client(), tokens))

    def finish(self) -> None:
        """As ever; who generated a reply holds it, and nobody has paid for it."""
        finished = [r for r in self.running if r.waiter.generated == r.waiter.request.output_tokens]
        for runner in finished:
            # One at a time, so that what the next one evicts is not held yet.
            others = [other for other in self.running if other is not runner]
            waiting = [other for other in others if any(other is late for late in finished)]
            for other in waiting:
                other.waiter.generated -= 1
            super().finish()
            for other in waiting:
                other.waiter.generated += 1
            request = runner.waiter.request
            if self.payer != "first" and (request.reply or request.reply_blocks):
                kept = self.longest_cached(self.sequence_blocks(request))
                for length in range(1, len(kept) + 1):
                    if not self.holds(runner.client(), kept[:length]):
                        self.rows.append(Row(kept[:length], runner.client(), 0))
