"""What a fault planted in the real worker is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.reference.lockstep import MEMORIES

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Fault:
    """A mistake that somebody could make, how to make it, and where to look for it."""

    sentence: str
    plant: Callable[[Patch], None]
    policies: tuple[str, ...] = ("dlpm",)
    memories: tuple[str, ...] = MEMORIES
