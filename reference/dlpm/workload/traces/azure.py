"""Azure LLM inference traces: CSV ``TIMESTAMP,ContextTokens,GeneratedTokens``; no clients, no prefixes.

A time stamp is a date and a time with up to seven fractional digits, which are rounded half up to microseconds; some
years of the data set add an offset from UTC. Source: Azure/AzurePublicDataset (Patel et al., Splitwise, ISCA 2024).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dlpm.fields import MAX_TOKENS, Fields, whole_microseconds
from dlpm.workload.traces.row import TraceFormat, TraceOptions, TraceRow, csv_records

_STAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})?"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_REQUIRED = frozenset({"TIMESTAMP", "ContextTokens", "GeneratedTokens"})


def rows(path: Path, options: TraceOptions) -> Iterator[TraceRow]:
    """Yield the requests in the order of the file; ids count from ``r1``. O(1) a row.

    Raises:
        InputError: the header or a line is not that of an Azure trace.
    """
    for number, fields in enumerate(csv_records(path, options.opener, _REQUIRED), start=1):
        yield TraceRow(
            id=f"r{number}",
            arrival_us=_stamp(fields),
            input_tokens=fields.digits("ContextTokens", 1, MAX_TOKENS),
            output_tokens=fields.digits("GeneratedTokens", 0, MAX_TOKENS),
            blocks=None,
            fields=fields,
        )


def _stamp(fields: Fields) -> int:
    """Microseconds from 1970 of the row's time stamp; without an offset it is taken as UTC."""
    text = fields.values["TIMESTAMP"]
    match = _STAMP.fullmatch(text) if isinstance(text, str) else None
    if match:
        try:
            whole = datetime.fromisoformat(match[1] + (match[3] or "Z"))
        except ValueError:
            match = None
        else:
            fraction = whole_microseconds("0" + (match[2] or "")) or 0
            return (whole - _EPOCH) // timedelta(microseconds=1) + fraction
    raise fields.mismatch("TIMESTAMP", "a time such as 2023-11-16 18:15:46.6805900")


AZURE = TraceFormat(
    name="azure",
    required=_REQUIRED,
    block_size=None,
    clients="hash:8",
    rows=rows,
)
