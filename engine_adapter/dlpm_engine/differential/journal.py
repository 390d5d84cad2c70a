"""The journal of a campaign: finished chunks, on disk before the next one counts, so that a kill loses none of them."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from dlpm.errors import InputError
from dlpm.jsonl import JsonValue, dump, parse_object
from dlpm_engine.differential.chunk import ChunkResult, chunk_from_json

SCHEMA = "dlpm.campaign/1"


class Journal:
    """A JSON Lines file: a header that says which campaign it is, then one line for each finished chunk.

    Every line is flushed to the disk when it is written. A last line that a kill cut short is dropped.

    Raises:
        InputError: the file cannot be read or written, or belongs to another campaign.
    """

    def __init__(self, path: Path, campaign: dict[str, JsonValue]) -> None:
        """Open the journal of ``campaign``, or begin one."""
        self.path = path
        self.finished: dict[int, ChunkResult] = {}
        header: dict[str, JsonValue] = {"schema": SCHEMA, **campaign}
        whole = self._read(header)
        try:
            self._file = path.open("r+b" if path.exists() else "w+b")
            self._file.truncate(whole)
            self._file.seek(whole)
            if not whole:
                self._write(header)
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror}", source=str(path)) from error

    def _read(self, header: dict[str, JsonValue]) -> int:
        """Take in what is there; returns how many bytes of it are whole lines."""
        if not self.path.exists():
            return 0
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", source=str(self.path)) from error
        whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:whole].decode("utf-8", "replace").splitlines(), start=1):
            values = parse_object(line, source=str(self.path), line=number)
            if number == 1:
                self._same_campaign(values, header)
                continue
            try:
                chunk = chunk_from_json(values)
            except InputError as error:
                raise error.at(source=str(self.path), line=number) from error
            self.finished[chunk.number] = chunk
        return whole

    def _same_campaign(self, found: dict[str, JsonValue], header: dict[str, JsonValue]) -> None:
        """Refuse the journal of another campaign."""
        for field, value in header.items():
            if found.get(field) != value:
                raise InputError(
                    f"expected {value!r}, as this campaign has, found {found.get(field)!r}: name another journal",
                    source=str(self.path),
                    line=1,
                    field=field,
                )

    def add(self, chunk: ChunkResult) -> None:
        """Write a finished chunk, and wait until the disk has it.

        Raises:
            InputError: the file cannot be written.
        """
        self.finished[chunk.number] = chunk
        try:
            self._write(chunk.to_json())
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror}", source=str(self.path)) from error

    def _write(self, values: dict[str, JsonValue]) -> None:
        """Append one line."""
        self._file.write(f"{dump(values)}\n".encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
