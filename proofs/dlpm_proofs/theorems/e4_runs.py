"""E4: runs of the swapping worker that reach the floor, and that break what one might have hoped for."""

from __future__ import annotations

from dataclasses import dataclass

from dlpm import bounds, bounds_extensions
from dlpm.events import EventSink
from dlpm.extensions.swap.config import SwapConfig
from dlpm.extensions.swap.worker import SwapWorker
from dlpm.swap_timing import FixedCopy
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_proofs.witness import STEP_US, Demonstration, Replay, Setting, call, replay

HARMONIC_SIZES = (64, 256)
"""GPU and CPU memory in tokens with which the harmonic sum of both is broken."""

REACHED = ((12, 4, 24), (64, 8, 256))
"""GPU memory, quantum and CPU memory with which the floor is reached."""


@dataclass(frozen=True, slots=True)
class SwapSetting(Setting):
    """An engine that swaps; its copies take no time."""

    cpu_tokens: int = 0

    def build_worker(self, sink: EventSink) -> Worker:
        """The swapping worker."""
        return SwapWorker(
            self.config(),
            self.build_policy(),
            FixedStep(STEP_US),
            SwapConfig(self.cpu_tokens),
            FixedCopy(0),
            sink,
            full_log=True,
        )


def one_after_another(kv_tokens: int, quantum: int, cpu_tokens: int) -> Replay:
    """``M - 1`` requests of ``a``, let in together and each as long as memory is, end one after another.

    As the run of T2*/optimistic: ``f`` leaves with credit, ``a`` fills memory, its last request with the longest prompt
    is preempted before it computes and has been paid for, and ``f`` comes back with a request that does not fit before
    all of ``a`` is done, so that no refill fires. But there a preempted request meets the gate; here it comes back.
    """
    setting = SwapSetting(kv_tokens, quantum, memory="optimistic", cpu_tokens=cpu_tokens)
    fresh = range(10, 10 + kv_tokens - 1)
    return replay(
        setting,
        [
            call("f1", "f", [0], 1),
            *(call(f"a{k}", "a", [1], kv_tokens - 1, after=["f1"]) for k in range(1, kv_tokens)),
            call("long", "a", fresh, 1, after=["f1"]),
            call("f2", "f", [token + kv_tokens for token in fresh], 1, at_step=2),
        ],
        "one after another",
    )


def _floor(run: Replay, outputs: int) -> int:
    """The floor with so many outputs after the last admission."""
    kv_tokens = run.setting.kv_tokens
    recomputation = bounds.longest_recomputation(kv_tokens - 1, kv_tokens)
    return bounds.deficit_floor(bounds.optimistic_unit(run.setting.cost(), recomputation, outputs))


def floor_reached() -> tuple[Demonstration, ...]:
    """Every request of a full batch yields as much as memory holds."""
    shown = []
    for kv_tokens, quantum, cpu_tokens in REACHED:
        run = one_after_another(kv_tokens, quantum, cpu_tokens)
        requests = bounds_extensions.requests_that_come_back(kv_tokens)
        outputs = bounds_extensions.outputs_with_swap(requests, bounds_extensions.outputs_of_one(kv_tokens))
        lowest, floor = min(run.counters("a")), _floor(run, outputs)
        story = (
            f"M = {kv_tokens}, C = {cpu_tokens}: {requests} requests yield {outputs} tokens after the last admission.",
            f"The counter sinks to {lowest}; the floor is {floor}, that with recomputation"
            f" {_floor(run, bounds.outputs_after_admission(kv_tokens))}.",
        )
        shown.append(Demonstration(f"the floor is reached with M = {kv_tokens}", story, lowest == floor, run))
    return tuple(shown)


def harmonic_broken() -> tuple[Demonstration, ...]:
    """The same run beside the harmonic sum of both memories."""
    kv_tokens, cpu_tokens = HARMONIC_SIZES
    run = one_after_another(kv_tokens, 8, cpu_tokens)
    lowest, hoped = min(run.counters("a")), _floor(run, bounds.outputs_after_admission(kv_tokens + cpu_tokens))
    story = (
        f"M = {kv_tokens} and C = {cpu_tokens} tokens. Requests that keep what they have need not share memory at the",
        "same time: one runs to its end while the others wait in CPU memory with a few tokens each.",
        f"The counter sinks to {lowest}; the harmonic sum of M + C would keep it at {hoped}.",
    )
    return (Demonstration("memory is used one after another, not together", story, lowest < hoped, run),)
