"""What one run of a comparison gave, judged against its bound, and as `dlpm.results/1`."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from dlpm.cost import CostModel
from dlpm.gap import Gap
from dlpm.jsonl import JsonValue
from dlpm.summary import MICROSECONDS, Quantiles, RunSummary
from dlpm_engine.run.options import PolicyChoice

SCHEMA = "dlpm.results/1"


@dataclass(frozen=True, slots=True)
class GapPoint:
    """The largest service gap (weighted tokens) that had been seen by a time (microseconds)."""

    time_us: int
    amount: int


@dataclass(frozen=True, slots=True)
class RunResult:
    """One policy's run.

    Attributes:
        choice: the policy.
        summary: the numbers of the run.
        steps: forward steps of the worker, and steps in which nothing ran.
        bound: on the service gap of two backlogged clients, in weighted tokens; ``None`` where no theorem gives one.
        gap_curve: how the largest gap grew.
        wall_seconds: how long the simulation took here.
        failure: why the run ended before every request had finished; ``None`` if it did not.
    """

    choice: PolicyChoice
    summary: RunSummary
    steps: int
    bound: int | None
    gap_curve: tuple[GapPoint, ...]
    wall_seconds: float
    failure: str | None = None

    @property
    def max_gap(self) -> Gap | None:
        """The largest gap of two clients with a request in the queue throughout: the same notion for all policies."""
        return self.summary.gaps_in_queue.between_backlogged

    @property
    def max_gap_at_refills(self) -> Gap | None:
        """The same under the theorems' weaker notion of backlogged: with a request in the queue at every refill.

        More intervals count, so it is never below `max_gap`; ``None`` in a run without refills.
        """
        gaps = self.summary.gaps_at_refills
        return None if gaps is None else gaps.between_backlogged

    @property
    def judged_gap(self) -> Gap | None:
        """The larger of the two: what must not exceed the bound."""
        return self.max_gap_at_refills or self.max_gap

    @property
    def bound_holds(self) -> bool | None:
        """Whether the largest gap is within the bound; ``None`` where there is no bound."""
        if self.bound is None:
            return None
        return amount(self.judged_gap) <= self.bound


def amount(gap: Gap | None) -> int:
    """The gap in weighted tokens; 0 if nobody ever got ahead."""
    return 0 if gap is None else gap.amount


def encode_run(result: RunResult) -> dict[str, JsonValue]:
    """One entry of ``runs``. All but ``wall_seconds`` is the same for the same workload and options. O(clients)."""
    summary = result.summary
    dispatch = result.choice.dispatch
    return {
        **({} if dispatch is None else {"dispatch": dispatch.name, "worker_quantum": dispatch.worker_quantum}),
        "policy": result.choice.name,
        "quantum": result.choice.quantum,
        "requests": summary.requests,
        "finished": summary.finished,
        "preemptions": summary.preemptions,
        "failure": result.failure,
        "seconds": _seconds(summary.duration_us),
        "throughput_tokens_per_s": _number(summary.tokens_per_s),
        "output_tokens_per_s": _number(summary.output_tokens_per_s),
        "service_rate": _number(summary.service_rate),
        "jain": _number(summary.jain),
        "jain_actual": _number(summary.jain_actual),
        "hit_rate": _number(summary.hit_rate),
        "input_tokens": summary.input_tokens,
        "extend_tokens": summary.extend_tokens,
        "output_tokens": summary.output_tokens,
        "service": {name: client.service for name, client in summary.clients.items()},
        "perceived_service": {name: client.perceived_service for name, client in summary.clients.items()},
        "ttft": _quantiles(summary.ttft),
        "latency": _quantiles(summary.latency),
        "max_gap": amount(result.max_gap),
        "max_gap_pair": _pair(result.max_gap),
        "max_gap_at_refills": None if summary.gaps_at_refills is None else amount(result.max_gap_at_refills),
        "watched_clients": summary.watched_clients,
        "bound": result.bound,
        "bound_holds": result.bound_holds,
        "refills": summary.refills,
        "steps": result.steps,
        "wall_seconds": round(result.wall_seconds, 3),
    }


def weights(cost: CostModel) -> dict[str, JsonValue]:
    """The weights of extend and output tokens, as event logs write them."""
    return {"extend": cost.extend_weight, "output": cost.output_weight}


def _pair(gap: Gap | None) -> JsonValue:
    """Who was ahead of whom, and over which forward steps."""
    if gap is None:
        return None
    return {"ahead": gap.ahead, "behind": gap.behind, "from_step": gap.start, "to_step": gap.end}


def _quantiles(quantiles: Quantiles | None) -> JsonValue:
    """Percentiles in seconds."""
    if quantiles is None:
        return None
    return {
        "p50": _seconds(quantiles.p50),
        "p90": _seconds(quantiles.p90),
        "p99": _seconds(quantiles.p99),
        "max": _seconds(quantiles.maximum),
    }


def _seconds(time_us: int | None) -> float | None:
    """Microseconds as seconds, the nearest float."""
    return None if time_us is None else time_us / MICROSECONDS


def _number(value: Fraction | None) -> float | None:
    """An exact ratio as the nearest float."""
    return None if value is None else float(value)
