"""Workloads of every shape that the file format allows."""

from __future__ import annotations

from hypothesis import strategies as st

from dlpm.fields import MAX_HASH, MAX_SECONDS, MAX_TOKENS
from dlpm.request import Request, Workload

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
TIMES_US = st.integers(0, 5_000_000) | st.integers(0, MAX_SECONDS * 1_000_000)
TOKEN_IDS = st.integers(0, 3) | st.integers(0, MAX_TOKENS)
HASHES = st.integers(0, 3) | st.integers(0, MAX_HASH)


@st.composite
def requests(draw: st.DrawFn, identity: str, earlier: list[str], block_size: int) -> Request:
    hashed = draw(st.booleans())
    output = draw(st.integers(1, 40))
    input_tokens = draw(st.integers(1, 40))
    prompt: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()
    reply: tuple[int, ...] = ()
    reply_blocks: tuple[int, ...] = ()
    states_reply = draw(st.booleans())
    if hashed:
        full = input_tokens // block_size
        count = draw(st.integers(full, -(-input_tokens // block_size)))
        blocks = tuple(draw(st.lists(HASHES, min_size=count, max_size=count)))
        count = (input_tokens + output) // block_size - full
        if states_reply:
            reply_blocks = tuple(draw(st.lists(HASHES, min_size=count, max_size=count)))
    else:
        prompt = tuple(draw(st.lists(TOKEN_IDS, min_size=input_tokens, max_size=input_tokens)))
        if states_reply:
            reply = tuple(draw(st.lists(TOKEN_IDS, min_size=output, max_size=output)))
    return Request(
        id=identity,
        client=draw(NAMES),
        arrival_us=draw(TIMES_US),
        input_tokens=input_tokens,
        output_tokens=output,
        max_output=draw(st.integers(output, MAX_TOKENS)),
        prompt=prompt,
        blocks=blocks,
        reply=reply,
        reply_blocks=reply_blocks,
        parents=tuple(draw(st.lists(st.sampled_from(earlier), unique=True, max_size=3)) if earlier else ()),
        think_us=draw(TIMES_US),
    )


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    block_size = draw(st.integers(1, 20))
    ids = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    made = tuple(draw(requests(identity, ids[:place], block_size)) for place, identity in enumerate(ids))
    return Workload(block_size, made, draw(st.just("") | NAMES))
