"""The link between GPU and CPU memory: one queue of copies in each direction, and what has gone over it."""

from __future__ import annotations

from dataclasses import dataclass

from dlpm.swap_timing import CopyTimer


@dataclass(slots=True)
class Traffic:
    """What swapping came to: requests, contiguous pieces and tokens each way; time in microseconds.

    ``reused_tokens`` were in CPU memory already when their request was swapped out. ``fallbacks`` are preemptions that
    found no room in CPU memory. ``stalled_us`` is how long forward steps waited for copies.
    """

    swapped_out: int = 0
    swapped_in: int = 0
    pieces_out: int = 0
    pieces_in: int = 0
    tokens_out: int = 0
    tokens_in: int = 0
    reused_tokens: int = 0
    recomputed: int = 0
    fallbacks: int = 0
    stalled_us: int = 0


class Link:
    """Both directions of one link; copies in one direction end in the order in which they began.

    Attributes:
        timer: how long copies take that begin from now on.
        out_until_us: when the last copy to CPU memory will be done.
        in_until_us: likewise the last one back.
    """

    def __init__(self, timer: CopyTimer) -> None:
        """Nothing under way."""
        self.timer = timer
        self.out_until_us = 0
        self.in_until_us = 0

    def out(self, now_us: int, pieces: int, tokens: int) -> int:
        """Begin a copy to CPU memory at ``now_us`` or when those before it are done: when it will be done. O(1)."""
        self.out_until_us = max(now_us, self.out_until_us) + self.timer.copy_us(pieces, tokens)
        return self.out_until_us

    def back(self, now_us: int, pieces: int, tokens: int) -> int:
        """Begin a copy to GPU memory likewise. O(1)."""
        self.in_until_us = max(now_us, self.in_until_us) + self.timer.copy_us(pieces, tokens)
        return self.in_until_us
