"""Count what a step of the batched scheduler launches and waits for, on the pretended device.

``python -m tests.engine_adapter.tensor.count_operations``, in the root of the checkout, prints a line a step.
"""

from __future__ import annotations

import torch

from dlpm_engine.differential.corpus import corpus
from dlpm_engine.tensor.batched.scheduler import BatchedScheduler
from dlpm_engine.tensor.batched.view import View
from tests.engine_adapter.tensor.pretended_device import pretended_device

CASE = "preemption of the youngest, again and again"
INSTANCES = 3
STEPS = 12


def main() -> None:
    """Step some instances of one case."""
    case = corpus()[CASE]
    with pretended_device() as account:
        scheduler = BatchedScheduler([case.config] * INSTANCES, torch.device("cuda"))
        scheduler.submit([(instance, request) for request in case.requests for instance in range(INSTANCES)])
        for step in range(1, STEPS + 1):
            operations, waits = account.operations.total(), len(account.waits)
            scheduler.step()
            operations, waits = account.operations.total() - operations, len(account.waits) - waits
            happened = ", ".join(type(event).__name__.lower() for event in View(scheduler).events(0, step))
            print(f"step {step}: {operations} operations, {waits} waits: {happened}")


if __name__ == "__main__":
    main()
