"""The rules of longest prefix match without fairness [DLPM §4.1, first paragraph]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dlpm_engine.conformance.considered_order import ConsideredOrder
from dlpm_engine.conformance.discipline import Discipline
from dlpm_engine.conformance.state import RequestState
from dlpm_engine.conformance.worker_state import WorkerState


class LpmRules(Discipline):
    """Longest match first, and nobody who certainly fits is left out. Needs a log of level `full`."""

    def __init__(self, state: WorkerState) -> None:
        """No order yet."""
        super().__init__(state)
        self._order = ConsideredOrder(state)

    def not_checked(self) -> Mapping[str, str]:
        """All of them, where the log has no order."""
        return self._order.not_checked()

    def considers(self, requests: Sequence[str], matched: Sequence[int], free: int | None) -> None:
        """The order is longest match first."""
        known = self._order.begin(requests, free)
        if len(known) == len(requests):
            self._order.check_longest_first(known, matched)

    def admits(self, request: RequestState, extend: int, deficit: int | None, free: int | None) -> None:
        """Nobody was passed over."""
        super().admits(request, extend, deficit, free)
        self._order.admits(request, free, lambda other: True)

    def forwards(self) -> None:
        """Nobody who fits still waits. O(queue)."""
        self._order.check_fixpoint(self._order.waiting())
