"""Runs of clusters with a shared ledger, and what their logs are searched for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from dlpm.batch import WorkerConfig
from dlpm.cost import CostModel
from dlpm.dispatch.moving import MovingD2LPM
from dlpm.event_codec import encode_event, encode_header
from dlpm.events import Event, Header, Limits
from dlpm.extensions.shared_cluster import MovableWorker, SharedCluster
from dlpm.extensions.shared_ledger import SharedDLPM, SharedLedger, stated
from dlpm.ledger import Quanta
from dlpm.memory import Reserving
from dlpm.simulate import StalledError
from dlpm.timing import FixedStep
from dlpm.workload.fuzz import random_workload
from tests.engine_adapter.conformance.logs import Log
from tests.engine_adapter.conformance.samples import kind

COST = CostModel(1, 2)


@dataclass(frozen=True)
class Shared:
    """One run of a cluster with a shared ledger; ``ledger`` and ``cluster`` may be ones with a fault."""

    seed: int = 0
    steps_us: tuple[int, ...] = (1, 2, 3)
    late: int = 2
    stated_late: int | None = None
    quantum: int = 7
    quanta: tuple[tuple[str, int], ...] = ()
    kv_tokens: int = 24
    max_running: int | None = None
    moving: bool = True
    full: bool = True
    ledger: type[SharedLedger] = SharedLedger
    cluster: type[SharedCluster] = SharedCluster
    requests: int = 24

    def log(self) -> Log:
        """The log of the run."""
        events: list[Event] = []
        workload = random_workload(Random(self.seed), requests=self.requests, span_us=20, parent_chance=0.2)
        count = len(self.steps_us)
        ledger = self.ledger(count, Quanta(self.quantum, dict(self.quanta)), COST, self.late)
        config = WorkerConfig(self.kv_tokens, Reserving(), max_running=self.max_running)
        workers = [
            MovableWorker(config, SharedDLPM(view), FixedStep(step_us), events.append, index=index, full_log=self.full)
            for index, (view, step_us) in enumerate(zip(ledger.views, self.steps_us, strict=True))
        ]
        router = MovingD2LPM(count, 5, COST)
        with suppress(StalledError):
            self.cluster(workers, router, ledger, events.append, moving=self.moving).run(workload)
        header = Header(
            engine="reference under test",
            policy="dlpm",
            extend_weight=COST.extend_weight,
            output_weight=COST.output_weight,
            default_quantum=self.quantum,
            quanta=dict(self.quanta),
            limits=Limits(kv_tokens=self.kv_tokens, max_running=self.max_running),
            memory=config.memory.kind,
            visibility=config.visibility,
            block_size=config.block_size,
            level="full" if self.full else "decisions",
            extensions=stated(self.late if self.stated_late is None else self.stated_late),
            extra={"dispatch": {"router": router.name, "workers": count, "worker_quantum": 5}},
        )
        return [encode_header(header), *map(encode_event, events)]


SEEDS = range(6)


@cache
def samples() -> list[Log]:
    return [Shared(seed).log() for seed in SEEDS]


def moves(log: Log) -> Iterator[int]:
    """The places of dispatches that move a request."""
    for index, line in enumerate(log):
        if kind(line) == "dispatch" and any(
            kind(other) == "dispatch" and other["request"] == line["request"] for other in log[1:index]
        ):
            yield index


def lines(log: Log, wanted: str) -> Iterator[tuple[int, Any]]:
    """Every event of one kind, with its place."""
    for index, line in enumerate(log):
        if kind(line) == wanted:
            yield index, line
