"""int64 arithmetic that never wraps: what does not fit is found before it is computed."""

from __future__ import annotations

import torch

INT64 = torch.int64
HIGHEST = 2**63 - 1
LOWEST = -(2**63)

_SAFE = 2**62
_MOST = 2**61


def fits(value: int) -> bool:
    """Whether ``value`` is an int64."""
    return LOWEST <= value <= HIGHEST


def surely_safe(values: torch.Tensor, weight: int, most: int) -> bool:
    """True if ``values - weight * n`` stays in range for every ``0 <= n <= most``; False if it takes a closer look.

    ``weight`` and ``most`` are not negative. One device synchronisation. O(len(values)).
    """
    return weight * most <= _SAFE and (values.numel() == 0 or int(values.amin()) >= -_SAFE)


def too_low(values: torch.Tensor, weight: int | torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Where the true ``values - weight * counts`` lies below int64; computed without overflow. O(len(values)).

    ``weight`` is an int64 > 0, or a tensor of such that is broadcast to the values; ``counts`` are in 0..2^61. It is
    too low where ``counts > (values + 2^63) // weight``. For values >= 0 that sum would overflow, so quotients and
    remainders of ``2^63 - 1`` and of the value are added apart, and quotients beyond every count are cut off.
    """
    weights = torch.as_tensor(weight, dtype=INT64, device=values.device)
    quotient = torch.div(torch.full_like(weights, HIGHEST), weights, rounding_mode="floor")
    remainder = HIGHEST - quotient * weights
    positive = values.clamp(min=0)
    carry = (positive % weights >= weights - 1 - remainder).to(INT64)
    room_above = (
        quotient.clamp(max=_MOST) + torch.div(positive, weights, rounding_mode="floor").clamp(max=_MOST) + carry
    )
    negative = values.clamp(max=-1)
    room_below = torch.div(negative + HIGHEST + 1, weights, rounding_mode="floor")
    return counts > torch.where(values >= 0, room_above, room_below)
