"""How a prompt becomes blocks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dlpm.request import Request, cacheable_blocks, sequence_blocks


def request(
    prompt: tuple[int, ...] = (),
    reply: tuple[int, ...] = (),
    blocks: tuple[int, ...] = (),
    reply_blocks: tuple[int, ...] = (),
    tokens: int = 0,
) -> Request:
    """A request of which only prompt and reply matter."""
    return Request(
        "r", "A", 0, tokens or len(prompt), len(reply) or 1, 9, prompt, blocks, reply=reply, reply_blocks=reply_blocks
    )


@given(prompt=st.lists(st.integers(0, 9), min_size=1, max_size=12).map(tuple), block_size=st.integers(1, 5))
def test_full_blocks_of_a_prompt_are_its_tokens_in_order_and_a_tail_is_left_out(
    prompt: tuple[int, ...], block_size: int
) -> None:
    blocks = cacheable_blocks(request(prompt), block_size)
    assert len(blocks) == len(prompt) // block_size
    tokens = [token for block in blocks for token in (block if isinstance(block, tuple) else (block,))]
    assert tokens == list(prompt[: len(blocks) * block_size])


@given(
    prompt=st.lists(st.integers(0, 9), min_size=1, max_size=9).map(tuple),
    reply=st.lists(st.integers(0, 9), max_size=9).map(tuple),
    block_size=st.integers(1, 4),
)
def test_a_sequence_is_cut_like_a_prompt_that_holds_the_reply(
    prompt: tuple[int, ...], reply: tuple[int, ...], block_size: int
) -> None:
    whole = cacheable_blocks(request(prompt + reply), block_size)
    assert sequence_blocks(request(prompt, reply), block_size) == whole
    assert whole[: len(prompt) // block_size] == cacheable_blocks(request(prompt), block_size)


def test_hashed_prompts_are_their_hashes() -> None:
    assert cacheable_blocks(request(blocks=(7, 8, 9), tokens=10), 4) == (7, 8, 9)


def test_without_a_reply_a_hashed_sequence_keeps_its_partial_last_block() -> None:
    assert sequence_blocks(request(blocks=(7, 8, 9), tokens=10), 4) == (7, 8, 9)


def test_a_hashed_reply_continues_after_the_last_full_block_of_the_prompt() -> None:
    """The partial block 9 (two of four tokens) becomes the full block 10 once the reply is appended."""
    assert sequence_blocks(request(blocks=(7, 8, 9), reply_blocks=(10, 11), tokens=10), 4) == (7, 8, 10, 11)
