"""Mooncake traces: one JSON object a request, 512-token block hashes that are global, no clients.

``{"timestamp": ms, "input_length": n, "output_length": n, "hash_ids": [...]}``; the last hash may stand for a shorter
block. All requests share the first block, so the second one is what tells sessions apart. Source: kvcache-ai/Mooncake.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dlpm.workload.traces.row import TraceFormat, TraceOptions, TraceRow, json_records

BLOCK_SIZE = 512
_MILLISECOND = 1_000


def rows(path: Path, options: TraceOptions) -> Iterator[TraceRow]:
    """Yield the requests in the order of the file; ids count from ``r1``. O(blocks) a row.

    Raises:
        InputError: a line is not a Mooncake record.
    """
    for number, fields in enumerate(json_records(path, options.opener), start=1):
        input_tokens = fields.tokens("input_length")
        yield TraceRow(
            id=f"r{number}",
            arrival_us=fields.microseconds("timestamp", _MILLISECOND),
            input_tokens=input_tokens,
            output_tokens=fields.tokens("output_length", low=0),
            blocks=fields.blocks("hash_ids", input_tokens, BLOCK_SIZE),
            fields=fields,
        )


MOONCAKE = TraceFormat(
    name="mooncake",
    required=frozenset({"timestamp", "input_length", "output_length", "hash_ids"}),
    block_size=BLOCK_SIZE,
    clients="root:8:zipf1.1",
    rows=rows,
)
