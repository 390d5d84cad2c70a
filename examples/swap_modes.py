"""Recomputation and ways to swap side by side: copies, bytes, stalls and waits, under memory pressure.

Usage: python examples/swap_modes.py [--clients N] [--chats N] [--rate R] [--think S] [--kv-tokens N] [--cpu-tokens N]
           [--ahead N] [--seed N]

A modelled A10G with an 8B model, beside CPU memory at the other end of PCIe 4.0 x16. Clients hold chats: each turn is a
request whose prompt is all that was said before. DLPM schedules; when memory runs out the youngest request leaves.
Every mode serves the same requests. Blocks have 16 tokens; a contiguous piece of blocks is one copy for the keys and
one for the values of each layer. A time between tokens is between two of one request, wherever it has been meanwhile.
"""

from __future__ import annotations

import argparse
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dlpm.batch import WorkerConfig
from dlpm.cost import CostModel
from dlpm.events import Event, Finish, Output
from dlpm.extensions.swap.config import SwapConfig
from dlpm.extensions.swap.links import Traffic
from dlpm.extensions.swap.worker import SwapWorker
from dlpm.ledger import Ledger, Quanta
from dlpm.memory import Optimistic
from dlpm.metrics import RunMetrics
from dlpm.policies.dlpm import DLPM
from dlpm.request import RequestId, Workload
from dlpm.simulate import simulate
from dlpm.summary import RunSummary
from dlpm.swap_timing import interconnect_of
from dlpm.timing import Roofline, kv_tokens_that_fit, preset
from dlpm.worker import Worker
from dlpm.workload.synthetic import Spec, generate

BLOCK = 16
GROUP = 60
"""Blocks of a group: about a thousand tokens, as FastSwitch reserves them at first."""

RUNNING = 256
QUANTUM = 2000


class TokenTimes:
    """Listens to a run for the times between the output tokens of each request, in microseconds."""

    def __init__(self) -> None:
        """No tokens."""
        self.between_us = array("q")
        self._last_us: dict[RequestId, int] = {}

    def on_event(self, event: Event) -> None:
        """Take in an event. O(running requests)."""
        if isinstance(event, Output):
            assert event.time_us is not None
            for request in event.tokens:
                last_us = self._last_us.get(request)
                if last_us is not None:
                    self.between_us.append(event.time_us - last_us)
                self._last_us[request] = event.time_us
        elif isinstance(event, Finish):
            del self._last_us[event.request]


@dataclass(frozen=True)
class Outcome:
    """What one mode came to; ``between_us`` are the times between tokens, in order of size."""

    summary: RunSummary
    traffic: Traffic
    between_us: Sequence[int]

    def ttft_us(self) -> list[int]:
        """Times to first token of all requests, in order of size."""
        return sorted(value for client in self.summary.clients.values() for value in client.ttft_us)


def modes(cpu_tokens: int, ahead: int) -> Mapping[str, SwapConfig | None]:
    """The modes in the order of the table; ``None`` is recomputation. ``ahead`` tokens are kept free beside steps."""
    blocks, groups = SwapConfig(cpu_tokens), SwapConfig(cpu_tokens, GROUP, piecewise=True)
    return {
        "recompute": None,
        "blocks, steps wait": blocks,
        "groups, steps wait": groups,
        "blocks, beside steps": SwapConfig(cpu_tokens, asynchronous=True, ahead=ahead),
        "groups, beside steps": SwapConfig(cpu_tokens, GROUP, piecewise=True, asynchronous=True, ahead=ahead),
    }


def measure(requests: Workload, swap: SwapConfig | None, kv_tokens: int, roofline: Roofline) -> Outcome:
    """Serve ``requests`` once."""
    metrics, times = RunMetrics(CostModel(), gap_clients=0), TokenTimes()

    def sink(event: Event) -> None:
        metrics.on_event(event)
        times.on_event(event)

    config = WorkerConfig(kv_tokens, Optimistic(), BLOCK, max_running=RUNNING)
    policy = DLPM(Ledger(Quanta(QUANTUM), CostModel()))
    if swap is None:
        traffic = Traffic()
        simulate(requests, Worker(config, policy, roofline, sink))
    else:
        worker = SwapWorker(config, policy, roofline, swap, interconnect_of(roofline.model), sink)
        traffic = worker.traffic
        simulate(requests, worker)
    return Outcome(metrics.summary(2), traffic, sorted(times.between_us))


def at(values: Sequence[int], permille: int) -> int:
    """The value below which so many of a thousand are; ``values`` in order of size."""
    return values[len(values) * permille // 1000]


def row(mode: str, outcome: Outcome, copies_per_piece: int, bytes_per_token: int) -> tuple[str, ...]:
    """One line of the table."""
    summary, traffic = outcome.summary, outcome.traffic
    ttft = outcome.ttft_us()
    pieces, tokens = traffic.pieces_out + traffic.pieces_in, traffic.tokens_out + traffic.tokens_in
    assert summary.start_us is not None
    assert summary.end_us is not None
    return (
        mode,
        f"{summary.preemptions}",
        f"{traffic.swapped_out}",
        f"{pieces * copies_per_piece}",
        f"{tokens * bytes_per_token / 1e9:.1f}",
        f"{traffic.reused_tokens * bytes_per_token / 1e9:.1f}",
        f"{traffic.stalled_us / 1e6:.2f}",
        f"{summary.extend_tokens / 1e3:.0f}",
        *(f"{at(ttft, permille) / 1e6:.2f}" for permille in (500, 990, 999)),
        *(f"{at(outcome.between_us, permille) / 1e3:.0f}" for permille in (500, 990, 999)),
        f"{summary.output_tokens * 10**6 / (summary.end_us - summary.start_us):.0f}",
    )


HEADER = (
    *("mode", "preemptions", "swaps", "copies", "GB moved", "GB reused", "stall s"),
    *("extend k", "TTFT p50", "p99", "p99.9", "TBT ms p50", "TBT p99", "TBT p99.9", "output/s"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Recomputation and ways to swap")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--chats", type=int, default=40, help="chats of each client")
    parser.add_argument("--rate", type=float, default=0.25, help="chats a second and client")
    parser.add_argument("--think", type=float, default=5.0, help="mean seconds between a reply and the next turn")
    parser.add_argument("--kv-tokens", type=int, help="GPU memory for the cache; what fits, if left out")
    parser.add_argument("--cpu-tokens", type=int, default=400_000)
    parser.add_argument("--ahead", type=int, default=64, help="tokens kept free by swapping out early, beside steps")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    roofline = preset("a10g", "llama-3.1-8b")
    kv_tokens = options.kv_tokens or kv_tokens_that_fit(roofline.gpu, roofline.model) // BLOCK * BLOCK
    spec = Spec(
        name="chat",
        clients=options.clients,
        programs=options.chats,
        rate=options.rate,
        think=options.think,
        seed=options.seed,
        width=6,
        block_size=BLOCK,
    )
    requests = generate(spec)
    link = interconnect_of(roofline.model)
    print(f"M = {kv_tokens} tokens, C = {options.cpu_tokens} tokens, {len(requests.requests)} requests")
    rows: list[tuple[str, ...]] = [HEADER]
    for mode, swap in modes(options.cpu_tokens, options.ahead).items():
        outcome = measure(requests, swap, kv_tokens, roofline)
        rows.append(row(mode, outcome, link.copies_per_piece, link.bytes_per_token))
    widths = [max(len(line[column]) for line in rows) for column in range(len(HEADER))]
    for first, *others in rows:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        print("  ".join((first.ljust(widths[0]), *cells)))


if __name__ == "__main__":
    main()
