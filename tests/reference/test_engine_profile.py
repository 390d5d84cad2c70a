"""A file that describes an engine: what it means, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlpm.engine_profile import EngineProfile, read_profile
from dlpm.errors import InputError

GOOD = """
memory = "{memory}"
clients = 3
[weights]
extend = 1
output = 2
[quantum]
default = 8
[limits]
max_input = 1
kv_tokens = 64
"""


def written(folder: Path, text: str) -> Path:
    """A profile with this text."""
    path = folder / "engine.toml"
    path.write_text(text)
    return path


def read(folder: Path, more: str) -> EngineProfile:
    """The good profile with more at its end."""
    return read_profile(written(folder, GOOD.format(memory="optimistic") + more))


def test_what_is_not_stated_is_as_in_the_paper(tmp_path: Path) -> None:
    profile = read(tmp_path, "")
    assert profile.engine == "engine"
    assert (profile.chunk_budget, profile.late_steps, profile.most_accepted) == (None, 0, 1)
    assert not profile.departs


def test_each_extension_is_a_table_of_its_own(tmp_path: Path) -> None:
    profile = read(
        tmp_path,
        "max_running = 4\n[chunked_prefill]\nbudget = 12\n[late]\nsteps = 2\n[speculation]\nmost_accepted = 3\n",
    )
    assert (profile.chunk_budget, profile.late_steps, profile.most_accepted) == (12, 2, 3)
    assert profile.departs


@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [
        ("memory = ", None, "expected TOML"),
        (GOOD.format(memory="swapping"), "memory", "expected reserving or optimistic"),
        (GOOD.format(memory="reserving").replace("default = 8", "default = -8"), "quantum.default", "whole number"),
        (GOOD.format(memory="reserving").replace("extend = 1", "extend = 1.5"), "weights.extend", "whole number"),
        (GOOD.format(memory="reserving").replace("= 64", f"= {2**70}"), "limits.kv_tokens", "whole number"),
        (GOOD.format(memory="reserving").replace("kv_tokens", "kv_token"), "limits.kv_token", "expected one of"),
        (GOOD.format(memory="reserving").replace("[weights]\nextend = 1\noutput = 2", ""), "weights", "table"),
        (GOOD.format(memory="reserving") + "[quantum.clients]\ngold = 0\n", "quantum.clients.gold", "whole number"),
        (GOOD.format(memory="reserving") + "[late]\nsteps = -1\n", "late.steps", "whole number"),
        (GOOD.format(memory="reserving") + "[late]\nstep = 1\n", "late.step", "expected one of steps"),
        (GOOD.format(memory="reserving") + "[speculation]\nmost_accepted = 0\n", "speculation.most_accepted", "whole"),
        (GOOD.format(memory="reserving") + "[chunked_prefill]\nbudget = 8\n", "chunked_prefill.budget", "max_running"),
        (
            GOOD.format(memory="reserving") + "max_running = 9\n[chunked_prefill]\nbudget = 8\n",
            "chunked_prefill.budget",
            "at least 9, a decode of each running request",
        ),
        (GOOD.format(memory="reserving") + "late = 1\n", "limits.late", "expected one of"),
    ],
)
def test_bad_parameters_are_refused_with_file_and_field(
    tmp_path: Path, text: str, field: str | None, expected: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_profile(path)
    assert caught.value.source == str(path)
    assert caught.value.field == field
    assert expected in str(caught.value)


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a readable file"):
        read_profile(tmp_path / "absent.toml")
