"""Run a whole workload through one worker."""

from __future__ import annotations

from collections.abc import Callable

from dlpm.arrivals import Arrivals
from dlpm.errors import InputError
from dlpm.request import Workload
from dlpm.worker import Worker


class StalledError(RuntimeError):
    """Requests that would fit wait beside an empty batch, and nothing is to come: the policy does not conserve work."""


def simulate(workload: Workload, worker: Worker, on_progress: Callable[[int], None] | None = None) -> int:
    """Submit every request when it is due and step until all have finished; returns how many did.

    The worker's clock, in microseconds from the start of the workload, jumps over times when nothing is queued or
    running. ``on_progress`` is told the number of finished requests whenever it grew.

    Raises:
        InputError: if a request cannot fit into the worker's memory at all, or waits for a call that never finishes.
        StalledError: if a policy leaves fitting requests waiting beside an empty batch, with nothing left to come.
    """
    arrivals = Arrivals(workload.requests)
    finished = 0
    while True:
        if worker.idle():
            next_us = arrivals.next_us()
            if next_us is None:
                break
            worker.time_us = max(worker.time_us, next_us)
        for release_us, request in arrivals.take_due(worker.time_us):
            worker.submit(request, release_us)
        result = worker.step()
        for request in result.finished:
            arrivals.finished(request, result.time_us)
        if result.finished:
            finished += len(result.finished)
            if on_progress is not None:
                on_progress(finished)
        if not result.ran:
            next_us = arrivals.next_us()
            if next_us is None:
                raise StalledError(
                    f"step {worker.step_number}: {len(worker.waiting())} requests wait beside an empty batch"
                )
            worker.time_us = max(worker.time_us, next_us)
    if arrivals.held():
        raise InputError(
            f"expected calls of this workload that finish, found request {arrivals.held()[0]!r} waiting in vain",
            field="parents",
        )
    return finished
