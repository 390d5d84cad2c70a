"""First come, first served: what engines do without a policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dlpm.policies.base import AdmissionStep
from dlpm.request import ClientId


class FCFS:
    """Admit in order of arrival, and stop at the first request that does not fit."""

    name = "fcfs"

    def arrive(self, client: ClientId, queued_clients: Iterable[ClientId]) -> None:
        """Nothing to keep."""

    def leave(self, client: ClientId) -> None:
        """Nothing to keep."""

    def admission_due(self, queued_clients: Iterable[ClientId]) -> bool:
        """Never: what did not fit fits only once something changed."""
        return False

    def admit(self, step: AdmissionStep) -> None:
        """O(admitted requests)."""
        order = step.waiting()
        step.considered(order)
        for request in order:
            if step.try_admit(request) is None:
                break
            step.admitted(request, None)

    def charge_outputs(self, tokens: Mapping[ClientId, int]) -> None:
        """Nothing to charge."""

    def counter(self, client: ClientId) -> int | None:
        """No counter."""
        return None
