"""What arrives: a request of a client, with its prompt as token ids or as block hashes."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

ClientId = str
RequestId = str

BlockKey = Hashable
"""Identity of one block of a prompt *below its prefix*: a token id, a tuple of token ids, or a block hash."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call to the model.

    The prompt is given as ``prompt`` (token ids) or as ``blocks`` (hashes of consecutive blocks, equal hashes
    at equal depth below equal prefixes meaning equal tokens); never as both. With ``blocks``, ``input_tokens`` says
    how many tokens they stand for: the last block may be partial, or a tail shorter than a block may have no hash at
    all, and then a prompt shorter than a block has neither.

    Attributes:
        id: unique in its workload.
        client: whose ledger pays.
        arrival_us: earliest time at which it may join a queue, in microseconds from the start of the run.
        input_tokens: prompt length in tokens, >= 1.
        output_tokens: how many tokens it will generate, >= 1. No policy may look at it: it is what the model will do.
        max_output: the declared limit on output tokens, >= ``output_tokens``; what reserving memory reserves.
        prompt: token ids, ``len(prompt) == input_tokens``, or empty.
        blocks: block hashes, or empty.
        reply: token ids of the output, ``len(reply) == output_tokens``, or empty; cached when the request finishes.
        reply_blocks: with ``blocks``, the hashes of the full blocks that follow the full blocks of
            the prompt once the reply is appended, or empty; cached when the request finishes.
        parents: requests that must finish before this one is released (dependent calls).
        think_us: delay between the last parent's finish and the release, in microseconds.
    """

    id: RequestId
    client: ClientId
    arrival_us: int
    input_tokens: int
    output_tokens: int
    max_output: int
    prompt: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()
    reply: tuple[int, ...] = ()
    reply_blocks: tuple[int, ...] = ()
    parents: tuple[RequestId, ...] = ()
    think_us: int = 0


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests in file order, and the block size in tokens at which their ``blocks`` were hashed.

    ``block_size`` is a default for prompts given as token ids, and binding for prompts given as block hashes.
    """

    block_size: int
    requests: tuple[Request, ...]
    name: str = ""


def cacheable_blocks(request: Request, block_size: int) -> tuple[BlockKey, ...]:
    """Keys of the blocks of the prompt that a prefix cache can hold. O(input / block_size).

    Token prompts are cut into full blocks of ``block_size`` tokens (a shorter tail is never shared, as in engines);
    hashed prompts are their hashes.
    """
    if request.blocks:
        return request.blocks
    return _cut(request.prompt, block_size)


def sequence_blocks(request: Request, block_size: int) -> tuple[BlockKey, ...]:
    """Keys of the blocks of prompt and reply together: what may stay cached after the request finished.

    Without a known reply this is the prompt alone. O((input + output) / block_size).
    """
    if request.reply_blocks:
        # Asked first: a prompt shorter than a block may have no hash, and its reply may still complete some.
        full = request.input_tokens // block_size
        return request.blocks[:full] + request.reply_blocks
    if request.blocks:
        return request.blocks
    return _cut(request.prompt + request.reply, block_size)


def _cut(tokens: tuple[int, ...], block_size: int) -> tuple[BlockKey, ...]:
    """Cut token ids into full blocks."""
    if block_size == 1:
        return tokens
    full = len(tokens) // block_size
    return tuple(tokens[k * block_size : (k + 1) * block_size] for k in range(full))
