"""E9, a ledger that workers share: counters in the log are the views of workers, updated up to ``late`` updates late.

The gate is asked of a worker's view, refills are due and paid by what the keeper has heard of, floor and gap are about
what clients were really served by all workers together, and a request that waits may move to another worker.
"""

from __future__ import annotations

from dlpm.bounds import tight_unit
from dlpm.bounds_cluster import shared_elsewhere, shared_floor, shared_largest_update
from dlpm.cost import CostModel
from dlpm.engine_profile import MAX_STEPS
from dlpm.events import Header
from dlpm.fields import Fields
from dlpm_engine.conformance.batch import Batch
from dlpm_engine.conformance.extensions.mode import ClusterRules, Extension, Mode, known_options
from dlpm_engine.conformance.extensions.shared_books import SharedBooks
from dlpm_engine.conformance.extensions.shared_rules import SharedRules
from dlpm_engine.conformance.extensions.shared_workers import DELIVERY, NEEDLESS, POOR, VIEW, SharedWorkers
from dlpm_engine.conformance.findings import Findings
from dlpm_engine.conformance.forward import Forward
from dlpm_engine.conformance.lifecycle import Lifecycle
from dlpm_engine.conformance.parts import Parts
from dlpm_engine.conformance.promises import EXTENSION_BOUNDS, Promises, ProvenUnit, Unproven
from dlpm_engine.conformance.router_rules import MOST_WORKERS
from dlpm_engine.conformance.worker_state import WorkerState


class SharedLedgers(Mode):
    """Logs of a cluster whose workers share a ledger."""

    def __init__(self, options: Fields, header: Header) -> None:
        """Read the options.

        Raises:
            InputError: ``late`` is no whole number, or there are others; memory is not reserving; or the header does
                not say how many workers there are.
        """
        super().__init__(header)
        known_options(options, "late")
        self._late = options.integer("late", 0, MAX_STEPS)
        if header.memory != "reserving":
            raise options.wrong("late", f"expected memory reserving beside it, found {header.memory!r}")
        described = header.extra.get("dispatch")
        if not isinstance(described, dict):
            raise options.wrong("late", "expected dispatch in the header: workers of a cluster share a ledger")
        self._workers = Fields(described, options.source, options.line, "dispatch.").integer("workers", 1, MOST_WORKERS)
        self._shared: SharedWorkers | None = None

    @property
    def rules(self) -> tuple[str, ...]:
        """Views, deliveries, moves, and the bounds over all workers."""
        return (VIEW.id, DELIVERY.id, NEEDLESS.id, POOR.id, *(rule.id for rule in EXTENSION_BOUNDS))

    def promises(self) -> Promises:
        """Floor and gap of what clients were really served, over all workers [E9/counters, E9/gap, E9/gap-to-any]."""
        header = self.header
        limits = header.limits
        kv_tokens = limits.kv_tokens
        if kv_tokens is None:
            return Unproven("a shared ledger", "the header states no limits.kv_tokens")
        cost = CostModel(header.extend_weight, header.output_weight)
        batch = min(kv_tokens, limits.max_running or kv_tokens)

        def unit(max_input: int) -> int:
            """``U*`` that gives the floor over all workers."""
            elsewhere = shared_elsewhere(cost, kv_tokens, shared_largest_update(cost, max_input, batch), self._late)
            return 1 - shared_floor(tight_unit(cost, max_input, kv_tokens), elsewhere, self._workers)

        return ProvenUnit("a shared ledger", unit)

    def cluster(self, findings: Findings) -> ClusterRules:
        """The books that all workers share."""
        self._shared = SharedWorkers(findings, SharedBooks(self.header, findings, self.promises(), self._late))
        return self._shared

    def parts(self, state: WorkerState) -> Parts:
        """One worker's rules, which share the books."""
        shared = self._shared
        assert shared is not None
        rules = SharedRules(state, shared)
        batch = Batch(state, rules)
        lifecycle = Lifecycle(state, batch, rules)
        shared.attach(state, rules, lifecycle)
        return Parts(
            rules, lifecycle, Forward(state, batch, rules), {"deliver": lambda event: shared.deliver(state, event)}
        )


EXTENSION = Extension("shared_ledger", SharedLedgers, (VIEW, DELIVERY, NEEDLESS, POOR))
