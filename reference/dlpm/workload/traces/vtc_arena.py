"""The Chatbot Arena trace of the VTC paper: one JSON object a request; clients are LoRA adapters; no prefixes.

``{"req_id", "model_dir", "adapter_dir", "prompt_len", "output_len", "req_time": s}``. An adapter stands for the Arena
model whose name it masks. Source: Ying1123/VTC-artifact (Sheng et al., OSDI 2024).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dlpm.workload.traces.row import TraceFormat, TraceOptions, TraceRow, json_records


def rows(path: Path, options: TraceOptions) -> Iterator[TraceRow]:
    """Yield the requests in the order of the file, by their own ids. Memory: one id a request.

    Raises:
        InputError: a line is not a record of this trace, or an id comes twice.
    """
    seen: set[str] = set()
    for fields in json_records(path, options.opener):
        identity = fields.name("req_id")
        if identity in seen:
            raise fields.mismatch("req_id", "an id that no earlier line has")
        seen.add(identity)
        yield TraceRow(
            id=identity,
            arrival_us=fields.microseconds("req_time"),
            input_tokens=fields.tokens("prompt_len"),
            output_tokens=fields.tokens("output_len", low=0),
            blocks=None,
            fields=fields,
        )


VTC_ARENA = TraceFormat(
    name="vtc-arena",
    required=frozenset({"req_id", "adapter_dir", "prompt_len", "output_len", "req_time"}),
    block_size=None,
    clients="field:adapter_dir",
    rows=rows,
)
