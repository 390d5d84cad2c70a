"""Files with Zstandard beside what `dlpm.files` opens and writes: the opener and compressor of the command line."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import zstandard

from dlpm.errors import InputError
from dlpm.files import ZSTD_MAGIC, compressed_by_name, open_raw, refuse_misnamed, stream_closed_on_error
from dlpm.files import open_binary as open_plain_or_gzip

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# Small, because a chunk of a repetitive log unpacks to many times its size.
_CHUNK = 1 << 14
_BUFFER = 1 << 18
_LEVEL = 3


def open_binary(path: Path) -> BinaryIO:
    """Open a plain, gzip or Zstandard file as uncompressed bytes; which of them is read off its content, not its name.

    Raises:
        InputError: the file cannot be opened, or is called ``.gz`` or ``.zst`` and is not that. Damaged or truncated
            Zstandard data raises it on reading.
    """
    stream, magic = open_raw(path)
    if magic == ZSTD_MAGIC:
        return cast(BinaryIO, io.BufferedReader(_ZstdReader(stream, str(path)), _BUFFER))
    with stream_closed_on_error(stream):
        refuse_misnamed(path, ".zst", "Zstandard")
    stream.close()
    return open_plain_or_gzip(path)


def compressor(path: Path, stream: BinaryIO) -> BinaryIO:
    """Wrap ``stream`` in the compression that the name asks for: ``.gz``, ``.zst``, or none."""
    if path.suffix == ".zst":
        return cast(BinaryIO, zstandard.ZstdCompressor(level=_LEVEL).stream_writer(stream, closefd=False))
    return compressed_by_name(path, stream)


class _ZstdReader(io.RawIOBase):
    """The uncompressed bytes of a file of one or more Zstandard frames.

    The library's own reader takes a file that stops inside a frame for one that ends there; a log that lost its tail
    must not pass for a whole one.
    """

    def __init__(self, stream: BinaryIO, source: str) -> None:
        self._stream = stream
        self._source = source
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._pending = memoryview(b"")
        self._between_frames = True

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill ``buffer`` as far as one chunk goes; 0 at the end.

        Raises:
            InputError: the data is damaged or ends inside a frame.
        """
        while not len(self._pending):
            packed = self._stream.read(_CHUNK)
            if not packed:
                if self._between_frames:
                    return 0
                raise InputError("expected more compressed data: truncated file", source=self._source)
            self._pending = memoryview(self._unpacked(packed))
        room = memoryview(buffer).cast("B")
        count = min(len(room), len(self._pending))
        room[:count] = self._pending[:count]
        self._pending = self._pending[count:]
        return count

    def _unpacked(self, packed: bytes) -> bytes:
        """The plain bytes of a chunk, which may end one frame and begin others."""
        plain = []
        try:
            while packed:
                plain.append(self._frame.decompress(packed))
                self._between_frames = self._frame.eof
                packed = self._frame.unused_data
                if self._frame.eof:
                    self._frame = zstandard.ZstdDecompressor().decompressobj()
        except zstandard.ZstdError as error:
            raise InputError(f"expected sound Zstandard data: {error}", source=self._source) from error
        return b"".join(plain)

    def close(self) -> None:
        """Close the file, too."""
        super().close()
        self._stream.close()
