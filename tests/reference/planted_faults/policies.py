"""Faults in the policies: whom they admit, and in which order."""

from __future__ import annotations

from collections.abc import Iterable

from dlpm.policies.base import AdmissionStep, Waiting
from dlpm.policies.dlpm import DLPM
from dlpm.policies.fcfs import FCFS
from dlpm.policies.lpm import LPM
from dlpm.policies.vtc import VTC, VirtualCounters
from dlpm.request import ClientId
from tests.reference.planted_faults.fault import Fault, Patch


def one_pass_is_enough(patch: Patch) -> None:
    def admit(self: DLPM, step: AdmissionStep) -> None:
        order = sorted(step.waiting(), key=lambda request: (-step.matched(request), request.rank))
        for request in order:
            self._visit(step, request)

    patch.setattr(DLPM, "admit", admit)


def arrival_order_instead_of_longest_prefix(patch: Patch) -> None:
    def arrival_order(step: AdmissionStep) -> list[Waiting]:
        return list(step.waiting())

    patch.setattr("dlpm.policies.dlpm.longest_prefix_first", arrival_order)
    patch.setattr("dlpm.policies.lpm.longest_prefix_first", arrival_order)


def latest_first_among_equal_prefixes(patch: Patch) -> None:
    def latest_first(step: AdmissionStep) -> list[Waiting]:
        return sorted(step.waiting(), key=lambda request: (-step.matched(request), -request.rank))

    patch.setattr("dlpm.policies.dlpm.longest_prefix_first", latest_first)
    patch.setattr("dlpm.policies.lpm.longest_prefix_first", latest_first)


def lpm_stops_at_what_does_not_fit(patch: Patch) -> None:
    def admit(self: LPM, step: AdmissionStep) -> None:
        for request in sorted(step.waiting(), key=lambda request: (-step.matched(request), request.rank)):
            if step.try_admit(request) is None:
                break
            step.admitted(request, None)

    patch.setattr(LPM, "admit", admit)


def fcfs_passes_over_what_does_not_fit(patch: Patch) -> None:
    def admit(self: FCFS, step: AdmissionStep) -> None:
        for request in step.waiting():
            if step.try_admit(request) is not None:
                step.admitted(request, None)

    patch.setattr(FCFS, "admit", admit)


def vtc_forgets_to_lift(patch: Patch) -> None:
    def lift(self: VirtualCounters, client: ClientId, queued_clients: Iterable[ClientId]) -> None:
        self.counters.setdefault(client, 0)

    patch.setattr(VirtualCounters, "lift", lift)


def vtc_forgets_who_left_last(patch: Patch) -> None:
    def leave(self: VTC, client: ClientId) -> None:
        return None

    patch.setattr(VTC, "leave", leave)


def vtc_never_looks_again(patch: Patch) -> None:
    def admission_due(self: VTC, queued_clients: Iterable[ClientId]) -> bool:
        return False

    patch.setattr(VTC, "admission_due", admission_due)


FAULTS = (
    Fault("the queue is gone through once", one_pass_is_enough),
    Fault("arrival order instead of longest prefix", arrival_order_instead_of_longest_prefix, ("dlpm", "lpm")),
    Fault("the latest goes first among equal prefixes", latest_first_among_equal_prefixes, ("dlpm", "lpm")),
    Fault("LPM stops at what does not fit", lpm_stops_at_what_does_not_fit, ("lpm",)),
    Fault("FCFS passes over what does not fit", fcfs_passes_over_what_does_not_fit, ("fcfs",)),
    Fault("VTC gives credit for absence", vtc_forgets_to_lift, ("vtc",)),
    Fault("VTC forgets who left last", vtc_forgets_who_left_last, ("vtc",)),
    Fault("VTC does not look again when outputs were charged", vtc_never_looks_again, ("vtc",), ("reserving",)),
)
