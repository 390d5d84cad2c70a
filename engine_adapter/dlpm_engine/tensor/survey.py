"""Which group has the next request to admit, while a pass goes on."""

from __future__ import annotations

import torch

from dlpm_engine.tensor.exact import HIGHEST
from dlpm_engine.tensor.group import NEVER


class Survey:
    """The groups that may still have a request to admit in this pass, best first. O(groups) to make.

    ``orders`` and ``bounds`` are ``[groups]``: the matched tokens that count for the order, -1 for groups that are out;
    and lower bounds on the rank of the next request that fits.
    """

    def __init__(self, orders: torch.Tensor, bounds: torch.Tensor) -> None:
        """Begin with the longest match."""
        self._orders = orders
        self._bounds = bounds
        self._top = HIGHEST
        self._open = torch.full_like(orders, NEVER)

    def best(self) -> tuple[int, int] | None:
        """The group of longest match with the least bound, and that bound; ``None`` if all are out. O(groups)."""
        while self._orders.numel():
            index = int(self._open.argmin())
            bound = int(self._open[index])
            if bound < NEVER:
                return index, bound
            self._orders.masked_fill_(self._orders == self._top, -1)
            self._top = int(self._orders.amax())
            if self._top < 0:
                return None
            self._open = torch.where(self._orders == self._top, self._bounds, NEVER)
        return None

    def bound(self, index: int, rank: int) -> None:
        """The bound of a group has risen. O(1)."""
        if index < self._open.numel() and int(self._open[index]) < NEVER:
            self._open[index] = rank
