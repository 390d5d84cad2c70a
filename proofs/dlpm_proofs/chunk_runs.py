"""Runs of the chunked worker that reach a floor of chunked prefill, stall for ever, or drift apart without limit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dlpm.events import Event, EventSink, Extensions
from dlpm.extensions.chunked_prefill import ChunkedDLPM, ChunkedPrefill, ChunkedWorker, Gate, OnStall
from dlpm.ledger import Ledger, Quanta
from dlpm.policies.base import Policy
from dlpm.request import Request, Workload
from dlpm.simulate import StalledError, simulate
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_proofs.deepest import CLIENT, Limits
from dlpm_proofs.witness import STEP_US, Replay, Setting, call, replay

OTHER = "g"
ONE_TOKEN = ChunkedPrefill(1)


@dataclass(frozen=True, slots=True)
class ChunkedSetting(Setting):
    """An engine that computes prompts in chunks."""

    chunks: ChunkedPrefill = ONE_TOKEN

    def build_policy(self) -> Policy:
        """DLPM that is told of chunks."""
        return self._policy()

    def build_worker(self, sink: EventSink) -> Worker:
        """The chunked worker."""
        return ChunkedWorker(self.config(), self._policy(), FixedStep(STEP_US), self.chunks, sink, full_log=True)

    def extensions(self) -> Extensions:
        """The chunks."""
        return self.chunks.stated()

    def _policy(self) -> ChunkedDLPM:
        return ChunkedDLPM(Ledger(Quanta(self.quantum, dict(self.quanta)), self.cost()))


def chunked(limits: Limits, chunks: ChunkedPrefill) -> ChunkedSetting:
    """An engine with these limits."""
    return ChunkedSetting(
        limits.kv_tokens,
        limits.quantum,
        limits.extend_weight,
        limits.output_weight,
        max_running=limits.max_running,
        chunks=chunks,
    )


def deepest(limits: Limits, chunks: ChunkedPrefill) -> Replay | None:
    """The deepest run of the plain worker, replayed with chunks."""
    plain = limits.deepest_run()
    return replay(chunked(limits, chunks), plain.workload.requests, "floor") if plain is not None else None


# -- a stall -----------------------------------------------------------------------------------------------------------

STALL = Limits(5, 1, quantum=13, max_input=8, max_output=4, kv_tokens=12, max_running=2)


def on_debt(limits: Limits, budget: int) -> Iterator[Replay]:
    """A prompt that fills the memory is half computed when its client's credit ends, and somebody with credit waits.

    One run for each size of a request before it, in the hope that one leaves the least credit.
    """
    long = limits.max_input
    most = limits.kv_tokens - long
    for tokens in range(1, long + 1):
        for output in range(1, limits.kv_tokens - tokens + 1):
            yield replay(
                chunked(limits, ChunkedPrefill(budget, Gate.CHUNK)),
                [
                    call("known", OTHER, [500], 1),
                    call("before", CLIENT, range(100, 100 + tokens), output, after=["known"]),
                    call("long", CLIENT, range(200, 200 + long), most, after=["before"]),
                    call("waits", OTHER, range(300, 300 + long), most, after=["before"]),
                ],
                "on debt",
            )


DEADLOCK = Setting(kv_tokens=12, quantum=4)
DEADLOCKED = (
    call("half", CLIENT, range(9), 1),
    call("waits", OTHER, range(100, 108), 1),
)


def deadlock(on_stall: OnStall) -> tuple[Replay, bool]:
    """Two requests of which the first is half computed when its client's credit ends; whether they stall for ever."""
    chunks = ChunkedPrefill(4, Gate.CHUNK, on_stall=on_stall)
    setting = ChunkedSetting(DEADLOCK.kv_tokens, DEADLOCK.quantum, chunks=chunks)
    return watched(setting, DEADLOCKED, "deadlock")


def watched(setting: ChunkedSetting, requests: Sequence[Request], name: str) -> tuple[Replay, bool]:
    """A replay that may stall for ever, and whether it does."""
    workload = Workload(1, tuple(requests), name)
    events: list[Event] = []
    try:
        simulate(workload, setting.build_worker(events.append))
    except StalledError:
        return Replay(setting, workload, tuple(events)), True
    return Replay(setting, workload, tuple(events)), False


def paid_to_go_on(rounds: int, on_stall: OnStall) -> Replay:
    """A client whose every request stalls half computed, before one with credit that never fits beside it."""
    setting = ChunkedSetting(12, 10, 1, 1, chunks=ChunkedPrefill(4, Gate.CHUNK, on_stall=on_stall))
    requests = [
        call("first", CLIENT, range(8), 1),
        *(call(f"f{k}", CLIENT, range(100 * k, 100 * k + 8), 2) for k in range(1, rounds + 1)),
        call("waits", OTHER, range(50, 60), 1),
    ]
    return replay(setting, requests, "paid to go on")


# -- several half computed ---------------------------------------------------------------------------------------------

SEVERAL = Limits(1, 1, quantum=3, max_input=8, max_output=1, kv_tokens=40, max_running=3)
SEVERAL_CHUNKS = ChunkedPrefill(3, most=1)


def several() -> Replay:
    """Three prompts are let in with a token each, on three tokens of credit."""
    prompts = (range(100 * k, 100 * k + SEVERAL.max_input) for k in range(SEVERAL.max_running))
    calls = [call(f"r{k}", CLIENT, prompt, 1) for k, prompt in enumerate(prompts)]
    return replay(chunked(SEVERAL, SEVERAL_CHUNKS), calls, "several")
