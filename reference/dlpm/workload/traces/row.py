"""What the loaders of all trace formats share: a row, the options, and reading lines of JSON or CSV."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dlpm.errors import InputError
from dlpm.fields import Fields
from dlpm.files import Opener, numbered_lines, open_binary
from dlpm.jsonl import parse_object
from dlpm.request import RequestId


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request of a trace, before it has a client.

    Attributes:
        id: unique in the trace.
        arrival_us: in microseconds from whatever the trace counts from.
        input_tokens: >= 0; what becomes of a row without input or output is the format's to say.
        output_tokens: >= 0.
        blocks: block hashes that mean the same in the whole trace; ``None`` where the format knows no prefixes.
        fields: its record.
        session: its session, where the format has sessions.
        chain: the id of the first request of its chain, where the format has chains.
        parent: with `TraceOptions.closed_loop`, the request that must finish before.
        think_us: the delay after that.
    """

    id: RequestId
    arrival_us: int
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] | None
    fields: Fields
    session: str | None = None
    chain: str | None = None
    parent: RequestId | None = None
    think_us: int = 0


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """What a user may say about how a trace is read.

    Attributes:
        opener: how its file is opened.
        seed: for what a format leaves to be drawn.
        closed_loop: let a request wait for its parent's finish instead of replaying recorded times.
        session_gap_us: mean time between session starts, where they must be drawn.
        shared_system_prompts: assume that sessions with equally long tools and system prompt share both.
        window: seconds from and to, where the trace is parameters to draw from; ``None`` for the busiest.
    """

    opener: Opener = open_binary
    seed: int = 0
    closed_loop: bool = False
    session_gap_us: int = 60_000_000
    shared_system_prompts: bool = False
    window: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class TraceFormat:
    """One format of traces.

    Attributes:
        name: as ``--format`` names it.
        required: the fields that tell it from the others: every record (or the CSV header) has them.
        block_size: tokens a hash stands for; ``None`` where the format says nothing about prefixes.
        clients: the rule that assigns clients where the user names none.
        rows: reads a file; streams where the order of the file allows it.
        drops_empty: whether a row without output (or input) is a failed request and left out. Otherwise no output
            counts as one token, the one that prefill yields, and no input is an error.
        has_chains: whether `TraceOptions.closed_loop` can be asked for.
        has_system_prompts: whether `TraceOptions.shared_system_prompts` can be asked for.
    """

    name: str
    required: frozenset[str]
    block_size: int | None
    clients: str
    rows: Callable[[Path, TraceOptions], Iterator[TraceRow]]
    drops_empty: bool = False
    has_chains: bool = False
    has_system_prompts: bool = False


def json_records(path: Path, opener: Opener) -> Iterator[Fields]:
    """Yield the objects of a file with one JSON object a line.

    Raises:
        InputError: the file or a line is anything else.
    """
    source = str(path)
    for number, text in numbered_lines(path, opener):
        yield Fields(parse_object(text, source=source, line=number), source, number)


def csv_records(path: Path, opener: Opener, required: frozenset[str]) -> Iterator[Fields]:
    """Yield the rows of a CSV file, cells by the names in its header, which is matched by name and not by place.

    Raises:
        InputError: a required column is missing, one comes twice, or a row has more or fewer cells than the header.
    """
    source = str(path)
    header: list[str] | None = None
    for number, text in numbered_lines(path, opener):
        cells = split_csv(text, source, number)
        if header is None:
            header = check_header(cells, required, source, number)
        elif len(cells) != len(header):
            raise InputError(f"expected {len(header)} cells, found {len(cells)}", source=source, line=number)
        else:
            yield Fields(dict(zip(header, cells, strict=True)), source, number)


def split_csv(text: str, source: str, line: int) -> list[str]:
    """Split one line of CSV into its cells, without the blanks around them.

    Raises:
        InputError: its quotes do not match.
    """
    try:
        return [cell.strip() for cell in next(csv.reader([text], strict=True))]
    except csv.Error as error:
        raise InputError(f"expected a line of CSV: {error}", source=source, line=line) from error


def check_header(cells: list[str], required: frozenset[str], source: str, line: int) -> list[str]:
    """The column names of a CSV file, checked.

    Raises:
        InputError: a required column is missing, or one comes twice.
    """
    missing = sorted(required - set(cells))
    if missing:
        raise InputError(f"expected a column {missing[0]!r} in the header", source=source, line=line)
    if len(set(cells)) < len(cells):
        twice = next(cell for cell in cells if cells.count(cell) > 1)
        raise InputError(f"expected no column twice in the header, found {twice!r}", source=source, line=line)
    return cells
