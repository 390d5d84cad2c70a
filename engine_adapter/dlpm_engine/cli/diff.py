"""`dlpm diff`: hold an engine to the reference, decision by decision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dlpm.batch import AFTER_FORWARD, AT_ADMISSION
from dlpm.errors import InputError
from dlpm.workload import LoadOptions, load
from dlpm.workload.load import AUTO
from dlpm_engine.adapter import OPTIMISTIC, RESERVING, EngineConfig
from dlpm_engine.cli.common import check_writable, output_console, progress_bar, say, write_json
from dlpm_engine.differential.campaign import ENOUGH_CASES, Plan, Summary, run_campaign
from dlpm_engine.differential.case import STEP_US, Case, carries_case, read_case
from dlpm_engine.differential.chunk import BATCHED_CASES, CASES, CORPUS, run_chunk
from dlpm_engine.differential.controls import Control, run_controls
from dlpm_engine.differential.declared import BUNDLED, excused, read_declared
from dlpm_engine.differential.engines import BATCHED, CPU, DEVICE_MARK, KERNEL, REFERENCE, TENSOR, make_engine
from dlpm_engine.differential.hunt import CASE_SECONDS, Settings
from dlpm_engine.differential.kinds import KINDS
from dlpm_engine.differential.modes import LOCKSTEP, MODES, make_mode
from dlpm_engine.differential.pool import WorkerDiedError
from dlpm_engine.differential.shrink import SHRUNK
from dlpm_engine.differential.summary import lines
from dlpm_engine.files import open_binary
from dlpm_engine.run.options import parse_weights

_EPILOG = """\b
Examples:
  dlpm diff --engine tensor --cases 20000 --jobs 2
  dlpm diff --engine my_package.my_adapter:MyEngine --seconds 600 --journal campaign.jsonl
  dlpm diff --engine tensor --workload divergence.jsonl
  dlpm diff --engine tensor --workload trace.jsonl.gz --limit 2000 --kv-tokens 500000 --quantum 20000
  dlpm diff --controls
"""

QUANTUM = 2000
WEIGHTS = "1,2"
KV_TOKENS = 100_000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("diff", epilog=_EPILOG)(diff)


def diff(
    engine: Annotated[
        str,
        typer.Option(
            metavar="NAME", help=f"{TENSOR}, {BATCHED}, {KERNEL}, {REFERENCE}, or module:class of your own adapter."
        ),
    ] = TENSOR,
    device: Annotated[str, typer.Option(metavar="NAME", help="For the tensor engines: cpu or cuda.")] = CPU,
    mode: Annotated[str, typer.Option(metavar="NAME", help=f"What must agree: {', '.join(MODES)}.")] = LOCKSTEP,
    workload: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Compare on this workload alone: a saved case, a workload file or a trace."),
    ] = None,
    cases: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help=f"Generated cases, in chunks of {CASES} ({BATCHED_CASES} batched). Without --seconds: {ENOUGH_CASES}.",
        ),
    ] = None,
    seconds: Annotated[float | None, typer.Option(metavar="S", help="Begin new chunks for so long.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the generated cases.")] = 0,
    jobs: Annotated[int, typer.Option(metavar="N", help="Processes.")] = 1,
    ray: Annotated[
        bool, typer.Option("--ray", help="Spread the campaign over the Ray cluster of RAY_ADDRESS, or a local one.")
    ] = False,
    journal: Annotated[
        str | None, typer.Option(metavar="FILE", help="Keep finished chunks here; go on from there if it exists.")
    ] = None,
    save: Annotated[str, typer.Option(metavar="DIR", help="Where a case that diverges is written.")] = ".",
    declared: Annotated[
        str | None, typer.Option(metavar="FILE", help="Reviewed list of declared differences. Without it: none.")
    ] = None,
    least_kinds: Annotated[
        int | None,
        typer.Option(metavar="N", help=f"Kinds of decision to reach. Without it: all, from {ENOUGH_CASES} cases."),
    ] = None,
    case_seconds: Annotated[
        float, typer.Option(metavar="S", help="Longest time for one case: then the engine is taken to hang.")
    ] = CASE_SECONDS,
    controls: Annotated[
        bool, typer.Option("--controls", help="Test the tester: clean pairs, every planted fault, and broken testers.")
    ] = False,
    format_name: Annotated[
        str | None, typer.Option("--format", metavar="NAME", help="How to read the workload. Without it: by content.")
    ] = None,
    clients: Annotated[
        str | None, typer.Option(metavar="RULE", help="Who sends a request of a trace, as for dlpm run.")
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Take the first N requests of the workload.")] = None,
    quantum: Annotated[
        int | None, typer.Option(metavar="N", help=f"For a workload without parameters. Without it: {QUANTUM}.")
    ] = None,
    weight_pair: Annotated[
        str | None, typer.Option("--weights", metavar="E,O", help=f"Likewise. Without it: {WEIGHTS}.")
    ] = None,
    kv_tokens: Annotated[
        int | None, typer.Option(metavar="N", help=f"Likewise: KV memory. Without it: {KV_TOKENS}.")
    ] = None,
    max_running: Annotated[
        int | None, typer.Option(metavar="N", help="Likewise: largest running batch. Without it: any.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="KIND", help=f"Likewise: {RESERVING} (without it) or {OPTIMISTIC}.")
    ] = None,
    watermark: Annotated[
        int | None, typer.Option(metavar="N", help="Likewise: tokens kept free. Without it: 0.")
    ] = None,
    visibility: Annotated[
        str | None, typer.Option(metavar="WHEN", help=f"Likewise: {AT_ADMISSION} (without it) or {AFTER_FORWARD}.")
    ] = None,
    step_ms: Annotated[
        float | None, typer.Option(metavar="MS", help="Likewise: duration of a step. Without it: 1.")
    ] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write dlpm.diff/1; - is standard output.")
    ] = None,
) -> None:
    """Compare an engine with the reference in lockstep, on hand-made and generated cases or on one workload.

    Ends with 1 if the engine differs, or if the campaign did not reach the kinds of decision that it must have reached.
    A case that diverges is made as small as possible, explained, and saved as a workload file.
    """
    workload_options = _WorkloadOptions(
        format=format_name,
        clients=clients,
        limit=limit,
        quantum=quantum,
        weights=weight_pair,
        kv_tokens=kv_tokens,
        max_running=max_running,
        memory=memory,
        watermark=watermark,
        visibility=visibility,
        step_ms=step_ms,
    )
    check_writable("--json", json_file)
    console = output_console(json_file)
    campaign = {
        "--cases": cases is not None,
        "--seconds": seconds is not None,
        "--jobs": jobs != 1,
        "--ray": ray,
        "--journal": journal is not None,
        "--least-kinds": least_kinds is not None,
    }
    if controls:
        others = {"--workload": workload is not None, "--declared": declared is not None, "--device": device != CPU}
        _refuse_beside("--controls", {**campaign, **others, "--engine": engine != TENSOR, "--mode": mode != LOCKSTEP})
        _controls(console, json_file)
        return
    name = _on_device(engine, device)
    # A name that does not exist, or a device that is not there, is said before anything else.
    make_engine(name)
    make_mode(mode, {})
    entries = read_declared(Path(declared) if declared is not None else BUNDLED)
    settings = Settings(name, mode, excused(entries, name), _above_zero(case_seconds, "--case-seconds"))
    check_writable("--save", str(Path(save) / "case.jsonl"))
    if workload is not None:
        _refuse_beside("--workload", campaign)
        _one_case(console, workload_options.case(workload), settings, Path(save), json_file)
        return
    workload_options.refuse("expected --workload beside it")
    plan = Plan(
        settings=settings,
        seed=seed,
        cases=ENOUGH_CASES if cases is None and seconds is None else _between(cases, "--cases", 0),
        seconds=None if seconds is None else _above_zero(seconds, "--seconds"),
        jobs=_at_least_one(jobs, "--jobs"),
        journal=Path(journal) if journal is not None else None,
        save=Path(save),
        ray=ray,
        least_kinds=_between(least_kinds, "--least-kinds", 0, len(KINDS)),
    )
    _campaign(console, plan, json_file)


def _on_device(engine: str, device: str) -> str:
    """The name of the engine on a device."""
    if device == CPU:
        return engine
    if engine not in {TENSOR, BATCHED, KERNEL}:
        expected = f"--engine {TENSOR}, {BATCHED} or {KERNEL}"
        raise InputError(f"expected {expected} beside it, found {engine!r}", field="--device")
    return f"{engine}{DEVICE_MARK}{device}"


def _at_least_one(value: int, option: str) -> int:
    """Refuse zero and less."""
    if value < 1:
        raise InputError(f"expected an integer > 0, found {value}", field=option)
    return value


def _between(value: int | None, option: str, least: int, most: int | None = None) -> int | None:
    """Refuse a number that is too small or too large."""
    if value is not None and (value < least or (most is not None and value > most)):
        expected = f">= {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"expected an integer {expected}, found {value}", field=option)
    return value


def _above_zero(value: float, option: str) -> float:
    """Refuse a time that is not one."""
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"expected a number of seconds > 0, found {value:g}", field=option)
    return value


def _refuse_beside(option: str, given: Mapping[str, bool]) -> None:
    """Refuse options that have no effect beside ``option``."""
    for other, is_given in given.items():
        if is_given:
            raise InputError(f"expected no such option beside {option}", field=other)


@dataclass(frozen=True, slots=True)
class _WorkloadOptions:
    """What the command line says about the workload; ``None`` where it says nothing."""

    format: str | None
    clients: str | None
    limit: int | None
    quantum: int | None
    weights: str | None
    kv_tokens: int | None
    max_running: int | None
    memory: str | None
    watermark: int | None
    visibility: str | None
    step_ms: float | None

    def refuse(self, complaint: str) -> None:
        """Refuse options that would have no effect."""
        for field in fields(self):
            if getattr(self, field.name) is not None:
                raise InputError(complaint, field=f"--{field.name.replace('_', '-')}")

    def case(self, workload: str) -> Case:
        """The case in a file that `dlpm diff` saved, or one made of any other workload."""
        path = Path(workload)
        if path.is_file() and carries_case(path):
            self.refuse(f"expected nothing beside {path}, which states its own parameters")
            return read_case(path)
        options = LoadOptions(clients=self.clients, limit=self.limit, opener=open_binary)
        loaded = load(workload, self.format or AUTO, options)
        cost = parse_weights(WEIGHTS if self.weights is None else self.weights)
        config = EngineConfig(
            quantum=QUANTUM if self.quantum is None else self.quantum,
            extend_weight=cost.extend_weight,
            output_weight=cost.output_weight,
            kv_tokens=KV_TOKENS if self.kv_tokens is None else self.kv_tokens,
            block_size=loaded.block_size,
            max_running=self.max_running,
            memory=self.memory or RESERVING,
            watermark=self.watermark or 0,
            visibility=self.visibility or AT_ADMISSION,
        )
        step_us = STEP_US if self.step_ms is None else round(self.step_ms * 1000)
        return Case(loaded.name or path.name, config, loaded.requests, _at_least_one(step_us, "--step-ms"))


def _one_case(console: Console, case: Case, settings: Settings, save: Path, json_file: str | None) -> None:
    """Compare on one case, and say what came of it. A saved case is as small as it gets."""
    say(console, f"{settings.engine} against the reference, {settings.mode}: {case.name}")
    result = run_chunk([case], CORPUS, settings, save, is_small=case.name.endswith(SHRUNK))
    _finish(console, Summary(result, result.seconds, 0, 0), json_file)


def _campaign(console: Console, plan: Plan, json_file: str | None) -> None:
    """Run a campaign, and say what came of it."""
    settings = plan.settings
    much = f"{plan.cases:,} generated cases" if plan.cases is not None else f"{plan.seconds:g} s of generated cases"
    say(console, f"{settings.engine} against the reference, {settings.mode}: the corpus and {much}, seed {plan.seed}")
    try:
        with progress_bar(plan.cases or 0, "cases") as advance:
            summary = run_campaign(
                plan, lambda sum_: advance(f"{sum_.tally.decisions():,} decisions", sum_.tally.cases)
            )
    except KeyboardInterrupt:
        if plan.journal is not None:
            say(console, f"{plan.journal} has all that was finished, the same command goes on")
        raise
    except WorkerDiedError as error:
        kept = f"; {plan.journal} has all that was finished, the same command goes on" if plan.journal else ""
        say(console, f"{error}{kept}")
        raise typer.Exit(1) from error
    _finish(console, summary, json_file)


def _finish(console: Console, summary: Summary, json_file: str | None) -> None:
    """Print and write a summary; exit with 1 if it is not sound."""
    for line in lines(summary):
        say(console, line)
    if json_file is not None:
        write_json(json_file, summary.to_json())
    if not summary.sound():
        raise typer.Exit(1)


def _controls(console: Console, json_file: str | None) -> None:
    """Run the tester's controls; exit with 1 if one fails."""
    try:
        from dlpm_engine.differential.broken_testers import run_tester_controls
        from dlpm_engine.differential.faults import FAULTS
    except ModuleNotFoundError as error:
        raise InputError("the controls need torch: pip install 'dlpm[torch]'", field="--controls") from error
    results: list[Control] = []
    for control in chain(run_controls(FAULTS), run_tester_controls()):
        verdict = "ok  " if control.passed else "FAIL"
        say(console, f"{verdict} {control.name}: {control.detail} ({control.seconds:.1f} s)")
        results.append(control)
    failed = sum(not control.passed for control in results)
    say(console, f"{len(results)} controls, {failed} failed")
    if json_file is not None:
        write_json(json_file, {"schema": "dlpm.controls/1", "controls": [control.to_json() for control in results]})
    if failed:
        raise typer.Exit(1)
