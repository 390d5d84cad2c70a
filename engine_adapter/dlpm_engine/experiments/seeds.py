"""Figure 7's column of four workers with several seeds: `python -m dlpm_engine.experiments.seeds ROWS.jsonl`.

How far the numbers of one seed can be trusted. What a seed changes is what a workload is drawn with: arrivals, lengths.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dlpm.files import written_whole
from dlpm.jsonl import dump
from dlpm_engine.experiments.figures import Job, figure_7, run_all

SEEDS = (1, 2, 3)
WORKERS = 4


def jobs() -> Iterator[Job]:
    """Every scene and system on `WORKERS` workers, seed by seed."""
    for seed in SEEDS:
        for job in figure_7():
            if job.workers == WORKERS:
                yield replace(job, figure="7 seeds", x=seed, spec=replace(job.spec, seed=seed))


def main(arguments: list[str]) -> None:
    """Run them and write their rows, whose ``x`` is the seed."""
    processes = int(arguments[1]) if len(arguments) > 1 else 1
    wanted = list(jobs())
    with written_whole(Path(arguments[0])) as stream:
        for done, row in enumerate(run_all(wanted, processes), start=1):
            stream.write(f"{dump(row)}\n")
            print(f"{done} of {len(wanted)}: {dump(row)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
