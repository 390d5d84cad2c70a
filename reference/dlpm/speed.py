"""Workers of different speeds: a step-time model, scaled by an exact ratio."""

from __future__ import annotations

from fractions import Fraction

from dlpm.errors import InputError
from dlpm.timing import StepTimer, StepWork


class AtSpeed:
    """Step times of ``timer`` on a worker that is ``speed`` times as fast, rounded up to whole microseconds.

    Raises:
        InputError: if the speed is not positive.
    """

    def __init__(self, timer: StepTimer, speed: Fraction) -> None:
        """Keep the model and the ratio."""
        if speed <= 0:
            raise InputError(f"expected a number > 0, found {speed}", field="speeds")
        self._timer = timer
        self._numerator = speed.numerator
        self._denominator = speed.denominator

    def step_us(self, work: StepWork) -> int:
        """Duration of one forward step in microseconds, >= 1. Cost as the model's."""
        return -(-self._timer.step_us(work) * self._denominator // self._numerator)
