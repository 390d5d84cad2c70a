"""The tables that compare runs, and the sentences below them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dlpm.memory import Reserving
from dlpm.request import ClientId
from dlpm.workload import Loaded
from dlpm_engine.report.sheet import Sheet, about, compact, percent, ratio, seconds, whole
from dlpm_engine.run.compare import Setup
from dlpm_engine.run.result import RunResult, amount

BROKEN = "BROKEN"
_VERDICTS: Mapping[bool | None, str] = {True: "holds", False: BROKEN, None: "-"}
_CLIENT_COLUMNS = 6
_NAME_WIDTH = 12


def describe(loaded: Loaded, setup: Setup, gpu: str, model: str) -> str:
    """Two lines: what was run, and on which engine. O(requests)."""
    requests = setup.workload.requests
    clients = len({request.client for request in requests})
    config = setup.config
    released = [request.arrival_us for request in requests if not request.parents]
    workload = [
        f"{len(requests):,} requests of {clients:,} client{'s' if clients != 1 else ''} ({loaded.clients})",
        f"{sum(request.input_tokens for request in requests):,} input and "
        f"{sum(request.output_tokens for request in requests):,} output tokens",
        f"arriving over {seconds(max(released) - min(released))} s",
    ]
    if len(released) < len(requests):
        workload.append(f"{len(requests) - len(released):,} of them when others have finished")
    if loaded.dropped:
        workload.append(f"{loaded.dropped:,} rows without output left out")
    if loaded.raised:
        workload.append(f"{loaded.raised:,} requests without output count as one token")
    engine = [
        f"{model} on {gpu}",
        f"{config.kv_tokens:,} KV tokens in blocks of {config.block_size}",
        f"{config.memory.kind} memory",
        f"weights {setup.cost.extend_weight} and {setup.cost.output_weight}",
    ]
    if config.max_running is not None:
        engine.append(f"at most {config.max_running:,} running")
    name = setup.workload.name or loaded.trace_format
    return f"workload  {name}: {', '.join(workload)}\nengine    {', '.join(engine)}"


def comparison(results: Sequence[RunResult]) -> tuple[Sheet, ...]:
    """Speed, fairness, and who got what. O(runs * clients)."""
    return (_speed(results), _fairness(results), _service(results))


def notes(results: Sequence[RunResult], setup: Setup) -> tuple[str, ...]:
    """What a reader of the tables has to know, and what went wrong. O(runs)."""
    clients = max(len(result.summary.clients) for result in results)
    lines = [
        f"{result.choice.label} ended early, with {result.summary.finished:,} of {len(setup.workload.requests):,} "
        f"requests finished: {result.failure}"
        for result in results
        if result.failure is not None
    ]
    for result in results:
        if result.bound_holds is False:
            gap = result.judged_gap
            assert gap is not None and result.bound is not None
            lines.append(
                f"{result.choice.label}: the bound of Theorem 4.1 is broken: {gap.ahead} got {gap.amount:,} more "
                f"service than {gap.behind} from forward step {gap.start:,} to {gap.end:,}, "
                f"and the bound is {result.bound:,}"
            )
    if any(result.bound is not None for result in results) and setup.config.memory.kind != Reserving.kind:
        lines.append("The proof of the bound needs reserving memory, which this run does not have.")
    if clients > 1 and not any(amount(result.max_gap) for result in results):
        lines.append(
            "No client got ahead of another that was waiting, too: requests hardly waited, whatever the policy."
        )
    if any(result.summary.jain is None for result in results):
        lines.append("There is no Jain index, because there was no time at which all clients were active.")
    watched = max(result.summary.watched_clients for result in results)
    if watched < clients:
        lines.append(f"Gaps were looked for among the first {watched} of {clients} clients.")
    return tuple(lines)


def _speed(results: Sequence[RunResult]) -> Sheet:
    """How fast the work was done."""
    header = (
        "policy",
        "simulated\nseconds",
        "tokens\nper s",
        "cache\nhits",
        "TTFT s\np50",
        "\np99",
        "latency s\np50",
        "\np99",
    )
    preempted = any(result.summary.preemptions for result in results)
    rows = []
    for result in results:
        summary = result.summary
        rate = summary.tokens_per_s
        ttft, latency = summary.ttft, summary.latency
        row = [
            result.choice.label,
            seconds(summary.duration_us),
            "-" if rate is None else about(float(rate)),
            percent(summary.hit_rate),
            seconds(ttft.p50 if ttft else None),
            seconds(ttft.p99 if ttft else None),
            seconds(latency.p50 if latency else None),
            seconds(latency.p99 if latency else None),
        ]
        rows.append((*row, whole(summary.preemptions)) if preempted else tuple(row))
    return Sheet("Speed", (*header, "\npreempted") if preempted else header, tuple(rows))


def _fairness(results: Sequence[RunResult]) -> Sheet:
    """How the service was shared, against the bound; and what the run took."""
    header = (
        "policy",
        "Jain index\nperceived",
        "\nactual",
        "largest gap of\ntwo backlogged",
        "bound\n2(U + Q)",
        "the\nbound",
        "\nsteps",
        "wall\nseconds",
    )
    rows = tuple(
        (
            result.choice.label,
            ratio(result.summary.jain),
            ratio(result.summary.jain_actual),
            whole(amount(result.max_gap)),
            whole(result.bound),
            _VERDICTS[result.bound_holds],
            whole(result.steps),
            about(result.wall_seconds),
        )
        for result in results
    )
    return Sheet("Fairness", header, rows, frozenset({BROKEN}))


def _service(results: Sequence[RunResult]) -> Sheet:
    """Service per client over the whole run: the largest clients by name, the others together."""
    clients = _largest_clients(results[0])
    shown = clients if len(clients) <= _CLIENT_COLUMNS + 1 else clients[:_CLIENT_COLUMNS]
    others = [name for name in clients if name not in shown]
    header = ["policy", *(_short(name) for name in shown)]
    if others:
        header.append(f"{len(others)} others")
    rows = []
    for result in results:
        served = {name: client.service for name, client in result.summary.clients.items()}
        row = [result.choice.label, *(compact(served.get(name, 0)) for name in shown)]
        if others:
            row.append(compact(sum(served.get(name, 0) for name in others)))
        rows.append(tuple(row))
    return Sheet("Service per client, in weighted tokens", tuple(header), tuple(rows))


def _largest_clients(result: RunResult) -> list[ClientId]:
    """All clients, those that asked for most first."""
    clients = result.summary.clients
    return sorted(clients, key=lambda name: -clients[name].perceived_service)


def _short(name: ClientId) -> str:
    """A client's name as a column header: its end, in which names made by programs differ."""
    return name if len(name) <= _NAME_WIDTH else f"…{name[1 - _NAME_WIDTH :]}"
