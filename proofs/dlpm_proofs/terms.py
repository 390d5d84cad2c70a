"""Integer polynomials over named unknowns, formulas over them, and their SMT-LIB 2 text.

A solver sees every polynomial as a *linear* one: a product of unknowns such as ``w_q * R`` becomes one more unknown,
called ``w_q*R``. What a solver must know about such a name is stated beside it as sign facts (`sign_facts`), each an
instance of "a product is positive, zero or negative as its factors' signs say". So no obligation needs nonlinear
arithmetic, and nothing is assumed that real multiplication does not satisfy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain

Monomial = tuple[str, ...]
"""Names multiplied together, sorted; the empty one is the constant 1."""


@dataclass(frozen=True, slots=True)
class Poly:
    """A polynomial with integer coefficients: its monomials with non-zero coefficients, sorted."""

    parts: tuple[tuple[Monomial, int], ...]

    @staticmethod
    def of(coefficients: Mapping[Monomial, int]) -> Poly:
        """The polynomial with these coefficients; zeros are dropped."""
        return Poly(tuple(sorted((monomial, value) for monomial, value in coefficients.items() if value)))

    @staticmethod
    def constant(value: int) -> Poly:
        """An integer."""
        return Poly((((), value),) if value else ())

    @staticmethod
    def unknown(name: str) -> Poly:
        """A named unknown."""
        return Poly((((name,), 1),))

    def __add__(self, other: Poly) -> Poly:
        total = dict(self.parts)
        for monomial, value in other.parts:
            total[monomial] = total.get(monomial, 0) + value
        return Poly.of(total)

    def __neg__(self) -> Poly:
        return Poly(tuple((monomial, -value) for monomial, value in self.parts))

    def __sub__(self, other: Poly) -> Poly:
        return self + -other

    def __mul__(self, other: Poly) -> Poly:
        total: dict[Monomial, int] = {}
        for left, a in self.parts:
            for right, b in other.parts:
                monomial = tuple(sorted(left + right))
                total[monomial] = total.get(monomial, 0) + a * b
        return Poly.of(total)

    def as_constant(self) -> int | None:
        """Its value if it has no unknowns."""
        if not self.parts:
            return 0
        if len(self.parts) == 1 and self.parts[0][0] == ():
            return self.parts[0][1]
        return None

    def names(self) -> set[str]:
        """The unknowns in it."""
        return set(chain.from_iterable(monomial for monomial, _ in self.parts))

    def value(self, model: Mapping[str, int]) -> int:
        """Its value when the unknowns have these values, with real multiplication."""
        total = 0
        for monomial, coefficient in self.parts:
            product = coefficient
            for name in monomial:
                product *= model[name]
            total += product
        return total

    def with_values(self, values: Mapping[str, int]) -> Poly:
        """The polynomial with numbers in place of some unknowns."""
        total: dict[Monomial, int] = {}
        for monomial, coefficient in self.parts:
            product = coefficient
            for name in monomial:
                product *= values.get(name, 1)
            rest = tuple(name for name in monomial if name not in values)
            total[rest] = total.get(rest, 0) + product
        return Poly.of(total)

    def replaced(self, values: Mapping[str, Poly]) -> Poly:
        """The polynomial with polynomials in place of some unknowns."""
        total = Poly(())
        for monomial, coefficient in self.parts:
            product = Poly.constant(coefficient)
            for name in monomial:
                product = product * values.get(name, Poly.unknown(name))
            total += product
        return total

    def divided_by(self, name: str) -> Poly | None:
        """The polynomial that times the unknown ``name`` is this one, if there is one."""
        quotient: dict[Monomial, int] = {}
        for monomial, coefficient in self.parts:
            if name not in monomial:
                return None
            place = monomial.index(name)
            quotient[monomial[:place] + monomial[place + 1 :]] = coefficient
        return Poly.of(quotient)

    def __str__(self) -> str:
        return _sum(self)


@dataclass(frozen=True, slots=True)
class AtMostZero:
    """``poly <= 0``."""

    poly: Poly


@dataclass(frozen=True, slots=True)
class IsZero:
    """``poly = 0``."""

    poly: Poly


@dataclass(frozen=True, slots=True)
class Flag:
    """A named yes or no that nothing else decides."""

    name: str


@dataclass(frozen=True, slots=True)
class Not:
    """Negation."""

    formula: Formula


@dataclass(frozen=True, slots=True)
class And:
    """Conjunction; the empty one is true."""

    formulas: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Disjunction; the empty one is false."""

    formulas: tuple[Formula, ...]


Formula = AtMostZero | IsZero | Flag | Not | And | Or

TRUE = And(())
FALSE = Or(())

Number = Poly | int


def poly(value: Number) -> Poly:
    """The polynomial of ``value``; a symbolic integer brings its own."""
    if isinstance(value, Poly):
        return value
    own = getattr(value, "poly", None)
    return own if isinstance(own, Poly) else Poly.constant(value)


def at_most(left: Number, right: Number) -> AtMostZero:
    """``left <= right``."""
    return AtMostZero(poly(left) - poly(right))


def at_least(left: Number, right: Number) -> AtMostZero:
    """``left >= right``."""
    return at_most(right, left)


def less(left: Number, right: Number) -> AtMostZero:
    """``left < right``, over integers."""
    return AtMostZero(poly(left) - poly(right) + Poly.constant(1))


def equal(left: Number, right: Number) -> IsZero:
    """``left = right``."""
    return IsZero(poly(left) - poly(right))


def all_of(*formulas: Formula) -> Formula:
    """Every one of them."""
    return And(formulas)


def any_of(*formulas: Formula) -> Formula:
    """At least one of them."""
    return Or(formulas)


def implies(premise: Formula, conclusion: Formula) -> Formula:
    """``premise`` only with ``conclusion``."""
    return Or((Not(premise), conclusion))


def between(low: Number, value: Number, high: Number) -> Formula:
    """``low <= value <= high``."""
    return And((at_most(low, value), at_most(value, high)))


def absolute_at_most(value: Number, bound: Number) -> Formula:
    """``|value| <= bound``."""
    return And((at_most(value, bound), at_most(-poly(value), bound)))


def leaves(formula: Formula) -> Iterator[AtMostZero | IsZero | Flag]:
    """The comparisons and flags that ``formula`` is made of, from left to right."""
    todo = [formula]
    while todo:
        match todo.pop():
            case Not(inner):
                todo.append(inner)
            case And(formulas) | Or(formulas):
                todo.extend(reversed(formulas))
            case leaf:
                yield leaf


def atoms(formula: Formula) -> Iterator[Poly]:
    """The polynomials compared with zero in ``formula``."""
    return (leaf.poly for leaf in leaves(formula) if not isinstance(leaf, Flag))


def flags(formula: Formula) -> Iterator[str]:
    """The names of the flags in ``formula``."""
    return (leaf.name for leaf in leaves(formula) if isinstance(leaf, Flag))


def holds(formula: Formula, numbers: Mapping[str, int], truths: Mapping[str, bool]) -> bool:
    """Evaluate ``formula`` without a solver, products being products. An unnamed flag is false."""
    match formula:
        case AtMostZero(inner):
            return inner.value(numbers) <= 0
        case IsZero(inner):
            return inner.value(numbers) == 0
        case Flag(name):
            return truths.get(name, False)
        case Not(negated):
            return not holds(negated, numbers, truths)
        case And(formulas):
            return all(holds(part, numbers, truths) for part in formulas)
        case Or(formulas):
            return any(holds(part, numbers, truths) for part in formulas)


def substitute(formula: Formula, values: Mapping[str, int]) -> Formula:
    """``formula`` with numbers in place of some unknowns."""
    match formula:
        case AtMostZero(inner):
            return AtMostZero(inner.with_values(values))
        case IsZero(inner):
            return IsZero(inner.with_values(values))
        case Flag():
            return formula
        case Not(negated):
            return Not(substitute(negated, values))
        case And(formulas):
            return And(tuple(substitute(part, values) for part in formulas))
        case Or(formulas):
            return Or(tuple(substitute(part, values) for part in formulas))


@dataclass(frozen=True, slots=True)
class Products:
    """Which products an obligation speaks of, so that solvers can be told what their factors' signs say.

    ``factors`` multiply; what they multiply are polynomials of ``counts`` only (a weight never multiplies what is
    weighted already). ``cuts`` are polynomials to be multiplied although nothing compares them with zero.
    """

    factors: tuple[Poly, ...] = ()
    counts: frozenset[str] = frozenset()
    cuts: tuple[Poly, ...] = ()

    def with_values(self, values: Mapping[str, int]) -> Products:
        """The same with numbers in place of some unknowns."""
        return Products(
            tuple(factor.with_values(values) for factor in self.factors),
            self.counts,
            tuple(cut.with_values(values) for cut in self.cuts),
        )

    def facts(self, formulas: Iterable[Formula]) -> tuple[Formula, ...]:
        """Sign facts of every factor with every polynomial of counts compared in ``formulas``. O(factors * atoms).

        A factor of one term is a weight or a limit: what would follow if it were negative is left out.
        """
        compared = chain.from_iterable(atoms(formula) for formula in formulas) if self.factors else ()
        multiplied: dict[Poly, None] = {}
        for inner in chain(compared, self.cuts):
            names = inner.names()
            if names and names <= self.counts and -inner not in multiplied:
                multiplied[inner] = None
        return tuple(
            fact
            for factor in self.factors
            for inner in multiplied
            if factor.as_constant() is None and not inner.names() & factor.names()
            for fact in sign_facts(factor, inner)[: 2 if len(factor.parts) == 1 else 4]
        )


NO_PRODUCTS = Products()
"""Nothing is multiplied."""


def sign_facts(left: Poly, right: Poly) -> tuple[Formula, ...]:
    """What the signs of two factors say about their product; true for all integers."""
    product = left * right
    return (
        implies(And((at_least(left, 0), at_least(right, 0))), at_least(product, 0)),
        implies(And((at_least(left, 0), at_most(right, 0))), at_most(product, 0)),
        implies(And((at_most(left, 0), at_least(right, 0))), at_most(product, 0)),
        implies(And((at_most(left, 0), at_most(right, 0))), at_least(product, 0)),
    )


def smtlib(formula: Formula) -> str:
    """``formula`` as an SMT-LIB 2 term of linear integer arithmetic."""
    match formula:
        case AtMostZero(inner):
            return _comparison("<=", inner)
        case IsZero(inner):
            return _comparison("=", inner)
        case Flag(name):
            return f"|{name}|"
        case Not(negated):
            return f"(not {smtlib(negated)})"
        case And(()):
            return "true"
        case Or(()):
            return "false"
        case And(formulas) | Or(formulas):
            if len(formulas) == 1:
                return smtlib(formulas[0])
            operator = "and" if isinstance(formula, And) else "or"
            return f"({operator} {' '.join(smtlib(part) for part in formulas)})"


@cache
def _comparison(operator: str, inner: Poly) -> str:
    """``inner`` compared with zero, positive terms left and negative ones right: it reads better."""
    left = Poly(tuple((monomial, value) for monomial, value in inner.parts if value > 0))
    right = Poly(tuple((monomial, -value) for monomial, value in inner.parts if value < 0))
    return f"({operator} {_smt_sum(left)} {_smt_sum(right)})"


def _smt_sum(inner: Poly) -> str:
    """A sum with positive coefficients."""
    terms = []
    for monomial, value in inner.parts:
        if not monomial:
            terms.append(str(value))
        elif value == 1:
            terms.append(f"|{product_name(monomial)}|")
        else:
            terms.append(f"(* {value} |{product_name(monomial)}|)")
    if not terms:
        return "0"
    return terms[0] if len(terms) == 1 else f"(+ {' '.join(terms)})"


def _sum(inner: Poly) -> str:
    """A polynomial as people write it."""
    if not inner.parts:
        return "0"
    words = []
    for monomial, value in sorted(inner.parts, key=lambda part: part[0] == ()):
        size = abs(value)
        body = "*".join((() if size == 1 and monomial else (str(size),)) + monomial)
        words.append(("- " if value < 0 else "+ ") + body)
    text = " ".join(words)
    return text[2:] if text.startswith("+ ") else "-" + text[2:]


def product_name(monomial: Monomial) -> str:
    """The name under which solvers know a product."""
    return "*".join(monomial)
