"""Who should pick the quantum (E10): `python -m dlpm_engine.experiments.quantum ROWS.jsonl [PROCESSES [TRACE]]`.

Fixed quanta, the additive rule and implicit FTRL on the paper's four workloads with a misbehaving client, and on the
first half of the Mooncake conversation trace, if its file is given.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

from dlpm import bounds, bounds_extensions
from dlpm.events import Event, Refill
from dlpm.extensions.changing_quantum import QuantumRange
from dlpm.extensions.measured_quantum import MeasuredLedger
from dlpm.extensions.quantum_controller import AdditiveQuantum, Aim, FixedQuantum, ImplicitFtrl, QuantumController
from dlpm.files import written_whole
from dlpm.jsonl import JsonValue, dump
from dlpm.metrics import RunMetrics
from dlpm.policies.dlpm import DLPM
from dlpm.simulate import simulate
from dlpm.summary import MICROSECONDS
from dlpm.worker import Worker
from dlpm.workload import LoadOptions, load_described
from dlpm_engine.experiments.measure import COST
from dlpm_engine.files import open_binary
from dlpm_engine.run.compare import Setup
from dlpm_engine.run.options import EngineOptions
from dlpm_engine.run.result import amount

QUANTA = (1_000, 2_000, 8_000, 32_000)
TARGET = Fraction(95, 100)
RANGE = QuantumRange(QUANTA[0], QUANTA[-1])
STEPS = 32
"""Rate and step are the largest quantum over this, the penalty is the largest quantum times this: on every workload."""
POINTS = 100
"""How many changes of a run's quantum are kept for the picture, at most."""

FIXED, ADDITIVE, FTRL = "fixed", "additive", "implicit FTRL"


@dataclass(frozen=True, slots=True)
class Scene:
    """A workload, and what fairness means on it.

    Attributes:
        title: how tables call it.
        source: what `dlpm run` would be given.
        gpu: the simulated one.
        window: service over which fairness is measured, in weighted tokens: some seconds.
        range: the quanta to choose from.
        fixed: the quanta to compare with.
        kv_tokens: as in `dlpm run`; ``None`` for what fits.
        clients: as in `dlpm run`.
        limit: only so many requests.
    """

    title: str
    source: str
    gpu: str
    window: int
    range: QuantumRange = RANGE
    fixed: tuple[int, ...] = QUANTA
    kv_tokens: int | None = None
    clients: str | None = None
    limit: int | None = None

    def setup(self) -> Setup:
        """The engine facing the workload."""
        options = LoadOptions(clients=self.clients, limit=self.limit, opener=open_binary)
        workload = load_described(self.source, options=options).workload
        return Setup.of(workload, EngineOptions(gpu=self.gpu, kv_tokens=self.kv_tokens, cost=COST))


SYNTHETIC = (
    Scene("LLM as a judge, S1", "synthetic:llm-as-a-judge:s1:programs=180:rate=20", "a100-80g", 50_000),
    Scene("tree of thoughts, S2", "synthetic:tree-of-thoughts:s2:programs=60:rate=4", "a100-80g", 50_000),
    Scene("multi-turn chat, S1", "synthetic:multi-turn-chat:s1:programs=180:rate=8:width=8:think=1", "a10g", 50_000),
    Scene("long-document QA, S1", "synthetic:long-document-qa:s1:programs=60", "a100-80g", 200_000),
)


def mooncake(trace: str) -> Scene:
    """The first half of the conversation trace, as in docs/results.md.

    A request costs about 9,000: quanta that could matter are 32 times the paper's, and so is everything else.
    """
    return Scene(
        title="Mooncake conversations",
        source=trace,
        gpu="h100",
        window=1_000_000,
        range=QuantumRange(QUANTA[0], 1_024_000),
        fixed=(*QUANTA, 128_000, 1_024_000),
        kv_tokens=3_000_000,
        clients="root:8:zipf1.1",
        limit=6_000,
    )


@dataclass(frozen=True, slots=True)
class Job:
    """One run: a scene, and who picks; ``quantum`` for `FIXED`."""

    scene: Scene
    picker: str
    quantum: int | None = None

    def range(self) -> QuantumRange:
        """What the header of the run's log would state: a fixed quantum is a range of one."""
        return self.scene.range if self.quantum is None else QuantumRange(self.quantum, self.quantum)

    def controller(self) -> QuantumController:
        """A fresh controller."""
        if self.quantum is not None:
            return FixedQuantum(self.quantum)
        most = self.scene.range.most
        if self.picker == ADDITIVE:
            return AdditiveQuantum(self.scene.range, TARGET, most // STEPS)
        return ImplicitFtrl(self.scene.range, Aim(TARGET, most // STEPS, most * STEPS))

    def run(self) -> dict[str, JsonValue]:
        """The run's row."""
        return asdict(measure(self.scene.setup(), self))


@dataclass(frozen=True, slots=True)
class Row:
    """What one run gave.

    Attributes:
        workload: the scene's title.
        picker: who picked the quantum.
        quantum: the fixed one.
        tokens_per_s: input and output tokens a second.
        hit_rate: share of prompt tokens that were cached.
        jain: of the whole run, of perceived service.
        jain_actual: of the whole run, of service on extend tokens.
        windows: how many were measured: with at least two backlogged clients.
        mean_index: mean Jain index of these.
        least_index: the worst of them.
        below: how many of them were below `TARGET`.
        gap: the largest service gap of two backlogged clients [DLPM Thm 4.1], in weighted tokens.
        bound: what E10 proves for the range.
        refills: how many fired.
        mean_quantum: over time, from the first refill to the end.
        last_quantum: of the last refill.
        quanta: seconds and quantum wherever it changed; of more than `POINTS` changes, every second, third and so on.
        requests: how many finished.
    """

    workload: str
    picker: str
    quantum: int | None
    tokens_per_s: float
    hit_rate: float
    jain: float | None
    jain_actual: float | None
    windows: int
    mean_index: float | None
    least_index: float | None
    below: int
    gap: int
    bound: int
    refills: int
    mean_quantum: int
    last_quantum: int
    quanta: list[list[float]]
    requests: int


def measure(setup: Setup, job: Job) -> Row:
    """Run DLPM under the controller of ``job``."""
    metrics = RunMetrics(setup.cost)
    ledger = MeasuredLedger(job.range(), setup.cost, job.controller(), job.scene.window)
    paid: list[tuple[int, int]] = []

    def sink(event: Event) -> None:
        metrics.on_event(event)
        if isinstance(event, Refill):
            paid.append((event.time_us or 0, ledger.quanta.default))

    simulate(setup.workload, Worker(setup.config, DLPM(ledger), setup.timer, sink))
    summary = metrics.summary(curve_points=2)
    measured = ledger.meter.measured
    gaps = summary.gaps_at_refills
    changes = [paid[place] for place in range(len(paid)) if place == 0 or paid[place - 1][1] != paid[place][1]]
    return Row(
        workload=job.scene.title,
        picker=job.picker,
        quantum=job.quantum,
        tokens_per_s=float(summary.tokens_per_s or 0),
        hit_rate=float(summary.hit_rate or 0),
        jain=None if summary.jain is None else float(summary.jain),
        jain_actual=None if summary.jain_actual is None else float(summary.jain_actual),
        windows=len(measured),
        mean_index=float(sum(measured) / len(measured)) if measured else None,
        least_index=float(min(measured)) if measured else None,
        below=sum(1 for index in measured if index < TARGET),
        gap=amount(gaps.between_backlogged) if gaps is not None else 0,
        bound=gap_bound(setup, job.range()),
        refills=len(paid),
        mean_quantum=mean_over_time(paid, summary.end_us or 0),
        last_quantum=paid[-1][1] if paid else 0,
        quanta=[[round(time_us / MICROSECONDS, 2), quantum] for time_us, quantum in changes[:: _stride(len(changes))]],
        requests=summary.finished,
    )


def mean_over_time(paid: Sequence[tuple[int, int]], end_us: int) -> int:
    """The mean quantum, each in force from its time (microseconds) to that of the next; 0 for none. O(refills)."""
    if not paid:
        return 0
    ends = [*(time_us for time_us, _ in paid[1:]), end_us]
    total = sum(quantum * (end - start) for (start, quantum), end in zip(paid, ends, strict=True))
    lasted = end_us - paid[0][0]
    return round(total / lasted) if lasted else paid[-1][1]


def _stride(changes: int) -> int:
    """Every how many changes are kept, so that there are at most `POINTS`."""
    return max(1, -(-changes // POINTS))


def gap_bound(setup: Setup, quantum_range: QuantumRange) -> int:
    """What `E10/backlogged` proves of the gap of two backlogged clients, whoever picks. O(requests)."""
    longest = max(request.input_tokens for request in setup.workload.requests)
    tight = bounds.tight_unit(setup.cost, longest, setup.config.kv_tokens)
    return bounds_extensions.changing_gap(quantum_range.most, bounds.deficit_floor(tight))


def jobs(scenes: Iterable[Scene]) -> Iterator[Job]:
    """Every scene with its fixed quanta and both controllers."""
    for scene in scenes:
        for quantum in scene.fixed:
            yield Job(scene, FIXED, quantum)
        yield Job(scene, ADDITIVE)
        yield Job(scene, FTRL)


def main(arguments: list[str]) -> None:
    """Run them and write their rows."""
    processes = int(arguments[1]) if len(arguments) > 1 else 1
    scenes = list(SYNTHETIC)
    trace = arguments[2] if len(arguments) > 2 else None
    if trace is not None and Path(trace).exists():
        scenes.append(mooncake(trace))
    else:
        print(f"skipped {mooncake('').title}: found no trace (CONTRIBUTING.md, 'Traces')", file=sys.stderr)
    wanted = list(jobs(scenes))
    with written_whole(Path(arguments[0])) as stream, ProcessPoolExecutor(processes) as pool:
        for done, row in enumerate(pool.map(Job.run, wanted), start=1):
            stream.write(f"{dump(row)}\n")
            shown = {name: value for name, value in row.items() if name != "quanta"}
            print(f"{done} of {len(wanted)}: {dump(shown)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
