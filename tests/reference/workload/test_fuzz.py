"""Small random workloads: `dlpm.workload.fuzz`."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlpm.workload import random_workload, read, write

SIZES = st.integers(1, 12)


@given(st.integers(), SIZES, SIZES, SIZES, SIZES, SIZES, SIZES, st.integers(0, 1000), st.floats(0, 1))
def test_a_random_workload_is_within_what_was_asked_for_and_a_valid_file(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    clients: int,
    requests: int,
    alphabet: int,
    max_input: int,
    max_output: int,
    block_size: int,
    span_us: int,
    parent_chance: float,
) -> None:
    workload = random_workload(
        Random(seed),
        clients=clients,
        requests=requests,
        alphabet=alphabet,
        max_input=max_input,
        max_output=max_output,
        block_size=block_size,
        span_us=span_us,
        parent_chance=parent_chance,
    )
    assert len(workload.requests) == requests
    assert len({request.client for request in workload.requests}) <= clients
    for request in workload.requests:
        assert len(request.prompt) == request.input_tokens <= max_input
        assert request.output_tokens <= request.max_output <= max_output
        assert max(request.prompt + request.reply) < alphabet
        assert request.arrival_us <= span_us
    path: Path = tmp_path_factory.mktemp("random") / "w.jsonl"
    write(path, workload)
    assert read(path) == workload


@given(st.integers())
def test_the_same_seed_gives_the_same_workload(seed: int) -> None:
    assert random_workload(Random(seed)) == random_workload(Random(seed))


def test_prefixes_collide_within_and_across_clients_and_with_replies() -> None:
    within = across = behind_reply = declared_more = dependent = 0
    for seed in range(100):
        workload = random_workload(Random(seed), alphabet=4, max_input=10, parent_chance=0.3, span_us=10)
        for place, later in enumerate(workload.requests):
            declared_more += later.max_output > later.output_tokens
            dependent += bool(later.parents)
            for earlier in workload.requests[:place]:
                if later.prompt[:4] == earlier.prompt[:4] and later.input_tokens > 4:
                    within += later.client == earlier.client
                    across += later.client != earlier.client
                sequence = earlier.prompt + earlier.reply
                behind_reply += bool(earlier.reply) and later.prompt[: len(sequence)] == sequence
    assert min(within, across, behind_reply, declared_more, dependent) > 20


@pytest.mark.parametrize("field", ["clients", "requests", "alphabet", "max_input", "max_output", "block_size"])
def test_a_size_of_zero_is_an_error_of_the_caller(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        random_workload(Random(0), **{field: 0})


def test_clients_beyond_the_alphabet_have_names_too() -> None:
    names = {request.client for seed in range(20) for request in random_workload(Random(seed), clients=60).requests}
    assert any(name.startswith("c") and int(name[1:]) >= 26 for name in names)
