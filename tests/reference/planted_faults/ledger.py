"""Faults in the ledger: who is refilled, gated and charged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dlpm.ledger import Ledger
from dlpm.request import ClientId
from tests.reference.planted_faults.fault import Fault, Patch


def refill_without_asking(patch: Patch) -> None:
    honest = Ledger.check_refill

    def check_refill(self: Ledger, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        return honest(self, [])

    patch.setattr(Ledger, "check_refill", check_refill)


def refill_only_queued_clients(patch: Patch) -> None:
    def check_refill(self: Ledger, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        queued = list(queued_clients)
        if any(self.deficits[client] > 0 for client in queued):
            return {}
        for client in queued:
            self.deficits[client] += self.quanta.of(client)
        return {client: self.deficits[client] for client in queued}

    patch.setattr(Ledger, "check_refill", check_refill)


def refill_everyone(patch: Patch) -> None:
    def check_refill(self: Ledger, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        if any(self.deficits[client] > 0 for client in queued_clients):
            return {}
        for client in self.deficits:
            self.deficits[client] += self.quanta.of(client)
        return dict(self.deficits)

    patch.setattr(Ledger, "check_refill", check_refill)


def refill_sets_the_counter(patch: Patch) -> None:
    honest = Ledger.check_refill

    def check_refill(self: Ledger, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        refilled = honest(self, queued_clients)
        for client in refilled:
            refilled[client] = self.deficits[client] = self.quanta.of(client)
        return refilled

    patch.setattr(Ledger, "check_refill", check_refill)


def gate_lets_zero_through(patch: Patch) -> None:
    def has_credit(self: Ledger, client: ClientId) -> bool:
        return self.deficits[client] >= 0

    patch.setattr(Ledger, "has_credit", has_credit)


def outputs_cost_one_request_a_client(patch: Patch) -> None:
    honest = Ledger.charge_outputs

    def charge_outputs(self: Ledger, tokens: Mapping[ClientId, int]) -> None:
        honest(self, dict.fromkeys(tokens, 1))

    patch.setattr(Ledger, "charge_outputs", charge_outputs)


def returning_client_starts_afresh(patch: Patch) -> None:
    def register(self: Ledger, client: ClientId) -> None:
        self.deficits[client] = 0

    patch.setattr(Ledger, "register", register)


FAULTS = (
    Fault("check-refill does not ask who has credit", refill_without_asking),
    Fault("a refill forgets the clients that are not queued", refill_only_queued_clients),
    Fault("a refill pays those with credit too", refill_everyone),
    Fault("a refill forgives debt", refill_sets_the_counter),
    Fault("a client with nothing left is admitted", gate_lets_zero_through),
    Fault("two running requests of a client pay for one", outputs_cost_one_request_a_client),
    Fault("a client that returns is forgiven", returning_client_starts_afresh),
)
