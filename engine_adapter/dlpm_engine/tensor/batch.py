"""The running batch of the tensor path: one column a request, so that a forward step is a few row operations."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dlpm_engine.tensor.edge import Node
from dlpm_engine.tensor.exact import INT64
from dlpm_engine.tensor.group import Queued

CLIENT, GENERATED, TARGET, PRIVATE, RESERVED = range(5)
_FIELDS = 5
_FIRST_CAPACITY = 16


@dataclass(slots=True, eq=False)
class Running:
    """A running request: the end of its locked path, and, until its first forward, where its own new blocks begin."""

    queued: Queued
    node: Node
    kept: Node
    computed: bool = False


class RunningBatch:
    """Running requests in order of admission.

    The tensor ``[fields, requests]`` holds: client number; output tokens generated; output tokens in all; tokens
    in memory outside the cache; tokens set aside for output to come.
    """

    def __init__(self) -> None:
        """An empty batch."""
        self.requests: list[Running] = []
        self._table = torch.zeros((_FIELDS, _FIRST_CAPACITY), dtype=INT64)

    def __len__(self) -> int:
        return len(self.requests)

    def rows(self) -> torch.Tensor:
        """The used part of the tensor, ``[fields, requests]``. O(1)."""
        return self._table[:, : len(self.requests)]

    def append(self, run: Running, private: int, reserved: int) -> None:
        """A request joins the batch. O(1) amortized."""
        if len(self.requests) == self._table.shape[1]:
            self._table = torch.cat((self._table, torch.zeros_like(self._table)), dim=1)
        queued = run.queued
        values = (queued.client, queued.generated, queued.request.output_tokens, private, reserved)
        self._table[:, len(self.requests)] = torch.tensor(values, dtype=INT64)
        self.requests.append(run)

    def value(self, field: int, place: int) -> int:
        """One field of the request at ``place``. O(1)."""
        return int(self._table[field, place])

    def pop(self) -> Running:
        """The youngest request leaves; what it generated is written back. O(1)."""
        run = self.requests[-1]
        run.queued.generated = self.value(GENERATED, len(self.requests) - 1)
        return self.requests.pop()

    def unreserved(self) -> int:
        """Requests whose next output token has no memory set aside. O(requests)."""
        return len(self.requests) - int(torch.count_nonzero(self.rows()[RESERVED]))

    def generate(self) -> int:
        """Every request yields a token, out of what is reserved for it; returns how many had nothing. O(requests)."""
        unreserved = self.unreserved()
        rows = self.rows()
        rows[GENERATED].add_(1)
        rows[PRIVATE].add_(1)
        rows[RESERVED].sub_(1).clamp_(min=0)
        return unreserved

    def set_private(self, place: int, tokens: int) -> int:
        """Set the private tokens of one request; returns by how much they grew. O(1)."""
        change = tokens - self.value(PRIVATE, place)
        self._table[PRIVATE, place] = tokens
        return change

    def finished(self) -> list[tuple[Running, int]]:
        """Remove the requests with all their output, with what each held outside the cache. O(requests)."""
        rows = self.rows()
        complete = rows[GENERATED] >= rows[TARGET]
        places = complete.nonzero().flatten().tolist()
        if not places:
            return []
        held = (rows[PRIVATE] + rows[RESERVED])[complete].tolist()
        remaining = rows[:, ~complete]
        done = [(self.requests[place], tokens) for place, tokens in zip(places, held, strict=True)]
        leaving = set(places)
        self.requests = [run for place, run in enumerate(self.requests) if place not in leaving]
        self._table[:, : len(self.requests)] = remaining
        return done
