"""int64 arithmetic that never wraps, against Python's own integers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from dlpm.cost import CostModel  # noqa: E402
from dlpm.errors import InputError  # noqa: E402
from dlpm.ledger import Ledger, Quanta  # noqa: E402
from dlpm_engine.adapter import OutOfRangeError  # noqa: E402
from dlpm_engine.tensor.exact import HIGHEST, INT64, LOWEST, fits, surely_safe, too_low  # noqa: E402
from dlpm_engine.tensor.ledger import TensorLedger  # noqa: E402

edges = st.sampled_from([LOWEST, LOWEST + 1, -(2**62), -1, 0, 1, 2**62 - 1, 2**62, HIGHEST - 1, HIGHEST])
int64s = st.integers(LOWEST, HIGHEST) | edges
weights = st.integers(1, HIGHEST) | st.sampled_from([1, 2, 3, 2**61, 2**62 - 1, 2**62, 2**62 + 1, HIGHEST])
ACTS = ["extend", "output", "refill"]
counts = st.integers(0, 6) | st.integers(0, 2**61)


@given(st.lists(st.tuples(int64s, counts), min_size=1, max_size=5), weights)
def test_too_low_says_exactly_where_the_true_difference_leaves_int64(pairs: list[tuple[int, int]], weight: int) -> None:
    values = torch.tensor([value for value, _ in pairs], dtype=INT64)
    many = torch.tensor([count for _, count in pairs], dtype=INT64)
    expected = [not fits(value - weight * count) for value, count in pairs]
    assert too_low(values, weight, many).tolist() == expected


@given(st.lists(int64s, max_size=5), weights, st.integers(0, 2**40))
def test_what_is_surely_safe_never_leaves_int64(values: list[int], weight: int, most: int) -> None:
    if surely_safe(torch.tensor(values, dtype=INT64), weight, most):
        assert all(fits(value - weight * most) for value in values)


@given(
    quantum=st.integers(1, 50) | st.integers(2**62, HIGHEST),
    extend=st.integers(1, 3) | st.integers(2**60, HIGHEST),
    output=st.integers(1, 3) | st.integers(2**60, HIGHEST),
    acts=st.lists(
        st.tuples(st.sampled_from("ABC"), st.sampled_from(["extend", "output", "refill"]), st.integers(1, 4))
    ),
)
def test_the_tensor_ledger_does_what_the_ledger_does_or_says_that_it_cannot(
    quantum: int, extend: int, output: int, acts: list[tuple[str, str, int]]
) -> None:
    quanta, cost = Quanta(quantum, {"B": max(1, quantum // 2)}), CostModel(extend, output)
    reference, ours = Ledger(quanta, cost), TensorLedger(quanta, cost)
    for client, act, tokens in acts:
        reference.register(client)
        number = ours.register(client)
        try:
            if act == "extend":
                ours.charge_extend(number, tokens)
            elif act == "output":
                ours.charge_outputs(torch.tensor([number] * tokens, dtype=INT64))
        except OutOfRangeError:
            charge = cost.extend(tokens) if act == "extend" else cost.output(tokens)
            assert not fits(reference.deficits[client] - charge)
            return
        if act == "extend":
            reference.charge_extend(client, tokens)
        elif act == "output":
            reference.charge_outputs({client: tokens})
        elif not any(value > 0 for value in reference.deficits.values()):
            assert ours.refill() == reference.check_refill(reference.deficits)
        assert dict(zip(ours.clients, ours.deficits.tolist(), strict=True)) == reference.deficits
        assert [ours.has_credit(place) for place in range(len(ours.clients))] == [
            reference.has_credit(name) for name in ours.clients
        ]


@pytest.mark.parametrize("field", ["extend", "output", "default", "A"])
def test_parameters_beyond_int64_are_refused(field: str) -> None:
    values = {"extend": 1, "output": 1, "default": 1, "A": 1} | {field: 2**63}
    with pytest.raises(InputError, match=field):
        TensorLedger(Quanta(values["default"], {"A": values["A"]}), CostModel(values["extend"], values["output"]))
