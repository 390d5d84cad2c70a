"""The reference's worker around a prefix cache of which only its contract is known, on symbolic numbers.

The worker is the real one: `try_admit`, `_forward`, `_finish`, `_make_room_for_outputs`. What its cache answers is
symbolic: how much of a prompt it holds, how much of that nobody locks, how far an insertion reaches. So nothing that is
proved about the worker depends on how a radix tree works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dlpm.batch import QueuedRequest, RunningRequest, WorkerConfig
from dlpm.memory import AdmissionControl
from dlpm.policies.base import Policy
from dlpm.policies.fcfs import FCFS
from dlpm.prefix_cache import Match, Node, PrefixCache
from dlpm.request import BlockKey, ClientId, Request
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_proofs.symbolic import Exploration, SymInt
from dlpm_proofs.terms import Formula, Poly, all_of, at_least, at_most, between, equal, poly

LOCKED = Poly.unknown("locked")
CACHED = Poly.unknown("cached tokens of the prompt")
UNLOCKED = Poly.unknown("unlocked tokens among them")
REACH = Poly.unknown("end of the inserted prompt")
NEWLY_LOCKED = Poly.unknown("tokens newly locked by the insertion")


class OpaqueCache(PrefixCache):
    """A prefix cache that answers with symbols. Its contract is `cache_contract`."""

    def __init__(self, exploration: Exploration) -> None:
        """Some tokens are locked; nobody knows which."""
        super().__init__(1)
        self._exploration = exploration
        self.locked = self._symbol(LOCKED)
        self.total = self._symbol(LOCKED)
        self.leaving: set[str] = set()
        self._longer_path_locked = False
        self.matched_end = Node("matched", self.root, self._symbol(CACHED))
        self.inserted_end = Node("inserted", self.matched_end, self._symbol(REACH - CACHED))

    def _symbol(self, value: Poly) -> SymInt:
        return SymInt(self._exploration, value)

    def match(self, blocks: Sequence[BlockKey], last: Match) -> Match:
        """The cached part of the one prompt that is asked for."""
        last.node = self.matched_end
        return last

    def unlocked_above(self, node: Node) -> int:
        """What no running request locks of it."""
        return self._symbol(UNLOCKED) if node is self.matched_end else 0

    def lock(self, node: Node) -> None:
        """Lock the cached part, or the whole inserted prompt below it."""
        if node is self.matched_end:
            self.locked += self._symbol(UNLOCKED)
        elif node is self.inserted_end:
            self.locked += self._symbol(NEWLY_LOCKED)
            self._longer_path_locked = True

    def unlock(self, node: Node) -> None:
        """A request that leaves frees what it alone had locked; giving up a path for a longer one frees nothing."""
        if self._longer_path_locked:
            self._longer_path_locked = False
        elif node.key in self.leaving:
            self.locked -= self._symbol(freed_by(str(node.key)))

    def discard(self, node: Node, keep: Node) -> None:
        """What was never computed is not kept; it was not locked any more."""

    def insert(self, blocks: Sequence[BlockKey], below: Match, tokens: int) -> Node:
        """The prompt is cached up to somewhere."""
        return self.inserted_end

    def evict(self, tokens: int) -> int:
        """Evicting changes nothing that is locked."""
        return 0

    def touch(self, node: Node) -> None:
        """Recency has no part in memory's books."""


def cache_contract(input_tokens: Poly) -> Formula:
    """What any prefix cache keeps.

    It holds no more of a prompt than there is, and no more can be locked than is new; what is locked
    counts as locked: the part of the prompt that others lock already, and the whole path once it is locked.
    """
    return all_of(
        between(0, CACHED, input_tokens),
        between(0, UNLOCKED, CACHED),
        at_most(CACHED - UNLOCKED, LOCKED),
        at_most(REACH, LOCKED + UNLOCKED + NEWLY_LOCKED),
        _insertion_below(CACHED, input_tokens),
    )


def insertion_contract(path: Poly, input_tokens: Poly) -> Formula:
    """The same for a prompt that is inserted when ``path`` tokens of it are locked already."""
    return all_of(at_most(REACH, LOCKED + NEWLY_LOCKED), _insertion_below(path, input_tokens))


def _insertion_below(path: Poly, input_tokens: Poly) -> Formula:
    """An insertion below ``path`` ends within the prompt, and locks no more than what is new."""
    return all_of(between(path, REACH, input_tokens), between(0, NEWLY_LOCKED, REACH - path))


def freed_by(name: str) -> Poly:
    """Tokens that the request ``name`` alone has locked, when it leaves."""
    return Poly.unknown(f"freed by {name}")


def leaving_contract(running: Sequence[Running]) -> Formula:
    """Whoever leaves frees nothing that another running request locks."""
    return all_of(
        *(at_least(freed_by(one.name), 0) for one in running),
        *(
            at_most(one.path, LOCKED - sum_of(freed_by(other.name) for other in running if other is not one))
            for one in running
        ),
    )


class Meter(FCFS):
    """A policy that keeps what it is told: what to charge, and who comes to the queue and leaves it."""

    def __init__(self) -> None:
        """Nothing charged, nothing heard."""
        self.charged: dict[ClientId, int] = {}
        self.came: list[tuple[ClientId, tuple[ClientId, ...]]] = []
        self.left: list[ClientId] = []

    def arrive(self, client: ClientId, queued_clients: Iterable[ClientId]) -> None:
        """Keep who comes, and whom it finds in the queue."""
        self.came.append((client, tuple(queued_clients)))

    def leave(self, client: ClientId) -> None:
        """Keep who leaves."""
        self.left.append(client)

    def charge_outputs(self, tokens: Mapping[ClientId, int]) -> None:
        """Keep the output tokens of a forward step."""
        self.charged = dict(tokens)


@dataclass(frozen=True, slots=True)
class Running:
    """The unknowns of one running request of ``client``; all are counts of tokens."""

    name: str
    client: ClientId

    def unknown(self, quantity: str) -> Poly:
        """One of its quantities."""
        return Poly.unknown(f"{quantity} of {self.name}")

    @property
    def private(self) -> Poly:
        """Tokens in memory outside the cache."""
        return self.unknown("private")

    @property
    def path(self) -> Poly:
        """Tokens on its locked path in the cache."""
        return self.unknown("path")

    @property
    def generated(self) -> Poly:
        """Output tokens so far."""
        return self.unknown("generated")

    @property
    def most(self) -> Poly:
        """Its declared limit on output tokens."""
        return self.unknown("max_output")

    def sound(self) -> Formula:
        """What holds of a running request between steps: it is not finished, and all of it is in memory."""
        return all_of(
            at_least(self.private, 0),
            at_least(self.generated, 0),
            at_least(self.unknown("input"), 1),
            at_most(self.generated + Poly.constant(1), self.unknown("output")),
            at_most(self.unknown("output"), self.most),
            between(0, self.path, LOCKED),
            at_most(self.path, self.unknown("input")),
            at_least(self.path + self.private, self.unknown("input") + self.generated),
        )


def plain_worker(config: WorkerConfig, policy: Policy) -> Worker:
    """The reference's own worker."""
    return Worker(config, policy, FixedStep(1))


class OpaqueWorker:
    """Builds real workers in a symbolic state, with some requests running."""

    def __init__(
        self,
        assumptions: Sequence[Formula],
        memory: AdmissionControl,
        visibility: str,
        make: Callable[[WorkerConfig, Policy], Worker] = plain_worker,
    ) -> None:
        """Explore under ``assumptions``; ``make`` makes the workers."""
        self.exploration = Exploration(assumptions)
        self._make = make
        self._memory = memory
        self._visibility = visibility

    def symbol(self, value: Poly) -> SymInt:
        """``value`` as an integer that code can compute with."""
        return SymInt(self.exploration, value)

    def build(
        self, running: Sequence[Running], *, computed: bool = True, memory: AdmissionControl | None = None
    ) -> Worker:
        """A worker whose batch is ``running``. ``computed``: each has had a forward step.

        ``memory`` is given where it is itself symbolic, and so can only be made during a run.
        """
        config = WorkerConfig(
            self.symbol(Poly.unknown("M")), memory or self._memory, 1, self._visibility, self.symbol(Poly.unknown("B"))
        )
        worker = self._make(config, Meter())
        cache = OpaqueCache(self.exploration)
        worker.cache = cache
        for one in running:
            queued = self.queued(one)
            reserved = self._memory.reserve(queued.output_left)
            node = Node(one.name, cache.root, self.symbol(one.path))
            cache.leaving.add(one.name)
            private = self.symbol(one.private)
            worker.running.append(RunningRequest(queued, node, 0, 0, private, reserved, node, computed))
            worker._set_aside += private + reserved
        return worker

    def queued(self, one: Running) -> QueuedRequest:
        """The request ``one`` as a queue keeps it."""
        request = Request(
            id=one.name,
            client=one.client,
            arrival_us=0,
            input_tokens=self.symbol(one.unknown("input")),
            output_tokens=self.symbol(one.unknown("output")),
            max_output=self.symbol(one.most),
            prompt=(0,),
        )
        return QueuedRequest(
            id=one.name,
            client=one.client,
            request=request,
            rank=1,
            blocks=(0,),
            match=Match(Node(None, None, 0), 0),
            resident=self.symbol(one.unknown("input") + one.generated),
        )


def books(worker: Worker) -> Formula:
    """The worker's books: what it set aside is what its requests hold, and all of that fits into ``M``."""
    held = sum_of(poly(run.private) + poly(run.reserved) for run in worker.running)
    return all_of(
        equal(worker._set_aside, held),
        at_most(poly(worker.cache.locked) + held, Poly.unknown("M")),
        *(at_least(poly(run.private), 0) for run in worker.running),
        *(at_least(poly(run.node.end) + poly(run.private), run.queued.resident) for run in worker.running),
    )


def sum_of(values: Iterable[Poly]) -> Poly:
    """The sum of polynomials."""
    total = Poly.constant(0)
    for value in values:
        total += value
    return total
