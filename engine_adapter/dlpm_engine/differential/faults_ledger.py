"""Planted faults in the ledger: gate, refill and charge."""

from __future__ import annotations

import torch

from dlpm.request import ClientId
from dlpm_engine.differential.fault import Fault, swap
from dlpm_engine.tensor.exact import INT64
from dlpm_engine.tensor.scheduler import TensorScheduler


def _gate_open_at_zero(scheduler: TensorScheduler) -> None:
    queue = scheduler.queue
    fitting = queue.next_fitting
    swap(queue, "next_fitting", lambda after, room, deficits: fitting(after, room, deficits + 1))


def _refill_a_step_late(scheduler: TensorScheduler) -> None:
    ledger = scheduler.ledger
    truth = ledger.credit_queued
    delayed = [0]

    def credit_queued() -> bool:
        if truth():
            return True
        if delayed[0] == scheduler.step_number:
            return False
        if delayed[0] == scheduler.step_number - 1:
            delayed[0] = 0
            return False
        delayed[0] = scheduler.step_number
        return True

    swap(ledger, "credit_queued", credit_queued)


def _refilled_by(scheduler: TensorScheduler, chosen: torch.Tensor, quanta: torch.Tensor) -> dict[ClientId, int]:
    """Add quanta to the chosen clients; what `TensorLedger.refill` returns."""
    ledger = scheduler.ledger
    ledger.deficits += torch.where(chosen, quanta, 0)
    return {ledger.clients[place]: int(ledger.deficits[place]) for place in chosen.nonzero().flatten().tolist()}


def _refill_everyone(scheduler: TensorScheduler) -> None:
    ledger = scheduler.ledger
    swap(
        ledger,
        "refill",
        lambda: _refilled_by(scheduler, torch.ones_like(ledger.deficits, dtype=torch.bool), ledger.quanta),
    )


def _refill_queued_only(scheduler: TensorScheduler) -> None:
    ledger = scheduler.ledger
    swap(
        ledger,
        "refill",
        lambda: _refilled_by(scheduler, (ledger.deficits <= 0) & (ledger.queued > 0), ledger.quanta),
    )


def _refill_default_quantum(scheduler: TensorScheduler) -> None:
    ledger = scheduler.ledger
    swap(
        ledger,
        "refill",
        lambda: _refilled_by(scheduler, ledger.deficits <= 0, torch.full_like(ledger.quanta, scheduler.config.quantum)),
    )


def _refill_sets(scheduler: TensorScheduler) -> None:
    ledger = scheduler.ledger

    def refill() -> dict[ClientId, int]:
        low = ledger.deficits <= 0
        ledger.deficits.copy_(torch.where(low, ledger.quanta, ledger.deficits))
        return _refilled_by(scheduler, low, torch.zeros_like(ledger.quanta))

    swap(ledger, "refill", refill)


def _refill_ignores_queue(scheduler: TensorScheduler) -> None:
    ledger = scheduler.ledger
    swap(ledger, "credit_queued", lambda: bool((ledger.deficits > 0).any()))


def _charge_cached_tokens(scheduler: TensorScheduler) -> None:
    ledger = scheduler.ledger
    charge = ledger.charge_extend

    def charge_extend(client: int, tokens: int) -> int:
        return charge(client, scheduler.batch.requests[-1].queued.resident)

    swap(ledger, "charge_extend", charge_extend)


def _recompute_is_free(scheduler: TensorScheduler) -> None:
    ledger = scheduler.ledger
    charge = ledger.charge_extend

    def charge_extend(client: int, tokens: int) -> int:
        generated = scheduler.batch.requests[-1].queued.generated
        return charge(client, max(1, tokens - generated))

    swap(ledger, "charge_extend", charge_extend)


def _one_output_charge_a_client(scheduler: TensorScheduler) -> None:
    ledger = scheduler.ledger
    charge = ledger.charge_outputs
    swap(ledger, "charge_outputs", lambda clients: charge(clients.unique()))


def _int32_deficits(scheduler: TensorScheduler) -> None:
    ledger = scheduler.ledger
    charge = ledger.charge_outputs

    def charge_outputs(clients: torch.Tensor) -> None:
        charge(clients)
        ledger.deficits.copy_(ledger.deficits.to(torch.int32).to(INT64))

    swap(ledger, "charge_outputs", charge_outputs)


def _int64_wraps(scheduler: TensorScheduler) -> None:
    ledger = scheduler.ledger
    weight = scheduler.config.output_weight

    def charge_outputs(clients: torch.Tensor) -> None:
        ledger.deficits.sub_(torch.bincount(clients, minlength=len(ledger.clients)) * weight)

    swap(ledger, "charge_outputs", charge_outputs)


def _forgets_idle_clients(scheduler: TensorScheduler) -> None:
    ledger = scheduler.ledger
    register = ledger.register

    def forgetful(client: ClientId) -> int:
        number = register(client)
        if not int(ledger.queued[number]):
            ledger.deficits[number] = 0
        return number

    swap(ledger, "register", forgetful)


def _newcomer_gets_quantum(scheduler: TensorScheduler) -> None:
    ledger = scheduler.ledger
    register = ledger.register

    def generous(client: ClientId) -> int:
        known = client in ledger.clients
        number = register(client)
        if not known:
            ledger.deficits[number] = ledger.quanta[number]
        return number

    swap(ledger, "register", generous)


LEDGER_FAULTS = (
    Fault("gate-open-at-zero", "a client with a counter of exactly 0 is admitted", _gate_open_at_zero),
    Fault("refill-a-step-late", "a refill that is due fires in the next step", _refill_a_step_late),
    Fault("refill-everyone", "a refill also lifts clients that still have credit", _refill_everyone),
    Fault("refill-queued-only", "a refill leaves out clients with nothing queued", _refill_queued_only),
    Fault("refill-default-quantum", "a refill gives everyone the default quantum", _refill_default_quantum),
    Fault("refill-sets", "a refill sets the counter to the quantum instead of adding it", _refill_sets),
    Fault("refill-asks-absent", "credit of a client with nothing queued holds a refill back", _refill_ignores_queue),
    Fault("charge-cached-tokens", "an admission is charged for its cached tokens, too", _charge_cached_tokens),
    Fault("recompute-is-free", "what a preempted request computes again is not charged", _recompute_is_free),
    Fault("one-output-a-client", "a step charges a client once, however many run", _one_output_charge_a_client),
    Fault("int32-deficits", "counters are cut to 32 bits", _int32_deficits),
    Fault("int64-wraps", "an output charge beyond int64 wraps around", _int64_wraps),
    Fault("forgets-idle-clients", "a client that returns starts at 0", _forgets_idle_clients),
    Fault("newcomer-gets-quantum", "a new client starts with its quantum", _newcomer_gets_quantum),
)
