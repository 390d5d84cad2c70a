"""Routers again, deliberately naive: what a worker holds is a plain set of prefixes, and all is counted afresh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dlpm.request import BlockKey, Request

Prefix = tuple[BlockKey, ...]


@dataclass
class NaiveRouter:
    """What every naive router keeps: the prefixes each worker was sent and has not given up, and what is in flight."""

    workers: int
    held: list[set[Prefix]] = field(default_factory=list)
    in_flight: list[tuple[Request, int, Prefix]] = field(default_factory=list)
    done: list[tuple[Request, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Nobody holds anything."""
        self.held = [set() for _ in range(self.workers)]

    def choose(self, request: Request, blocks: Prefix) -> int:
        """The worker for ``request``."""
        raise NotImplementedError

    def dispatch(self, request: Request, blocks: Prefix) -> int:
        """Choose, then enter the prompt and all its prefixes at that worker."""
        worker = self.choose(request, blocks)
        for length in range(1, len(blocks) + 1):
            self.held[worker].add(blocks[:length])
        self.in_flight.append((request, worker, blocks))
        return worker

    def finish(self, position: int) -> tuple[Request, int]:
        """The request in flight at ``position`` finishes."""
        request, worker, _ = self.in_flight.pop(position)
        self.done.append((request, worker))
        return request, worker

    def evict(self, prefix: Prefix, worker: int) -> None:
        """The worker gives up ``prefix`` and everything that begins with it."""
        self.held[worker] = {kept for kept in self.held[worker] if kept[: len(prefix)] != prefix}

    def sizes(self) -> list[int]:
        """Requests in flight at each worker."""
        return [sum(1 for _, at, _ in self.in_flight if at == worker) for worker in range(self.workers)]

    def longest(self, blocks: Prefix) -> tuple[list[int], int]:
        """Workers with the longest prefix of ``blocks``, and its length."""
        for length in range(len(blocks), 0, -1):
            holders = [worker for worker in range(self.workers) if blocks[:length] in self.held[worker]]
            if holders:
                return holders, length
        return [], 0

    def fewest(self, candidates: Sequence[int]) -> int:
        """The candidate with the fewest requests in flight, the first of them among equals."""
        sizes = self.sizes()
        best = candidates[0]
        for worker in candidates:
            if sizes[worker] < sizes[best]:
                best = worker
        return best


@dataclass
class NaiveD2LPM(NaiveRouter):
    """Algorithm 2: the credit of every client at every worker is added up from its whole history."""

    quantum: int = 1
    extend_weight: int = 1
    output_weight: int = 1
    refills: dict[str, int] = field(default_factory=dict)
    sent: list[tuple[Request, int]] = field(default_factory=list)

    def credit(self, client: str, worker: int) -> int:
        """Quanta received, less all inputs dispatched and all outputs finished."""
        spent = sum(
            self.extend_weight * request.input_tokens
            for request, at in self.sent
            if request.client == client and at == worker
        )
        spent += sum(
            self.output_weight * request.output_tokens
            for request, at in self.done
            if request.client == client and at == worker
        )
        return self.refills.get(client, 0) * self.quantum - spent

    def choose(self, request: Request, blocks: Prefix) -> int:
        """Longest match with credit, else anybody with credit; refills until somebody has."""
        client = request.client
        while all(self.credit(client, worker) <= 0 for worker in range(self.workers)):
            self.refills[client] = self.refills.get(client, 0) + 1
        rich = [worker for worker in range(self.workers) if self.credit(client, worker) > 0]
        holders, _ = self.longest(blocks)
        worker = self.fewest([holder for holder in holders if holder in rich] or rich)
        self.sent.append((request, worker))
        return worker


@dataclass
class NaiveRoundRobin(NaiveRouter):
    """The k-th request, of all or of a client, goes to worker k modulo n."""

    per_client: bool = False
    seen: list[str] = field(default_factory=list)

    def choose(self, request: Request, blocks: Prefix) -> int:
        """Count what came before."""
        before = self.seen.count(request.client) if self.per_client else len(self.seen)
        self.seen.append(request.client)
        return before % self.workers


@dataclass
class NaiveLeastLoaded(NaiveRouter):
    """The fewest in flight."""

    def choose(self, request: Request, blocks: Prefix) -> int:
        """Ask all."""
        return self.fewest(range(self.workers))


@dataclass
class NaiveCacheAware(NaiveRouter):
    """The gateway's rule, with thresholds ``absolute``, 3/2 and 3/10."""

    absolute: int = 2

    def choose(self, request: Request, blocks: Prefix) -> int:
        """Balance first, then affinity, then the emptiest tree."""
        sizes = self.sizes()
        if max(sizes) - min(sizes) > self.absolute and 2 * max(sizes) > 3 * min(sizes):
            return self.fewest(range(self.workers))
        holders, length = self.longest(blocks)
        if holders and 10 * length > 3 * len(blocks):
            return holders[0]
        emptiest = 0
        for worker in range(self.workers):
            if len(self.held[worker]) < len(self.held[emptiest]):
                emptiest = worker
        return emptiest


@dataclass
class NaivePreble(NaiveRouter):
    """E2 with ratio 1/2; the load of a worker is booked when a request is sent and forgotten when it finishes."""

    block_size: int = 1
    extend_weight: int = 1
    output_weight: int = 1
    overload: int | None = None
    booked: dict[str, int] = field(default_factory=dict)

    def load(self, worker: int) -> int:
        """What is booked for the requests in flight."""
        return sum(self.booked[request.id] for request, at, _ in self.in_flight if at == worker)

    def prefill(self, worker: int, request: Request, blocks: Prefix) -> int:
        """Weighted tokens of the prompt that the worker does not hold, at least one."""
        held = max((n for n in range(len(blocks) + 1) if n == 0 or blocks[:n] in self.held[worker]), default=0)
        return self.extend_weight * max(1, request.input_tokens - held * self.block_size)

    def choose(self, request: Request, blocks: Prefix) -> int:
        """Exploit a long match, else explore."""
        holders, length = self.longest(blocks)
        candidates = list(range(self.workers))
        if holders and 2 * min(length * self.block_size, request.input_tokens) > request.input_tokens:
            lightest = min(self.load(worker) for worker in candidates)
            allowed = [
                worker for worker in holders if self.overload is None or self.load(worker) <= self.overload * lightest
            ]
            candidates = allowed or candidates
        costs = [self.load(worker) + self.prefill(worker, request, blocks) for worker in candidates]
        worker = candidates[costs.index(min(costs))]
        outputs = [done.output_tokens for done, _ in self.done]
        mean = -(-sum(outputs) // len(outputs)) if outputs else 1
        self.booked[request.id] = self.prefill(worker, request, blocks) + self.output_weight * mean
        return worker
