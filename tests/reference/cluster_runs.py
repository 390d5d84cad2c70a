"""Small clusters for tests: any router, any local policy, any speeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from hypothesis import strategies as st

from dlpm import events as ev
from dlpm.batch import WorkerConfig
from dlpm.cluster import Cluster
from dlpm.cost import CostModel
from dlpm.dispatch.base import Router
from dlpm.dispatch.cache_aware import CacheAware, Thresholds
from dlpm.dispatch.d2lpm import D2LPM
from dlpm.dispatch.least_loaded import LeastLoaded
from dlpm.dispatch.preble import Preble
from dlpm.dispatch.round_robin import RoundRobin
from dlpm.memory import Optimistic, Reserving
from dlpm.request import Request, Workload
from dlpm.speed import AtSpeed
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from tests.reference.lockstep import MEMORIES, Shape, all_rules, real_policy, shapes
from tests.reference.naive_worker import Rules
from tests.reference.test_simulate import at

ORDINARY = ("fcfs", "lpm", "vtc", "dlpm")

ROUTERS: dict[str, Callable[[int, Rules, int], Router]] = {
    "d2lpm": lambda workers, rules, quantum: D2LPM(workers, quantum, cost_of(rules)),
    "round-robin": lambda workers, rules, quantum: RoundRobin(workers),
    "per-client-round-robin": lambda workers, rules, quantum: RoundRobin(workers, per_client=True),
    "least-loaded": lambda workers, rules, quantum: LeastLoaded(workers),
    "preble": lambda workers, rules, quantum: Preble(workers, rules.block_size, cost_of(rules)),
    "cache-aware": lambda workers, rules, quantum: CacheAware(workers, Thresholds(absolute=1)),
}


def cost_of(rules: Rules) -> CostModel:
    """The weights of ``rules``."""
    return CostModel(rules.extend_weight, rules.output_weight)


@dataclass(frozen=True)
class Setting:
    """One cluster and its workload."""

    rules: Rules
    router: str
    quantum: int
    speeds: tuple[Fraction, ...]
    delay: int
    workload: Workload

    def run(self, *, router: Router | None = None, full_log: bool = False) -> list[ev.Event]:
        """All events of a run, every request of which has to finish."""
        log: list[ev.Event] = []
        rules = self.rules
        config = WorkerConfig(
            kv_tokens=rules.kv_tokens,
            memory=Reserving() if rules.memory == "reserving" else Optimistic(rules.watermark),
            block_size=rules.block_size,
            visibility=rules.visibility,
            max_running=rules.max_running,
        )
        workers = [
            Worker(config, real_policy(rules), AtSpeed(FixedStep(6), speed), log.append, index=index, full_log=full_log)
            for index, speed in enumerate(self.speeds)
        ]
        chosen = router or ROUTERS[self.router](len(workers), rules, self.quantum)
        finished = Cluster(workers, chosen, log.append, notice_delay=self.delay).run(self.workload)
        assert finished == len(self.workload.requests)
        return log


@st.composite
def dependent_workloads(draw: st.DrawFn, rules: Rules) -> Workload:
    """One to sixteen requests, without those that do not fit; some wait for earlier ones."""
    drawn: list[Shape] = draw(st.lists(shapes(), min_size=1, max_size=16))
    requests: list[Request] = []
    now = 0
    for position, shape in enumerate(drawn):
        now += draw(st.integers(0, 9))
        made = shape.request(f"r{position}", rules.block_size)
        if made.input_tokens + made.max_output > rules.kv_tokens:
            continue
        waits_for = draw(st.integers(0, 2 * position))
        parents = (requests[waits_for].id,) if waits_for < len(requests) else ()
        requests.append(at(made, now, parents, draw(st.integers(0, 3)) if parents else 0))
    return Workload(rules.block_size, tuple(requests))


@st.composite
def settings_of_clusters(draw: st.DrawFn, *, workers: int | None = None) -> Setting:
    """One to four workers, equal or not, behind any router."""
    # Room for one to three requests: with less most workloads would be left without any.
    rules = replace(draw(all_rules(ORDINARY, MEMORIES)), kv_tokens=draw(st.integers(9, 28)))
    count = workers or draw(st.integers(1, 4))
    speed = st.sampled_from([Fraction(1), Fraction(1), Fraction(2), Fraction(1, 2), Fraction(3, 4)])
    return Setting(
        rules=rules,
        router=draw(st.sampled_from(sorted(ROUTERS))),
        quantum=draw(st.integers(1, 40)),
        speeds=tuple(draw(st.lists(speed, min_size=count, max_size=count))),
        delay=draw(st.integers(0, 3)),
        workload=draw(dependent_workloads(rules)),
    )
