"""Reading a counter off an event that must carry one."""

from __future__ import annotations

from dlpm.errors import InputError
from dlpm_engine.conformance.worker_state import WorkerState


def logged_counter(state: WorkerState, deficit: int | None) -> int:
    """The counter in an event of a policy that keeps counters. O(1).

    Raises:
        InputError: the event has none.
    """
    if deficit is None:
        raise InputError(
            f"expected the client's counter: policy {state.header.policy} keeps one",
            source=state.findings.source,
            line=state.findings.line,
            field="deficit",
        )
    return deficit
