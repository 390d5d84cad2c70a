"""Workload files: reading and writing `dlpm.workload/1` (docs/formats/workload.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dlpm.errors import InputError
from dlpm.fields import MAX_HASH, MAX_TOKENS, Fields
from dlpm.files import Compressor, Opener, compressed_by_name, numbered_lines, open_binary, written_whole
from dlpm.jsonl import JsonValue, dump, parse_object
from dlpm.request import Request, RequestId, Workload

SCHEMA = "dlpm.workload/1"

MAX_BLOCK_SIZE = 2**20
"""Tokens of the largest block anyone could mean."""

HEADER_FIELDS = frozenset({"schema", "block_size", "name"})
REQUEST_FIELDS = frozenset(
    {"id", "client", "arrival", "prompt", "blocks", "input", "output", "max_output", "reply", "reply_blocks"}
    | {"after", "think"}
)


@dataclass(frozen=True, slots=True)
class Document:
    """A workload with what its file said beyond it: fields that no scheduler looks at, kept for the writer.

    Attributes:
        workload: the requests.
        header_extra: unknown fields of the header.
        request_extra: unknown fields of those requests that have any.
    """

    workload: Workload
    header_extra: Mapping[str, JsonValue] = field(default_factory=dict)
    request_extra: Mapping[RequestId, Mapping[str, JsonValue]] = field(default_factory=dict)


def read(path: Path, opener: Opener = open_binary) -> Workload:
    """Read a workload file. O(size of the file), memory for the requests alone.

    Raises:
        InputError: the file, a line or a field is not what the format allows.
    """
    return read_document(path, opener).workload


def read_document(path: Path, opener: Opener = open_binary) -> Document:
    """Read a workload file, unknown fields included. O(size of the file).

    Raises:
        InputError: the file, a line or a field is not what the format allows.
    """
    source = str(path)
    lines = numbered_lines(path, opener)
    number, text = next(lines, (1, ""))
    if not text:
        raise InputError(f"expected a header with schema {SCHEMA}, found an empty file", source=source, line=number)
    header = Fields(parse_object(text, source=source, line=number), source, number)
    block_size = _block_size(header)
    name = header.text("name") if "name" in header.values else ""
    requests: list[Request] = []
    seen: set[RequestId] = set()
    extra: dict[RequestId, Mapping[str, JsonValue]] = {}
    for number, text in lines:
        fields = Fields(parse_object(text, source=source, line=number), source, number)
        request = parse_request(fields, block_size, seen)
        requests.append(request)
        seen.add(request.id)
        unknown = _unknown(fields.values, REQUEST_FIELDS)
        if unknown:
            extra[request.id] = unknown
    if not requests:
        raise InputError("expected at least one request", source=source, line=number + 1)
    workload = Workload(block_size=block_size, requests=tuple(requests), name=name)
    return Document(workload, _unknown(header.values, HEADER_FIELDS), extra)


def parse_request(fields: Fields, block_size: int, earlier: set[RequestId]) -> Request:
    """The request that one line describes; ``earlier`` are the ids of the lines before it. O(its tokens or blocks).

    Raises:
        InputError: a field is missing, of the wrong type or out of range, or contradicts another.
    """
    identity = fields.text("id")
    if identity in earlier:
        raise fields.mismatch("id", "an id that no earlier line has")
    prompt, blocks, input_tokens = _prompt(fields, block_size)
    output_tokens = fields.tokens("output")
    max_output = fields.tokens("max_output", low=output_tokens) if "max_output" in fields.values else output_tokens
    reply, reply_blocks = _reply(fields, block_size, input_tokens, output_tokens)
    parents = fields.texts("after") if "after" in fields.values else ()
    for place, parent in enumerate(parents):
        if parent not in earlier:
            raise fields.wrong(f"after[{place}]", f'expected the id of a request on an earlier line, found "{parent}"')
    return Request(
        id=identity,
        client=fields.text("client"),
        arrival_us=fields.microseconds("arrival"),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        max_output=max_output,
        prompt=prompt,
        blocks=blocks,
        reply=reply,
        reply_blocks=reply_blocks,
        parents=parents,
        think_us=fields.microseconds("think") if "think" in fields.values else 0,
    )


def write(
    path: Path,
    workload: Workload,
    *,
    header_extra: Mapping[str, JsonValue] | None = None,
    request_extra: Mapping[RequestId, Mapping[str, JsonValue]] | None = None,
    compressor: Compressor = compressed_by_name,
) -> None:
    """Write a workload file, gzip if the name ends in ``.gz``; whole or not at all. O(size).

    The extras of a `Document` keep fields that this project gives no meaning to; they never override a known field.

    Raises:
        InputError: the file cannot be written.
    """
    extras = request_extra or {}
    with written_whole(path, compressor) as text:
        header: dict[str, JsonValue] = {"schema": SCHEMA, "block_size": workload.block_size}
        if workload.name:
            header["name"] = workload.name
        text.write(dump({**header, **_unknown(header_extra or {}, HEADER_FIELDS)}) + "\n")
        for request in workload.requests:
            values = request_values(request)
            values.update(_unknown(extras.get(request.id, {}), REQUEST_FIELDS))
            text.write(dump(values) + "\n")


def request_values(request: Request) -> dict[str, JsonValue]:
    """The fields of a request as its line has them, in the order the format lists them. O(its tokens or blocks)."""
    values: dict[str, JsonValue] = {
        "id": request.id,
        "client": request.client,
        "arrival": seconds(request.arrival_us),
    }
    if request.prompt:
        values["prompt"] = list(request.prompt)
    else:
        values["blocks"] = list(request.blocks)
    values["input"] = request.input_tokens
    values["output"] = request.output_tokens
    values["max_output"] = request.max_output
    if request.reply:
        values["reply"] = list(request.reply)
    if request.reply_blocks:
        values["reply_blocks"] = list(request.reply_blocks)
    if request.parents:
        values["after"] = list(request.parents)
    if request.think_us:
        values["think"] = seconds(request.think_us)
    return values


def seconds(time_us: int) -> int | float:
    """Seconds from microseconds: the float whose shortest decimal reads back as the same microsecond."""
    return time_us / 1_000_000 if time_us % 1_000_000 else time_us // 1_000_000


def _block_size(header: Fields) -> int:
    """Check the header and return its block size."""
    if header.values.get("schema") != SCHEMA:
        raise header.mismatch("schema", f'"{SCHEMA}"')
    return header.integer("block_size", 1, MAX_BLOCK_SIZE)


def _prompt(fields: Fields, block_size: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Token ids, block hashes (one of the two is empty) and length of the prompt."""
    if ("prompt" in fields.values) == ("blocks" in fields.values):
        found = "both" if "prompt" in fields.values else "neither"
        raise fields.wrong("prompt", f'expected either "prompt" or "blocks", found {found}')
    if "blocks" in fields.values:
        input_tokens = fields.tokens("input")
        return (), fields.blocks("blocks", input_tokens, block_size), input_tokens
    prompt = fields.integers("prompt", 0, MAX_TOKENS)
    if not prompt:
        raise fields.wrong("prompt", "expected at least one token id, found none")
    if "input" in fields.values and fields.tokens("input") != len(prompt):
        raise fields.mismatch("input", f"{len(prompt)}, the length of the prompt")
    return prompt, (), len(prompt)


def _reply(
    fields: Fields, block_size: int, input_tokens: int, output_tokens: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids and block hashes of the reply, each empty where the line has none."""
    reply: tuple[int, ...] = ()
    reply_blocks: tuple[int, ...] = ()
    if "reply" in fields.values:
        if "prompt" not in fields.values:
            raise fields.wrong("reply", 'expected "reply_blocks" beside "blocks", or neither')
        reply = fields.integers("reply", 0, MAX_TOKENS)
        if len(reply) != output_tokens:
            raise fields.wrong("reply", f"expected {output_tokens} token ids, as output says, found {len(reply)}")
    if "reply_blocks" in fields.values:
        if "blocks" not in fields.values:
            raise fields.wrong("reply_blocks", 'expected "reply" beside "prompt", or neither')
        reply_blocks = fields.integers("reply_blocks", 0, MAX_HASH)
        count = (input_tokens + output_tokens) // block_size - input_tokens // block_size
        if len(reply_blocks) != count:
            raise fields.wrong(
                "reply_blocks",
                f"expected {count} hashes of the full blocks that the reply completes, found {len(reply_blocks)}",
            )
    return reply, reply_blocks


def _unknown(values: Mapping[str, JsonValue], known: frozenset[str]) -> dict[str, JsonValue]:
    """The fields that the format does not name."""
    return {name: value for name, value in values.items() if name not in known}
