"""The benchmark's requests: prompts of 2,048 tokens, in 64 families that share their first 512, 1,024 or 1,536."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from dlpm.request import Request

PROMPT_TOKENS = 2048
FAMILIES = 64
SHARED_TOKENS = (512, 1024, 1536)
MAX_OUTPUT = 64

_VOCABULARY = 32_000
_CLIENTS = 16


class Families:
    """An endless stream of requests of 16 clients, drawn with a seed.

    With block size 1 the prompts are token ids, else hashes of full blocks.
    """

    def __init__(self, seed: int, block_size: int) -> None:
        """Draw the families."""
        self._draw = Random(seed)
        self._block_size = block_size
        self._made = 0
        if block_size == 1:
            length = max(SHARED_TOKENS)
            self._prefixes = [tuple(self._draw.choices(range(_VOCABULARY), k=length)) for _ in range(FAMILIES)]
        else:
            blocks = max(SHARED_TOKENS) // block_size
            self._prefixes = [tuple(range(place * blocks, (place + 1) * blocks)) for place in range(FAMILIES)]

    def __iter__(self) -> Iterator[Request]:
        return self

    def __next__(self) -> Request:
        shared = self._draw.choice(SHARED_TOKENS)
        prefix = self._draw.choice(self._prefixes)[: shared // self._block_size]
        own = (PROMPT_TOKENS - shared) // self._block_size
        if self._block_size == 1:
            tail = tuple(self._draw.choices(range(_VOCABULARY), k=own))
        else:
            first = FAMILIES * PROMPT_TOKENS + self._made * PROMPT_TOKENS
            tail = tuple(range(first, first + own))
        self._made += 1
        return Request(
            id=f"r{self._made}",
            client=f"c{self._made % _CLIENTS}",
            arrival_us=0,
            input_tokens=PROMPT_TOKENS,
            output_tokens=self._draw.randint(MAX_OUTPUT // 2, MAX_OUTPUT),
            max_output=MAX_OUTPUT,
            prompt=prefix + tail if self._block_size == 1 else (),
            blocks=() if self._block_size == 1 else prefix + tail,
        )
