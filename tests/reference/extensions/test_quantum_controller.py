"""Who picks the quantum: implicit FTRL beside its definition, and the additive rule."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dlpm.errors import InputError
from dlpm.extensions.changing_quantum import QuantumRange
from dlpm.extensions.quantum_controller import AdditiveQuantum, Aim, FixedQuantum, ImplicitFtrl, implicit_update

RANGE = QuantumRange(10, 90)
TARGET = Fraction(9, 10)


def ratios(least: int = 0, most: int = 60) -> st.SearchStrategy[Fraction]:
    return st.integers(least, most).map(lambda part: Fraction(part, 60))


def aims() -> st.SearchStrategy[Aim]:
    return st.builds(Aim, ratios(1, 59), st.integers(1, 50), st.integers(1, 3_000))


def naive_loss(quantum: int, in_force: int, unfairness: Fraction, aim: Aim) -> Fraction:
    """The loss as the page has it."""
    excess = unfairness * quantum * quantum / (in_force * in_force) - (1 - aim.target)
    return Fraction(-quantum) + (aim.penalty * excess if excess > 0 else 0)


def naive_update(in_force: int, unfairness: Fraction, aim: Aim, quantum_range: QuantumRange) -> int:
    """The argmin by trying all."""
    best, least = 0, None
    for quantum in range(quantum_range.least, quantum_range.most + 1):
        distance = Fraction((quantum - in_force) * (quantum - in_force), 2 * aim.rate)
        value = distance + naive_loss(quantum, in_force, unfairness, aim)
        if least is None or value < least:
            best, least = quantum, value
    return best


@given(ends=st.tuples(st.integers(1, 120), st.integers(1, 120)), place=ratios(), unfairness=ratios(), aim=aims())
# The three cases of the closed form, and both ends of the range.
@example(ends=(10, 90), place=Fraction(1, 2), unfairness=Fraction(0), aim=Aim(TARGET, 7, 100))
@example(ends=(10, 90), place=Fraction(1, 2), unfairness=Fraction(1, 2), aim=Aim(TARGET, 7, 100))
@example(ends=(10, 90), place=Fraction(1, 2), unfairness=Fraction(1, 6), aim=Aim(TARGET, 7, 3_000))
@example(ends=(10, 90), place=Fraction(1), unfairness=Fraction(0), aim=Aim(TARGET, 7, 100))
@example(ends=(10, 90), place=Fraction(0), unfairness=Fraction(1), aim=Aim(TARGET, 7, 3_000))
def test_the_closed_form_is_the_argmin_found_by_trying_all(
    ends: tuple[int, int], place: Fraction, unfairness: Fraction, aim: Aim
) -> None:
    quantum_range = QuantumRange(min(ends), max(ends))
    in_force = quantum_range.least + round(place * (quantum_range.most - quantum_range.least))
    assert implicit_update(in_force, unfairness, aim, quantum_range) == naive_update(
        in_force, unfairness, aim, quantum_range
    )


@pytest.mark.parametrize("unfairness", [Fraction(1, 100), Fraction(7, 100), Fraction(1, 4)])
def test_so_it_is_for_quanta_of_thousands(unfairness: Fraction) -> None:
    quantum_range, aim = QuantumRange(1_000, 12_000), Aim(Fraction(95, 100), 400, 400_000)
    assert implicit_update(9_001, unfairness, aim, quantum_range) == naive_update(9_001, unfairness, aim, quantum_range)


@given(in_force=st.integers(10, 90), first=st.integers(10, 90), unfairness=ratios(), aim=aims())
def test_the_update_is_that_of_generalized_implicit_ftrl_with_the_least_h(
    in_force: int, first: int, unfairness: Fraction, aim: Aim
) -> None:
    """All conjugates are over the integers of the range, by trying all.

    ``z`` is what takes the state ``first + rate theta`` to the new quantum, moved into the subdifferential of the loss
    there; rounding moves the state by half a token at most.
    """
    quanta = range(RANGE.least, RANGE.most + 1)
    theta = Fraction(in_force - first, aim.rate)

    def regularizer(quantum: int) -> Fraction:
        return Fraction((quantum - first) ** 2, 2 * aim.rate)

    losses = {quantum: naive_loss(quantum, in_force, unfairness, aim) for quantum in quanta}

    def slopes(quantum: int) -> tuple[Fraction | None, Fraction | None]:
        left = None if quantum == RANGE.least else losses[quantum] - losses[quantum - 1]
        right = None if quantum == RANGE.most else losses[quantum + 1] - losses[quantum]
        return left, right

    def h(z: Fraction) -> Fraction:
        of_regularizer = max((theta - z) * quantum - regularizer(quantum) for quantum in quanta)
        return of_regularizer + max(z * quantum - losses[quantum] for quantum in quanta)

    after = implicit_update(in_force, unfairness, aim, RANGE)
    left, right = slopes(after)
    z = Fraction(in_force - after, aim.rate)
    if left is not None:
        z = max(z, left)
    if right is not None:
        z = min(z, right)
    assert abs(first + aim.rate * (theta - z) - after) <= Fraction(1, 2)
    least = -min(regularizer(quantum) - theta * quantum + losses[quantum] for quantum in quanta)
    assert h(z) == least, "no H is below this: Fenchel and Young"
    for subgradient in slopes(in_force):
        if subgradient is not None:
            assert h(z) <= h(subgradient)


@given(in_force=st.integers(10, 90), pair=st.tuples(ratios(), ratios()), aim=aims())
def test_a_fairer_measurement_never_gives_a_smaller_quantum_and_the_climb_is_the_rate(
    in_force: int, pair: tuple[Fraction, Fraction], aim: Aim
) -> None:
    fair, unfair = (implicit_update(in_force, unfairness, aim, RANGE) for unfairness in sorted(pair))
    assert unfair <= fair <= in_force + aim.rate


def test_with_a_large_penalty_the_quantum_falls_to_what_the_surrogate_allows_and_no_further() -> None:
    # 1 - J is 0.4 at 80, and 0.1 is allowed: half the quantum.
    aim = Aim(TARGET, 5, 10**9)
    assert implicit_update(80, Fraction(4, 10), aim, RANGE) == 40
    assert aim.loss(40, 80, Fraction(4, 10)) == -40, "nothing to pay for"
    assert aim.loss(41, 80, Fraction(4, 10)) > 0


def test_a_small_penalty_is_worth_breaking_the_constraint_for() -> None:
    # 85 would be the next quantum; 85 / (1 + 2 * 5 * 64 * 0.4 / 6400) is 81.7, and the best integer is 82.
    assert implicit_update(80, Fraction(4, 10), Aim(TARGET, 5, 64), RANGE) == 82


def test_implicit_ftrl_starts_small_and_moves_only_where_something_was_measured() -> None:
    controller = ImplicitFtrl(RANGE, Aim(TARGET, 30, 10**9))
    heard = [None, Fraction(1), None, Fraction(1), Fraction(1), Fraction(6, 10), Fraction(6, 10), Fraction(1)]
    # At 90 it allows half, at 45 again, and then climbs at once: nothing has piled up at the upper end.
    assert [controller.next_quantum(jain) for jain in heard] == [10, 40, 40, 70, 90, 45, 22, 52]


def test_the_additive_rule_takes_a_step_up_at_the_target_and_a_step_down_below_it() -> None:
    controller = AdditiveQuantum(RANGE, TARGET, 50)
    heard = [None, TARGET, Fraction(89, 100), Fraction(1), Fraction(1), None, Fraction(1, 2), Fraction(1, 2)]
    assert [controller.next_quantum(jain) for jain in heard] == [10, 60, 10, 60, 90, 90, 40, 10]


def test_a_fixed_quantum_hears_nothing() -> None:
    controller = FixedQuantum(7)
    assert [controller.next_quantum(jain) for jain in (None, Fraction(1, 4), Fraction(1))] == [7, 7, 7]


@pytest.mark.parametrize("target", [Fraction(0), Fraction(1)])
def test_a_target_that_nothing_or_everything_meets_is_refused(target: Fraction) -> None:
    with pytest.raises(InputError, match="target"):
        AdditiveQuantum(RANGE, target, 1)
    with pytest.raises(InputError, match="target"):
        Aim(target, 1, 1)


def test_steps_that_go_nowhere_are_refused() -> None:
    with pytest.raises(InputError, match="step"):
        AdditiveQuantum(RANGE, TARGET, 0)
    with pytest.raises(InputError, match="rate"):
        Aim(TARGET, 0, 1)
    with pytest.raises(InputError, match="penalty"):
        Aim(TARGET, 1, 0)
