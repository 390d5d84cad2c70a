"""What the naive worker remembers: cached blocks, and requests that wait or run."""

from __future__ import annotations

from dataclasses import dataclass

from dlpm.request import Request

Prefix = tuple[object, ...]
"""The keys of a cached block and of all blocks before it: a prefix is cached if it is in the list."""


@dataclass
class Cached:
    """One cached block, named by its whole prefix."""

    prefix: Prefix
    tokens: int
    last_use: int


@dataclass
class Waiter:
    """A request that waits."""

    request: Request
    rank: int
    generated: int

    def client(self) -> str:
        return self.request.client

    def resident(self) -> int:
        return self.request.input_tokens + self.generated


@dataclass
class Runner:
    """A request that runs. It locks every cached block that is part of the prefix ``locks``."""

    waiter: Waiter
    matched: int
    extend: int
    locks: Prefix
    computed: bool
    own_blocks: list[Prefix]

    def client(self) -> str:
        return self.waiter.request.client


def starts_with(longer: Prefix, shorter: Prefix) -> bool:
    return longer[: len(shorter)] == shorter


def cut(tokens: tuple[int, ...], block_size: int) -> Prefix:
    """Full blocks only."""
    blocks: list[object] = []
    rest = tokens
    while len(rest) >= block_size:
        blocks.append(rest[:block_size])
        rest = rest[block_size:]
    return tuple(blocks)
