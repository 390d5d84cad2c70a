"""Cases survive being written and read, and broken ones are refused with one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from dlpm.errors import InputError
from dlpm.workload import read
from dlpm_engine.differential.case import Case, carries_case, read_case, write_case
from dlpm_engine.differential.corpus import corpus
from tests.engine_adapter.cases import cases


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(case=cases())
def test_a_case_that_is_written_and_read_is_the_same(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "case.jsonl"
    write_case(path, case)
    assert carries_case(path)
    assert read_case(path) == case


def test_a_case_is_a_workload_file_that_others_can_read(tmp_path: Path) -> None:
    case = corpus()["a conversation: every turn continues the reply before it"]
    write_case(tmp_path / "case.jsonl", case)
    assert read(tmp_path / "case.jsonl").requests == case.requests


def written(tmp_path: Path, **header: object) -> Path:
    """A case file with some parameters changed."""
    path = tmp_path / "case.jsonl"
    write_case(path, corpus()["quanta of four to one"])
    first, *rest = path.read_text().splitlines()
    values = json.loads(first)
    values["dlpm_case"].update({name: value for name, value in header.items() if name != "config"})
    changes = header.get("config")
    if isinstance(changes, dict):
        values["dlpm_case"]["config"].update(changes)
    path.write_text("\n".join([json.dumps(values), *rest]) + "\n")
    return path


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"quantum": 0}, "quantum"),
        ({"quantum": "ten"}, "quantum"),
        ({"quantum": True}, "quantum"),
        ({"quanta": {"A": 1.5}}, "quanta"),
        ({"quanta": []}, "quanta"),
        ({"memory": "endless"}, "memory"),
        ({"memory": 3}, "memory"),
        ({"block_size": 7}, "block_size"),
        ({"colour": 1}, "colour"),
        ({"max_running": 0}, "max_running"),
    ],
)
def test_a_wrong_parameter_is_refused_by_file_line_and_field(
    tmp_path: Path, config: dict[str, object], field: str
) -> None:
    path = written(tmp_path, config=config)
    with pytest.raises(InputError, match=field) as refused:
        read_case(path)
    assert str(refused.value).startswith(f"{path}:1: ")


def test_a_wrong_step_or_an_unknown_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="step_us"):
        read_case(written(tmp_path, step_us=0))
    with pytest.raises(InputError, match="config and step_us"):
        read_case(written(tmp_path, more=1))


def test_a_workload_without_a_case_is_no_case(tmp_path: Path) -> None:
    path = tmp_path / "plain.jsonl"
    path.write_text(
        '{"schema":"dlpm.workload/1","block_size":1}\n{"id":"r","client":"A","arrival":0,"prompt":[1],"output":1}\n'
    )
    assert not carries_case(path)
    with pytest.raises(InputError, match="dlpm_case"):
        read_case(path)
