"""What a ledger shared by all workers costs in locality: D2LPM with and without it, on tree-of-thoughts.

Usage: python examples/shared_ledger_cost.py [--workload SPEC] [--workers N] [--quantum N] [--worker-quantum N] [--slow]

Prints a table: seconds until the last request finished, share of input tokens found in a cache, the largest service gap
between two clients that both waited somewhere, requests that changed workers. ``--slow`` makes the last worker three
times slower than the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from dlpm.batch import WorkerConfig
from dlpm.cluster import Cluster
from dlpm.cost import CostModel
from dlpm.dispatch.d2lpm import D2LPM
from dlpm.dispatch.moving import MovingD2LPM
from dlpm.extensions.shared_cluster import MovableWorker, SharedCluster
from dlpm.extensions.shared_ledger import SharedDLPM, SharedLedger
from dlpm.ledger import Ledger, Quanta
from dlpm.memory import Reserving
from dlpm.metrics import RunMetrics
from dlpm.policies.dlpm import DLPM
from dlpm.request import Workload
from dlpm.timing import Roofline, StepTimer, StepWork, kv_tokens_that_fit, preset
from dlpm.worker import Worker
from dlpm.workload.load import load

SLOWDOWN = 3


@dataclass(frozen=True)
class Slower:
    """A worker that takes `SLOWDOWN` times as long for a step."""

    inner: Roofline

    def step_us(self, work: StepWork) -> int:
        """Duration of a step in microseconds."""
        return SLOWDOWN * self.inner.step_us(work)


@dataclass(frozen=True)
class Setup:
    """The cluster that all rows share."""

    workload: Workload
    workers: int
    quantum: int
    worker_quantum: int
    slow: bool
    cost: CostModel

    def timer(self, index: int, roofline: Roofline) -> StepTimer:
        """The clock of one worker."""
        return Slower(roofline) if self.slow and index == self.workers - 1 else roofline

    def row(self, name: str, late: int | None, moving: bool) -> tuple[str, ...]:
        """Run once: without a shared ledger if ``late`` is ``None``."""
        roofline = preset("a10g")
        config = WorkerConfig(
            kv_tokens_that_fit(roofline.gpu, roofline.model), Reserving(), block_size=self.workload.block_size
        )
        metrics = RunMetrics(self.cost)
        moves = "-"
        if late is None:
            plain = [
                Worker(
                    config, DLPM(Ledger(Quanta(self.quantum), self.cost)), self.timer(index, roofline),
                    metrics.on_event, index=index,
                )
                for index in range(self.workers)
            ]  # fmt: skip
            Cluster(plain, D2LPM(self.workers, self.worker_quantum, self.cost), metrics.on_event).run(self.workload)
        else:
            ledger = SharedLedger(self.workers, Quanta(self.quantum), self.cost, late)
            movable = [
                MovableWorker(
                    config, SharedDLPM(ledger.views[index]), self.timer(index, roofline), metrics.on_event, index=index
                )
                for index in range(self.workers)
            ]
            router = MovingD2LPM(self.workers, self.worker_quantum, self.cost)
            cluster = SharedCluster(movable, router, ledger, metrics.on_event, moving=moving)
            cluster.run(self.workload)
            moves = str(cluster.moves)
        summary = metrics.summary()
        gap = summary.gaps_in_queue.between_backlogged
        return (
            name,
            f"{((summary.end_us or 0) - (summary.start_us or 0)) / 1e6:.1f}",
            f"{100 * summary.matched_tokens / summary.input_tokens:.1f} %",
            str(gap.amount if gap else 0),
            moves,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="D2LPM with and without a shared ledger")
    parser.add_argument("--workload", default="synthetic:tree-of-thoughts:s1:programs=8")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--quantum", type=int, default=2_000)
    parser.add_argument("--worker-quantum", type=int, default=20_000)
    parser.add_argument("--slow", action="store_true")
    options = parser.parse_args(arguments)
    setup = Setup(
        load(options.workload), options.workers, options.quantum, options.worker_quantum, options.slow, CostModel()
    )
    rows = [("ledger", "seconds", "cached", "largest gap", "moves"), setup.row("one a worker (D2LPM)", None, False)]
    for late in (0, 8, 64):
        rows.append(setup.row(f"shared, {late} late", late, True))
    rows.append(setup.row("shared, 0 late, no moves", 0, False))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
