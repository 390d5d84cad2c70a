"""Longest prefix match without fairness: SGLang's cache-aware order [DLPM §4.1, first paragraph]."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dlpm.policies.base import AdmissionStep, longest_prefix_first
from dlpm.request import ClientId


class LPM:
    """Admit by matched prefix length, passing over what does not fit: Algorithm 1 without its gate."""

    name = "lpm"

    def arrive(self, client: ClientId, queued_clients: Iterable[ClientId]) -> None:
        """Nothing to keep."""

    def leave(self, client: ClientId) -> None:
        """Nothing to keep."""

    def admission_due(self, queued_clients: Iterable[ClientId]) -> bool:
        """Never: what did not fit fits only once something changed."""
        return False

    def admit(self, step: AdmissionStep) -> None:
        """One pass in the order of the longest prefix. O(n log n) for n queued requests, O(n) if none could fit."""
        if not any(step.may_fit(request) for request in step.waiting()):
            return
        order = longest_prefix_first(step)
        step.considered(order)
        for request in order:
            if step.try_admit(request) is not None:
                step.admitted(request, None)

    def charge_outputs(self, tokens: Mapping[ClientId, int]) -> None:
        """Nothing to charge."""

    def counter(self, client: ClientId) -> int | None:
        """No counter."""
        return None
