"""Who picks the changing quantum of E10 while the engine runs: fixed, a plain additive rule, and implicit FTRL.

The aim: a quantum as large as possible, because a larger one lets more requests that share a prefix run together,
while the measured Jain index stays above a target. A controller is asked at each refill, with the index measured since
the one before (`measured_quantum`). Whatever it answers within the range, the bounds of E10 hold; no theorem promises
the target.

`ImplicitFtrl` is generalized implicit follow-the-regularized-leader [GI-FTRL: Chen and Orabona, "Generalized Implicit
Follow-The-Regularized-Leader", ICML 2023, arXiv:2306.00201]. In general, with regularizers ``psi_t`` and a dual state
``theta``, it plays ``x_t``, the minimum over V of ``psi_t(x) - theta_t x``, hears the loss ``l_t``, and moves to
``theta_{t+1} = theta_t - z_t``. Plain FTRL takes for ``z_t`` a subgradient ``g_t`` at ``x_t``. GI-FTRL takes any
``z_t`` with ``H_t(z_t) <= H_t(g_t)``, where ``H_t(z) = psi*_{t+1}(theta_t - z) + l*_t(z)`` (conjugates over V): what
the inequality of Fenchel and Young leaves of round t in the regret. The least ``H_t`` is that of the implicit update:
``z_t`` is a subgradient where the algorithm will be, not where it was: at ``x_{t+1}``, the minimum over V of
``psi_{t+1}(x) - theta_t x + l_t(x)``.

Here V is the range of quanta, x the quantum, ``psi(x) = (x - x_1)^2 / (2 rate)`` for all t, and

    l_t(x) = -x + penalty * max(0, u_t (x / x_t)^2 - (1 - target)),    u_t = 1 - (Jain index measured under x_t).

The first term wants a large quantum. The second is the constraint, with a price and a surrogate: that unfairness grows
with the square of the quantum, through what was measured under ``x_t``. The square is that of the Jain index: ``1 - J``
is about the squared relative spread of services, and the spread of backlogged clients grows with the quantum. So what
theory says of regret is about this surrogate, not about throughput.

At an end of V, every ``z`` between the slope of ``l_t`` there and ``(x_1 + rate theta_t - x_{t+1}) / rate`` attains the
least ``H_t``, as ``l_t`` is defined on V alone. This file takes the second. So ``x_1 + rate theta_{t+1} = x_{t+1}``:
the state is the quantum itself, and nothing piles up while the quantum stands at an end, which with the slope it would,
and would have to be paid back before the quantum leaves. The update is a proximal step from the quantum in force:

    x_{t+1} = the minimum over V of (x - x_t)^2 / (2 rate) + l_t(x).

Its closed form, where V cuts off what lies outside: with ``free = x_t + rate`` and the largest quantum that the
surrogate allows, ``limit = x_t sqrt((1 - target) / u_t)``,

    free                                                     if free <= limit
    max(limit, free / (1 + 2 rate penalty u_t / x_t^2))      otherwise

So it climbs by at most ``rate`` a time, like the additive rule, but falls as far as the measurement says: as the
penalty grows, to exactly the limit. Integers and fractions only: the same run gives the same quanta everywhere. What
remains of rounding is that ``x_{t+1}`` is the best integer, not the best number.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import floor, isqrt
from typing import Protocol

from dlpm.errors import InputError
from dlpm.extensions.changing_quantum import QuantumRange


class QuantumController(Protocol):
    """Picks what the next refill pays."""

    def next_quantum(self, jain: Fraction | None) -> int:
        """The quantum in weighted tokens, within the range; asked once for each refill.

        ``jain`` is the index measured since the refill before, from above 0 to 1; ``None`` if there is none yet.
        """
        ...


class FixedQuantum:
    """The plain algorithm: always the same."""

    def __init__(self, quantum: int) -> None:
        """Answer ``quantum``, in weighted tokens."""
        self._quantum = quantum

    def next_quantum(self, jain: Fraction | None) -> int:
        """That quantum, whatever was measured. O(1)."""
        return self._quantum


class AdditiveQuantum:
    """One step up while the index is at the target or above, one step down while it is below."""

    def __init__(self, quantum_range: QuantumRange, target: Fraction, step: int) -> None:
        """Start at the smallest quantum; ``step`` in weighted tokens.

        Raises:
            InputError: unless 0 < ``target`` < 1 and ``step`` >= 1.
        """
        _check_target(target)
        _check_positive("step", step)
        self._range = quantum_range
        self._target = target
        self._step = step
        self._quantum = quantum_range.least

    def next_quantum(self, jain: Fraction | None) -> int:
        """The quantum in force, a step up or down if something was measured. O(1)."""
        if jain is not None:
            step = self._step if jain >= self._target else -self._step
            self._quantum = self._range.nearest(self._quantum + step)
        return self._quantum


@dataclass(frozen=True, slots=True)
class Aim:
    """What implicit FTRL wants, and how fast.

    Attributes:
        target: the Jain index to stay above.
        rate: the step size, in weighted tokens: how far the quantum climbs at most at one refill.
        penalty: the price of unfairness: by how many weighted tokens larger a quantum would have to be to make up for
            ``1 - J`` exceeding ``1 - target`` by 1.

    Raises:
        InputError: unless 0 < ``target`` < 1, and the others are >= 1.
    """

    target: Fraction
    rate: int
    penalty: int

    def __post_init__(self) -> None:
        """Check all three."""
        _check_target(self.target)
        _check_positive("rate", self.rate)
        _check_positive("penalty", self.penalty)

    def loss(self, quantum: int, in_force: int, unfairness: Fraction) -> Fraction:
        """``l_t`` at ``quantum``, ``unfairness`` = 1 - J having been measured under the quantum ``in_force``. O(1)."""
        expected = unfairness * Fraction(quantum**2, in_force**2)
        return self.penalty * max(Fraction(0), expected - (1 - self.target)) - quantum

    def objective(self, quantum: int, in_force: int, unfairness: Fraction) -> Fraction:
        """What the implicit update minimizes: the loss, and the price of moving from the quantum in force. O(1)."""
        return Fraction((quantum - in_force) ** 2, 2 * self.rate) + self.loss(quantum, in_force, unfairness)


def implicit_update(in_force: int, unfairness: Fraction, aim: Aim, quantum_range: QuantumRange) -> int:
    """The integer of the range with the smallest `Aim.objective`; of two, the smaller. O(1).

    The objective is convex: the integer that is sought is the real minimum rounded down, or the next one.
    """
    below = _real_minimum(in_force, unfairness, aim)
    pair = sorted({quantum_range.nearest(below), quantum_range.nearest(below + 1)})
    return min(pair, key=lambda quantum: aim.objective(quantum, in_force, unfairness))


def _real_minimum(in_force: int, unfairness: Fraction, aim: Aim) -> int:
    """The closed form of this file's head, rounded down."""
    free = in_force + aim.rate
    allowed = (1 - aim.target) * in_force**2
    if unfairness * free**2 <= allowed:
        return free
    damped = Fraction(free * in_force**2) / (in_force**2 + 2 * aim.rate * aim.penalty * unfairness)
    if unfairness * damped**2 >= allowed:
        return floor(damped)
    return isqrt(floor(allowed / unfairness))


class ImplicitFtrl:
    """Generalized implicit FTRL on the loss of this file's head."""

    def __init__(self, quantum_range: QuantumRange, aim: Aim) -> None:
        """Start at the smallest quantum, ``x_1``."""
        self._range = quantum_range
        self._aim = aim
        self._quantum = quantum_range.least

    def next_quantum(self, jain: Fraction | None) -> int:
        """The quantum in force, after one implicit update if something was measured. O(1)."""
        if jain is not None:
            self._quantum = implicit_update(self._quantum, 1 - jain, self._aim, self._range)
        return self._quantum


def _check_target(target: Fraction) -> None:
    """Refuse a Jain index that nothing, or only equal shares, could stay above."""
    if not 0 < target < 1:
        raise InputError(f"expected a Jain index between 0 and 1, found {target}", field="target")


def _check_positive(name: str, value: int) -> None:
    """Refuse a step that goes nowhere."""
    if value < 1:
        raise InputError(f"expected an integer > 0, found {value!r}", field=name)
