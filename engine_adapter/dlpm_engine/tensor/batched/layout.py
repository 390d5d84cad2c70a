"""What is known of requests before anything happens to them, as tensors ``[instances, slots, ...]``."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch

from dlpm.request import BlockKey, ClientId, Request, cacheable_blocks, sequence_blocks
from dlpm_engine.tensor.exact import INT64

CLIENT, INPUT, OUTPUT, LIMIT, BLOCKS, SEQUENCE_BLOCKS = range(6)
_FIELDS = 6
ROOT = 0
"""The number of the empty prefix, and of what lies beyond the end of a path. Nothing is ever cached there."""


@dataclass(slots=True)
class _Instance:
    """What one instance has seen: requests by slot, clients and prefixes by number."""

    block_size: int
    requests: list[Request] = field(default_factory=list)
    clients: dict[ClientId, int] = field(default_factory=dict)
    prefixes: dict[tuple[int, Hashable], int] = field(default_factory=dict)


class Layout:
    """Requests of several schedulers: one slot a request, one number for each prefix that occurs in an instance.

    Slots, clients and prefixes (from 1) are numbered as they come, and never forgotten: memory grows with the distinct
    ones that a run has seen. The tensors have room for more, filled with zeros.

    Attributes:
        facts: int64 ``[fields, instances, slots]``: client; input, output and declared output tokens; blocks of the
            prompt; blocks of prompt and reply together, 0 where no reply is known.
        paths: numbers of the prefixes that end with each block of the prompt, int64 ``[instances, slots, blocks]``.
        sequences: the same for prompt and reply, where a reply is known.
        parents: the prefix that is one block shorter, int64 ``[instances, prefixes]``.
        depths: blocks of a prefix, likewise.
    """

    def __init__(self, block_sizes: Sequence[int], device: torch.device) -> None:
        """No requests yet; ``block_sizes`` are those of the instances, in tokens."""
        self._instances = [_Instance(size) for size in block_sizes]
        self.device = device
        count = len(block_sizes)
        self.facts = self._zeros(_FIELDS, count, 1)
        self.paths = self._zeros(count, 1, 1)
        self.sequences = self._zeros(count, 1, 1)
        self.parents = self._zeros(count, 1)
        self.depths = self._zeros(count, 1)

    def __len__(self) -> int:
        return len(self._instances)

    def request(self, instance: int, slot: int) -> Request:
        """The request in a slot. O(1)."""
        return self._instances[instance].requests[slot]

    def client(self, instance: int, name: ClientId) -> int:
        """The number of a client whose request has a slot. O(1)."""
        return self._instances[instance].clients[name]

    def clients(self, instance: int) -> list[ClientId]:
        """The clients of an instance by number. O(clients)."""
        return list(self._instances[instance].clients)

    def most_clients(self) -> int:
        """The largest number of clients of an instance, 1 at least. O(instances)."""
        return max(1, *(len(instance.clients) for instance in self._instances))

    def add(self, requests: Sequence[tuple[int, Request]]) -> list[int]:
        """Give requests, each with its instance, a slot; returns the slots. O(their blocks), amortized."""
        slots: list[int] = []
        facts: list[tuple[int, ...]] = []
        paths: list[list[int]] = []
        sequences: list[list[int]] = []
        born: list[tuple[int, int, int, int]] = []
        for number, request in requests:
            instance = self._instances[number]
            path = _prefixes(instance, cacheable_blocks(request, instance.block_size), number, born)
            known = bool(request.reply or request.reply_blocks)
            blocks = sequence_blocks(request, instance.block_size) if known else ()
            sequence = _prefixes(instance, blocks, number, born)
            client = instance.clients.setdefault(request.client, len(instance.clients))
            limits = (request.input_tokens, request.output_tokens, request.max_output)
            slots.append(len(instance.requests))
            instance.requests.append(request)
            facts.append((client, *limits, len(path), len(sequence)))
            paths.append(path)
            sequences.append(sequence)
        if requests:
            owners = self._tensor([number for number, _ in requests])
            places = self._tensor(slots)
            self._make_room(max(slots) + 1, _longest(paths), _longest(sequences))
            self.facts[:, owners, places] = self._tensor(facts).T
            self.paths[owners, places] = self._padded(paths, self.paths.shape[2])
            self.sequences[owners, places] = self._padded(sequences, self.sequences.shape[2])
            self._record(born)
        return slots

    def _record(self, born: list[tuple[int, int, int, int]]) -> None:
        """Write down new prefixes: instance, number, parent and depth of each."""
        if not born:
            return
        most = max(number for _, number, _, _ in born) + 1
        owner, number, parent, depth = self._tensor(born).T
        self.parents = _widened(self.parents, most, 1)
        self.depths = _widened(self.depths, most, 1)
        self.parents[owner, number] = parent
        self.depths[owner, number] = depth

    def _make_room(self, slots: int, blocks: int, sequence_blocks_: int) -> None:
        """Grow the tensors to so many slots and blocks."""
        self.facts = _widened(self.facts, slots, 2)
        self.paths = _widened(_widened(self.paths, slots, 1), blocks, 2)
        self.sequences = _widened(_widened(self.sequences, slots, 1), sequence_blocks_, 2)

    def _zeros(self, *shape: int) -> torch.Tensor:
        """Zeros on the device."""
        return torch.zeros(shape, dtype=INT64, device=self.device)

    def _tensor(self, values: Sequence[int] | Sequence[tuple[int, ...]] | list[list[int]]) -> torch.Tensor:
        """Numbers on the device."""
        return torch.tensor(values, dtype=INT64).to(self.device)

    def _padded(self, rows: list[list[int]], width: int) -> torch.Tensor:
        """Rows of different lengths, filled up with `ROOT`."""
        return self._tensor([row + [ROOT] * (width - len(row)) for row in rows])


def _prefixes(
    instance: _Instance, blocks: Sequence[BlockKey], owner: int, born: list[tuple[int, int, int, int]]
) -> list[int]:
    """The numbers of the prefixes of a sequence; new ones are noted in ``born``. O(blocks)."""
    numbers: list[int] = []
    parent = ROOT
    for depth, block in enumerate(blocks, start=1):
        key = (parent, block)
        number = instance.prefixes.get(key)
        if number is None:
            number = instance.prefixes[key] = len(instance.prefixes) + 1
            born.append((owner, number, parent, depth))
        numbers.append(number)
        parent = number
    return numbers


def _longest(rows: list[list[int]]) -> int:
    """Length of the longest row."""
    return max(len(row) for row in rows)


def _widened(table: torch.Tensor, least: int, axis: int) -> torch.Tensor:
    """The table with room for ``least`` entries along an axis, twice as many as before at least; zeros fill it up."""
    present = table.shape[axis]
    if present >= least:
        return table
    shape = list(table.shape)
    shape[axis] = max(least, 2 * present) - present
    return torch.cat((table, table.new_zeros(shape)), dim=axis)
