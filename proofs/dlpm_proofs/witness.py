"""Runs of the reference that show something: a counterexample, or a bound that is reached.

What a solver found, or a person constructed, is a *workload*; it counts only once the reference has replayed it to
the numbers that were claimed. Workload and event log can be written out, for `dlpm run` and `dlpm check`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlpm.batch import AT_ADMISSION, WorkerConfig
from dlpm.cost import CostModel
from dlpm.event_codec import EventWriter
from dlpm.events import Admit, Arrive, Chunk, Event, EventSink, Extensions, Header, Limits, Output, Preempt
from dlpm.extensions import weights
from dlpm.files import written_whole
from dlpm.ledger import Ledger, Quanta
from dlpm.memory import Optimistic, Reserving
from dlpm.policies.base import Policy
from dlpm.policies.dlpm import DLPM
from dlpm.policies.lpm import LPM
from dlpm.policies.vtc import VTC
from dlpm.request import ClientId, Request, RequestId, Workload
from dlpm.simulate import simulate
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm.workload import files as workload_files

STEP_US = 1_000_000
"""A step of a replay takes a second: arrival times in seconds are step numbers."""


@dataclass(frozen=True, slots=True)
class Setting:
    """The engine that a workload is replayed on. Quanta are in weighted tokens, ``kv_tokens`` in tokens.

    ``quanta`` are those of clients with one of their own.
    """

    kv_tokens: int
    quantum: int
    extend_weight: int = 1
    output_weight: int = 2
    memory: str = Reserving.kind
    max_running: int | None = None
    policy: str = DLPM.name
    quanta: tuple[tuple[ClientId, int], ...] = ()

    def cost(self) -> CostModel:
        """What service costs here."""
        return CostModel(self.extend_weight, self.output_weight)

    def build_policy(self) -> Policy:
        """The reference's policy of that name."""
        if self.policy == VTC.name:
            return VTC(self.cost())
        if self.policy == LPM.name:
            return LPM()
        return DLPM(Ledger(Quanta(self.quantum, dict(self.quanta)), self.cost()))

    def build_worker(self, sink: EventSink) -> Worker:
        """The reference's worker, each of its steps `STEP_US` long."""
        return Worker(self.config(), self.build_policy(), FixedStep(STEP_US), sink, full_log=True)

    def config(self) -> WorkerConfig:
        """The worker's limits."""
        memory = Reserving() if self.memory == Reserving.kind else Optimistic()
        return WorkerConfig(self.kv_tokens, memory, max_running=self.max_running)

    def extensions(self) -> Extensions:
        """What the header says of the extensions that run: clients with a quantum of their own are weighted."""
        return weights.stated() if self.quanta else {}

    def header(self, workload: Workload) -> Header:
        """The first line of the log of ``workload``."""
        return Header(
            engine="dlpm reference",
            policy=self.policy,
            extend_weight=self.extend_weight,
            output_weight=self.output_weight,
            default_quantum=self.quantum if self.policy == DLPM.name else None,
            quanta=dict(self.quanta),
            limits=Limits(
                max_input=max(request.input_tokens for request in workload.requests),
                max_output=max(request.max_output for request in workload.requests),
                kv_tokens=self.kv_tokens,
                max_running=self.max_running,
            ),
            memory=self.memory,
            visibility=AT_ADMISSION,
            block_size=workload.block_size,
            level="full",
            extensions=self.extensions(),
        )


def call(
    name: RequestId,
    client: ClientId,
    prompt: Sequence[int],
    output: int,
    *,
    max_output: int | None = None,
    at_step: int = 0,
    after: Sequence[RequestId] = (),
) -> Request:
    """A request for a replay: due at ``at_step`` (steps completed), or when those in ``after`` have finished."""
    return Request(
        id=name,
        client=client,
        arrival_us=at_step * STEP_US,
        input_tokens=len(prompt),
        output_tokens=output,
        max_output=max_output or output,
        prompt=tuple(prompt),
        parents=tuple(after),
    )


def replay(setting: Setting, requests: Sequence[Request], name: str) -> Replay:
    """Run ``requests`` through the reference's worker, block size 1, and keep every event."""
    workload = Workload(1, tuple(requests), name)
    events: list[Event] = []
    simulate(workload, setting.build_worker(events.append))
    return Replay(setting, workload, tuple(events))


@dataclass(frozen=True, slots=True)
class Replay:
    """A workload and all that happened when the reference ran it."""

    setting: Setting
    workload: Workload
    events: tuple[Event, ...]

    def clients(self) -> dict[RequestId, ClientId]:
        """Who sent what."""
        return {request.id: request.client for request in self.workload.requests}

    def counters(self, client: ClientId) -> list[int]:
        """Every logged value of the client's counter after a charge, in order."""
        clients = self.clients()
        values = []
        for event in self.events:
            if isinstance(event, Admit | Chunk) and clients[event.request] == client and event.deficit is not None:
                values.append(event.deficit)
            elif isinstance(event, Output) and client in event.deficits:
                values.append(event.deficits[client])
        return values

    def widest_gap(self, ahead: ClientId, behind: ClientId, *, both_backlogged: bool = True) -> int:
        """The largest ``W_ahead - W_behind`` over every interval in which ``behind`` has a request queued throughout.

        With ``both_backlogged``, ``ahead`` has one queued as well. No interval is left out: the widest begins where the
        difference was least since the last moment without a queued request. O(events).
        """
        lowest: int | None = None
        widest = 0
        for difference, backlogged in self._differences(ahead, behind, both_backlogged):
            lowest = difference if lowest is None else min(lowest, difference)
            widest = max(widest, difference - lowest)
            if not backlogged:
                lowest = None
        return widest

    def _differences(self, ahead: ClientId, behind: ClientId, both: bool) -> list[tuple[int, bool]]:
        """After each event: ``W_ahead - W_behind``, and whether those who must be queued still are."""
        return [
            (of_ahead - of_behind, behind_waits and (not both or ahead_waits))
            for of_ahead, of_behind, ahead_waits, behind_waits in self.services(ahead, behind)
        ]

    def services(self, first: ClientId, second: ClientId) -> list[tuple[int, int, bool, bool]]:
        """After each event: what each of the two was served, and whether each has a request queued. O(events).

        Extend tokens are served as they are computed, chunk by chunk where there are chunks.
        """
        clients = self.clients()
        waiting = {first: 0, second: 0}
        served = {first: 0, second: 0}
        cost = self.setting.cost()
        vtc = self.setting.policy == VTC.name
        inputs = {request.id: request.input_tokens for request in self.workload.requests}
        found = []
        for event in self.events:
            if isinstance(event, Arrive | Preempt) and clients[event.request] in waiting:
                waiting[clients[event.request]] += 1
            elif isinstance(event, Admit) and clients[event.request] in waiting:
                waiting[clients[event.request]] -= 1
                computed = event.extend if event.chunk is None else event.chunk
                served[clients[event.request]] += cost.extend(inputs[event.request] if vtc else computed)
            elif isinstance(event, Chunk) and clients[event.request] in served:
                served[clients[event.request]] += cost.extend(event.tokens)
            elif isinstance(event, Output):
                for request, tokens in event.tokens.items():
                    if clients[request] in served:
                        served[clients[request]] += cost.output(tokens)
            found.append((served[first], served[second], waiting[first] > 0, waiting[second] > 0))
        return found

    def write(self, folder: Path, stem: str) -> tuple[Path, Path]:
        """Write workload and event log into ``folder``; returns both files."""
        workload, log = folder / f"{stem}.workload.jsonl", folder / f"{stem}.events.jsonl"
        workload_files.write(workload, self.workload)
        with written_whole(log) as stream:
            writer = EventWriter(stream, self.setting.header(self.workload))
            for event in self.events:
                writer(event)
        return workload, log


@dataclass(frozen=True, slots=True)
class Demonstration:
    """Something that was claimed of a run, and whether the run bore it out.

    ``story`` tells it in sentences; ``replay`` is the run, where it is one; ``drawing`` is SVG, where it is drawn.
    """

    name: str
    story: tuple[str, ...]
    confirmed: bool
    replay: Replay | None = None
    drawing: str = ""
