"""ServeGen: parameters of production clients to draw requests from, or requests that somebody drew. No prefixes.

Parameters are a folder or a tar file with, for each client N, ``chunk-N-trace.csv`` (no header; ``window start s, rate,
cv, Gamma or Weibull or nothing, shape, scale``, a row each 600 s) and ``chunk-N-dataset.json`` (``{window start s:
{field: "{tokens: probability}"}}``, a window each 6 h, the inner object as text in Python's syntax).
Drawn requests are one JSON object each: ``{"timestamp": s, "client_id", "input_tokens", "output_tokens"}``.
Source: alibaba/ServeGen (Xiang et al., NSDI 2026).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

from dlpm.errors import InputError
from dlpm.fields import Fields
from dlpm.workload.traces.row import TraceFormat, TraceOptions, TraceRow, json_records
from dlpm.workload.traces.servegen_parameters import ROW_SECONDS, ClientParameters, is_parameters, read_parameters

_MICROSECONDS = 1_000_000

MOST_DRAWN = 2_000_000
"""Requests of one client in one draw: parameters that give more are taken for a mistake."""


def rows(path: Path, options: TraceOptions) -> Iterator[TraceRow]:
    """Yield drawn requests in the order of the file, or draw them from parameters, in the order of their times.

    Drawing is O(n log n) with memory for all n; reading is O(1) a row. Ids count from ``r1``.

    Raises:
        InputError: the parameters or a line are not ServeGen's, or no client is active in the window.
    """
    if is_parameters(path):
        return _drawn(path, options)
    return _recorded(path, options)


def _recorded(path: Path, options: TraceOptions) -> Iterator[TraceRow]:
    """Read requests that have been drawn."""
    for number, fields in enumerate(json_records(path, options.opener), start=1):
        yield TraceRow(
            id=f"r{number}",
            arrival_us=fields.microseconds("timestamp"),
            input_tokens=fields.tokens("input_tokens"),
            output_tokens=fields.tokens("output_tokens", low=0),
            blocks=None,
            fields=fields,
        )


def _drawn(path: Path, options: TraceOptions) -> Iterator[TraceRow]:
    """Draw the requests of every client in the window, each client from its own seed, and merge them by time."""
    clients = read_parameters(path)
    window = options.window or busiest_window(clients)
    arrivals: list[tuple[int, int, int, int]] = []
    for client in clients:
        arrivals.extend(draw_client(client, window, options.seed))
    if not arrivals:
        raise InputError(f"expected a client that is active from {window[0]} to {window[1]} s", source=str(path))
    arrivals.sort()
    for number, (arrival_us, client_id, input_tokens, output_tokens) in enumerate(arrivals, start=1):
        yield TraceRow(
            id=f"r{number}",
            arrival_us=arrival_us,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            blocks=None,
            fields=Fields({"client_id": client_id}, str(path), None),
        )


def busiest_window(clients: tuple[ClientParameters, ...]) -> tuple[int, int]:
    """The 600 seconds in which all clients together have the highest rate; the first such. O(rows of all clients)."""
    rates: dict[int, float] = {}
    for client in clients:
        for row in client.arrivals:
            rates[row.start_s] = rates.get(row.start_s, 0.0) + row.rate
    start = min(rates, key=lambda second: (-rates[second], second), default=0)
    return start, start + ROW_SECONDS


def draw_client(client: ClientParameters, window: tuple[int, int], seed: int) -> list[tuple[int, int, int, int]]:
    """Requests of one client in the window: arrival in microseconds, client, input and output tokens.

    Intervals are drawn anew in each row of its parameters, with that row's shape and scale. O(requests of those rows).

    Raises:
        InputError: a row with requests has no distribution of tokens, or the parameters describe an absurd number.
    """
    draw = Random(f"servegen {seed} {client.number}")
    found: list[tuple[int, int, int, int]] = []
    drawn = 0
    for row in client.arrivals:
        end_s = row.start_s + ROW_SECONDS
        if row.rate <= 0 or end_s <= window[0] or row.start_s >= window[1]:
            continue
        inputs = client.tokens("input_tokens", row.start_s)
        outputs = client.tokens("output_tokens", row.start_s)
        time_s = row.start_s + row.interval(draw)
        while time_s < end_s:
            drawn += 1
            if drawn > MOST_DRAWN:
                raise InputError(f"expected intervals that give at most {MOST_DRAWN} requests", source=client.source)
            if window[0] <= time_s < window[1]:
                found.append((round(time_s * _MICROSECONDS), client.number, inputs.draw(draw), outputs.draw(draw)))
            time_s += row.interval(draw)
    return found


SERVEGEN = TraceFormat(
    name="servegen",
    required=frozenset({"timestamp", "client_id", "input_tokens", "output_tokens"}),
    block_size=None,
    clients="field:client_id",
    rows=rows,
)
