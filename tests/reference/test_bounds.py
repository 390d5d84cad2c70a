"""Every bound against its definition, by going through all cases, and against the paper's printed formulas."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dlpm import bounds
from dlpm.cost import CostModel

costs = st.builds(CostModel, st.integers(1, 5), st.integers(1, 5))
memories = st.integers(2, 24)
inputs = st.integers(1, 24)
outputs = st.one_of(st.none(), st.integers(1, 24))
batches = st.one_of(st.none(), st.integers(1, 6))
quanta = st.integers(1, 40)


@given(cost=costs, max_input=inputs, kv_tokens=memories, quantum=quanta)
def test_printed_bounds_are_the_printed_formulas(cost: CostModel, max_input: int, kv_tokens: int, quantum: int) -> None:
    """[DLPM Table 1; App. A.1 eq. 1-2; Thm 4.1, 4.2]"""
    unit = cost.extend_weight * max_input + cost.output_weight * kv_tokens
    assert bounds.service_unit(cost, max_input, kv_tokens) == unit
    assert bounds.deficit_ceiling(quantum) == quantum
    assert bounds.deficit_floor_as_printed(cost, max_input, kv_tokens) == -unit
    assert bounds.service_gap_as_printed(cost, max_input, kv_tokens, quantum) == 2 * (unit + quantum)


@given(cost=costs, max_input=inputs, kv_tokens=memories)
def test_printed_bounds_of_vtc_are_the_printed_formulas(cost: CostModel, max_input: int, kv_tokens: int) -> None:
    """[VTC Lem. 4.3, Thm 4.4]"""
    unit = max(cost.extend_weight * max_input, cost.output_weight * kv_tokens)
    assert bounds.vtc_unit_as_printed(cost, max_input, kv_tokens) == unit
    assert bounds.vtc_gap_as_printed(cost, max_input, kv_tokens) == 2 * unit
    assert bounds.vtc_gap(unit) == 2 * unit


@given(cost=costs, max_input=inputs, kv_tokens=memories, max_output=outputs, max_running=batches)
def test_the_tight_unit_is_the_costliest_way_to_fill_memory(
    cost: CostModel, max_input: int, kv_tokens: int, max_output: int | None, max_running: int | None
) -> None:
    """All ways to share ``M`` between the last request's extend tokens and the outputs then reserved.

    Alone it reserves at most its own limit. Beside others, one more token holds the prompt that they may share.
    """
    longest_output = kv_tokens if max_output is None else max_output
    most = 0
    for extend in range(1, min(max_input, kv_tokens - 1) + 1):
        for reserved in range(kv_tokens - extend + 1):
            alone = reserved <= longest_output
            requests = kv_tokens if max_running is None else max_running
            beside_others = (
                requests > 1 and reserved <= requests * longest_output and extend + reserved + 1 <= kv_tokens
            )
            if alone or beside_others:
                most = max(most, cost.extend_weight * extend + cost.output_weight * reserved)
    found = bounds.tight_unit(cost, max_input, kv_tokens, max_output=max_output, max_running=max_running)
    assert found == most


@given(kv_tokens=memories, max_output=outputs, max_running=batches)
def test_outputs_after_an_optimistic_admission_are_summed_step_by_step(
    kv_tokens: int, max_output: int | None, max_running: int | None
) -> None:
    """In the s-th step each request that still runs holds s outputs or more, beside one prompt token that all share."""
    total = 0
    for step in range(1, (kv_tokens if max_output is None else max_output) + 1):
        fitting = bounds.requests_that_fit(kv_tokens, step)
        assert fitting * step <= kv_tokens - 1 < (fitting + 1) * step
        total += fitting if max_running is None else min(fitting, max_running)
    assert bounds.outputs_after_admission(kv_tokens, max_output, max_running) == total


@given(max_input=inputs, kv_tokens=memories, max_output=outputs)
def test_the_longest_recomputation_is_a_whole_request_but_for_its_last_token(
    max_input: int, kv_tokens: int, max_output: int | None
) -> None:
    """A preempted request has a token yet to generate, and input and maximum output fit into ``M``."""
    longest = max(
        request_input + generated
        for request_input in range(1, kv_tokens)
        for generated in range(kv_tokens - request_input)
        if (max_output is None) or (request_input <= max_input and generated < max_output)
    )
    assert bounds.longest_recomputation(max_input, kv_tokens, max_output) == longest


@given(cost=costs, recomputed=inputs, generated=inputs)
def test_the_optimistic_unit_charges_recomputation_and_outputs(
    cost: CostModel, recomputed: int, generated: int
) -> None:
    assert bounds.optimistic_unit(cost, recomputed, generated) == cost.service(recomputed, generated)


@given(tight=st.integers(1, 99), unit=st.integers(1, 9), quantum=quanta)
def test_floor_and_gap_follow_from_the_unit(tight: int, unit: int, quantum: int) -> None:
    """A client is let in at ``unit`` or more and charged at most ``tight``: counters span from there to the quantum."""
    floor = bounds.deficit_floor(tight, unit)
    assert floor == unit - tight
    assert bounds.deficit_floor(tight) == 1 - tight
    assert bounds.service_gap(quantum, floor) == 2 * (quantum - floor)


@given(quantum=quanta, floor=st.integers(-99, 0), deficit=st.integers(-99, 40), clients=st.integers(1, 9))
def test_the_others_spend_while_one_waits_what_they_hold_and_what_they_are_paid(
    quantum: int, floor: int, deficit: int, clients: int
) -> None:
    """[DLPM Thm A.2]"""
    expected = sum((quantum - floor) + (quantum - deficit) for _ in range(clients - 1))
    assert bounds.service_while_waiting(quantum, floor, deficit, clients) == expected


@given(cost=costs, service=st.integers(0, 200))
def test_each_step_of_others_costs_them_at_least_one_output_token(cost: CostModel, service: int) -> None:
    steps = bounds.steps_while_waiting(cost, service)
    assert type(steps) is int
    assert steps * cost.output_weight <= service < (steps + 1) * cost.output_weight
