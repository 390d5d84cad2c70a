"""The ledger of Algorithm 1: each transition by its definition, and by examples from the paper."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.ledger import Ledger, Quanta

CLIENTS = ("A", "B", "C", "D")
counters = st.dictionaries(st.sampled_from(CLIENTS), st.integers(-50, 50), min_size=1)
clients = st.sets(st.sampled_from(CLIENTS))


def ledger_with(deficits: dict[str, int], quantum: int = 10, **quanta: int) -> Ledger:
    """A ledger at weights 1 and 2 whose clients stand at ``deficits``."""
    ledger = Ledger(Quanta(quantum, quanta), CostModel(1, 2))
    for client, deficit in deficits.items():
        ledger.register(client)
        ledger.deficits[client] = deficit
    return ledger


# -- Check-refill.


@given(before=counters, queued=clients, quantum=st.integers(1, 60), own=st.integers(1, 60))
def test_check_refill_is_its_definition(before: dict[str, int], queued: set[str], quantum: int, own: int) -> None:
    """For all queued: gated; then each registered client at or below 0 gets its quantum, once. [DLPM Alg. 1 ll. 3-8]"""
    ledger = ledger_with(before, quantum, A=own)
    queued &= before.keys()
    refilled = ledger.check_refill(queued)
    due = all(before[client] <= 0 for client in queued)
    for client, deficit in before.items():
        expected = deficit + (own if client == "A" else quantum) if due and deficit <= 0 else deficit
        assert ledger.deficits[client] == expected
        assert (client in refilled) == (due and deficit <= 0)
    assert all(refilled[client] == ledger.deficits[client] for client in refilled)


@given(before=counters, quantum=st.integers(1, 60))
def test_a_refill_never_lifts_a_client_above_its_quantum(before: dict[str, int], quantum: int) -> None:
    """[DLPM App. A.1 eq. 1]"""
    ledger = ledger_with(before, quantum)
    refilled = ledger.check_refill([])
    assert all(deficit <= quantum for deficit in refilled.values())


@given(before=counters, quantum=st.integers(1, 60))
def test_refills_reach_every_gated_client_in_the_end(before: dict[str, int], quantum: int) -> None:
    """Line 20 may have to be asked as often as the deepest debt holds quanta. [DLPM Alg. 1 l. 20]"""
    ledger = ledger_with(before, quantum)
    deepest = min(before.values())
    rounds = 0
    while any(not ledger.has_credit(client) for client in before):
        refilled = ledger.check_refill([client for client in before if not ledger.has_credit(client)])
        assert refilled
        rounds += 1
    assert rounds == (0 if deepest > 0 else -deepest // quantum + 1)


def test_a_queued_client_with_credit_forbids_the_refill() -> None:
    """[DLPM Alg. 1 l. 5]"""
    ledger = ledger_with({"A": -3, "B": 1})
    assert ledger.check_refill(["A", "B"]) == {}
    assert ledger.deficits == {"A": -3, "B": 1}


def test_a_client_with_credit_that_has_nothing_queued_does_not_forbid_it() -> None:
    """[DLPM Alg. 1 l. 4]"""
    ledger = ledger_with({"A": -3, "B": 1})
    assert ledger.check_refill(["A"]) == {"A": 7}


def test_a_client_with_nothing_queued_is_refilled_too() -> None:
    """So an idle client's debt is paid off while others are served. [DLPM Alg. 1 ll. 6-7]"""
    ledger = ledger_with({"A": -3, "B": -20})
    assert ledger.check_refill(["A"]) == {"A": 7, "B": -10}


def test_one_quantum_may_leave_a_client_in_debt() -> None:
    """It stays gated, and line 20 asks again. [DLPM Alg. 1 ll. 7, 20]"""
    ledger = ledger_with({"A": -25})
    assert ledger.check_refill(["A"]) == {"A": -15}
    assert not ledger.has_credit("A")


def test_a_refill_adds_to_what_is_left_and_forgives_nothing() -> None:
    """[DLPM Alg. 1 l. 7]"""
    assert ledger_with({"A": 0, "B": -4}).check_refill(["A"]) == {"A": 10, "B": 6}


def test_each_client_gets_its_own_quantum() -> None:
    ledger = ledger_with({"A": 0, "B": 0}, 10, B=3)
    assert ledger.check_refill(["A", "B"]) == {"A": 10, "B": 3}


# -- Gate and charges.


@pytest.mark.parametrize(("deficit", "open_"), [(-1, False), (0, False), (1, True)])
def test_the_gate_is_open_above_zero_only(deficit: int, open_: bool) -> None:
    """[DLPM Alg. 1 ll. 20-21]"""
    assert ledger_with({"A": deficit}).has_credit("A") is open_


@given(before=counters, tokens=st.integers(1, 100), weights=st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_charges_are_what_the_tokens_cost_and_nobody_else_pays(
    before: dict[str, int], tokens: int, weights: tuple[int, int]
) -> None:
    """[DLPM Alg. 1 ll. 23, 26]"""
    ledger = Ledger(Quanta(1), CostModel(*weights))
    ledger.deficits.update(before)
    payer = next(iter(before))
    ledger.charge_extend(payer, tokens)
    assert ledger.deficits == {**before, payer: before[payer] - weights[0] * tokens}
    ledger.charge_outputs({payer: tokens})
    assert ledger.deficits == {**before, payer: before[payer] - (weights[0] + weights[1]) * tokens}


def test_every_running_request_of_a_client_costs_it_an_output_token_a_step() -> None:
    """[DLPM Alg. 1 l. 26]"""
    ledger = ledger_with({"A": 5, "B": 5, "C": 5})
    ledger.charge_outputs({"A": 3, "B": 1})
    assert ledger.deficits == {"A": -1, "B": 3, "C": 5}


def test_a_new_client_starts_at_zero_and_a_known_one_keeps_its_counter() -> None:
    """[DLPM Alg. 1 l. 12]"""
    ledger = ledger_with({"A": -7})
    ledger.register("A")
    ledger.register("B")
    assert ledger.deficits == {"A": -7, "B": 0}


@pytest.mark.parametrize(
    ("default", "quanta", "field"), [(0, {}, "default"), (-1, {}, "default"), (1, {"A": 1, "B": 0}, "B")]
)
def test_a_quantum_below_one_is_refused(default: int, quanta: dict[str, int], field: str) -> None:
    with pytest.raises(InputError, match=rf"^quantum\.{field}: expected an integer > 0, found (0|-1)$"):
        Quanta(default, quanta)


def test_the_quanta_given_are_copied() -> None:
    own = {"A": 3}
    quanta = Quanta(1, own)
    own["A"] = 99
    assert (quanta.of("A"), quanta.of("B")) == (3, 1)
