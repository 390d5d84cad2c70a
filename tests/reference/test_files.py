"""Opening, reading line by line, and writing whole: `dlpm.files`."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlpm.errors import InputError
from dlpm.files import numbered_lines, open_binary, written_whole

LINES = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])), max_size=8)


def lines_of(path: Path) -> list[tuple[int, str]]:
    return list(numbered_lines(path))


def refusal(path: Path) -> InputError:
    with pytest.raises(InputError) as raised:
        lines_of(path)
    return raised.value


@given(LINES, st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans(), st.booleans())
def test_every_non_blank_line_is_yielded_with_its_number(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str, last_end: bool, mark: bool, packed: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / "file"
    data = (end.join(lines) + (end if last_end else "")).encode("utf-8-sig" if mark else "utf-8")
    path.write_bytes(gzip.compress(data) if packed else data)
    expected = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    assert lines_of(path) == expected


def test_compression_is_read_off_the_content_and_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "packed.jsonl"
    path.write_bytes(gzip.compress(b"a\nb"))
    assert lines_of(path) == [(1, "a"), (2, "b")]


def test_concatenated_gzip_files_read_as_one(tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(b"a\n") + gzip.compress(b"b\n"))
    assert lines_of(path) == [(1, "a"), (2, "b")]


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    error = refusal(tmp_path / "absent.jsonl")
    assert error.source == str(tmp_path / "absent.jsonl")
    assert "No such file" in error.expected


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "directory" in refusal(tmp_path).expected


def test_plain_text_called_gz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl.gz"
    path.write_text("{}\n")
    assert refusal(path).expected == "expected gzip data, as the name says"


def test_an_empty_file_has_no_lines_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "empty.gz"
    path.write_bytes(b"")
    assert lines_of(path) == []


@pytest.mark.parametrize("kept", [12, 400, -1, -8])
def test_truncated_gzip_is_refused_wherever_it_was_cut(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.gz"
    content = "".join(f"line {number * number}\n" for number in range(2000)).encode()
    path.write_bytes(gzip.compress(content)[:kept])
    assert refusal(path).expected == "expected more compressed data: truncated file"


def test_truncated_gzip_is_refused_behind_the_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(b"one\ntwo\n")[:-1])
    assert refusal(path).line is not None


@pytest.mark.parametrize("place", [10, 40, -6])
def test_damaged_gzip_is_refused(tmp_path: Path, place: int) -> None:
    path = tmp_path / "damaged.gz"
    content = bytearray(gzip.compress("".join(f"line {number * number}\n" for number in range(200)).encode()))
    content[place] ^= 0xFF
    path.write_bytes(bytes(content))
    assert "gzip" in refusal(path).expected or "compressed data" in refusal(path).expected


def test_bytes_that_are_not_utf8_are_refused_at_their_line(tmp_path: Path) -> None:
    path = tmp_path / "latin1.jsonl"
    path.write_bytes(b"fine\n\nM\xfcnchen\n")
    error = refusal(path)
    assert (error.line, error.expected) == (3, "expected UTF-8 text, found byte 0xfc")


def test_zstandard_is_named_by_the_reader_that_cannot_read_it(tmp_path: Path) -> None:
    path = tmp_path / "log.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd rest")
    with pytest.raises(InputError, match="Zstandard"):
        open_binary(path)


@given(st.text(), st.sampled_from(["out.jsonl", "out.jsonl.gz"]))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, text: str, name: str) -> None:
    path = tmp_path_factory.mktemp("written") / name
    content = text.encode("utf-8", "replace").decode()
    with written_whole(path) as stream:
        stream.write(content)
    with open_binary(path) as binary:
        assert binary.read().decode() == content
    assert [entry.name for entry in path.parent.iterdir()] == [name]


def test_the_same_text_is_written_as_the_same_bytes_under_any_name(tmp_path: Path) -> None:
    for name in ("a.gz", "b.gz"):
        with written_whole(tmp_path / name) as stream:
            stream.write("same\n" * 100)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("old")
    with pytest.raises(KeyError), written_whole(path) as stream:
        stream.write("half of the new")
        raise KeyError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_nothing_is_seen_under_the_name_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with written_whole(path) as stream:
        stream.write("half")
        stream.flush()
        assert not path.exists()
    assert path.read_text() == "half"


def test_a_link_is_written_through_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with written_whole(tmp_path / "link") as stream:
        stream.write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_device_is_written_to_and_not_replaced() -> None:
    with written_whole(Path("/dev/null")) as stream:
        stream.write("gone")
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("name", ["no/such/folder/out.jsonl", "."])
def test_a_place_that_cannot_be_written_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(InputError, match="cannot be written") as raised, written_whole(path) as stream:
        stream.write("text")
    assert raised.value.source == str(path)


def test_a_zstandard_name_is_refused_by_the_writer_that_cannot_write_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Zstandard"), written_whole(tmp_path / "out.zst"):
        pass
    assert list(tmp_path.iterdir()) == []
