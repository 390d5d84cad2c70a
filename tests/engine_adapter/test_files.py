"""Zstandard beside plain and gzip: `dlpm_engine.files`."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from dlpm.errors import InputError
from dlpm.files import numbered_lines, written_whole
from dlpm_engine.files import compressor, open_binary

TEXT = "".join(f"line {number * number}\n" for number in range(40_000))


def lines_of(path: Path) -> list[str]:
    return [text for _, text in numbered_lines(path, open_binary)]


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz", "log.jsonl.zst"])
def test_what_is_written_under_each_name_is_read_back(tmp_path: Path, name: str) -> None:
    with written_whole(tmp_path / name, compressor) as stream:
        stream.write(TEXT)
    assert lines_of(tmp_path / name) == TEXT.splitlines()
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "magic"), [("a.jsonl", b"line"), ("a.gz", b"\x1f\x8b"), ("a.zst", b"\x28\xb5\x2f\xfd")]
)
def test_the_name_decides_how_a_file_is_written(tmp_path: Path, name: str, magic: bytes) -> None:
    with written_whole(tmp_path / name, compressor) as stream:
        stream.write(TEXT)
    assert (tmp_path / name).read_bytes().startswith(magic)


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
def test_the_content_decides_how_a_file_is_read(tmp_path: Path, pack: object) -> None:
    assert callable(pack)
    (tmp_path / "log").write_bytes(pack(TEXT.encode()))
    assert lines_of(tmp_path / "log") == TEXT.splitlines()


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=6))
def test_frames_one_after_another_read_as_one_file(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("frames") / "log.zst"
    path.write_bytes(b"".join(zstandard.compress(part) for part in parts))
    with open_binary(path) as stream:
        assert stream.read() == b"".join(parts)


@given(st.data())
def test_a_file_cut_anywhere_inside_a_frame_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = zstandard.compress(TEXT[:20_000].encode())
    kept = data.draw(st.integers(4, len(whole) - 1))
    path = tmp_path_factory.mktemp("cut") / "log.zst"
    path.write_bytes(whole[:kept])
    with pytest.raises(InputError, match="truncated file") as raised:
        lines_of(path)
    assert raised.value.source == str(path)
    assert raised.value.line is not None


def test_damaged_data_is_refused(tmp_path: Path) -> None:
    content = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(TEXT.encode()))
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "log.zst").write_bytes(bytes(content))
    with pytest.raises(InputError, match="Zstandard data"):
        lines_of(tmp_path / "log.zst")


@pytest.mark.parametrize(("name", "kind"), [("log.zst", "Zstandard"), ("log.gz", "gzip")])
def test_plain_text_under_a_compressed_name_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_text("{}\n")
    with pytest.raises(InputError, match=f"expected {kind} data, as the name says"):
        lines_of(tmp_path / name)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        lines_of(tmp_path / "absent.zst")


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), written_whole(tmp_path / "log.zst", compressor) as stream:
        stream.write(TEXT)
        raise KeyError
    assert list(tmp_path.iterdir()) == []
