"""Admission control: may a request join the running batch, given the KV memory? [DLPM Alg. 1 l. 21 ``CanAdd``].

``free`` is always the capacity ``M`` less what running requests lock or have set aside; unlocked cached
prefixes count as free, because they are evicted on demand. All quantities are in tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dlpm.errors import InputError


class AdmissionControl(Protocol):
    """What an admission sets aside, and when it is allowed."""

    @property
    def kind(self) -> str:
        """Name in event logs: `reserving` or `optimistic`."""

    def reserve(self, output_left: int) -> int:
        """Tokens set aside at admission for the ``output_left`` tokens a request may still generate."""

    def can_add(self, free: int, extend: int, output_left: int, running: int) -> bool:
        """``CanAdd``: may a request with ``extend`` tokens to compute join ``running`` others, with ``free`` tokens?"""


@dataclass(frozen=True, slots=True)
class Reserving:
    """Extend tokens *and the maximum output* must fit beside all that is locked or reserved.

    A running request never runs out of memory. The paper's proof of its eq. 2 needs this kind [DLPM App. A.1].
    """

    kind = "reserving"

    def reserve(self, output_left: int) -> int:
        """The whole output that may still come."""
        return output_left

    def can_add(self, free: int, extend: int, output_left: int, running: int) -> bool:
        """Extend tokens and all output that may still come fit into the free memory."""
        return extend + output_left <= free


@dataclass(frozen=True, slots=True)
class Optimistic:
    """Only the extend tokens, and a watermark, must fit; when memory runs out, the youngest is preempted.

    This is what engines do. The watermark (tokens kept free) does not apply to an empty batch, which it could
    block for ever.

    Raises:
        InputError: if the watermark is negative.
    """

    watermark: int = 0
    kind = "optimistic"

    def __post_init__(self) -> None:
        """Refuse a negative watermark."""
        if self.watermark < 0:
            raise InputError(f"expected an integer >= 0, found {self.watermark}", field="watermark")

    def reserve(self, output_left: int) -> int:
        """Nothing."""
        return 0

    def can_add(self, free: int, extend: int, output_left: int, running: int) -> bool:
        """Extend tokens fit, and leave the watermark free beside others."""
        return extend + (self.watermark if running else 0) <= free
