"""Engines with shared prefixes, and three ways to measure who was served how much.

What an admission serves its client can mean the tokens that were *computed*; those that it would have had to compute
*alone*, with a cache of its own that holds all it ever sent; or those that it was *charged*, less what others got back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dlpm.cost import CostModel
from dlpm.events import Admit, Arrive, EventSink, Extensions, Output, Preempt
from dlpm.extensions.shared_prefixes import FIRST, RefundingLedger, SharedPrefixDLPM, charged_alone, stated
from dlpm.extensions.shared_prefixes_worker import SharingWorker
from dlpm.ledger import Quanta
from dlpm.request import ClientId, RequestId
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_proofs.witness import STEP_US, Replay, Setting


@dataclass(frozen=True, slots=True)
class SharingSetting(Setting):
    """An engine with a rule for who pays."""

    payer: str = FIRST

    def build_policy(self) -> SharedPrefixDLPM:
        """DLPM that can give back."""
        return SharedPrefixDLPM(RefundingLedger(Quanta(self.quantum, dict(self.quanta)), self.cost()))

    def build_worker(self, sink: EventSink) -> Worker:
        """The worker with this rule."""
        return SharingWorker(self.config(), self.build_policy(), FixedStep(STEP_US), self.payer, sink, full_log=True)

    def extensions(self) -> Extensions:
        """Who pays."""
        return stated(self.payer)


Measure = Callable[[Admit], Mapping[ClientId, int]]
"""The extend tokens that an admission serves, by client."""


def computed(run: Replay) -> Measure:
    """What was computed for the client."""
    clients = run.clients()
    return lambda event: {clients[event.request]: event.extend}


def charged(run: Replay) -> Measure:
    """What the client was charged; what others get back they were served less."""
    clients = run.clients()

    def of(event: Admit) -> Mapping[ClientId, int]:
        own = event.extend if event.charged is None else event.charged
        return {clients[event.request]: own, **{client: -tokens for client, tokens in (event.refunds or {}).items()}}

    return of


def alone(run: Replay) -> Measure:
    """What the client would have had to compute had it never met anybody, and a cache that forgets nothing."""
    clients = run.clients()
    prompts = {request.id: request.prompt or () for request in run.workload.requests}
    history: dict[ClientId, list[RequestId]] = {}

    def of(event: Admit) -> Mapping[ClientId, int]:
        client, prompt = clients[event.request], prompts[event.request]
        own = history.setdefault(client, [])
        known = max((_common(prompt, prompts[other]) for other in own), default=0)
        own.append(event.request)
        return {client: charged_alone(len(prompt), known)}

    return of


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many tokens two prompts begin with alike."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count


def widest(run: Replay, measure: Callable[[Replay], Measure], ahead: ClientId, behind: ClientId) -> int:
    """The largest ``W_ahead - W_behind`` over every interval in which both always have a request queued. O(events)."""
    cost: CostModel = run.setting.cost()
    serves = measure(run)
    clients = run.clients()
    sign = {ahead: 1, behind: -1}
    waiting = {ahead: 0, behind: 0}
    difference = found = 0
    lowest: int | None = None
    for event in run.events:
        match event:
            case Arrive(request=request) | Preempt(request=request) if clients[request] in waiting:
                waiting[clients[request]] += 1
            case Admit():
                difference += sum(cost.extend(n) * sign.get(client, 0) for client, n in serves(event).items())
                if clients[event.request] in waiting:
                    waiting[clients[event.request]] -= 1
            case Output():
                difference += sum(cost.output(n) * sign.get(clients[r], 0) for r, n in event.tokens.items())
            case _:
                continue
        lowest = difference if lowest is None else min(lowest, difference)
        found = max(found, difference - lowest)
        if not all(waiting.values()):
            lowest = None
    return found
