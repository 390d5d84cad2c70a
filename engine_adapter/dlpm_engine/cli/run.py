"""`dlpm run`: a workload under one policy or several, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

from dlpm import timing
from dlpm.batch import AFTER_FORWARD, AT_ADMISSION
from dlpm.errors import InputError
from dlpm.event_codec import EventWriter
from dlpm.events import EventSink
from dlpm.files import written_whole
from dlpm.jsonl import JsonValue
from dlpm.workload import Loaded, LoadOptions, load_described
from dlpm_engine.cli.common import check_writable, output_console, progress_bar, say, write_json
from dlpm_engine.files import compressor, open_binary
from dlpm_engine.report import figure
from dlpm_engine.report.comparison import comparison, describe, notes
from dlpm_engine.report.sheet import show
from dlpm_engine.run.build import log_header
from dlpm_engine.run.cluster import run_cluster
from dlpm_engine.run.cluster_options import (
    DEFAULT_WORKER_QUANTUM,
    ROUTERS,
    ClusterOptions,
    dispatch_choices,
    parse_speeds,
    with_routers,
)
from dlpm_engine.run.compare import Setup, run_policy
from dlpm_engine.run.options import (
    DEFAULT_POLICIES,
    DEFAULT_QUANTUM,
    MEMORY_KINDS,
    POLICIES,
    EngineOptions,
    PolicyChoice,
    parse_weights,
    policy_choices,
)
from dlpm_engine.run.result import SCHEMA, RunResult, encode_run, weights

_POLICY_FIELD = "{policy}"

_EPILOG = """\b
Examples:
  dlpm run examples/workloads/shared-prefixes.jsonl
  dlpm run synthetic:tree-of-thoughts:s1 --gpu a100-80g --quantum 1000 --quantum 8000
  dlpm run conversation_trace.jsonl.gz --clients root:8:zipf1.1 --kv-tokens 3000000 --gpu h100 --json out.json
  dlpm run requests.jsonl --policy dlpm --events run.jsonl.gz
  dlpm run requests.jsonl --policy dlpm --workers 8 --dispatch d2lpm --worker-quantum 20000
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run", epilog=_EPILOG)(run)


def run(
    workload: Annotated[
        str,
        typer.Argument(
            metavar="WORKLOAD", help="A workload file, a public trace, or synthetic:NAME[:SCENARIO][:KEY=VALUE]..."
        ),
    ],
    format_name: Annotated[
        str, typer.Option("--format", metavar="NAME", help="How to read it; auto looks at the content.")
    ] = "auto",
    policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"{', '.join(POLICIES)}; may be repeated. Without it: {', '.join(DEFAULT_POLICIES)}.",
        ),
    ] = None,
    quantum: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            help=f"Service per refill, in weighted tokens; repeated, one run each. Without it: {DEFAULT_QUANTUM}.",
        ),
    ] = None,
    weight_pair: Annotated[
        str, typer.Option("--weights", metavar="E,O", help="What an extend token and an output token cost.")
    ] = "1,2",
    kv_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", help="KV memory in tokens. Without it: what fits in the GPU beside the model."),
    ] = None,
    block_size: Annotated[
        int | None, typer.Option(metavar="N", help="Tokens a cached block, where the workload leaves it open.")
    ] = None,
    max_running: Annotated[int | None, typer.Option(metavar="N", help="Most requests in a running batch.")] = None,
    memory: Annotated[
        str, typer.Option(metavar="KIND", help=f"Admission control: {' or '.join(MEMORY_KINDS)}.")
    ] = MEMORY_KINDS[0],
    watermark: Annotated[int, typer.Option(metavar="N", help="Tokens that optimistic admission keeps free.")] = 0,
    visibility: Annotated[
        str,
        typer.Option(
            metavar="WHEN", help=f"When others can reuse an admitted prompt: {AT_ADMISSION} or {AFTER_FORWARD}."
        ),
    ] = AT_ADMISSION,
    clients: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="Who sends a request: own, one, roundrobin:N, hash:N[:zipfS], root:N[:zipfS], field:NAME, session, "
            "chain. Without it: what the format says.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Take the first N requests only.")] = None,
    time_scale: Annotated[
        str, typer.Option(metavar="F", help="Multiply all arrival times: 0.5 doubles the request rate.")
    ] = "1",
    max_output: Annotated[
        int | None,
        typer.Option(metavar="N", help="Output limit that requests declare, where it is above what their file says."),
    ] = None,
    closed_loop: Annotated[
        bool, typer.Option("--closed-loop", help="A turn waits for the turn before it, where a trace records turns.")
    ] = False,
    shared_system_prompts: Annotated[
        bool,
        typer.Option(
            "--shared-system-prompts",
            help="coding-agent: assume that sessions with equally long tools and system prompt share both.",
        ),
    ] = False,
    gpu: Annotated[str, typer.Option(metavar="NAME", help=f"The simulated GPU: {', '.join(timing.GPUS)}.")] = "a10g",
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"The model: {', '.join(timing.MODELS)}. Without it: the GPU's usual one."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Run a cluster of N workers, each with such a GPU, behind a router.")
    ] = None,
    dispatch: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help=f"The router: {', '.join(ROUTERS)}; may be repeated. Without it: d2lpm."),
    ] = None,
    worker_quantum: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            help="d2lpm: credit at each worker per refill, in weighted tokens; repeated, one run each. "
            f"Without it: {DEFAULT_WORKER_QUANTUM}.",
        ),
    ] = None,
    notice_delay: Annotated[
        int, typer.Option(metavar="N", help="Steps of a worker until the router hears of what it has evicted.")
    ] = 0,
    speeds: Annotated[
        str | None, typer.Option(metavar="LIST", help="Speed of each worker against the GPU, such as 1,1,0.5.")
    ] = None,
    events: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write the event log (.jsonl, .gz, .zst). With several policies the name must hold {policy}.",
        ),
    ] = None,
    full_log: Annotated[
        bool, typer.Option("--full-log", help="Log the order in which each step considered the queue, too.")
    ] = False,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write dlpm.results/1; - is standard output.")
    ] = None,
    svg: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw throughput over fairness, and gaps against bounds.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="For what a trace or a synthetic workload leaves open.")] = 0,
) -> None:
    """Run a workload under scheduling policies in simulated time, and compare them.

    Prints how fast each policy served the requests, how it shared the service among the clients, and the largest
    service gap between two backlogged clients beside the bound that the paper proves for DLPM.
    """
    for option, file in (("--events", events), ("--json", json_file), ("--svg", svg)):
        check_writable(option, file)
    if svg is not None:
        figure.check_available()
    choices = policy_choices(policy or (), quantum or ())
    cluster = _cluster(workers, dispatch or (), worker_quantum or (), notice_delay, speeds)
    if cluster is not None:
        choices = with_routers(choices, dispatch_choices(dispatch or (), worker_quantum or ()))
    logs = _log_paths(events, choices, full_log)
    engine = EngineOptions(
        gpu=gpu,
        model=model,
        kv_tokens=kv_tokens,
        block_size=block_size,
        max_running=max_running,
        memory=memory,
        watermark=watermark,
        visibility=visibility,
        cost=parse_weights(weight_pair),
    )
    timer = engine.timer()
    options = LoadOptions(
        clients=clients,
        block_size=block_size,
        limit=limit,
        seed=seed,
        scale=_factor(time_scale),
        max_output=max_output,
        closed_loop=closed_loop,
        shared_system_prompts=shared_system_prompts,
        opener=open_binary,
    )
    loaded = load_described(workload, format_name, options)
    setup = Setup.of(loaded.workload, engine)
    results = _run_all(setup, cluster, choices, logs, full_log)

    console = output_console(json_file)
    say(console, f"{describe(loaded, setup, timer.gpu.name, timer.model.name)}\n")
    show(console, comparison(results))
    for note in notes(results, setup):
        say(console, note)
    if svg is not None:
        figure.draw(results, Path(svg))
    if json_file is not None:
        described = _described(loaded, setup, timer, cluster)
        write_json(json_file, {"schema": SCHEMA, **described, "runs": [encode_run(result) for result in results]})
    if any(result.failure is not None for result in results):
        raise typer.Exit(1)


def _cluster(
    workers: int | None,
    dispatch: Sequence[str],
    worker_quantum: Sequence[int],
    notice_delay: int,
    speeds: str | None,
) -> ClusterOptions | None:
    """The cluster that is asked for, or ``None`` for one worker without a router."""
    if workers is None:
        for option, given in (
            ("--dispatch", bool(dispatch)),
            ("--worker-quantum", bool(worker_quantum)),
            ("--notice-delay", notice_delay != 0),
            ("--speeds", speeds is not None),
        ):
            if given:
                raise InputError("expected --workers beside it", field=option)
        return None
    return ClusterOptions(workers, parse_speeds(speeds), notice_delay)


def _run_all(
    setup: Setup,
    cluster: ClusterOptions | None,
    choices: Sequence[PolicyChoice],
    logs: Sequence[Path | None],
    full_log: bool,
) -> list[RunResult]:
    """One run after the other; each log appears when its run is complete."""
    requests = len(setup.workload.requests)
    results: list[RunResult] = []
    with progress_bar(requests * len(choices), "requests") as advance:
        for place, (choice, path) in enumerate(zip(choices, logs, strict=True)):
            with ExitStack() as stack:
                log: EventSink | None = None
                if path is not None:
                    stream = stack.enter_context(written_whole(path, compressor))
                    header = log_header(choice, setup.config, setup.cost, setup.workload, full_log)
                    if cluster is not None and choice.dispatch is not None:
                        header = replace(header, extra=cluster.header_fields(choice.dispatch))
                    log = EventWriter(stream, header)
                progress = _progress(advance, choice.label, place * requests)
                if cluster is None:
                    result = run_policy(setup, choice, log=log, full_log=full_log, on_progress=progress)
                else:
                    result = run_cluster(setup, choice, cluster, log=log, full_log=full_log, on_progress=progress)
                results.append(result)
    return results


def _progress(advance: Callable[[str, int], None], label: str, before: int) -> Callable[[int], None]:
    """Tell the bar about one run, when ``before`` requests of earlier runs are done."""
    return lambda finished: advance(label, before + finished)


def _log_paths(events: str | None, choices: Sequence[PolicyChoice], full_log: bool) -> list[Path | None]:
    """Where each run's event log goes."""
    if events is None:
        if full_log:
            raise InputError("expected --events beside it", field="--full-log")
        return [None] * len(choices)
    if len(choices) > 1 and _POLICY_FIELD not in events:
        example = "run-{policy}.jsonl.gz"
        raise InputError(
            f"expected {_POLICY_FIELD} in the name, such as {example}, for {len(choices)} runs; found {events!r}",
            field="--events",
        )
    return [Path(events.replace(_POLICY_FIELD, choice.slug)) for choice in choices]


def _factor(text: str) -> Fraction:
    """A factor on times, exactly as written."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"expected a number such as 0.5, found {text!r}", field="--time-scale") from error


def _described(
    loaded: Loaded, setup: Setup, timer: timing.Roofline, cluster: ClusterOptions | None
) -> dict[str, JsonValue]:
    """What the results are results of. O(requests)."""
    requests = setup.workload.requests
    config = setup.config
    return {
        "workload": {
            "name": setup.workload.name,
            "format": loaded.trace_format,
            "clients": loaded.clients,
            "requests": len(requests),
            "input_tokens": sum(request.input_tokens for request in requests),
            "output_tokens": sum(request.output_tokens for request in requests),
            "max_input": max(request.input_tokens for request in requests),
            "max_output": max(request.max_output for request in requests),
        },
        "engine": {
            "gpu": timer.gpu.name,
            "model": timer.model.name,
            "kv_tokens": config.kv_tokens,
            "block_size": config.block_size,
            "max_running": config.max_running,
            "memory": config.memory.kind,
            "visibility": config.visibility,
            "weights": weights(setup.cost),
        },
        **({} if cluster is None else {"cluster": cluster.described()}),
    }
