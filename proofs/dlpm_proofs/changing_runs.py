"""Runs of a ledger whose quantum changes: settings, and a search for workloads that drive two clients apart.

As in `widest`, every request declares all memory that its prompt leaves, so that one runs at a time and what is left is
a search over the two counters; here each refill also chooses among some quanta, and the choices become a schedule.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dlpm.events import Extensions
from dlpm.extensions.changing_quantum import ChangingLedger, IndividualLedger, ListedQuanta, QuantumRange, stated
from dlpm.policies.base import Policy
from dlpm.policies.dlpm import DLPM
from dlpm.request import ClientId, Request
from dlpm_proofs.deepest import Limits
from dlpm_proofs.widest import Counters, F, G, Service
from dlpm_proofs.witness import Setting, call


@dataclass(frozen=True, slots=True)
class ChangingSetting(Setting):
    """An engine whose refills pay the quanta of ``schedule``, one after the other. ``quantum`` is the largest."""

    least: int = 1
    schedule: tuple[int, ...] = ()

    def range(self) -> QuantumRange:
        """What a refill may pay."""
        return QuantumRange(self.least, self.quantum)

    def build_policy(self) -> Policy:
        """DLPM on a ledger that asks the schedule."""
        return DLPM(ChangingLedger(self.range(), self.cost(), ListedQuanta(self.schedule)))

    def extensions(self) -> Extensions:
        """The range. Different quanta at one refill are a breach of that."""
        return stated(self.range())


@dataclass(frozen=True, slots=True)
class IndividualSetting(ChangingSetting):
    """An engine whose refills pay f the largest quantum and everybody else the smallest."""

    def build_policy(self) -> Policy:
        """DLPM on a ledger that favours f."""
        favoured = {F: self.quantum}
        ledger = IndividualLedger(self.range(), self.cost(), lambda client: favoured.get(client, self.least))
        return DLPM(ledger)


@dataclass(frozen=True, slots=True)
class Paid:
    """A refill, and what it pays."""

    quantum: int


Moves = list[Service | Paid]
"""What happens to two counters, in order."""


def path(
    limits: Limits,
    choices: Sequence[int],
    start: Counters,
    end: Counters,
    *,
    served: Sequence[ClientId] = (F, G),
    queued: Sequence[ClientId] = (F, G),
) -> Moves | None:
    """The fewest moves from ``start`` to ``end``: services, and refills that pay one of ``choices`` when they must.

    Only clients in ``served`` are, and only the credit of those in ``queued`` holds a refill back.
    O(counters^2 * sizes).
    """
    prices: dict[int, Service] = {}
    for extend in range(1, min(limits.max_input, limits.kv_tokens - 1) + 1):
        for output in range(1, limits.kv_tokens - extend + 1):
            prices[limits.cost().service(extend, output)] = Service("", extend, output)
    reached: dict[Counters, Moves] = {start: []}
    todo = deque([start])
    while todo:
        counters = todo.popleft()
        if counters == end:
            return reached[counters]
        for after, move in _moves(dict(zip((F, G), counters, strict=True)), choices, prices, served, queued):
            if after not in reached:
                reached[after] = [*reached[counters], move]
                todo.append(after)
    return None


def _moves(
    counters: Mapping[ClientId, int],
    choices: Sequence[int],
    prices: Mapping[int, Service],
    served: Sequence[ClientId],
    queued: Sequence[ClientId],
) -> Iterator[tuple[Counters, Service | Paid]]:
    """A refill if nobody queued has credit, else a service of anybody who has."""
    if all(counters[client] <= 0 for client in queued):
        for quantum in choices:
            yield (_paid(counters[F], quantum), _paid(counters[G], quantum)), Paid(quantum)
    for client in served:
        if counters[client] > 0:
            for price, size in prices.items():
                after = {**counters, client: counters[client] - price}
                yield (after[F], after[G]), replace(size, client=client)


def _paid(counter: int, quantum: int) -> int:
    """A counter after a refill."""
    return counter + quantum if counter <= 0 else counter


def requests_of(limits: Limits, moves: Moves) -> list[Request]:
    """The services of ``moves`` as requests, each with a prompt of its own and all memory that this leaves."""
    requests: list[Request] = []
    fresh = 0
    for move in moves:
        if isinstance(move, Service):
            prompt = range(fresh, fresh + move.extend)
            name = f"{move.client}{len(requests) + 1}"
            requests.append(call(name, move.client, prompt, move.output, max_output=limits.kv_tokens - move.extend))
            fresh += move.extend
    return requests


def schedule_of(moves: Moves) -> tuple[int, ...]:
    """What the refills of ``moves`` pay, in order."""
    return tuple(move.quantum for move in moves if isinstance(move, Paid))
