"""The numbers of a run as frozen values, and the pure functions behind them: Jain index, percentiles, rates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from dlpm.gap import Gaps
from dlpm.request import ClientId

MICROSECONDS = 1_000_000
"""In one second."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Nearest-rank percentiles of ``count`` >= 1 durations, in microseconds: each is a duration that occurred."""

    count: int
    p50: int
    p90: int
    p99: int
    maximum: int


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Cumulative service of one client when ``step`` forward steps were completed, before admissions that follow.

    ``service`` counts extend tokens, ``perceived_service`` input tokens; weighted tokens. ``time_us`` is ``None`` in a
    run without times.
    """

    step: int
    time_us: int | None
    service: int
    perceived_service: int


@dataclass(frozen=True, slots=True)
class ClientSummary:
    """The numbers of one client; tokens, requests, microseconds.

    ``input_tokens`` are those of admitted requests, once each; ``matched_tokens + extend_tokens`` exceed them by what
    was admitted again after preemptions. ``service`` is the paper's ``W``, on extend tokens; ``perceived_service``
    counts input tokens in their place. Time to first token and latency count from when the user sent the request;
    sorted, of requests that got so far.
    """

    requests: int
    finished: int
    preemptions: int
    input_tokens: int
    matched_tokens: int
    extend_tokens: int
    output_tokens: int
    service: int
    perceived_service: int
    first_arrival_us: int | None
    last_finish_us: int | None
    ttft_us: tuple[int, ...]
    latency_us: tuple[int, ...]
    curve: tuple[CurvePoint, ...]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The numbers of a run: totals as in `ClientSummary`, fairness, and the clients in order of first arrival.

    Attributes:
        start_us: when the first request was sent; ``None``, as ``end_us``, in a run without times.
        end_us: when the last event happened.
        all_active_steps: the forward steps completed when the last client had joined and when the first one was done;
            over the steps between, the Jain indices are taken. ``None`` if all were never active together.
        jain: Jain index of perceived service, the paper's [DLPM §6.1]; ``None`` as ``all_active_steps``.
        jain_actual: Jain index of the service on extend tokens.
        ttft: time to first token of all requests that got one; ``None`` if none did or there are no times.
        latency: time from sending to finish, likewise.
        watched_clients: among how many clients, the first to arrive, the gaps were looked for.
        gaps_in_queue: backlogged as having a request in the queue without a break.
        gaps_at_refills: backlogged as having a request in the queue at every refill of the interval, the notion of the
            theorems; ``None`` in a run without refills, or of several workers.
    """

    requests: int
    finished: int
    preemptions: int
    refills: int
    forward_steps: int
    start_us: int | None
    end_us: int | None
    input_tokens: int
    matched_tokens: int
    extend_tokens: int
    output_tokens: int
    service: int
    perceived_service: int
    all_active_steps: tuple[int, int] | None
    jain: Fraction | None
    jain_actual: Fraction | None
    ttft: Quantiles | None
    latency: Quantiles | None
    watched_clients: int
    gaps_in_queue: Gaps
    gaps_at_refills: Gaps | None
    clients: Mapping[ClientId, ClientSummary]

    @property
    def hit_rate(self) -> Fraction | None:
        """Share of the prompt tokens of all admissions that the cache had; ``None`` if nothing was admitted."""
        prompt = self.matched_tokens + self.extend_tokens
        return Fraction(self.matched_tokens, prompt) if prompt else None

    @property
    def duration_us(self) -> int | None:
        """From the first request sent to the last event; ``None`` if the run has no times."""
        if self.start_us is None or self.end_us is None:
            return None
        return self.end_us - self.start_us

    @property
    def output_tokens_per_s(self) -> Fraction | None:
        """Output tokens a second."""
        return self._per_second(self.output_tokens)

    @property
    def tokens_per_s(self) -> Fraction | None:
        """Input tokens of admitted requests and output tokens a second: throughput as users see it."""
        return self._per_second(self.input_tokens + self.output_tokens)

    @property
    def service_rate(self) -> Fraction | None:
        """Perceived service a second: the paper's "service rate" [DLPM §6.1]."""
        return self._per_second(self.perceived_service)

    def _per_second(self, amount: int) -> Fraction | None:
        """``amount`` over the duration, if there is one."""
        duration = self.duration_us
        return Fraction(amount * MICROSECONDS, duration) if duration else None


def jain_index(shares: Sequence[int]) -> Fraction:
    """``(sum x)^2 / (n * sum x^2)`` [DLPM §6.1, Metrics]: 1 if all got the same, ``1/n`` if one got everything. O(n).

    1 if nobody got anything.

    Raises:
        ValueError: for no shares at all, of which the index says nothing.
    """
    if not shares:
        raise ValueError("expected at least one share")
    squares = sum(share * share for share in shares)
    if not squares:
        return Fraction(1)
    return Fraction(sum(shares) ** 2, len(shares) * squares)


def percentile(ordered: Sequence[int], percent: int) -> int:
    """The nearest-rank percentile: the smallest value that ``percent`` % (1..100) of ``ordered`` or more do not exceed.

    ``ordered`` is sorted ascending and not empty. No interpolation: the result is one of the values. O(1).
    """
    rank = -(-percent * len(ordered) // 100)
    return ordered[rank - 1]


def quantiles(durations: Iterable[int]) -> Quantiles | None:
    """The percentiles that reports show, or ``None`` for no durations. O(n log n)."""
    ordered = sorted(durations)
    if not ordered:
        return None
    p50, p90, p99 = (percentile(ordered, percent) for percent in (50, 90, 99))
    return Quantiles(len(ordered), p50, p90, p99, ordered[-1])


def ttft_of(summary: RunSummary, clients: Iterable[ClientId]) -> Quantiles | None:
    """Time to first token of some clients together, such as the well-behaved ones [DLPM §6.2]. O(requests log)."""
    return quantiles(value for client in clients for value in summary.clients[client].ttft_us)


def latency_of(summary: RunSummary, clients: Iterable[ClientId]) -> Quantiles | None:
    """Latency of some clients together, such as the well-behaved ones [DLPM §6.2]. O(requests log)."""
    return quantiles(value for client in clients for value in summary.clients[client].latency_us)
