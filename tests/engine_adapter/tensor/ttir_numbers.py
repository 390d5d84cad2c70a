"""Integers of TTIR in NumPy: their widths, and what NumPy has otherwise or not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
"""A block of integers, or one integer: as NumPy has it, of the width that the TTIR says."""
Flags = NDArray[np.bool_]

SIGNED: dict[str, type[np.generic]] = {"i1": np.bool_, "i8": np.int8, "i32": np.int32, "i64": np.int64}
UNSIGNED: dict[str, type[np.generic]] = {"i8": np.uint8, "i32": np.uint32, "i64": np.uint64}


class TtirError(Exception):
    """TTIR that is not known here, or that has no meaning."""


def quotient(left: Numbers, right: Numbers) -> Numbers:
    """Rounded towards 0.

    Raises:
        TtirError: it has no meaning, because a divisor is 0 or a quotient does not fit.
    """
    if np.any(right == 0) or np.any((right == -1) & (left == np.iinfo(left.dtype).min)):
        raise TtirError("a division without a meaning")
    inexact = (left % right != 0) & ((left < 0) != (right < 0))
    towards_0: Numbers = left // right + inexact.astype(left.dtype)
    return towards_0


def remainder(left: Numbers, right: Numbers) -> Numbers:
    """What `quotient` leaves: it has the sign of ``left``."""
    return left - quotient(left, right) * right


def counted(first: Numbers, last: Numbers, by: Numbers, kind: type[np.generic]) -> Iterator[np.generic]:
    """The numbers of a `for`, without the last.

    Raises:
        TtirError: they do not go up.
    """
    if by <= 0:
        raise TtirError("a loop that does not go up")
    return (kind(number) for number in range(int(first), int(last), int(by)))
