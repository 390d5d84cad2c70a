"""The list of declared differences: empty for the engines of this project, and strict about what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlpm.errors import InputError
from dlpm_engine.differential.declared import excused, read_declared

GOOD = {"engine": "mine", "subject": "evict", "reason": "evicts in the background", "reviewed": "two people, in May"}


def written(tmp_path: Path, *differences: object) -> Path:
    """A list of declared differences."""
    path = tmp_path / "declared.json"
    path.write_text(json.dumps({"schema": "dlpm.declared/1", "differences": list(differences)}))
    return path


def test_nothing_is_declared_for_the_tensor_path() -> None:
    assert read_declared() == ()


def test_a_difference_is_excused_for_its_engine_alone(tmp_path: Path) -> None:
    entries = read_declared(written(tmp_path, GOOD))
    assert excused(entries, "mine") == {"evict"}
    assert excused(entries, "tensor") == frozenset()


@pytest.mark.parametrize("field", GOOD)
def test_every_field_must_say_something(tmp_path: Path, field: str) -> None:
    with pytest.raises(InputError, match="differences"):
        read_declared(written(tmp_path, {**GOOD, field: " "}))
    with pytest.raises(InputError, match="differences"):
        read_declared(written(tmp_path, {name: value for name, value in GOOD.items() if name != field}))


def test_only_what_is_compared_can_be_excused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="subject"):
        read_declared(written(tmp_path, {**GOOD, "subject": "everything"}))


def test_another_file_is_no_list(tmp_path: Path) -> None:
    path = tmp_path / "declared.json"
    path.write_text('{"schema":"dlpm.events/1"}')
    with pytest.raises(InputError, match=r"dlpm\.declared/1"):
        read_declared(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_declared(tmp_path / "nothing.json")
