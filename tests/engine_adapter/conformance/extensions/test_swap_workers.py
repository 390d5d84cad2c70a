"""Preemption by swap: workers that do it wrong are told by their logs, and chats in blocks and groups hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from dlpm.batch import RunningRequest, WorkerConfig
from dlpm.cost import CostModel
from dlpm.event_codec import encode_event, encode_header
from dlpm.events import Event, EventSink, Header, Limits
from dlpm.extensions.swap.config import SwapConfig
from dlpm.extensions.swap.cpu_copies import Copy, CpuCopies
from dlpm.extensions.swap.states import State
from dlpm.extensions.swap.worker import Away, SwapWorker
from dlpm.ledger import Ledger, Quanta
from dlpm.memory import Optimistic
from dlpm.policies.dlpm import DLPM
from dlpm.simulate import simulate
from dlpm.swap_timing import FixedCopy, interconnect_of
from dlpm.timing import FixedStep, preset
from dlpm.worker import Worker
from dlpm.workload.synthetic import Spec, generate
from tests.engine_adapter.conformance.extensions.variants import config_of, quanta_and_cost, record_variant
from tests.engine_adapter.conformance.logs import Log, check
from tests.engine_adapter.conformance.samples import sample_rules
from tests.reference.lockstep import Shape
from tests.reference.naive_worker import Rules

STEP_US, COPY_US = 3, 10


class PaysForLeaving(SwapWorker):
    """Charges who is swapped out."""

    def _swap_out(self, run: RunningRequest, copy: Copy) -> None:
        self.policy.charge_outputs({run.queued.client: 1})
        super()._swap_out(run, copy)


class PaysForComingBack(SwapWorker):
    """Charges who comes back, as if its last token had been computed again."""

    def _copied_in(self, away: Away) -> None:
        self.policy.charge_outputs({away.queued.client: 1})
        super()._copied_in(away)


class JoinsAtOnce(SwapWorker):
    """Decodes a request whose copy-in has only begun."""

    def _swap_in(self, away: Away, private: int) -> None:
        super()._swap_in(away, private)
        if self.states.of(away.queued.id) is State.SWAPPING_IN:
            self._copied_in(away)


class GivesBackAtOnce(SwapWorker):
    """Gives GPU memory back when the copy-out begins."""

    def _swap_out(self, run: RunningRequest, copy: Copy) -> None:
        super()._swap_out(run, copy)
        if self.states.of(run.queued.id) is State.SWAPPING_OUT:
            self._copied_out(self.away[run.queued.id])


class AdmitsBeside(SwapWorker):
    """Admits although a request is away that should come first."""

    def _admission_phase(self) -> None:
        self._finish_copies()
        self._begin_copies_in()
        Worker._admission_phase(self)


class OverbooksCpuMemory(SwapWorker):
    """Believes in more CPU memory than there is."""

    def _try_swap_out(self, run: RunningRequest) -> bool:
        if self.cpu.blocks == self.swap.cpu_tokens:
            self.cpu = CpuCopies(200, 1, 1)
        return super()._try_swap_out(run)


CPU_TOKENS: Mapping[type[SwapWorker], int] = {OverbooksCpuMemory: 2}
"""CPU memory where it must be scarce for the fault to show."""


def swapped(worker_type: type[SwapWorker], cpu_tokens: int) -> Log:
    """Requests of one prompt token and long outputs; some come when others are away."""
    rules = replace(sample_rules("dlpm", 0), memory="optimistic", block_size=1, kv_tokens=18, watermark=0)
    swap = SwapConfig(cpu_tokens, asynchronous=True)
    early = [Shape(who, (place,), 14, 0, (), False, False) for place, who in enumerate("ABA")]
    late = [Shape(who, (place + 5,), 3, 0, (), False, False) for place, who in enumerate("BA")]

    def build(rules: Rules, sink: EventSink) -> Worker:
        policy = DLPM(Ledger(*quanta_and_cost(rules)))
        steps, copies = FixedStep(STEP_US), FixedCopy(COPY_US)
        return worker_type(config_of(rules), policy, steps, swap, copies, sink, full_log=True)

    return record_variant(rules, [*early, 8, *late], build, swap.stated())


@pytest.mark.parametrize(
    ("worker_type", "rules"),
    [
        (PaysForLeaving, ["swap-charge"]),
        (PaysForComingBack, ["swap-charge"]),
        (JoinsAtOnce, ["decode-after-copy"]),
        (GivesBackAtOnce, ["copied-memory", "copy-order"]),
        (AdmitsBeside, ["resume-first"]),
        (OverbooksCpuMemory, ["cpu-memory"]),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_worker_that_swaps_wrong_is_told_by_its_log(worker_type: type[SwapWorker], rules: list[str]) -> None:
    """By these rules and no others, in the order in which they break: who is back too soon may go back too soon."""
    cpu_tokens = CPU_TOKENS.get(worker_type, 200)
    assert check(swapped(SwapWorker, cpu_tokens)).violations == ()
    broken = check(swapped(worker_type, cpu_tokens)).violations
    assert list(dict.fromkeys(violation.rule for violation in broken)) == rules


CHATS = {
    "blocks": SwapConfig(100_000),
    "groups": SwapConfig(100_000, 60, piecewise=True),
    "groups beside steps": SwapConfig(100_000, 60, piecewise=True, asynchronous=True, ahead=64),
    "groups beside steps, others admitted": SwapConfig(
        100_000, 60, piecewise=True, asynchronous=True, ahead=64, resume_first=False
    ),
    "little CPU memory": SwapConfig(5_000, asynchronous=True, ahead=64, resume_first=False),
}


@pytest.mark.parametrize("mode", CHATS)
def test_logs_of_chats_in_blocks_of_sixteen_tokens_hold(mode: str) -> None:
    """Each turn repeats all before it, on a modelled GPU with a modelled link, in a fifth of its memory."""
    swap, roofline = CHATS[mode], preset("a10g", "llama-3.1-8b")
    requests = generate(Spec(name="chat", clients=8, programs=4, rate=0.5, think=5.0, seed=3, width=6, block_size=16))
    config = WorkerConfig(8_000, Optimistic(), 16, max_running=64)
    events: list[Event] = []
    policy = DLPM(Ledger(Quanta(2_000), CostModel()))
    worker = SwapWorker(config, policy, roofline, swap, interconnect_of(roofline.model), events.append, full_log=True)
    simulate(requests, worker)
    assert worker.traffic.swapped_in > 10
    header = Header(
        engine="reference",
        policy="dlpm",
        extend_weight=1,
        output_weight=2,
        default_quantum=2_000,
        limits=Limits(kv_tokens=config.kv_tokens, max_running=config.max_running),
        memory=Optimistic.kind,
        visibility=config.visibility,
        block_size=config.block_size,
        watermark=0,
        level="full",
        extensions=swap.stated(),
    )
    assert check([encode_header(header), *map(encode_event, events)]).violations == ()
