"""Block keys as int64, exactly: equal keys, and only those, get equal numbers."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import torch

from dlpm.request import BlockKey
from dlpm_engine.tensor.exact import INT64

_FIRST_NAMED = 2**62


class BlockKeys:
    """Numbers for the keys of blocks.

    Token ids and block hashes below ``2^62`` in absolute value stand for themselves. Anything else (the token tuples of
    larger blocks, 64-bit unsigned hashes) gets the next free number from ``2^62`` on, and keeps it: memory grows with
    the distinct ones.
    """

    def __init__(self) -> None:
        """No key has a number of its own yet."""
        self._named: dict[BlockKey, int] = {}

    def tensor(self, keys: Sequence[BlockKey]) -> torch.Tensor:
        """The numbers of ``keys``, int64 ``[blocks]``. O(blocks)."""
        if not keys:
            return torch.empty(0, dtype=INT64)
        try:
            tensor = torch.frombuffer(array("q", keys), dtype=INT64)
        except (TypeError, OverflowError):
            return self._numbers(keys)
        lowest, highest = torch.aminmax(tensor)
        if int(highest) >= _FIRST_NAMED or int(lowest) < -_FIRST_NAMED:
            return self._numbers(keys)
        return tensor

    def _numbers(self, keys: Sequence[BlockKey]) -> torch.Tensor:
        """The numbers of keys that do not all stand for themselves."""
        return torch.tensor([self._number(key) for key in keys], dtype=INT64)

    def _number(self, key: BlockKey) -> int:
        """The number of one key."""
        if isinstance(key, int) and -_FIRST_NAMED <= key < _FIRST_NAMED:
            return key
        return self._named.setdefault(key, _FIRST_NAMED + len(self._named))
