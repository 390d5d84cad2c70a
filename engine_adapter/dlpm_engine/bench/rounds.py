"""Several rounds of the same measurements, so that what else the machine does is in all figures alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from dlpm.jsonl import JsonValue
from dlpm_engine.bench.decision import DecisionTime
from dlpm_engine.bench.peer import SGLANG


@dataclass(frozen=True, slots=True)
class Row:
    """All rounds of one subject.

    Attributes:
        time: the median round in each figure; ``steps`` are those of all rounds.
        shares: for each round, SGLang's time for the same queue in the same round over the time of this one's step with
            its submits. Empty where SGLang was not timed.
    """

    time: DecisionTime
    shares: tuple[float, ...]

    def to_json(self) -> dict[str, JsonValue]:
        """As `dlpm bench --json` writes it."""
        return {**self.time.to_json(), "rounds_sglang_over_this": [round(share, 2) for share in self.shares]}


def in_rows(rounds: Sequence[Sequence[DecisionTime]]) -> list[Row]:
    """One row a subject; every round has measured the same ones in the same order. O(measurements)."""
    peers = [{time.subject.waiting: time for time in times if _is_peer(time)} for times in rounds]
    rows = []
    for measured in zip(*rounds, strict=True):
        shares = tuple(
            peer[time.subject.waiting].median_us / time.with_submits_us()
            for time, peer in zip(measured, peers, strict=True)
            if time.subject.waiting in peer and not _is_peer(time)
        )
        rows.append(Row(_middle(measured), shares))
    return rows


def _is_peer(time: DecisionTime) -> bool:
    """Whether this is SGLang's."""
    return time.subject.engine.startswith(SGLANG)


def _middle(times: Sequence[DecisionTime]) -> DecisionTime:
    """The median of each figure."""
    return DecisionTime(
        subject=times[0].subject,
        steps=sum(time.steps for time in times),
        median_us=median(time.median_us for time in times),
        mean_us=median(time.mean_us for time in times),
        p99_us=median(time.p99_us for time in times),
        wall_us=median(time.wall_us for time in times),
        submit_us=median(time.submit_us for time in times),
        admissions=median(time.admissions for time in times),
    )
