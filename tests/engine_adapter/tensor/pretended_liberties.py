"""What a CUDA device may do otherwise than the CPU, and the pretended device does as differently as it may.

- A sort that need not be stable puts equal values in the opposite order.
- Memory that was not filled holds anything but zeros.
- Of several values written to one place, any may stay: to write different ones is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

_UNFILLED = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


class UndefinedResultError(RuntimeError):
    """What a device makes of an operation is not defined."""


def perform(func: Callable[..., object], name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
    """Run the operation ``name`` on tensors of the CPU, with the liberties of a device.

    Raises:
        UndefinedResultError: it writes different values to one place.
    """
    if name == "sort" and not kwargs.get("stable"):
        return _sorted_with_ties_reversed(*args, **{key: value for key, value in kwargs.items() if key != "stable"})
    result = func(*args, **kwargs)
    if isinstance(result, torch.Tensor):
        if name in _UNFILLED:
            result.fill_(_garbage(result.dtype))
        elif _is_conflict(name, args, kwargs, result):
            raise UndefinedResultError(f"{name}: writes different values to one place")
    return result


def _sorted_with_ties_reversed(table: object, dim: object = -1, descending: object = False) -> object:
    """Values and indices in order, of equal ones the last first."""
    assert isinstance(table, torch.Tensor)
    assert isinstance(dim, int)
    flipped = table.flip(dim) if table.dim() else table
    values, places = flipped.sort(dim=dim, descending=bool(descending), stable=True)
    return values, (table.shape[dim] if table.dim() else 1) - 1 - places


def _garbage(dtype: torch.dtype) -> int | float:
    """What memory of a type may hold."""
    if dtype == torch.bool:
        return True
    return float("nan") if dtype.is_floating_point else torch.iinfo(dtype).max - 1


def _is_conflict(name: str, args: Sequence[object], kwargs: Mapping[str, object], result: torch.Tensor) -> bool:
    """Whether some of what was written is not there."""
    if name in {"scatter", "scatter_"} and len(args) == 4 and isinstance(args[3], torch.Tensor) and not kwargs:
        _, dim, index, values = args
        assert isinstance(dim, int)
        assert isinstance(index, torch.Tensor)
        assert isinstance(values, torch.Tensor)
        used = values[tuple(slice(length) for length in index.shape)]
        return not bool((result.gather(dim, index) == used).all())
    if name in {"index_put", "index_put_"} and not (kwargs.get("accumulate") or (len(args) > 3 and args[3])):
        _, indices, values = args[:3]
        return not bool((torch.ops.aten.index.Tensor(result, indices) == values).all())
    return False
