"""Coding-agent sessions: one JSON object a session, 64-token block hashes that mean something in their session only.

``{"id", "block_size": 64, "hash_id_scope": "local", "requests": [...]}``; a request is ``{"t": s, "type": "n" or "s",
"in", "out", "hash_ids"[, "api_time"][, "think_time"]}``. An entry of type ``subagent`` has ``t`` and its own
``requests``, whose ``t`` starts again at 0. There is one hash for each full block; a shorter last block has none.
Sessions have no wall clock: when each one starts is drawn. ``tool_tokens`` and ``system_tokens`` say how long the
tools and the system prompt are, with which a session's prompts begin. Source: callanjfox/kv-cache-tester.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from dlpm.fields import Fields
from dlpm.request import RequestId
from dlpm.workload.traces.row import TraceFormat, TraceOptions, TraceRow, json_records

BLOCK_SIZE = 64
MAX_LOCAL_HASH = 2**32 - 1
MAX_SESSIONS = 2**31
_DEEPEST = 16


@dataclass(frozen=True, slots=True)
class _Session:
    """A session, its number (which makes its hashes unique), and when it starts.

    ``shared`` holds those of its hashes that stand for blocks of an earlier session.
    """

    name: str
    number: int
    start_us: int
    shared: Mapping[int, int] = field(default_factory=dict)

    def block(self, local: int) -> int:
        """The hash of a block in the whole trace. O(1)."""
        return self.shared.get(local, self.number << 32 | local)


def rows(path: Path, options: TraceOptions) -> Iterator[TraceRow]:
    """Yield the requests of all sessions in the order of their times. O(n log n), memory for all of them.

    Sessions start as a Poisson process in the order of the file. A request is named after its session and its place in
    it, ``session/3``, or ``session/3.0`` for the first one of the sub-agent at place 3.

    In a closed loop a request waits for the one before it in its thread, then for its think time; a sub-agent waits for
    the request after which it was called. No arrival time but the session's start then holds it back.

    With ``options.shared_system_prompts``, which is an assumption and not in the trace, sessions with equal
    ``tool_tokens`` and ``system_tokens`` share what their first prompts begin with: so many tokens, in full blocks.

    Raises:
        InputError: a line is not a session, a session comes twice, or times run backwards in a thread.
    """
    draw = Random(options.seed)
    start_us = 0
    names: set[str] = set()
    prompts: dict[tuple[int, int], tuple[int, ...]] = {}
    collected: list[TraceRow] = []
    for number, fields in enumerate(json_records(path, options.opener)):
        name = fields.text("id")
        if name in names:
            raise fields.mismatch("id", "a session id that no earlier line has")
        names.add(name)
        fields.integer("block_size", BLOCK_SIZE, BLOCK_SIZE)
        session = _Session(name, number, start_us)
        if options.shared_system_prompts:
            session = replace(session, shared=_shared(fields, session, prompts))
        collected.extend(_thread(fields, session, f"{name}/", 0, _Caller()))
        start_us += round(draw.expovariate(1.0) * options.session_gap_us)
    collected.sort(key=lambda row: row.arrival_us)
    starts = {row.session: row.arrival_us for row in reversed(collected)}
    for row in collected:
        if options.closed_loop:
            yield replace(row, arrival_us=starts[row.session])
        else:
            yield replace(row, parent=None, think_us=0)


def _shared(fields: Fields, session: _Session, prompts: dict[tuple[int, int], tuple[int, ...]]) -> dict[int, int]:
    """The hashes of a session's tools and system prompt, and what stands for them in the trace. O(their blocks).

    ``prompts`` holds the blocks of the first session with each pair of lengths, and gets those of a new pair.
    """
    lengths = (fields.tokens("tool_tokens", low=0), fields.tokens("system_tokens", low=0))
    first = next((entry for entry in fields.objects("requests") if entry.values.get("type") != "subagent"), None)
    if first is None:
        return {}
    own = first.integers("hash_ids", 0, MAX_LOCAL_HASH)[: sum(lengths) // BLOCK_SIZE]
    known = prompts.setdefault(lengths, tuple(session.block(local) for local in own))
    return dict(zip(own, known, strict=False))


@dataclass(frozen=True, slots=True)
class _Caller:
    """The request that a thread (or the next request of a thread) follows, and when its answer was complete."""

    id: RequestId | None = None
    done_us: int = 0


def _thread(
    holder: Fields, session: _Session, prefix: str, start_us: int, caller: _Caller, depth: int = 0
) -> Iterator[TraceRow]:
    """Yield the requests of one thread and of the sub-agents it calls; ``start_us`` counts from the session's start."""
    if depth > _DEEPEST:
        raise holder.wrong("requests", f"expected at most {_DEEPEST} levels of sub-agents")
    last_us = 0
    for place, fields in enumerate(holder.objects("requests")):
        offset_us = fields.microseconds("t")
        if offset_us < last_us:
            raise fields.mismatch("t", "a time no earlier than that of the request before")
        last_us = offset_us
        time_us = start_us + offset_us
        kind = fields.values.get("type")
        if kind == "subagent":
            yield from _thread(fields, session, f"{prefix}{place}.", time_us, caller, depth + 1)
        elif kind in {"n", "s"}:
            row = _request(fields, session, f"{prefix}{place}", time_us, caller)
            yield row
            api_us = fields.microseconds("api_time") if "api_time" in fields.values else 0
            caller = _Caller(row.id, time_us + api_us)
        else:
            raise fields.mismatch("type", '"n", "s" or "subagent"')


def _request(fields: Fields, session: _Session, identity: RequestId, time_us: int, caller: _Caller) -> TraceRow:
    """The row of one request, ``time_us`` after its session's start."""
    input_tokens = fields.tokens("in")
    hashes = fields.integers("hash_ids", 0, MAX_LOCAL_HASH)
    fields.check_block_count("hash_ids", hashes, input_tokens, BLOCK_SIZE)
    if "think_time" in fields.values:
        think_us = fields.microseconds("think_time")
    else:
        think_us = max(0, time_us - caller.done_us)
    return TraceRow(
        id=identity,
        arrival_us=session.start_us + time_us,
        input_tokens=input_tokens,
        output_tokens=fields.tokens("out", low=0),
        blocks=tuple(map(session.block, hashes)),
        fields=fields,
        session=session.name,
        parent=caller.id,
        think_us=think_us if caller.id is not None else 0,
    )


CODING_AGENT = TraceFormat(
    name="coding-agent",
    required=frozenset({"id", "block_size", "requests"}),
    block_size=BLOCK_SIZE,
    clients="session",
    rows=rows,
    has_chains=True,
    has_system_prompts=True,
)
