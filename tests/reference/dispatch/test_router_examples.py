"""What a random history seldom decides: names, refusals, and the edges of Preble's load."""

from __future__ import annotations

from fractions import Fraction

import pytest

from dlpm.cost import CostModel
from dlpm.dispatch.d2lpm import D2LPM
from dlpm.dispatch.preble import Preble
from dlpm.dispatch.round_robin import RoundRobin
from dlpm.errors import InputError
from tests.reference.scene import request


def test_routers_have_the_names_that_the_command_line_knows() -> None:
    assert RoundRobin(2).name == "round-robin"
    assert RoundRobin(2, per_client=True).name == "per-client-round-robin"
    assert (D2LPM.name, Preble.name) == ("d2lpm", "preble")


@pytest.mark.parametrize("quantum", [0, -1])
def test_a_worker_quantum_that_pays_nothing_is_refused(quantum: int) -> None:
    with pytest.raises(InputError, match=f"^worker_quantum: expected an integer > 0, found {quantum}$"):
        D2LPM(2, quantum, CostModel(1, 2))


def test_preble_books_a_request_at_the_mean_output_seen_so_far() -> None:
    router = Preble(2, 1, CostModel(3, 5))
    first = request("a", (0,), output=1)
    assert router.dispatch(first, (0,)).worker == 0
    router.finished(first, 0)
    # The mean output is 1: one prompt of 7 tokens weighs 21 + 5, two of 2 tokens 12 + 10.
    assert router.dispatch(request("b", tuple(range(10, 17))), tuple(range(10, 17))).worker == 0
    for name, prompt in (("c", (20, 21)), ("d", (30, 31)), ("e", (40, 41))):
        assert router.dispatch(request(name, prompt), prompt).worker == 1


def test_preble_turns_away_from_a_holder_with_more_than_its_multiple_of_the_least_load() -> None:
    for rebalance, expected in ((Fraction(2), 1), (Fraction(7, 3), 0)):
        router = Preble(2, 1, CostModel(1, 1), rebalance=rebalance)
        for name, prompt, worker in (("x", (1, 2), 0), ("y", (8, 9), 1), ("w", (5, 6, 7), 0)):
            assert router.dispatch(request(name, prompt), prompt).worker == worker
        # Loads are 7 and 3; the prefix is at worker 0.
        assert router.dispatch(request("z", (1, 2)), (1, 2)).worker == expected
