"""Preble's local scheduler: waiting-queue levels by hit ratio, served in proportion to their level [Preble §3].

Without fairness between clients, but no request waits for ever behind better matched ones [DLPM §6.2].
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from dlpm.policies.base import AdmissionStep, Waiting
from dlpm.request import ClientId

LEVELS = 10


class PrebleLevels:
    """Each round takes up to ``level + 1`` requests of each level, highest first; first come first served within one.

    A request whose cached share of tokens is ``s`` has level ``floor(LEVELS * s)``, 0 to ``LEVELS - 1``.
    """

    name = "preble"

    def arrive(self, client: ClientId, queued_clients: Iterable[ClientId]) -> None:
        """Nothing to keep."""

    def leave(self, client: ClientId) -> None:
        """Nothing to keep."""

    def admission_due(self, queued_clients: Iterable[ClientId]) -> bool:
        """Never: what did not fit fits only once something changed."""
        return False

    def admit(self, step: AdmissionStep) -> None:
        """One pass in the order of the rounds, passing over what does not fit. O(queue)."""
        if not any(step.may_fit(request) for request in step.waiting()):
            return
        order = self._rounds(step)
        step.considered(order)
        for request in order:
            if step.try_admit(request) is not None:
                step.admitted(request, None)

    @staticmethod
    def _rounds(step: AdmissionStep) -> list[Waiting]:
        """The order of service: rounds over the levels."""
        levels: list[deque[Waiting]] = [deque() for _ in range(LEVELS)]
        for request in step.waiting():
            levels[LEVELS * step.matched(request) // request.resident].append(request)
        order: list[Waiting] = []
        while any(levels):
            for level in reversed(range(LEVELS)):
                for _ in range(min(level + 1, len(levels[level]))):
                    order.append(levels[level].popleft())
        return order

    def charge_outputs(self, tokens: Mapping[ClientId, int]) -> None:
        """Nothing to charge."""

    def counter(self, client: ClientId) -> int | None:
        """No counter."""
        return None
