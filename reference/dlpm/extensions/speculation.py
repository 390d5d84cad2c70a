"""E5, several tokens a step: speculative decoding, where a forward step yields 1 to k accepted tokens a request.

A request ends at its output, so the last step may accept more tokens than it still needs: that surplus is at most
k - 1. Who pays for it is a choice: nobody (clients pay for what they get), or the client (for what was computed).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from dlpm.batch import AFTER_FORWARD, RunningRequest, WorkerConfig
from dlpm.errors import InputError
from dlpm.events import EventSink, Extensions, JsonValue, Output
from dlpm.memory import Reserving
from dlpm.policies.base import Policy
from dlpm.request import ClientId, Request, RequestId
from dlpm.timing import StepTimer
from dlpm.worker import Worker

NAME = "speculation"

Acceptance = Callable[[Request, int], int]
"""How many tokens the next forward step accepts for a request that has so many output tokens: 1 to k."""


def stated(most_accepted: int, *, charge_surplus: bool = False) -> Extensions:
    """What the header of a log says of this extension (docs/formats/events.md)."""
    options: dict[str, JsonValue] = {"most_accepted": most_accepted}
    if charge_surplus:
        options["surplus"] = "charged"
    return {NAME: options}


@dataclass(frozen=True, slots=True)
class SeededAcceptance:
    """1 to ``most`` accepted tokens, equally likely; the same request and place get the same number."""

    most: int
    seed: int = 0

    def __call__(self, request: Request, generated: int) -> int:
        """The number for ``request`` after ``generated`` output tokens. O(1)."""
        return random.Random(f"{self.seed}/{request.id}/{generated}").randint(1, self.most)


class SpeculativeWorker(Worker):
    """The worker of Algorithm 1 with several tokens a forward step.

    Memory of draft tokens that are not accepted is not modelled: engines set it aside once for the batch.
    """

    def __init__(
        self,
        config: WorkerConfig,
        policy: Policy,
        timer: StepTimer,
        acceptance: Acceptance,
        sink: EventSink | None = None,
        *,
        charge_surplus: bool = False,
        index: int | None = None,
        full_log: bool = False,
    ) -> None:
        """``charge_surplus``: clients also pay for tokens accepted beyond the end of a request.

        Raises:
            InputError: if memory does not reserve outputs.
        """
        super().__init__(config, policy, timer, sink, index=index, full_log=full_log)
        if not isinstance(config.memory, Reserving):
            raise InputError(f"expected {Reserving.kind}, found {config.memory.kind}", field="memory")
        self._acceptance = acceptance
        self._charge_surplus = charge_surplus

    def _forward(self) -> None:
        """One forward step: every running request gets what is accepted, up to its end. O(running requests)."""
        charged: dict[ClientId, int] = {}
        tokens: dict[RequestId, int] = {}
        surplus: dict[RequestId, int] = {}
        for run in self.running:
            queued = run.queued
            accepted = self._acceptance(queued.request, queued.generated)
            delivered = min(accepted, queued.request.output_tokens - queued.generated)
            paid = accepted if self._charge_surplus else delivered
            charged[queued.client] = charged.get(queued.client, 0) + paid
            tokens[queued.id] = delivered
            if paid > delivered:
                surplus[queued.id] = paid
            self._deliver(run, delivered)
        self.policy.charge_outputs(charged)
        if self._sink:
            deficits = {client: self.policy.counter(client) for client in charged}
            self._sink(
                Output(
                    step=self.step_number,
                    worker=self.index,
                    time_us=self.time_us,
                    tokens=tokens,
                    deficits={client: value for client, value in deficits.items() if value is not None},
                    accepted=surplus,
                )
            )

    def _deliver(self, run: RunningRequest, tokens: int) -> None:
        """``tokens`` of its reservation become tokens in memory; after its first forward its prompt may be matched."""
        run.queued.resident += tokens
        run.private += tokens
        run.reserved -= tokens
        if not run.computed:
            run.computed = True
            if self.config.visibility == AFTER_FORWARD:
                self._insert(run)
                self._changed = True
