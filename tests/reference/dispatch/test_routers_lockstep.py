"""Every router decides what its naive twin decides, after any history of dispatches, finishes and evictions."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dlpm.cost import CostModel
from dlpm.dispatch.base import Router
from dlpm.dispatch.cache_aware import CacheAware, Thresholds
from dlpm.dispatch.d2lpm import D2LPM
from dlpm.dispatch.directory import PrefixDirectory
from dlpm.dispatch.least_loaded import LeastLoaded
from dlpm.dispatch.preble import Preble
from dlpm.dispatch.round_robin import RoundRobin
from dlpm.request import Request, cacheable_blocks
from tests.reference.dispatch.naive_routers import (
    NaiveCacheAware,
    NaiveD2LPM,
    NaiveLeastLoaded,
    NaivePreble,
    NaiveRoundRobin,
    NaiveRouter,
)

BLOCK_SIZE = 2
COST = CostModel(3, 5)


def pair(name: str, workers: int, quantum: int) -> tuple[Router, NaiveRouter]:
    """The real router and its twin."""
    if name == "d2lpm":
        return D2LPM(workers, quantum, COST), NaiveD2LPM(workers, quantum=quantum, extend_weight=3, output_weight=5)
    if name == "round-robin":
        return RoundRobin(workers), NaiveRoundRobin(workers)
    if name == "per-client-round-robin":
        return RoundRobin(workers, per_client=True), NaiveRoundRobin(workers, per_client=True)
    if name == "least-loaded":
        return LeastLoaded(workers), NaiveLeastLoaded(workers)
    if name == "cache-aware":
        return CacheAware(workers, Thresholds(absolute=2)), NaiveCacheAware(workers, absolute=2)
    overload = None if name == "preble" else 2
    rebalance = None if overload is None else Fraction(overload)
    real = Preble(workers, BLOCK_SIZE, COST, rebalance=rebalance)
    return real, NaivePreble(workers, block_size=BLOCK_SIZE, extend_weight=3, output_weight=5, overload=overload)


class Routers(RuleBasedStateMachine):
    """Drives both routers with the same history."""

    name = ""

    @initialize(workers=st.integers(1, 4), quantum=st.integers(1, 60))
    def start(self, workers: int, quantum: int) -> None:
        """Two routers without history."""
        self.real, self.naive = pair(self.name, workers, quantum)
        self.quantum = quantum
        self.count = 0

    @rule(
        client=st.sampled_from("AB"),
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=9),
        output=st.integers(1, 6),
    )
    def dispatch(self, client: str, prompt: list[int], output: int) -> None:
        """Both send the request to the same worker."""
        self.count += 1
        request = Request(f"r{self.count}", client, 0, len(prompt), output, output, prompt=tuple(prompt))
        blocks = cacheable_blocks(request, BLOCK_SIZE)
        holders, length = self.naive.longest(blocks)
        decision = self.real.dispatch(request, blocks)
        assert decision.worker == self.naive.dispatch(request, blocks)
        if isinstance(self.real, D2LPM | CacheAware | Preble):
            assert (list(decision.matched_workers), decision.matched) == (holders, length)
        if isinstance(self.naive, NaiveD2LPM):
            assert decision.counter == self.naive.credit(client, decision.worker)

    @precondition(lambda self: self.naive.in_flight)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """Some request in flight finishes."""
        request, worker = self.naive.finish(data.draw(st.integers(0, len(self.naive.in_flight) - 1)))
        self.real.finished(request, worker)

    @precondition(lambda self: self.naive.workers > 0)
    @rule(data=st.data(), prefix=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=4))
    def evict(self, data: st.DataObject, prefix: list[tuple[int, int]]) -> None:
        """A notice of an eviction, perhaps of a prefix that the worker does not hold."""
        worker = data.draw(st.integers(0, self.naive.workers - 1))
        self.naive.evict(tuple(prefix), worker)
        self.real.evicted(tuple(prefix), worker)

    @invariant()
    def the_directory_holds_what_the_workers_hold(self) -> None:
        """Blocks per worker agree, and blocks that nobody holds are forgotten."""
        directory = getattr(self, "real", None) and getattr(
            self.real, "directory", getattr(self.real, "_directory", None)
        )
        if isinstance(directory, PrefixDirectory):
            for worker, prefixes in enumerate(self.naive.held):
                assert directory.held(worker) == len(prefixes)
            assert directory.blocks() == len(set().union(*self.naive.held))


@pytest.mark.parametrize(
    "name",
    ["d2lpm", "round-robin", "per-client-round-robin", "least-loaded", "cache-aware", "preble", "preble-rebalancing"],
)
def test_a_router_and_its_naive_twin_decide_alike(name: str) -> None:
    machine = type("Routers", (Routers,), {"name": name})
    run_state_machine_as_test(machine, settings=settings(stateful_step_count=40))
