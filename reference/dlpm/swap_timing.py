"""How long copies between GPU and CPU memory take: so much a copy, and so much a byte, in exact integers.

An engine keeps the KV cache of a model in two tensors a layer, so one contiguous piece of blocks is `copies_per_piece`
copies: that is what makes many small pieces slow. Sources: docs/timing.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dlpm.errors import InputError
from dlpm.timing import MICROSECONDS, ModelShape, kv_bytes_per_token

PCIE_4_X16 = 25 * 10**9
"""Bytes a second that one direction of PCIe 4.0 x16 carries: about 80 % of the 31.5 GB/s of its 16 lanes."""

COPY_OVERHEAD_NS = 10_000
"""Nanoseconds that issuing one asynchronous copy takes, whatever its size."""


class CopyTimer(Protocol):
    """Turns a swap into its duration."""

    def copy_us(self, pieces: int, tokens: int) -> int:
        """Microseconds, >= 0, to move ``tokens`` tokens of KV cache in ``pieces`` contiguous pieces."""
        ...


@dataclass(frozen=True, slots=True)
class FixedCopy:
    """Every piece takes ``us`` microseconds: for examples and tests in which only the order of things matters."""

    us: int

    def copy_us(self, pieces: int, tokens: int) -> int:
        """``us`` a piece, whatever the tokens."""
        del tokens
        return self.us * pieces


@dataclass(frozen=True, slots=True)
class Interconnect:
    """Copies over one link, one after the other: ``overhead_ns`` each, and ``bandwidth`` bytes a second.

    Attributes:
        bytes_per_token: KV cache of one token, in bytes.
        copies_per_piece: copies that one contiguous piece of blocks takes, two a layer in engines.
        bandwidth: bytes a second in one direction.
        overhead_ns: nanoseconds to issue one copy.

    Raises:
        InputError: if a quantity is below 1, or the overhead negative.
    """

    bytes_per_token: int
    copies_per_piece: int
    bandwidth: int = PCIE_4_X16
    overhead_ns: int = COPY_OVERHEAD_NS

    def __post_init__(self) -> None:
        """Refuse a link that never ends a copy."""
        for name, least in (("bytes_per_token", 1), ("copies_per_piece", 1), ("bandwidth", 1), ("overhead_ns", 0)):
            value = getattr(self, name)
            if value < least:
                raise InputError(f"expected an integer >= {least}, found {value}", field=name)

    def copy_us(self, pieces: int, tokens: int) -> int:
        """Overheads and bytes, added and rounded up. O(1)."""
        issue = pieces * self.copies_per_piece * self.overhead_ns * self.bandwidth
        moved = tokens * self.bytes_per_token * MICROSECONDS * 1000
        return -(-(issue + moved) // (1000 * self.bandwidth))


def interconnect_of(
    model: ModelShape, *, bandwidth: int = PCIE_4_X16, overhead_ns: int = COPY_OVERHEAD_NS
) -> Interconnect:
    """The link of a GPU that runs ``model``: a key and a value tensor a layer."""
    return Interconnect(kv_bytes_per_token(model), 2 * model.layers, bandwidth, overhead_ns)
