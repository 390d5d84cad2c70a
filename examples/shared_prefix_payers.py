"""Who gains what when a tenant always comes second: three rules for who pays for a shared prefix, measured.

Usage: python examples/shared_prefix_payers.py [--seconds N] [--rounds N] [--prefix N] [--quantum N]

One modelled A10G. The *pioneer* sends requests with a new prefix each; the *rider* sends one with the same prefix when
that request has ended, and in between requests of its own; the *loner* shares nothing. All three have more than enough
waiting. For each rule and tenant the script prints what happened in the first seconds: requests admitted, and thousands
of extend tokens computed, as if alone, and charged less refunds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dlpm.batch import WorkerConfig
from dlpm.cost import CostModel
from dlpm.events import Admit, Arrive, Event
from dlpm.extensions.shared_prefixes import PAYERS, RefundingLedger, SharedPrefixDLPM
from dlpm.extensions.shared_prefixes_worker import SharingWorker
from dlpm.ledger import Quanta
from dlpm.memory import Reserving
from dlpm.request import ClientId, Request, RequestId, Workload
from dlpm.simulate import simulate
from dlpm.timing import kv_tokens_that_fit, preset

BLOCK = 16
QUESTION, ANSWER = 64, 64
PIONEER, RIDER, LONER = TENANTS = ("pioneer", "rider", "loner")


def workload(rounds: int, prefix: int) -> Workload:
    """So many shared prefixes, and as many prompts of the rider's and the loner's own. All are of one length.

    A prompt is hashed by its number; of a shared one only the last blocks differ.
    """
    length, shared = (prefix + QUESTION) // BLOCK, prefix // BLOCK

    def request(name: str, client: ClientId, number: int, beginning: int, parents: tuple[RequestId, ...]) -> Request:
        blocks = tuple(((beginning if k < shared else number) << 32) + k for k in range(length))
        tokens = length * BLOCK
        return Request(f"{name}{number}", client, 0, tokens, ANSWER, ANSWER, blocks=blocks, parents=parents)

    def all_of_them() -> Iterator[Request]:
        for place in range(rounds):
            number = 4 * place
            yield request("new", PIONEER, number, number, ())
            yield request("rides", RIDER, number + 1, number, (f"new{number}",))
            yield request("own", RIDER, number + 2, number + 2, ())
            yield request("own", LONER, number + 3, number + 3, ())

    return Workload(BLOCK, tuple(all_of_them()), "a rider")


@dataclass
class Tally:
    """What each tenant got until ``until_us``: requests, and extend tokens in three measures."""

    until_us: int
    clients: dict[RequestId, ClientId] = field(default_factory=dict)
    waiting: dict[ClientId, int] = field(default_factory=lambda: dict.fromkeys(TENANTS, 0))
    requests: dict[ClientId, int] = field(default_factory=lambda: dict.fromkeys(TENANTS, 0))
    computed: dict[ClientId, int] = field(default_factory=lambda: dict.fromkeys(TENANTS, 0))
    alone: dict[ClientId, int] = field(default_factory=lambda: dict.fromkeys(TENANTS, 0))
    charged: dict[ClientId, int] = field(default_factory=lambda: dict.fromkeys(TENANTS, 0))

    def on_event(self, event: Event) -> None:
        """Take one event in. Nobody repeats a prompt, so alone everything would be computed."""
        if isinstance(event, Arrive):
            self.clients[event.request] = event.client
        if event.time_us is None or event.time_us > self.until_us:
            return
        match event:
            case Arrive(client=client):
                self.waiting[client] += 1
            case Admit():
                client = self.clients[event.request]
                self.waiting[client] -= 1
                if not self.waiting[client]:
                    raise SystemExit(f"{client} has nothing waiting at {event.time_us / 1e6:.0f} s: add rounds")
                self.requests[client] += 1
                self.computed[client] += event.extend
                self.alone[client] += event.matched + event.extend
                self.charged[client] += event.extend if event.charged is None else event.charged
                for other, tokens in (event.refunds or {}).items():
                    self.charged[other] -= tokens


def measure(payer: str, requests: Workload, quantum: int, seconds: int) -> Tally:
    """Run once."""
    tally = Tally(seconds * 1_000_000)
    roofline = preset("a10g")
    config = WorkerConfig(kv_tokens_that_fit(roofline.gpu, roofline.model), Reserving(), block_size=BLOCK)
    policy = SharedPrefixDLPM(RefundingLedger(Quanta(quantum), CostModel()))
    simulate(requests, SharingWorker(config, policy, roofline, payer, tally.on_event))
    return tally


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="A rider under three rules for who pays")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--prefix", type=int, default=2048)
    parser.add_argument("--quantum", type=int, default=8000)
    options = parser.parse_args(arguments)
    requests = workload(options.rounds, options.prefix)
    rows: list[tuple[str, ...]] = [("payer", "tenant", "requests", "computed", "as if alone", "charged")]
    for payer in PAYERS:
        tally = measure(payer, requests, options.quantum, options.seconds)
        for tenant in TENANTS:
            measures = (tally.computed, tally.alone, tally.charged)
            rows.append((payer, tenant, str(tally.requests[tenant]), *(f"{of[tenant] / 1e3:.0f}" for of in measures)))
        rows.append((payer, "all", str(sum(tally.requests.values()))))
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip())


if __name__ == "__main__":
    main()
