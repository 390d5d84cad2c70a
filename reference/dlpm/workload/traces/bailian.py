"""Bailian (Qwen) usage traces: one JSON object a request, 16-token block hashes that are global, chains of turns.

``{"chat_id", "parent_chat_id": -1 for a root, "timestamp": s, "input_length", "output_length", "type", "turn",
"hash_ids"}``; the last hash may stand for a shorter block. Source: alibaba-edu/qwen-bailian-usagetraces-anon.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dlpm.workload.traces.row import TraceFormat, TraceOptions, TraceRow, json_records

BLOCK_SIZE = 16
_NO_PARENT = "-1"


def rows(path: Path, options: TraceOptions) -> Iterator[TraceRow]:
    """Yield the requests in the order of the file; their ids are the chat ids. Memory: one entry a request.

    The chain of a request is named by its first known ancestor: a trace is cut out of a longer one, so the parent of
    its first turns may be missing. In a closed loop a turn waits for its parent, and arrives no earlier than it did.

    Raises:
        InputError: a line is not a Bailian record, or a chat id comes twice.
    """
    chains: dict[str, str] = {}
    arrivals: dict[str, int] = {}
    for fields in json_records(path, options.opener):
        identity = fields.name("chat_id")
        if identity in chains:
            raise fields.mismatch("chat_id", "an id that no earlier line has")
        parent = fields.name("parent_chat_id")
        if parent == identity:
            raise fields.mismatch("parent_chat_id", "the id of another request, or -1")
        chain = identity if parent == _NO_PARENT else chains.get(parent, parent)
        waits = options.closed_loop and parent in arrivals
        input_tokens = fields.tokens("input_length")
        arrival_us = fields.microseconds("timestamp")
        if waits:
            arrival_us = max(arrival_us, arrivals[parent])
        chains[identity] = chain
        arrivals[identity] = arrival_us
        yield TraceRow(
            id=identity,
            arrival_us=arrival_us,
            input_tokens=input_tokens,
            output_tokens=fields.tokens("output_length", low=0),
            blocks=fields.blocks("hash_ids", input_tokens, BLOCK_SIZE),
            fields=fields,
            chain=chain,
            parent=parent if waits else None,
        )


BAILIAN = TraceFormat(
    name="bailian",
    required=frozenset({"chat_id", "parent_chat_id", "timestamp", "input_length", "output_length", "hash_ids"}),
    block_size=BLOCK_SIZE,
    clients="chain",
    rows=rows,
    has_chains=True,
)
