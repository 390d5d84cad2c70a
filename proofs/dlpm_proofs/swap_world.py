"""The reference's swapping worker on symbolic numbers, around caches of which only the contract is known.

As in `opaque.py`, the functions that run are the worker's own. Which physical blocks hold what is left out here
(`theorems/e4_copies.py` explores that), and whether CPU memory can hold a copy is anybody's choice.
"""

from __future__ import annotations

from collections.abc import Sequence

from dlpm.batch import QueuedRequest, RunningRequest, WorkerConfig
from dlpm.extensions.swap.config import SwapConfig
from dlpm.extensions.swap.cpu_copies import Copy, CpuCopies
from dlpm.extensions.swap.placement import Placement
from dlpm.extensions.swap.states import State
from dlpm.extensions.swap.worker import Away, SwapWorker
from dlpm.memory import Optimistic
from dlpm.policies.base import Policy
from dlpm.prefix_cache import Node
from dlpm.request import RequestId
from dlpm.swap_timing import FixedCopy
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_proofs.opaque import OpaqueCache, OpaqueWorker, Running, sum_of
from dlpm_proofs.symbolic import Exploration
from dlpm_proofs.terms import Formula, Poly, all_of, at_least, at_most, equal, poly

COPY_US = 5
"""What a copy takes here: longer than nothing, so that what happens before its end can be seen."""

NOT_THERE = Copy(Node(None, None, 0), 0, (), partial=False)
"""A copy of which only the fact is known."""


class NoPlaces(Placement):
    """Blocks have no numbers here."""

    def __init__(self) -> None:
        """Nothing to place."""
        super().__init__(1, 1, 1)

    def private_blocks(self, request: RequestId) -> list[int]:
        """None that anybody knows."""
        return []

    def grow(self, run: RunningRequest) -> None:
        """Nothing to do."""

    def hand_over(self, request: RequestId, node: Node) -> None:
        """Nothing to do."""

    def leave(self, request: RequestId) -> None:
        """Nothing to do."""

    def table(self, run: RunningRequest) -> list[int]:
        """None that anybody knows."""
        return []


class AnyCpuMemory(CpuCopies):
    """CPU memory that holds a copy, or does not."""

    def __init__(self, exploration: Exploration) -> None:
        """Nothing is known."""
        super().__init__(0, 1, 1)
        self._exploration = exploration

    def begin(self, queued: QueuedRequest) -> Copy | None:
        """Either way."""
        return NOT_THERE if self._exploration.flag(f"CPU memory holds a copy of {queued.id}") else None

    def blocks_from(self, copy: Copy, first: int) -> list[int]:
        """None that anybody knows."""
        return []

    def copied_back(self, copy: Copy) -> None:
        """Nothing to do."""


class SwapWorld:
    """Builds swapping workers in a symbolic state: some requests running, one perhaps in CPU memory."""

    def __init__(
        self,
        assumptions: Sequence[Formula],
        visibility: str,
        *,
        asynchronous: bool,
        worker_type: type[SwapWorker] = SwapWorker,
    ) -> None:
        """Explore under ``assumptions``."""
        self._asynchronous = asynchronous
        self._worker_type = worker_type
        self._opaque = OpaqueWorker(assumptions, Optimistic(), visibility, self._make)
        self.exploration = self._opaque.exploration

    def _make(self, config: WorkerConfig, policy: Policy) -> Worker:
        worker = self._worker_type(
            config, policy, FixedStep(1), SwapConfig(1, asynchronous=self._asynchronous), FixedCopy(COPY_US)
        )
        worker.placement = NoPlaces()
        worker.cpu = AnyCpuMemory(self.exploration)
        return worker

    def build(self, running: Sequence[Running], away: Running | None = None, new: int = 0) -> SwapWorker:
        """A worker whose batch is ``running``, the last ``new`` of them without a forward step yet."""
        worker = self._opaque.build(running)
        assert isinstance(worker, SwapWorker)
        for run in worker.running:
            worker.states.arrive(run.queued.id)
            worker.states.move(run.queued.id, State.RUNNING)
        for run in worker.running[len(running) - new :]:
            run.computed = False
        if away is not None:
            queued = self._opaque.queued(away)
            worker.states.arrive(away.name)
            for state in (State.RUNNING, State.SWAPPING_OUT, State.SWAPPED):
                worker.states.move(away.name, state)
            held = RunningRequest(queued, Node(None, None, 0), 0, 0, 0, 0, Node(None, None, 0), computed=True)
            worker.away[away.name] = Away(queued, held, NOT_THERE, 0, 0)
        return worker

    @staticmethod
    def cache(worker: SwapWorker) -> OpaqueCache:
        """Its prefix cache."""
        assert isinstance(worker.cache, OpaqueCache)
        return worker.cache


def on_gpu(worker: SwapWorker) -> list[RunningRequest]:
    """Who holds GPU memory: the batch, and whoever is being copied out or in."""
    moving = [away.run for name, away in worker.away.items() if worker.states.of(name) is not State.SWAPPED]
    return [*worker.running, *moving]


def swap_books(worker: SwapWorker) -> Formula:
    """What the worker set aside is what requests hold that run or are being copied, and all of that fits into ``M``."""
    holders = on_gpu(worker)
    held = sum_of(poly(run.private) for run in holders)
    return all_of(
        equal(poly(worker._set_aside), held),
        at_most(poly(worker.cache.locked) + held, Poly.unknown("M")),
        *(at_least(poly(run.private), 0) for run in holders),
        *(at_least(poly(run.node.end) + poly(run.private), run.queued.resident) for run in worker.running),
    )
