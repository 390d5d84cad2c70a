"""What it costs to ask the gate for every chunk: both gates of chunked prefill, at several budgets, measured.

Usage: python examples/chunked_prefill_gates.py [--seconds N] [--quantum N] [--prompt N] [--kv-tokens N]

One modelled A10G, block size 16. The *reader* sends prompts of 16,384 tokens, the *writer* requests of 256 tokens with
256 tokens of output; both have more than enough waiting. Four *guests* send a request of 256 tokens, with 64 of output,
every four seconds each. For each gate and budget the script prints what happened in the first seconds: tokens computed
a second, time to first token of the guests in seconds, prompts of the reader that were computed, the largest lead that
reader or writer had over the other while both waited, and its proven bound, the lowest counter, its proven floor, and
how many later chunks were computed without credit. With the gate asked for every chunk and none of those, bound and
floor are those of the chunk.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from dlpm.batch import WorkerConfig
from dlpm.bounds import deficit_floor, service_gap, tight_unit
from dlpm.bounds_chunked import chunk_gated_unit
from dlpm.cost import CostModel
from dlpm.events import Admit, Arrive, Chunk, Event, Output
from dlpm.extensions.chunked_prefill import ChunkedDLPM, ChunkedPrefill, ChunkedWorker, Gate
from dlpm.ledger import Ledger, Quanta
from dlpm.memory import Reserving
from dlpm.request import ClientId, Request, RequestId, Workload
from dlpm.simulate import simulate
from dlpm.summary import quantiles
from dlpm.timing import kv_tokens_that_fit, preset

BLOCK = 16
MAX_RUNNING = 64
READER, WRITER = PAIR = ("reader", "writer")
GUESTS = tuple(f"guest-{place}" for place in range(4))
GUEST_EVERY_US, SECOND = 4_000_000, 1_000_000
COST = CostModel()


def workload(seconds: int, prompt: int) -> Workload:
    """More than can be served in ``seconds``. No two requests share a block."""
    hash_base = {client: place for place, client in enumerate((*PAIR, *GUESTS))}

    def request(client: ClientId, number: int, at_us: int, tokens: int, output: int) -> Request:
        first = (hash_base[client] << 40) + (number << 16)
        blocks = tuple(range(first, first + tokens // BLOCK))
        return Request(f"{client}.{number}", client, at_us, tokens, output, output, blocks=blocks)

    def all_of_them() -> Iterator[Request]:
        for number in range(seconds):
            yield request(READER, number, 0, prompt, 16)
        for number in range(8 * seconds):
            yield request(WRITER, number, 0, 256, 256)
        for number in range(seconds * SECOND // GUEST_EVERY_US):
            for place, guest in enumerate(GUESTS):
                yield request(guest, number, number * GUEST_EVERY_US + place * SECOND, 256, 64)

    return Workload(BLOCK, tuple(sorted(all_of_them(), key=lambda one: one.arrival_us)), "a reader and a writer")


class OverError(Exception):
    """The time to be looked at is over."""


@dataclass
class Tally:
    """What happened until ``until_us``."""

    until_us: int
    tokens: int = 0
    lowest: int = 0
    uncredited: int = 0
    gap: int = 0
    clients: dict[RequestId, ClientId] = field(default_factory=dict)
    sent_us: dict[RequestId, int] = field(default_factory=dict)
    waits_us: dict[ClientId, list[int]] = field(default_factory=dict)
    counters: dict[ClientId, int] = field(default_factory=dict)
    waiting: dict[ClientId, int] = field(default_factory=dict)
    served: dict[ClientId, int] = field(default_factory=dict)
    least: dict[ClientId, int] = field(default_factory=dict)

    def on_event(self, event: Event) -> None:
        """Take one event in.

        Raises:
            OverError: it is a later one.
        """
        if event.time_us is not None and event.time_us > self.until_us:
            raise OverError
        match event:
            case Arrive():
                self.clients[event.request] = event.client
                self.sent_us[event.request] = event.time_us or 0 if event.arrived_us is None else event.arrived_us
                self.waiting[event.client] = self.waiting.get(event.client, 0) + 1
            case Admit():
                self.waiting[self.clients[event.request]] -= 1
                self._computed(event.request, event.extend if event.chunk is None else event.chunk, event.deficit)
            case Chunk():
                self._computed(event.request, event.tokens, event.deficit)
                assert event.deficit is not None
                self.uncredited += event.deficit + COST.extend(event.tokens) <= 0
            case Output():
                self._yielded(event)

    def _computed(self, request: RequestId, tokens: int, deficit: int | None) -> None:
        assert deficit is not None
        client = self.clients[request]
        self.tokens += tokens
        self.lowest = min(self.lowest, deficit)
        self.served[client] = self.served.get(client, 0) + COST.extend(tokens)
        self._look()

    def _yielded(self, event: Output) -> None:
        for request, count in event.tokens.items():
            client = self.clients[request]
            self.tokens += count
            self.served[client] = self.served.get(client, 0) + COST.output(count)
            sent_us = self.sent_us.pop(request, None)
            if sent_us is not None:
                self.waits_us.setdefault(client, []).append((event.time_us or 0) - sent_us)
        self.lowest = min(self.lowest, *event.deficits.values(), 0)
        self._look()

    def _look(self) -> None:
        """The largest lead since the least difference, both having something waiting throughout."""
        if not all(self.waiting.get(client) for client in PAIR):
            raise SystemExit("reader or writer has nothing waiting: add requests")
        for ahead, behind in (PAIR, PAIR[::-1]):
            lead = self.served.get(ahead, 0) - self.served.get(behind, 0)
            self.least[ahead] = min(self.least.get(ahead, 0), lead)
            self.gap = max(self.gap, lead - self.least[ahead])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Both gates of chunked prefill")
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--quantum", type=int, default=2000)
    parser.add_argument("--prompt", type=int, default=16_384)
    parser.add_argument("--kv-tokens", type=int)
    options = parser.parse_args(arguments)
    roofline = preset("a10g")
    kv_tokens = options.kv_tokens or kv_tokens_that_fit(roofline.gpu, roofline.model)
    config = WorkerConfig(kv_tokens, Reserving(), block_size=BLOCK, max_running=MAX_RUNNING)
    requests = workload(options.seconds, options.prompt)
    rows: list[tuple[str, ...]] = [
        ("gate", "budget", "tokens/s", "TTFT p50", "p99", "prompts", "gap", "bound", "lowest", "floor", "uncredited")
    ]
    for budget in (kv_tokens, 8192, 2048, 512):
        for gate in Gate:
            if budget == kv_tokens and gate is Gate.CHUNK:
                continue
            tally = Tally(options.seconds * SECOND)
            policy = ChunkedDLPM(Ledger(Quanta(options.quantum), COST))
            worker = ChunkedWorker(config, policy, roofline, ChunkedPrefill(budget, gate), tally.on_event)
            with suppress(OverError):
                simulate(requests, worker)
            limits = {"max_output": 256, "max_running": MAX_RUNNING}
            if gate is Gate.CHUNK and not tally.uncredited:
                unit = chunk_gated_unit(COST, options.prompt, budget, kv_tokens, **limits)
            else:
                unit = tight_unit(COST, options.prompt, kv_tokens, **limits)
            guests = quantiles(wait for guest in GUESTS for wait in tally.waits_us[guest])
            assert guests is not None
            rows.append(
                (
                    "whole prompts" if budget == kv_tokens else gate.value,
                    "-" if budget == kv_tokens else str(budget),
                    f"{tally.tokens / options.seconds:.0f}",
                    f"{guests.p50 / SECOND:.2f}",
                    f"{guests.p99 / SECOND:.2f}",
                    str(len(tally.waits_us.get(READER, ()))),
                    str(tally.gap),
                    str(service_gap(options.quantum, deficit_floor(unit))),
                    str(tally.lowest),
                    str(deficit_floor(unit)),
                    str(tally.uncredited),
                )
            )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
