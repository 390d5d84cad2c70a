"""`dlpm bench`: how long a scheduling step takes, and how fast engines are compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console

from dlpm.errors import InputError
from dlpm.jsonl import JsonValue
from dlpm_engine.bench.batched import ALONE, LEAST_CASES, REQUESTS, measure_batched
from dlpm_engine.bench.decision import DecisionTime, Subject, measure
from dlpm_engine.bench.machine import describe_machine
from dlpm_engine.bench.peer import measure_sglang
from dlpm_engine.bench.plot import draw_cost_curve
from dlpm_engine.bench.rounds import Row, in_rows
from dlpm_engine.bench.steppers import KERNEL as KERNEL_ENGINE
from dlpm_engine.bench.steppers import NAMES, ON_CPU, ON_DEVICE, REFERENCE
from dlpm_engine.cli.common import check_writable, output_console, progress_bar, say, write_json
from dlpm_engine.differential.campaign import Plan, run_campaign
from dlpm_engine.differential.hunt import Settings
from dlpm_engine.differential.pool import one_thread
from dlpm_engine.report.sheet import Sheet, show
from dlpm_engine.tensor.batched.means import KERNEL, OPERATIONS

DECISION = "decision"
CAMPAIGN = "campaign"
BATCHED = "batched"
SUITES = (DECISION, CAMPAIGN, BATCHED)
SIZES = (128, 1024, 8192)
CPU = "cpu"

_STEPS = 300

_EPILOG = """\b
Examples:
  dlpm bench
  dlpm bench --suite decision --engine tensor --sizes 128,1024,8192,65536,524288 --svg cost.svg
  dlpm bench --suite decision --block-size 1,16 --rounds 5 --sglang ~/sglang/bin/python --json times.json
  dlpm bench --suite decision --suite batched --engine tensor-batched --engine tensor-kernel --device cuda
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bench", epilog=_EPILOG)(bench)


def bench(
    suite: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help=f"{', '.join(SUITES)}; may be repeated. Without it: all.")
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help=f"For {DECISION}: {', '.join(NAMES)}; may be repeated. Without it: all that run."
        ),
    ] = None,
    sizes: Annotated[str, typer.Option(metavar="N,N,...", help=f"For {DECISION}: how many requests wait.")] = ",".join(
        map(str, SIZES)
    ),
    block_size: Annotated[str, typer.Option(metavar="N,N,...", help=f"For {DECISION}: tokens a cached block.")] = "16",
    threads: Annotated[str, typer.Option(metavar="N,N,...", help="Threads that torch may use.")] = "1",
    rounds: Annotated[
        int, typer.Option(metavar="N", help=f"For {DECISION}: measure all so often, and give the medians.")
    ] = 1,
    seconds: Annotated[
        float, typer.Option(metavar="S", help="Longest time to measure one figure, once it is warm.")
    ] = 10.0,
    sglang: Annotated[
        str | None,
        typer.Option(metavar="PYTHON", help="Time SGLang's own order, too, with this interpreter that has it."),
    ] = None,
    instances: Annotated[
        str, typer.Option(metavar="B,B,...", help=f"For {BATCHED}: how many instances at once.")
    ] = "1,64,4096",
    device: Annotated[
        str,
        typer.Option(metavar="NAME", help=f"For {BATCHED}, and {' and '.join(ON_DEVICE)} in {DECISION}: cpu or cuda."),
    ] = CPU,
    jobs: Annotated[int, typer.Option(metavar="N", help=f"For {CAMPAIGN}: processes.")] = 2,
    svg: Annotated[str | None, typer.Option(metavar="FILE", help=f"Draw the times of {DECISION}.")] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write dlpm.bench/1; - is standard output.")
    ] = None,
) -> None:
    """Time a step of the schedulers while many requests wait, and the comparison of the two.

    Times of steps are processor time of all threads together, so that other work on the machine lengthens them little;
    the clock on the wall is beside it. A step of SGLang is only the ordering of the queue.
    """
    for option, file in (("--json", json_file), ("--svg", svg)):
        check_writable(option, file)
    suites = _chosen(suite, SUITES, "--suite")
    engines = _engines(engine, device)
    batches = _numbers(instances, "--instances")
    thread_counts = _numbers(threads, "--threads")
    subjects = _subjects(
        engines,
        _numbers(sizes, "--sizes"),
        _numbers(block_size, "--block-size"),
        thread_counts,
        device,
    )
    if rounds < 1:
        raise InputError(f"expected an integer > 0, found {rounds}", field="--rounds")
    _refuse_absent(device)
    console = output_console(json_file)
    one_thread()
    machine = describe_machine()
    say(console, ", ".join(f"{name} {value}" for name, value in machine.items() if value is not None))
    result: dict[str, JsonValue] = {"schema": "dlpm.bench/1", "machine": machine}
    if DECISION in suites:
        rows = _decision(console, subjects, rounds, seconds, sglang)
        result[DECISION] = [row.to_json() for row in rows]
        if svg is not None:
            draw_cost_curve([row.time for row in rows], Path(svg))
    if CAMPAIGN in suites:
        result[CAMPAIGN] = _campaign(console, jobs, seconds)
    if BATCHED in suites:
        result[BATCHED] = _batched(console, batches, thread_counts, device)
    if json_file is not None:
        write_json(json_file, result)


def _chosen(names: Sequence[str] | None, known: Sequence[str], option: str) -> Sequence[str]:
    """The names asked for, or all."""
    for name in names or ():
        if name not in known:
            raise InputError(f"expected one of {', '.join(known)}, found {name!r}", field=option)
    return names or known


def _engines(names: Sequence[str] | None, device: str) -> Sequence[str]:
    """The schedulers asked for, or all that can be timed."""
    chosen = _chosen(names, NAMES, "--engine")
    if device != CPU:
        return chosen
    if names and KERNEL_ENGINE in names:
        raise InputError(
            f"expected --device cuda beside {KERNEL_ENGINE}: on the CPU it is interpreted", field="--engine"
        )
    return [name for name in chosen if name in ON_CPU]


def _refuse_absent(device: str) -> None:
    """Refuse a device that is not there, before anything is measured."""
    try:
        from dlpm_engine.tensor.batched.engine import torch_device
    except ModuleNotFoundError as error:
        raise InputError("dlpm bench needs torch: pip install 'dlpm[torch]'") from error
    torch_device(device)


def _numbers(text: str, option: str) -> list[int]:
    """Numbers above 0, as the command line lists them."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"expected whole numbers with commas between them, found {text!r}", field=option) from error
    if min(numbers) < 1:
        raise InputError(f"expected numbers > 0, found {text!r}", field=option)
    return numbers


def _decision(
    console: Console,
    subjects: Sequence[Subject],
    rounds: int,
    seconds: float,
    sglang: str | None,
) -> list[Row]:
    """Time steps, and print a table."""
    measured: list[list[DecisionTime]] = []
    with progress_bar(rounds * (len(subjects) + (sglang is not None)), "figures") as advance:
        done = 0
        for _ in range(rounds):
            times: list[DecisionTime] = []
            for subject in subjects:
                advance(f"{subject.engine}, {subject.waiting:,} waiting", done)
                times.append(measure(subject, steps=_STEPS, seconds=seconds))
                done += 1
            if sglang is not None:
                advance("SGLang", done)
                times += measure_sglang(sglang, sorted({subject.waiting for subject in subjects}))
                done += 1
            measured.append(times)
    table = in_rows(measured)
    header = (
        "engine",
        "threads",
        "waiting",
        "block",
        "median ms",
        "p99 ms",
        "wall ms",
        "steps",
        "admitted\na step",
        "submit\nus",
        "step and\nsubmits ms",
        "SGLang\nover it",
    )
    show(console, [Sheet(f"one step, processor time{_of_rounds(rounds)}", header, tuple(map(_cells, table)))])
    return table


def _of_rounds(rounds: int) -> str:
    """What the figures of several rounds are."""
    return f", medians of {rounds} rounds" if rounds > 1 else ""


def _cells(row: Row) -> tuple[str, ...]:
    """A row of the table of step times."""
    time, subject = row.time, row.time.subject
    is_step = time.admissions > 0
    share = ""
    if row.shares:
        share = f"{median(row.shares):.1f}"
        if len(row.shares) > 1:
            share += f" ({min(row.shares):.1f}-{max(row.shares):.1f})"
    return (
        subject.engine if subject.device == CPU else f"{subject.engine} on {subject.device}",
        str(subject.threads),
        f"{subject.waiting:,}",
        str(subject.block_size),
        f"{time.median_us / 1000:.3f}",
        f"{time.p99_us / 1000:.3f}",
        f"{time.wall_us / 1000:.3f}",
        str(time.steps),
        f"{time.admissions:.1f}" if is_step else "",
        f"{time.submit_us:.0f}" if is_step else "",
        f"{time.with_submits_us() / 1000:.3f}" if is_step else "",
        share,
    )


def _subjects(
    engines: Sequence[str], lengths: Sequence[int], blocks: Sequence[int], threads: Sequence[int], device: str
) -> list[Subject]:
    """What is measured in one round: the reference, which knows no threads, once for each queue."""
    return [
        Subject(engine, waiting, block, count, device if engine in ON_DEVICE else CPU)
        for waiting in lengths
        for block in blocks
        for engine in engines
        for count in (threads if engine != REFERENCE else threads[:1])
    ]


def _campaign(console: Console, jobs: int, seconds: float) -> dict[str, JsonValue]:
    """Compare the tensor path with the reference for a while, and print how fast that was."""
    summary = run_campaign(Plan(Settings("tensor"), cases=None, seconds=seconds, jobs=jobs))
    tally = summary.total.tally
    wall = summary.wall_seconds
    say(
        console,
        f"campaign, {jobs} processes: {tally.decisions():,} decisions in {tally.steps:,} steps, "
        f"{wall:.1f} s: {tally.decisions() / wall:,.0f} decisions/s, {tally.steps / wall:,.0f} steps/s, "
        f"{tally.decisions() / summary.total.cpu_seconds:,.0f} decisions/s of one core, "
        f"{'no divergence' if summary.total.found is None else 'a divergence'}",
    )
    return {
        "jobs": jobs,
        "decisions": tally.decisions(),
        "passed_over": tally.passed_over,
        "steps": tally.steps,
        "cases": tally.cases,
        "wall_seconds": round(summary.wall_seconds, 3),
        "cpu_seconds": round(summary.total.cpu_seconds, 3),
        "divergences": int(summary.total.found is not None),
    }


def _batched(console: Console, batches: Sequence[int], threads: Sequence[int], device: str) -> list[JsonValue]:
    """Time the batched scheduler, and the incremental one on the same cases, and print a table."""
    means = [OPERATIONS] if device == CPU else [OPERATIONS, KERNEL]
    figures = [
        measure_batched(instances, device, each, count) for each in means for instances in batches for count in threads
    ]
    figures.append(measure_batched(LEAST_CASES, device, ALONE))
    header = (
        "device",
        "means",
        "threads",
        "instances",
        "steps",
        "steps of\ninstances",
        "wall\nseconds",
        "a\nsecond",
        "processor\nseconds",
        "a\nsecond",
        "state\nbytes",
        "band-\nwidth",
    )
    rows = tuple(
        (
            figure.device,
            figure.means,
            str(figure.threads),
            f"{figure.instances:,}",
            f"{figure.steps:,}",
            f"{figure.instance_steps:,}",
            f"{figure.seconds:.2f}",
            f"{figure.instance_steps / figure.seconds:,.0f}",
            f"{figure.processor_seconds:.2f}",
            f"{figure.instance_steps / figure.processor_seconds:,.0f}",
            f"{figure.state_bytes:,}",
            "" if figure.bandwidth_share is None else f"{figure.bandwidth_share:.1%}",
        )
        for figure in figures
    )
    show(console, [Sheet(f"many instances of {REQUESTS} requests", header, rows)])
    return [figure.to_json() for figure in figures]
