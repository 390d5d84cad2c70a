"""Polynomials and formulas: what solvers are told is what the numbers do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dlpm_proofs.solvers import CVC5, Z3, Status
from dlpm_proofs.terms import (
    And,
    AtMostZero,
    Flag,
    Formula,
    IsZero,
    Not,
    Or,
    Poly,
    Products,
    atoms,
    holds,
    product_name,
    sign_facts,
    smtlib,
    substitute,
)

NAMES = ("a", "b", "c")
numbers = st.integers(-6, 6)
models = st.fixed_dictionaries(dict.fromkeys(NAMES, numbers))
monomials = st.lists(st.sampled_from(NAMES), max_size=3).map(lambda names: tuple(sorted(names)))
polys = st.dictionaries(monomials, numbers, max_size=4).map(Poly.of)
truths = st.fixed_dictionaries({"p": st.booleans(), "q": st.booleans()})
formulas: st.SearchStrategy[Formula] = st.recursive(
    polys.map(AtMostZero) | polys.map(IsZero) | st.sampled_from(["p", "q"]).map(Flag),
    lambda inner: (
        inner.map(Not)
        | st.lists(inner, max_size=3).map(lambda parts: And(tuple(parts)))
        | st.lists(inner, max_size=3).map(lambda parts: Or(tuple(parts)))
    ),
    max_leaves=6,
)


@given(polys, polys, models)
def test_adding_and_multiplying_polynomials_adds_and_multiplies_their_values(
    left: Poly, right: Poly, model: dict[str, int]
) -> None:
    assert (left + right).value(model) == left.value(model) + right.value(model)
    assert (left - right).value(model) == left.value(model) - right.value(model)
    assert (left * right).value(model) == left.value(model) * right.value(model)


@given(polys, polys)
def test_equal_polynomials_are_the_same_object_of_comparison(left: Poly, right: Poly) -> None:
    assert left * right == right * left
    assert (left + right) * left == left * left + right * left


@given(polys, models, st.sets(st.sampled_from(NAMES)))
def test_putting_numbers_in_first_changes_no_value(value: Poly, model: dict[str, int], fixed: set[str]) -> None:
    some = {name: model[name] for name in fixed}
    assert value.with_values(some).value(model) == value.value(model)
    assert value.replaced({name: Poly.constant(number) for name, number in some.items()}) == value.with_values(some)


@given(polys)
def test_a_polynomial_divided_by_a_factor_times_that_factor_is_the_polynomial(value: Poly) -> None:
    factor = Poly.unknown("a")
    assert (value * factor).divided_by("a") == value
    quotient = value.divided_by("a")
    assert quotient is None or quotient * factor == value


@given(polys, polys, models)
def test_sign_facts_hold_for_all_integers(left: Poly, right: Poly, model: dict[str, int]) -> None:
    assert all(holds(fact, model, {}) for fact in sign_facts(left, right))


@given(st.lists(polys, max_size=3), st.lists(formulas, max_size=3), models)
def test_every_product_fact_of_an_obligation_holds_for_all_integers(
    factors: list[Poly], given_formulas: list[Formula], model: dict[str, int]
) -> None:
    products = Products(tuple(factors), frozenset(NAMES))
    assert all(holds(fact, model, {}) for fact in products.facts(given_formulas))


@given(formulas, models, truths)
def test_a_formula_with_numbers_in_place_holds_exactly_when_it_held_with_them(
    formula: Formula, model: dict[str, int], flags: dict[str, bool]
) -> None:
    assert holds(substitute(formula, model), {}, flags) == holds(formula, model, flags)


@given(formulas, models, truths)
def test_both_solvers_read_the_text_as_the_evaluator_reads_the_formula(
    formula: Formula, model: dict[str, int], flags: dict[str, bool]
) -> None:
    names = {product_name(m): m for inner in atoms(formula) for m, _ in inner.parts if m}
    lines = ["(set-logic QF_LIA)"]
    for name, monomial in names.items():
        value = Poly.of({monomial: 1}).value(model)
        lines += [f"(declare-const |{name}| Int)", f"(assert (= |{name}| {value if value >= 0 else f'(- {-value})'}))"]
    for name, truth in flags.items():
        lines += [f"(declare-const |{name}| Bool)", f"(assert (= |{name}| {str(truth).lower()}))"]
    text = "\n".join([*lines, f"(assert {smtlib(formula)})", "(check-sat)"])
    expected = Status.SAT if holds(formula, model, flags) else Status.UNSAT
    assert Z3().solve(text, 5).status is expected
    assert CVC5(check_proofs=False).solve(text, 5).status is expected
