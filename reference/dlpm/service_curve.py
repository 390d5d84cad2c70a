"""Service of one client over a run, exactly and in little memory: a broken line over the forward steps."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Service:
    """Service in weighted tokens, counted in two ways [DLPM §3, §6.1].

    ``actual`` counts the extend tokens, which were computed: the paper's ``W``, what theorems and ledger speak of.
    ``perceived`` counts all input tokens, cached or not: what the paper calls the clients' perspective.
    """

    actual: int
    perceived: int

    def __sub__(self, earlier: Service) -> Service:
        """Service received since ``earlier``."""
        return Service(self.actual - earlier.actual, self.perceived - earlier.perceived)


class ServiceLine:
    """Service of one client as a function of the forward steps completed.

    An admission is a jump. Between two changes of its running batch a client receives the same service in each
    forward step, so a corner at each change is all that has to be kept to know its service at every step
    exactly: memory and time are O(corners), at most three for an admission and one for a departure.
    """

    __slots__ = ("_actual", "_perceived", "_step", "rate")

    def __init__(self, now: int) -> None:
        """No service at forward step ``now``, and none to come."""
        self.rate = 0
        self._step = array("q", (now,))
        self._actual = array("q", (0,))
        self._perceived = array("q", (0,))

    def now(self, step: int) -> Service:
        """Service at forward step ``step``, which is not before the last change. O(1)."""
        decoded = self.rate * (step - self._step[-1])
        return Service(self._actual[-1] + decoded, self._perceived[-1] + decoded)

    def jump(self, step: int, actual: int, perceived: int) -> None:
        """An admission after forward step ``step``: its extend tokens and its input tokens, weighted. O(1)."""
        self._corner(step)
        self._append(step, self._actual[-1] + actual, self._perceived[-1] + perceived)

    def change_rate(self, step: int, rate: int) -> None:
        """From forward step ``step`` on, each forward step is worth ``rate``. O(1)."""
        self._corner(step)
        self.rate = rate

    def after(self, step: int) -> Service:
        """Service when forward step ``step`` was completed, before any admission that followed it. O(log corners)."""
        right = bisect_left(self._step, step)
        if right == len(self._step):
            return self.now(step)
        if right == 0 or self._step[right] == step:
            return Service(self._actual[right], self._perceived[right])
        left = right - 1
        length = self._step[right] - self._step[left]
        decoded = (self._actual[right] - self._actual[left]) // length * (step - self._step[left])
        return Service(self._actual[left] + decoded, self._perceived[left] + decoded)

    def _corner(self, step: int) -> None:
        """Keep the point where the line stands now, unless it is the last one kept."""
        if step != self._step[-1]:
            here = self.now(step)
            self._append(step, here.actual, here.perceived)

    def _append(self, step: int, actual: int, perceived: int) -> None:
        """Keep one point."""
        self._step.append(step)
        self._actual.append(actual)
        self._perceived.append(perceived)
