"""How a worker swaps, and what the header of its log says of it."""

from __future__ import annotations

from dataclasses import dataclass

from dlpm.errors import InputError
from dlpm.events import Extensions

NAME = "swap"


@dataclass(frozen=True, slots=True)
class SwapConfig:
    """How a worker swaps.

    Attributes:
        cpu_tokens: ``C``, CPU memory for copies, in tokens; 0 for none.
        group_blocks: blocks reserved together; 1 for a paged allocator without groups.
        piecewise: what is contiguous on both sides is one copy; otherwise every block is.
        asynchronous: forward steps go on beside copies.
        ahead: tokens to keep free by swapping out early, in asynchronous mode.
        resume_first: nobody is admitted while a request is swapped out.

    Raises:
        InputError: if a size is out of range.
    """

    cpu_tokens: int
    group_blocks: int = 1
    piecewise: bool = False
    asynchronous: bool = False
    ahead: int = 0
    resume_first: bool = True

    def __post_init__(self) -> None:
        """Refuse sizes that mean nothing."""
        for name, least in (("cpu_tokens", 0), ("group_blocks", 1), ("ahead", 0)):
            value = getattr(self, name)
            if value < least:
                raise InputError(f"expected an integer >= {least}, found {value}", field=f"swap.{name}")
        if self.ahead and not self.asynchronous:
            raise InputError("expected 0 without asynchronous copies", field="swap.ahead")

    def stated(self) -> Extensions:
        """What the header of a log says of this extension: what its rules depend on."""
        return {NAME: {"cpu_tokens": self.cpu_tokens, "resume": "first" if self.resume_first else "beside"}}
