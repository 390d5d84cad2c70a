"""The rows behind [DLPM Fig. 7, 10, 11], one simulated run each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace

from dlpm.jsonl import JsonValue
from dlpm.request import Workload
from dlpm.workload.synthetic import LONGER_PREFIX, Spec, generate
from dlpm_engine.experiments.measure import COST, Measured, measure
from dlpm_engine.experiments.systems import D2LPM, PREBLE, QUANTUM, RR_LPM, RR_VTC, SYSTEMS, WORKER_QUANTUM, scenes
from dlpm_engine.run.options import DispatchChoice, EngineOptions, PolicyChoice

WORKERS = (1, 2, 4, 8)
WORKER_QUANTA = (2_000, 5_000, 10_000, 20_000, 40_000)
CLIENTS = (5, 10, 20, 50)
FIGURE_10_WORKERS = 4
SYSTEM_PROMPT_BLOCKS = 34
LONGEST = "well-0"


@dataclass(frozen=True, slots=True)
class Job:
    """One run: where its numbers go (figure, place on its x axis, system), and what is run."""

    figure: str
    group: str
    x: int
    system: str
    spec: Spec
    choice: PolicyChoice
    gpu: str
    workers: int
    first_tokens: bool = False
    system_prompts: bool = False

    def workload(self) -> Workload:
        """What is run. O(requests)."""
        workload = generate(self.spec)
        return with_system_prompts(workload) if self.system_prompts else workload

    def run(self) -> dict[str, JsonValue]:
        """The run's row."""
        engine = EngineOptions(gpu=self.gpu, cost=COST)
        measured: Measured = measure(self.workload(), engine, self.choice, self.workers, first_tokens=self.first_tokens)
        return {"figure": self.figure, "group": self.group, "x": self.x, "system": self.system, **asdict(measured)}


def figure_7() -> Iterator[Job]:
    """Four systems on every scene, with rates and programs that grow with the workers [DLPM Fig. 7].

    As in the paper, Preble is left out for one worker: there is nothing to dispatch.
    """
    for scene in scenes():
        for workers in WORKERS:
            for system in SYSTEMS:
                if (system, workers) != (PREBLE, 1):
                    yield Job(
                        "7",
                        scene.title,
                        workers,
                        system,
                        scene.spec(workers),
                        scene.choice(system),
                        scene.gpu,
                        workers,
                        scene.first_tokens,
                    )


def figure_10() -> Iterator[Job]:
    """Throughput and fairness over the worker quantum: trees with one longer prefix on four A10G [DLPM §7.1, §7.2]."""
    spec = Spec(name="tree-of-thoughts", scenario=LONGER_PREFIX, clients=3, programs=10, rate=4.0, width=3, seed=1)
    for quantum in WORKER_QUANTA:
        choice = PolicyChoice("dlpm", QUANTUM, DispatchChoice("d2lpm", quantum))
        yield Job("10", "worker quantum", quantum, D2LPM, spec, choice, "a10g", FIGURE_10_WORKERS)
    for system in (RR_LPM, RR_VTC, PREBLE):
        yield Job("10", "worker quantum", 0, system, spec, SYSTEMS[system], "a10g", FIGURE_10_WORKERS)


def figure_10_with_system_prompts() -> Iterator[Job]:
    """The same with a prefix that all programs of a client share, as few-shot examples are: ten times as long for one.

    So [DLPM §7.1] reads: the requests of that client are "continuously dispatched to a single GPU".
    """
    spec = Spec(name="tree-of-thoughts", clients=3, programs=8, rate=4.0, width=3, seed=1)
    for quantum in WORKER_QUANTA:
        choice = PolicyChoice("dlpm", QUANTUM, DispatchChoice("d2lpm", quantum))
        yield Job("10 shared", "worker quantum", quantum, D2LPM, spec, choice, "a10g", 4, system_prompts=True)
    for system in (RR_LPM, RR_VTC, PREBLE):
        yield Job("10 shared", "worker quantum", 0, system, spec, SYSTEMS[system], "a10g", 4, system_prompts=True)


def with_system_prompts(workload: Workload) -> Workload:
    """Every request behind a prefix of its client's own: `SYSTEM_PROMPT_BLOCKS` blocks, ten times that for `LONGEST`.

    O(blocks).
    """
    first = 1 + max(block for request in workload.requests for block in request.blocks + request.reply_blocks)
    clients = sorted({request.client for request in workload.requests})
    prompts = {}
    for client in clients:
        length = SYSTEM_PROMPT_BLOCKS * (10 if client == LONGEST else 1)
        prompts[client] = tuple(range(first, first + length))
        first += length
    requests = tuple(
        replace(
            request,
            blocks=prompts[request.client] + request.blocks,
            input_tokens=request.input_tokens + len(prompts[request.client]) * workload.block_size,
        )
        for request in workload.requests
    )
    return replace(workload, requests=requests)


def figure_11() -> Iterator[Job]:
    """5 to 50 clients on one A10G at a constant total rate [DLPM §7.3]."""
    for clients in CLIENTS:
        spec = Spec(name="tree-of-thoughts", clients=clients, programs=100 // clients, rate=10.0 / clients, seed=1)
        router = DispatchChoice("round-robin")
        for system, choice in (
            ("DLPM", PolicyChoice("dlpm", QUANTUM, router)),
            ("LPM", PolicyChoice("lpm", None, router)),
            ("VTC", PolicyChoice("vtc", None, router)),
        ):
            yield Job("11", "clients", clients, system, spec, choice, "a10g", 1)


def documents_over_quantum() -> Iterator[Job]:
    """Questions on documents over the worker quantum: what a quantum below one document does."""
    scene = scenes()[0]
    for quantum in (WORKER_QUANTUM, 100_000, 200_000, 400_000):
        choice = replace(scene, worker_quantum=quantum).choice(D2LPM)
        yield Job("documents", scene.title, quantum, D2LPM, scene.spec(4), choice, scene.gpu, 4, True)


def run_all(jobs: Iterable[Job], processes: int) -> Iterator[dict[str, JsonValue]]:
    """The rows of all jobs, in their order."""
    if processes == 1:
        yield from map(Job.run, jobs)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(Job.run, jobs)
