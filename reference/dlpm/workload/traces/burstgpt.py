"""BurstGPT traces: CSV by column names; no prefixes. Source: HPMLL/BurstGPT.

The first two releases have ``Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type``; the third inserts
``Session ID,Elapsed time`` after the time stamp. A row without response tokens is a failed request (the data set's own
words) and is left out, as the files that the data set calls "without fails" leave it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dlpm.fields import MAX_TOKENS
from dlpm.workload.traces.row import TraceFormat, TraceOptions, TraceRow, csv_records

_REQUIRED = frozenset({"Timestamp", "Model", "Request tokens", "Response tokens", "Log Type"})


def rows(path: Path, options: TraceOptions) -> Iterator[TraceRow]:
    """Yield the requests in the order of the file; ids count from ``r1``, failed ones included. O(1) a row.

    Raises:
        InputError: the header or a line is not that of a BurstGPT trace.
    """
    for number, fields in enumerate(csv_records(path, options.opener, _REQUIRED), start=1):
        session = fields.values.get("Session ID")
        yield TraceRow(
            id=f"r{number}",
            arrival_us=fields.seconds_cell("Timestamp"),
            input_tokens=fields.digits("Request tokens", 0, MAX_TOKENS),
            output_tokens=fields.digits("Response tokens", 0, MAX_TOKENS),
            blocks=None,
            fields=fields,
            session=session if isinstance(session, str) and session else None,
        )


BURSTGPT = TraceFormat(
    name="burstgpt",
    required=_REQUIRED,
    block_size=None,
    clients="hash:8",
    rows=rows,
    drops_empty=True,
)
