"""What service costs [DLPM §3]."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlpm.cost import CostModel
from dlpm.errors import InputError

weights = st.integers(1, 1000)
tokens = st.integers(0, 10**9)


@given(weights, weights, tokens, tokens)
def test_service_is_the_weighted_sum_of_extend_and_output_tokens(w_e: int, w_q: int, n_e: int, n_q: int) -> None:
    """[DLPM §3, Measurement of Service]"""
    cost = CostModel(w_e, w_q)
    assert cost.extend(n_e) == w_e * n_e
    assert cost.output(n_q) == w_q * n_q
    assert cost.service(n_e, n_q) == w_e * n_e + w_q * n_q


def test_the_weights_are_those_of_the_evaluation_unless_said_otherwise() -> None:
    """One for an extend token, two for an output token. [DLPM §7]"""
    assert (CostModel().extend_weight, CostModel().output_weight) == (1, 2)


@pytest.mark.parametrize(("w_e", "w_q", "field"), [(0, 1, "extend"), (1, 0, "output"), (-1, 1, "extend")])
def test_a_weight_below_one_is_refused(w_e: int, w_q: int, field: str) -> None:
    with pytest.raises(InputError, match=rf"^weights\.{field}: expected an integer > 0, found (0|-1)$"):
        CostModel(w_e, w_q)
