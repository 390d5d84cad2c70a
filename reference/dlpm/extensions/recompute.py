"""E3, preemption by recomputation: who is preempted when memory runs out, and who pays for what is computed again.

A preempted request returns to the queue, passes the gate again, and is prefilled again: its input and what it had
generated, less what is still cached. It has paid for all of that, or found it cached, so all of it is *recomputation*.
The plain worker preempts the youngest and charges the recomputation to the request's own client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from dlpm.batch import RunningRequest, WorkerConfig
from dlpm.errors import InputError
from dlpm.events import Admit, EventSink, Extensions
from dlpm.memory import Optimistic
from dlpm.policies.base import Policy, Waiting
from dlpm.policies.dlpm import DLPM
from dlpm.request import ClientId, RequestId
from dlpm.timing import StepTimer
from dlpm.worker import Worker

NAME = "recompute"
"""The extension's key in the header of a log."""


class Victim(StrEnum):
    """Who is preempted.

    `last`: who joined the batch last, as vLLM's scheduler takes the end of its list of running requests [vLLM 0.32,
    v1/core/sched/scheduler.py]. `fewest_outputs`: who has generated least, and of those who has the longest input:
    least decoding is lost [SGLang 0.5.23, `retract_decode`]. `most_output_left`: who may generate most from here. Ties:
    who joined last.
    """

    LAST = "last"
    FEWEST_OUTPUTS = "fewest_outputs"
    MOST_OUTPUT_LEFT = "most_output_left"


class Payer(StrEnum):
    """Who pays for a recomputation.

    `client`: whose request it is. `system`: nobody. `causer`: the client that took the memory, which is the one with
    most running requests beside the victim (ties: whose request joined the batch first).
    """

    CLIENT = "client"
    SYSTEM = "system"
    CAUSER = "causer"


@dataclass(frozen=True, slots=True)
class Recompute:
    """Both choices; the defaults are those of the plain worker."""

    victim: Victim = Victim.LAST
    payer: Payer = Payer.CLIENT


def stated(rules: Recompute) -> Extensions:
    """What the header of a log says of this extension."""
    return {NAME: {"victim": rules.victim.value, "payer": rules.payer.value}}


RANKS: Mapping[Victim, Callable[[RunningRequest], tuple[int, ...]]] = {
    Victim.LAST: lambda run: (),
    Victim.FEWEST_OUTPUTS: lambda run: (-run.queued.generated, run.queued.request.input_tokens),
    Victim.MOST_OUTPUT_LEFT: lambda run: (run.queued.output_left,),
}
"""Who has the largest rank is preempted."""


class RecomputePolicy(Policy, Protocol):
    """A policy that can be told whom to charge for what another client's request computes again."""

    def charge_recomputation(self, client: ClientId, tokens: int) -> None:
        """Charge so many extend tokens to ``client``."""


class RecomputeDLPM(DLPM):
    """DLPM that can charge a client for what another one's request computes again."""

    def charge_recomputation(self, client: ClientId, tokens: int) -> None:
        """Charge extend tokens to a client whose gate is not asked."""
        self.ledger.charge_extend(client, tokens)


class RecomputeWorker(Worker):
    """The worker of Algorithm 1 under optimistic memory, with a rule for victims and one for who pays."""

    policy: RecomputePolicy

    def __init__(
        self,
        config: WorkerConfig,
        policy: RecomputePolicy,
        timer: StepTimer,
        rules: Recompute,
        sink: EventSink | None = None,
        *,
        index: int | None = None,
        full_log: bool = False,
    ) -> None:
        """A worker at time 0.

        Raises:
            InputError: if memory reserves outputs: then nothing is ever preempted.
        """
        super().__init__(config, policy, timer, sink, index=index, full_log=full_log)
        if not isinstance(config.memory, Optimistic):
            raise InputError(f"expected {Optimistic.kind}, found {config.memory.kind}", field="memory")
        self.rules = rules
        self._causers: dict[RequestId, ClientId] = {}

    def _victim(self) -> RunningRequest:
        """Who is preempted by the rule. O(running requests)."""
        rank = RANKS[self.rules.victim]
        victim = self.running[-1]
        for run in reversed(self.running):
            if rank(run) > rank(victim):
                victim = run
        return victim

    def _causer(self, victim: RunningRequest) -> ClientId:
        """Who has most requests in the batch that ``victim`` has just left; nobody else: itself. O(running)."""
        counts: dict[ClientId, int] = {}
        for run in self.running or (victim,):
            counts[run.queued.client] = counts.get(run.queued.client, 0) + 1
        return max(counts, key=lambda client: counts[client])

    def _preempt(self, run: RunningRequest) -> None:
        """Back to the queue, and remember who took the memory."""
        super()._preempt(run)
        self._causers[run.queued.id] = self._causer(run)

    def try_admit(self, request: Waiting) -> int | None:
        """Admit; the extend tokens that the request's own client is to be charged for, which may be none."""
        extend = super().try_admit(request)
        if extend is None or request.id not in self._causers or self.rules.payer is Payer.CLIENT:
            return extend
        if self.rules.payer is Payer.CAUSER:
            self.policy.charge_recomputation(self._causers[request.id], extend)
        return 0

    def admitted(self, request: Waiting, deficit: int | None) -> None:
        """Record the admission just made, and who paid for it if that is the causer."""
        causer = self._causers.pop(request.id, None)
        if self._sink:
            latest = self.running[-1]
            payer = causer if self.rules.payer is Payer.CAUSER else None
            self._sink(
                Admit(
                    step=self.step_number,
                    worker=self.index,
                    time_us=self.time_us,
                    request=request.id,
                    matched=latest.matched,
                    extend=latest.extend,
                    deficit=deficit,
                    free=self.free_tokens() if self._full_log else None,
                    payer=payer,
                    payer_deficit=self.policy.counter(payer) if payer is not None else None,
                )
            )
