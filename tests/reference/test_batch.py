"""A worker's limits, and what it keeps of a request."""

from __future__ import annotations

import pytest

from dlpm.batch import AFTER_FORWARD, AT_ADMISSION, WorkerConfig
from dlpm.errors import InputError
from dlpm.memory import Reserving


@pytest.mark.parametrize("field", ["kv_tokens", "block_size", "max_running"])
def test_a_limit_below_one_is_refused(field: str) -> None:
    limits = {"kv_tokens": 10, "block_size": 1, "max_running": 1, field: 0}
    with pytest.raises(InputError, match=rf"^{field}: expected an integer > 0, found 0$"):
        WorkerConfig(limits["kv_tokens"], Reserving(), limits["block_size"], max_running=limits["max_running"])


def test_one_is_enough_of_everything() -> None:
    assert WorkerConfig(1, Reserving(), 1, max_running=1).max_running == 1


def test_an_unknown_visibility_is_refused() -> None:
    with pytest.raises(InputError, match=r"^visibility: expected at_admission or after_forward, found 'soon'$"):
        WorkerConfig(10, Reserving(), visibility="soon")


def test_a_worker_is_token_granular_unbounded_and_shows_prompts_at_once_unless_told() -> None:
    config = WorkerConfig(10, Reserving())
    assert (config.block_size, config.visibility, config.max_running) == (1, AT_ADMISSION, None)
    assert WorkerConfig(10, Reserving(), visibility=AFTER_FORWARD).visibility == "after_forward"
