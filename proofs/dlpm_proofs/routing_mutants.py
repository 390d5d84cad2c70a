"""Changed routers that the proofs about Algorithm 2 must notice: each overrides one method, in one way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from dlpm.dispatch.base import Decision
from dlpm.dispatch.d2lpm import D2LPM, refill
from dlpm.request import BlockKey, Request
from dlpm_proofs.routing import ROUTER_SAMPLE
from dlpm_proofs.solve import Obligation
from dlpm_proofs.theorem import Mutant


class RefillWithCredit(D2LPM):
    """Refills although some worker still has credit."""

    def dispatch(self, request: Request, blocks: Sequence[BlockKey]) -> Decision:
        """Pay first, then select."""
        refill(self.credit[request.client], self.worker_quantum)
        return super().dispatch(request, blocks)


class RefillOfTheFirstWorker(D2LPM):
    """Pays the worker that it is going to use once more."""

    def dispatch(self, request: Request, blocks: Sequence[BlockKey]) -> Decision:
        """Pay one worker after the choice."""
        decision = super().dispatch(request, blocks)
        self.credit[request.client][decision.worker] += self.worker_quantum
        return decision


class CreditAtZero(D2LPM):
    """Takes a counter of exactly 0 for credit."""

    def dispatch(self, request: Request, blocks: Sequence[BlockKey]) -> Decision:
        """Select with every counter one higher."""
        credit = self.credit[request.client]
        for worker in range(len(credit)):
            credit[worker] += 1
        decision = super().dispatch(request, blocks)
        for worker in range(len(credit)):
            credit[worker] -= 1
        return decision


class StickyWhateverTheCredit(D2LPM):
    """Goes to the worker that holds the prefix, with credit or without."""

    def dispatch(self, request: Request, blocks: Sequence[BlockKey]) -> Decision:
        """Charge the holder of the prefix; follow Algorithm 2 where nobody holds it."""
        holders, matched = self.directory.longest_match_workers(blocks)
        if not holders:
            return super().dispatch(request, blocks)
        worker = self.queues.shortest(holders)
        self.credit[request.client][worker] -= self.cost.extend(request.input_tokens)
        return Decision(worker, holders, matched)


class DoubleCharge(D2LPM):
    """Charges the input twice."""

    def dispatch(self, request: Request, blocks: Sequence[BlockKey]) -> Decision:
        """Charge again."""
        decision = super().dispatch(request, blocks)
        self.credit[request.client][decision.worker] -= self.cost.extend(request.input_tokens)
        return decision


class FreeOutputsAtTheRouter(D2LPM):
    """Never charges outputs."""

    def finished(self, request: Request, worker: int) -> None:
        """Charge nothing."""
        self.queues.finished(worker)


class ChargeTheFirstWorker(D2LPM):
    """Charges outputs to worker 0, wherever they were made."""

    def finished(self, request: Request, worker: int) -> None:
        """Charge the wrong worker."""
        super().finished(request, 0)


class ChargeEverybody(D2LPM):
    """Charges outputs to every client."""

    def finished(self, request: Request, worker: int) -> None:
        """Charge all of them."""
        super().finished(request, worker)
        for client, credit in self.credit.items():
            if client != request.client:
                credit[worker] -= self.cost.output(request.output_tokens)


ROUTERS: dict[str, type[D2LPM]] = {
    "refill-with-credit": RefillWithCredit,
    "refill-of-one-worker": RefillOfTheFirstWorker,
    "credit-at-zero": CreditAtZero,
    "sticky": StickyWhateverTheCredit,
    "double-charge": DoubleCharge,
    "free-outputs": FreeOutputsAtTheRouter,
    "charge-first-worker": ChargeTheFirstWorker,
    "charge-everybody": ChargeEverybody,
}


def to_be_noticed(obligations: Callable[[type[D2LPM]], Iterable[Obligation]], *names: str) -> tuple[Mutant, ...]:
    """The routers of these names, each of which must fail one of ``obligations``."""
    return tuple(
        Mutant(
            name, (ROUTERS[name].__doc__ or name).splitlines()[0], partial(obligations, ROUTERS[name]), ROUTER_SAMPLE
        )
        for name in names
    )
