"""Run the experiments and write their rows: `python -m dlpm_engine.experiments ROWS.jsonl [PROCESSES]`.

Small clusters come first, so that what is seen on standard error is a picture of the whole early.
"""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path

from dlpm.files import written_whole
from dlpm.jsonl import dump
from dlpm_engine.experiments.figures import (
    documents_over_quantum,
    figure_7,
    figure_10,
    figure_10_with_system_prompts,
    figure_11,
    run_all,
)


def main(arguments: list[str]) -> None:
    """All figures, one row a run."""
    path = Path(arguments[0])
    processes = int(arguments[1]) if len(arguments) > 1 else 1
    jobs = list(chain(figure_7(), figure_10(), figure_10_with_system_prompts(), figure_11(), documents_over_quantum()))
    jobs.sort(key=lambda job: job.workers)
    with written_whole(path) as stream:
        for done, row in enumerate(run_all(jobs, processes), start=1):
            stream.write(f"{dump(row)}\n")
            print(f"{done} of {len(jobs)}: {dump(row)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
