"""Which format a file is in: `dlpm.workload.detect`."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path

import pytest

from dlpm.errors import InputError
from dlpm.workload.detect import detect
from tests.reference.workload import samples


def detected(folder: Path, text: str) -> str:
    path = folder / "trace"
    path.write_text(text, encoding="utf-8")
    return detect(path)


@pytest.mark.parametrize("sample", samples.ALL, ids=lambda sample: sample.name)
def test_each_format_is_told_by_its_content(tmp_path: Path, sample: samples.Sample) -> None:
    assert detected(tmp_path, sample.text) == sample.trace_format


@pytest.mark.parametrize("sample", samples.ALL, ids=lambda sample: sample.name)
def test_a_compressed_file_is_told_as_well(tmp_path: Path, sample: samples.Sample) -> None:
    path = tmp_path / "trace.gz"
    path.write_bytes(gzip.compress(sample.text.encode()))
    assert detect(path) == sample.trace_format


def test_a_workload_file_is_told_by_its_header(tmp_path: Path) -> None:
    assert detected(tmp_path, '{"schema": "dlpm.workload/1", "block_size": 16}\n') == "dlpm"


def test_a_folder_and_a_tar_file_are_servegen_parameters(tmp_path: Path) -> None:
    assert detect(tmp_path) == "servegen"
    with tarfile.open(tmp_path / "parameters.tar.gz", "w:gz") as archive:
        archive.add(__file__, "anything")
    assert detect(tmp_path / "parameters.tar.gz") == "servegen"


def test_fields_of_two_formats_at_once_are_refused_and_both_are_named(tmp_path: Path) -> None:
    record = '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [0], "client_id": 1, '
    with pytest.raises(InputError, match="found the fields of mooncake and of servegen"):
        detected(tmp_path, record + '"input_tokens": 1, "output_tokens": 1}\n')


@pytest.mark.parametrize("text", ['{"a": 1}\n', "a,b,c\n1,2,3\n", "hello\n", "[]\n", "\x00\x01\x02\n"])
def test_a_file_of_no_known_format_is_refused_with_the_formats_that_are(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="expected one of the formats dlpm, mooncake") as raised:
        detected(tmp_path, text)
    assert raised.value.line == 1


@pytest.mark.parametrize("text", ["", "\n\n", "  \n"])
def test_an_empty_file_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="found an empty file"):
        detected(tmp_path, text)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        detect(tmp_path / "absent")
