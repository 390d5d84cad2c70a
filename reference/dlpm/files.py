"""Reading text files that users name (plain or gzip), and writing files that are whole or not there at all.

Whatever is wrong with a file a user named ends as one `InputError`. The standard library has no Zstandard in
Python 3.11, so a reader takes an `Opener`; `dlpm_engine.files` has one that also opens ``.zst``.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from dlpm.errors import InputError

Opener = Callable[[Path], BinaryIO]
"""Opens a file as the stream of its uncompressed bytes."""

Compressor = Callable[[Path, BinaryIO], BinaryIO]
"""Wraps the raw stream behind a file name in the compression that the name asks for."""

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_GZIP_LEVEL = 6
_READ_BUFFER = 1 << 18


def open_binary(path: Path) -> BinaryIO:
    """Open a plain or gzip file as uncompressed bytes; which of the two is read off its content, not its name.

    Raises:
        InputError: the file cannot be opened, is Zstandard, or is called ``.gz`` and is not gzip.
    """
    stream, magic = open_raw(path)
    if magic.startswith(GZIP_MAGIC):
        return cast(BinaryIO, _GzipReader(stream))
    with stream_closed_on_error(stream):
        if magic == ZSTD_MAGIC:
            raise InputError(
                "expected plain text or gzip, found Zstandard, which only `dlpm_engine` reads", source=str(path)
            )
        refuse_misnamed(path, ".gz", "gzip")
    return stream


class _GzipReader(gzip.GzipFile):
    """A gzip stream that closes the file below it, too."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(fileobj=stream, mode="rb")
        self._stream = stream

    def close(self) -> None:
        """Close both."""
        super().close()
        self._stream.close()


def open_raw(path: Path) -> tuple[BinaryIO, bytes]:
    """Open a file as it is on disk, and look at its first four bytes without consuming them.

    Raises:
        InputError: the file cannot be opened.
    """
    try:
        stream = io.BufferedReader(path.open("rb", buffering=0), _READ_BUFFER)
        return stream, stream.peek(4)[:4]
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", source=str(path)) from error


def refuse_misnamed(path: Path, suffix: str, compression: str) -> None:
    """Refuse a file whose name promises a compression that its content does not have.

    An empty file is let through: that it is empty is what its reader will say.

    Raises:
        InputError: the name ends in ``suffix``.
    """
    if path.suffix == suffix and path.stat().st_size:
        raise InputError(f"expected {compression} data, as the name says", source=str(path))


@contextmanager
def stream_closed_on_error(stream: BinaryIO) -> Iterator[None]:
    """Close ``stream`` if the block raises; leave it open otherwise."""
    try:
        yield
    except BaseException:
        stream.close()
        raise


def raw_lines(path: Path, opener: Opener = open_binary) -> Generator[bytes, None, None]:
    """Yield the lines of a file as they are, blank ones and line ends included. Memory: one line.

    Raises:
        InputError: the file cannot be read, or its compressed data is damaged or ends too early.
    """
    source = str(path)
    number = 0
    stream = opener(path)
    try:
        for raw in stream:
            number += 1
            yield raw
    except InputError as error:
        # An opener of another compression has found its data damaged.
        raise error.at(source=source, line=number + 1) from error
    except EOFError as error:
        raise InputError("expected more compressed data: truncated file", source=source, line=number + 1) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"expected sound gzip data: {error}", source=source, line=number + 1) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", source=source, line=number + 1) from error
    finally:
        stream.close()


def numbered_lines(path: Path, opener: Opener = open_binary) -> Generator[tuple[int, str], None, None]:
    """Yield the non-blank lines of a UTF-8 file with their numbers from 1, without their line ends.

    Lines end in LF or CR LF, the last one may lack its end, and a byte order mark is skipped. Memory: one line.

    Raises:
        InputError: the file cannot be read, is not UTF-8, or its compressed data is damaged or ends too early.
    """
    number = 0
    with closing(raw_lines(path, opener)) as lines:
        try:
            for number, raw in enumerate(lines, start=1):
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if text and not text.isspace():
                    yield number, text
        except UnicodeDecodeError as error:
            found = f"0x{error.object[error.start]:02x}"
            raise InputError(f"expected UTF-8 text, found byte {found}", source=str(path), line=number) from error


def compressed_by_name(path: Path, stream: BinaryIO) -> BinaryIO:
    """Wrap ``stream`` in gzip if the name ends in ``.gz``. The bytes depend on the content alone: no name, no time.

    Raises:
        InputError: the name asks for Zstandard.
    """
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.GzipFile("", "wb", _GZIP_LEVEL, stream, mtime=0))
    if path.suffix == ".zst":
        raise InputError("expected a name in .jsonl or .gz: only `dlpm_engine` writes Zstandard", source=str(path))
    return stream


@contextmanager
def written_whole(path: Path, compressor: Compressor = compressed_by_name) -> Iterator[TextIO]:
    """Open a UTF-8 text file that appears under its name only if the block ends without an exception.

    The text goes to a temporary name in the same folder and is renamed over ``path`` at the end. What is not an
    ordinary file (a pipe, ``/dev/stdout``) is written directly: there is nothing to rename over.

    Raises:
        InputError: the file cannot be written.
    """
    target = path.resolve()
    direct = target.exists() and not target.is_file() and not target.is_dir()
    partial = target if direct else target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with (
            partial.open("wb") as raw,
            compressor(target, raw) as packed,
            io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as text,
        ):
            yield text
        if not direct:
            partial.replace(target)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", source=str(path)) from error
    finally:
        if not direct:
            partial.unlink(missing_ok=True)
