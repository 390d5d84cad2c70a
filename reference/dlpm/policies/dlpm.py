"""Deficit Longest Prefix Match: Algorithm 1 of [DLPM], with its admission loop repaired to a fixpoint.

What the printed loop does instead is kept in `dlpm_literal.py`; docs/decisions says why the fixpoint is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from dlpm.ledger import Ledger
from dlpm.policies.base import AdmissionStep, Waiting, longest_prefix_first
from dlpm.request import ClientId


class Visit(NamedTuple):
    """What one visit of a queued request did: whether it refilled, and the extend tokens if it admitted."""

    refilled: bool
    extend: int | None


def visit(
    ledger: Ledger,
    client: ClientId,
    queued_clients: Iterable[ClientId],
    try_add: Callable[[], int | None],
    record_refill: Callable[[Mapping[ClientId, int]], None],
) -> Visit:
    """Visit one queued request of ``client``: gate, check-refill, admit, charge [DLPM Alg. 1 ll. 19-24].

    ``try_add`` is ``CanAdd(r)`` together with ``B <- B + r``: it returns the extend tokens (>= 1) of the request it
    added, or ``None`` if memory cannot hold it. ``record_refill`` is told the new counters of a refill that fired.
    This function is the transition that the proofs are about.
    """
    refilled: Mapping[ClientId, int] = {}
    if not ledger.has_credit(client):  # l. 20
        refilled = ledger.check_refill(queued_clients)
        if refilled:
            record_refill(refilled)
    extend = None
    if ledger.has_credit(client):  # l. 21
        extend = try_add()  # ll. 22, 24
        if extend is not None:
            ledger.charge_extend(client, extend)  # l. 23
    return Visit(bool(refilled), extend)


class DLPM:
    """Longest prefix first among the clients with credit [DLPM §4.1]."""

    name = "dlpm"

    def __init__(self, ledger: Ledger) -> None:
        """Schedule by the counters of ``ledger``."""
        self.ledger = ledger

    def arrive(self, client: ClientId, queued_clients: Iterable[ClientId]) -> None:
        """Register a new client at 0 [DLPM Alg. 1 l. 12]."""
        self.ledger.register(client)

    def leave(self, client: ClientId) -> None:
        """Nothing changes: a client keeps its counter when its queue runs empty."""

    def admission_due(self, queued_clients: Iterable[ClientId]) -> bool:
        """A refill is due when no queued client has credit."""
        return not any(self.ledger.has_credit(client) for client in queued_clients)

    def admit(self, step: AdmissionStep) -> None:
        """Pass over the queue until a pass neither admits nor refills: the admission fixpoint [DLPM Alg. 1 ll. 16-24].

        O(n log n) for the order of n queued requests, then O(n) a pass; every pass but the last admits or refills.
        """
        if self._nothing_can_happen(step):
            return
        order = longest_prefix_first(step)  # l. 16
        step.considered(order)
        happened = True
        while happened:  # l. 17
            order, happened = self.visit_each(step, order)

    def visit_each(self, step: AdmissionStep, order: Sequence[Waiting]) -> tuple[list[Waiting], bool]:
        """Visit every request of ``order`` once: those not admitted, and whether anything happened [ll. 18-24].

        Check-refill is asked only when something happened since it last refused. O(n).
        """
        happened = False
        refused = False
        passed_over: list[Waiting] = []
        for request in order:  # l. 18
            gated = not self.ledger.has_credit(request.client)
            if gated and refused:
                passed_over.append(request)
                continue
            outcome = self._visit(step, request)
            if outcome.extend is None:
                passed_over.append(request)
            if outcome.refilled or outcome.extend is not None:
                happened = True
                refused = False
            elif gated:
                refused = True
        return passed_over, happened

    def _visit(self, step: AdmissionStep, request: Waiting) -> Visit:
        """Visit one request of the queue and record what came of it."""
        outcome = visit(
            self.ledger,
            request.client,
            step.queued_clients(),
            lambda: step.try_admit(request),
            step.refilled,
        )
        if outcome.extend is not None:
            step.admitted(request, self.ledger.deficits[request.client])
        return outcome

    def _nothing_can_happen(self, step: AdmissionStep) -> bool:
        """No refill is due, and no request of a client with credit could fit: then no match is needed. O(queue)."""
        credited = {client for client in step.queued_clients() if self.ledger.has_credit(client)}
        return bool(credited) and not any(
            request.client in credited and step.may_fit(request) for request in step.waiting()
        )

    def charge_outputs(self, tokens: Mapping[ClientId, int]) -> None:
        """Charge each client for the output tokens of its running requests [DLPM Alg. 1 l. 26]."""
        self.ledger.charge_outputs(tokens)

    def counter(self, client: ClientId) -> int | None:
        """The client's deficit ``q_i``."""
        return self.ledger.deficits[client]
