"""Run real functions on symbolic integers: comparisons fork, every feasible path is explored.

`SymInt` is an `int` to the code that it is handed to. Adding and multiplying builds polynomials; *comparing* asks the
running `Exploration` which way to go. `Exploration.paths` runs a function again and again, once for each sequence of
answers that a solver finds possible, and returns for each what was assumed on the way and what came out.

Nothing here trusts the pruning: `covering` is the claim that the explored paths leave nothing out, to be
discharged by both solvers like any other obligation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar

from dlpm_proofs.solvers import Feasibility
from dlpm_proofs.terms import (
    And,
    AtMostZero,
    Flag,
    Formula,
    IsZero,
    Not,
    Or,
    Poly,
    at_least,
    at_most,
    equal,
    implies,
    less,
    poly,
)

Result = TypeVar("Result")

MAX_PATHS = 20_000
"""More than this is a loop that should have been cut at a transition."""


class SymbolicError(Exception):
    """Code did with a symbolic integer what has no symbolic meaning, or went too many ways."""


@dataclass(frozen=True, slots=True)
class Path(Generic[Result]):
    """One way through the code: the answers that lead there, and what came out or was raised."""

    conditions: tuple[Formula, ...]
    result: Result | None
    error: Exception | None = None

    def outcome(self) -> Result:
        """What the code returned.

        Raises:
            SymbolicError: if it raised instead.
        """
        if self.error is not None or self.result is None:
            raise SymbolicError(f"this path ends in {self.error!r}")
        return self.result

    def condition(self) -> Formula:
        """All answers on the way."""
        return And(self.conditions)


class Exploration:
    """Explores functions under assumptions about the unknowns they are given.

    Unknown integers are made with `integer`; a yes or no that no code decides, with `flag`.
    """

    def __init__(self, assumptions: Sequence[Formula] = ()) -> None:
        """Explore only what is possible under ``assumptions``."""
        self.assumptions = tuple(assumptions)
        self._feasibility = Feasibility(self.assumptions)
        self.definitions: dict[Formula, None] = {}
        self._running = False
        self._prefix: tuple[bool, ...] = ()
        self._answers: list[bool] = []
        self._conditions: dict[Formula, bool] = {}
        self._pending: list[tuple[bool, ...]] = []

    def integer(self, name: str) -> SymInt:
        """The unknown integer ``name``."""
        return SymInt(self, Poly.unknown(name))

    def flag(self, name: str) -> bool:
        """Fork on a yes or no called ``name``; the same name gets the same answer along a path."""
        return self.decide(Flag(name))

    def quotient(self, left: Poly, right: Poly) -> SymInt:
        """``left // right`` for ``right`` >= 1: a new unknown, with what the division means among the `definitions`.

        ``k = left // right`` if and only if ``k * right <= left < (k + 1) * right``, and there always is such a k.
        """
        name = f"({left}) div ({right})"
        whole = Poly.unknown(name) * right
        meaning = implies(at_least(right, 1), And((at_most(whole, left), less(left, whole + right))))
        self.definitions[meaning] = None
        self._feasibility.assume(meaning)
        return self.integer(name)

    def decide(self, formula: AtMostZero | IsZero | Flag) -> bool:
        """Which way the running path goes at ``formula``.

        Raises:
            SymbolicError: if nothing is being explored.
        """
        if not isinstance(formula, Flag):
            value = formula.poly.as_constant()
            if value is not None:
                return value <= 0 if isinstance(formula, AtMostZero) else value == 0
        if not self._running:
            raise SymbolicError("a symbolic integer was compared outside an exploration")
        known = self._conditions.get(formula)
        if known is not None:
            return known
        answer = self._next_answer(formula)
        self._answers.append(answer)
        self._conditions[formula] = answer
        self._feasibility.assume(formula if answer else Not(formula))
        return answer

    def _next_answer(self, formula: Formula) -> bool:
        """The answer of the prefix being followed; beyond it the first possible one, the other kept for later."""
        position = len(self._answers)
        if position < len(self._prefix):
            return self._prefix[position]
        if not self._feasibility.possible(formula):
            return False
        if self._feasibility.possible(Not(formula)):
            self._pending.append((*self._answers, False))
        return True

    def paths(self, function: Callable[[], Result]) -> list[Path[Result]]:
        """Every feasible path through ``function``, which must make its mutable state afresh at each call.

        Raises:
            SymbolicError: if there are more than `MAX_PATHS`, or a symbolic integer was used as a concrete one.
        """
        found: list[Path[Result]] = []
        self._pending = [()]
        while self._pending:
            if len(found) >= MAX_PATHS:
                raise SymbolicError(f"more than {MAX_PATHS} paths")
            found.append(self._one_path(function, self._pending.pop()))
        return found

    def _one_path(self, function: Callable[[], Result], prefix: tuple[bool, ...]) -> Path[Result]:
        """Follow the answers in ``prefix``, then the first possible answer each time."""
        self._prefix, self._answers, self._conditions = prefix, [], {}
        self._running = True
        self._feasibility.push()
        try:
            result = function()
            return Path(self._literals(), result)
        except SymbolicError:
            raise
        except Exception as error:  # the code under proof may raise anything: that is a finding, not a failure of ours
            return Path(self._literals(), None, error)
        finally:
            self._feasibility.pop()
            self._running = False

    def _literals(self) -> tuple[Formula, ...]:
        """The answers of the running path."""
        return tuple(formula if answer else Not(formula) for formula, answer in self._conditions.items())


def covering(paths: Sequence[Path[Result]]) -> Formula:
    """Some path is taken. Under the assumptions of the exploration this must be valid."""
    return Or(tuple(path.condition() for path in paths))


if TYPE_CHECKING:
    _Integer = int
else:
    # A real subclass of `int` would have a value, which `range` and the like read without asking. So it only says that
    # it is an `int` (see `__class__` below), and whatever needs a value fails.
    _Integer = object


class SymInt(_Integer):
    """An `int` whose value is a polynomial. It adds, multiplies, compares, divides with rest, and refuses all else."""

    poly: Poly
    exploration: Exploration

    def __new__(cls, exploration: Exploration, value: Poly) -> SymInt:
        """Wrap ``value``; ``exploration`` decides its comparisons."""
        self = super().__new__(cls)
        self.poly = value
        self.exploration = exploration
        return self

    if not TYPE_CHECKING:

        @property
        def __class__(self) -> type[int]:
            return int

    def _of(self, value: Poly) -> SymInt:
        return SymInt(self.exploration, value)

    def __add__(self, other: int) -> SymInt:
        return self._of(self.poly + poly(other))

    def __sub__(self, other: int) -> SymInt:
        return self._of(self.poly - poly(other))

    def __mul__(self, other: int) -> SymInt:
        return self._of(self.poly * poly(other))

    def __radd__(self, other: int) -> SymInt:
        return self + other

    def __rsub__(self, other: int) -> SymInt:
        return self._of(poly(other) - self.poly)

    def __rmul__(self, other: int) -> SymInt:
        return self * other

    def __floordiv__(self, other: int) -> SymInt:
        return self.exploration.quotient(self.poly, poly(other))

    def __rfloordiv__(self, other: int) -> SymInt:
        return self.exploration.quotient(poly(other), self.poly)

    def __neg__(self) -> SymInt:
        return self._of(-self.poly)

    def __pos__(self) -> SymInt:
        return self

    def __lt__(self, other: int) -> bool:
        return self.exploration.decide(less(self, other))

    def __le__(self, other: int) -> bool:
        return self.exploration.decide(at_most(self, other))

    def __gt__(self, other: int) -> bool:
        return self.exploration.decide(less(other, self))

    def __ge__(self, other: int) -> bool:
        return self.exploration.decide(at_most(other, self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and self.exploration.decide(equal(self, other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __bool__(self) -> bool:
        return not self.exploration.decide(equal(self, 0))

    def __repr__(self) -> str:
        return f"SymInt({self.poly})"

    __str__ = __repr__

    def __format__(self, specification: str) -> str:
        """As text, for messages: no value comes out, so a number's format has no meaning."""
        return repr(self) if not specification else self._refuse()

    def _refuse(self, *_: object) -> NoReturn:
        raise SymbolicError(f"{self!r} was used as a concrete integer")

    __hash__ = _refuse
    __index__ = __int__ = __float__ = __complex__ = __trunc__ = __floor__ = __ceil__ = _refuse
    __abs__ = __invert__ = __round__ = __reduce__ = _refuse
    __truediv__ = __rtruediv__ = __mod__ = __rmod__ = _refuse
    __divmod__ = __rdivmod__ = __pow__ = __rpow__ = _refuse
    __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = _refuse
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = _refuse
