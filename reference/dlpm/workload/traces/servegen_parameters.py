"""The parameters of ServeGen's clients: reading them from a folder or a tar file, and the distributions they are."""

from __future__ import annotations

import ast
import math
import re
import tarfile
import zlib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random

from dlpm.errors import InputError
from dlpm.fields import MAX_SECONDS, MAX_TOKENS
from dlpm.jsonl import JsonValue, parse_object
from dlpm.workload.traces.row import split_csv

ROW_SECONDS = 600
_CHUNK = re.compile(r"(?:.*/)?chunk-([0-9]{1,9})-(trace\.csv|dataset\.json)", re.ASCII)
_COLUMNS = ("window start", "rate", "cv", "pattern", "shape", "scale")


@dataclass(frozen=True, slots=True)
class ArrivalRow:
    """The arrivals of one client in one window of `ROW_SECONDS`.

    Attributes:
        start_s: first second of the window.
        rate: requests a second; 0 where the client is idle.
        pattern: ``Gamma`` or ``Weibull``, of the intervals; empty where the client is idle.
        shape: its shape.
        scale: its scale, in seconds.
    """

    start_s: int
    rate: float
    pattern: str
    shape: float
    scale: float

    def interval(self, draw: Random) -> float:
        """Seconds to the next request."""
        if self.pattern == "Gamma":
            return draw.gammavariate(self.shape, self.scale)
        return draw.weibullvariate(self.scale, self.shape)


@dataclass(frozen=True, slots=True)
class TokenDistribution:
    """Numbers of tokens, ascending, and the running sums of their probabilities."""

    tokens: tuple[int, ...]
    cumulative: tuple[float, ...]

    def draw(self, draw: Random) -> int:
        """One number of tokens. O(log of how many there are)."""
        point = draw.random() * self.cumulative[-1]
        return self.tokens[min(bisect_right(self.cumulative, point), len(self.tokens) - 1)]


@dataclass(frozen=True, slots=True)
class ClientParameters:
    """One production client.

    Attributes:
        number: the N of its files.
        arrivals: its rows, by time.
        datasets: window start in seconds to field to the text of a distribution, as in its file.
        source: the file of those, for error messages.
    """

    number: int
    arrivals: tuple[ArrivalRow, ...]
    datasets: Mapping[int, Mapping[str, str]]
    source: str

    def tokens(self, field: str, second: int) -> TokenDistribution:
        """The distribution of ``field`` in the window that ``second`` lies in. O(its size).

        Raises:
            InputError: there is none, or it is not one.
        """
        start = max((start for start in self.datasets if start <= second), default=None)
        if start is None:
            raise InputError(f"expected a window that starts by {second} s", source=self.source)
        place = f"{start}.{field}"
        text = self.datasets[start].get(field)
        if text is None:
            raise InputError("expected a distribution, found no such field", source=self.source, field=place)
        return parse_distribution(text, self.source, place)


def parse_distribution(text: str, source: str, field: str) -> TokenDistribution:
    """Read ``{tokens: probability, ...}`` in Python's syntax, without evaluating it. O(its size).

    Raises:
        InputError: it is anything else, or empty, or its probabilities are all 0.
    """
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise InputError("expected {tokens: probability, ...}", source=source, field=field) from error
    if not isinstance(value, dict) or not value:
        raise InputError("expected {tokens: probability, ...} with at least one entry", source=source, field=field)
    for tokens, probability in value.items():
        sound = type(tokens) is int and 1 <= tokens <= MAX_TOKENS and isinstance(probability, int | float)
        if not sound or not 0 <= probability <= 1:
            message = f"expected a token count and a probability, found {tokens!r}: {probability!r}"
            raise InputError(message[:200], source=source, field=field)
    tokens = tuple(sorted(value))
    cumulative = tuple(accumulate(float(value[count]) for count in tokens))
    if cumulative[-1] <= 0:
        raise InputError("expected probabilities that are not all 0", source=source, field=field)
    return TokenDistribution(tokens, cumulative)


def is_parameters(path: Path) -> bool:
    """Whether a path is a folder or a tar file, compressed or not, rather than a file of drawn requests."""
    if path.is_dir():
        return True
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError, zlib.error):
        return False


def read_parameters(path: Path) -> tuple[ClientParameters, ...]:
    """All clients of a folder or tar file, by number. O(size of the files).

    Raises:
        InputError: there is no client, one of a client's two files is missing, or a file is not what it should be.
    """
    files = _folder_files(path) if path.is_dir() else _tar_files(path)
    numbers = sorted({number for number, _ in files})
    if not numbers:
        raise InputError("expected files chunk-N-trace.csv and chunk-N-dataset.json, found none", source=str(path))
    clients = []
    for number in numbers:
        for kind in ("trace.csv", "dataset.json"):
            if (number, kind) not in files:
                raise InputError(f"expected a file chunk-{number}-{kind}", source=str(path))
        csv_source = f"{path}/chunk-{number}-trace.csv"
        json_source = f"{path}/chunk-{number}-dataset.json"
        arrivals = parse_arrivals(_text(files[number, "trace.csv"], csv_source), csv_source)
        datasets = _datasets(_text(files[number, "dataset.json"], json_source), json_source)
        clients.append(ClientParameters(number, arrivals, datasets, json_source))
    return tuple(clients)


def parse_arrivals(text: str, source: str) -> tuple[ArrivalRow, ...]:
    """The rows of a ``chunk-N-trace.csv``. O(rows).

    Raises:
        InputError: a row is not a window of 600 s with a rate and, where it is above 0, a pattern, shape and scale.
    """
    rows = []
    for line, content in enumerate(text.splitlines(), start=1):
        if not content.strip():
            continue
        cells = split_csv(content, source, line)
        if len(cells) != len(_COLUMNS):
            raise InputError(f"expected {len(_COLUMNS)} cells, found {len(cells)}", source=source, line=line)
        start, rate, _, shape, scale = (
            _number(cells[place], _COLUMNS[place], source, line) for place in (0, 1, 2, 4, 5)
        )
        if start % ROW_SECONDS or start > MAX_SECONDS:
            message = f"expected a multiple of {ROW_SECONDS} s, found {cells[0]}"
            raise InputError(message, source=source, line=line, field=_COLUMNS[0])
        if rate > 0 and cells[3] not in {"Gamma", "Weibull"}:
            message = f"expected Gamma or Weibull where the rate is above 0, found {cells[3]!r}"
            raise InputError(message, source=source, line=line, field="pattern")
        if rate > 0 and (shape <= 0 or scale <= 0):
            message = "expected a number above 0 where the rate is above 0"
            raise InputError(message, source=source, line=line, field="shape" if shape <= 0 else "scale")
        rows.append(ArrivalRow(int(start), rate, cells[3], shape, scale))
    return tuple(sorted(rows, key=lambda row: row.start_s))


def _number(text: str, field: str, source: str, line: int) -> float:
    """A finite number that is not negative."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f"expected a number not below 0, found {text!r}", source=source, line=line, field=field)
    return value


def _datasets(text: str, source: str) -> dict[int, Mapping[str, str]]:
    """The windows of a ``chunk-N-dataset.json``, their distributions left as text: most are never needed."""
    windows: dict[int, Mapping[str, str]] = {}
    for start, fields in parse_object(text, source=source).items():
        if not (start.isascii() and start.isdigit() and len(start) <= len(str(MAX_SECONDS))):
            raise InputError(f"expected a window start in seconds, found {start!r}", source=source)
        if not isinstance(fields, dict):
            raise InputError("expected an object", source=source, field=start)
        windows[int(start)] = {
            name: _distribution_text(value, source, f"{start}.{name}") for name, value in fields.items()
        }
    return windows


def _distribution_text(value: JsonValue, source: str, field: str) -> str:
    """The text of a distribution."""
    if not isinstance(value, str):
        raise InputError("expected a distribution as a string", source=source, field=field)
    return value


def _text(content: bytes, source: str) -> str:
    """The content of a file as text."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("expected UTF-8 text", source=source) from error


def _folder_files(path: Path) -> dict[tuple[int, str], bytes]:
    """The contents of the clients' files in a folder."""
    found: dict[tuple[int, str], bytes] = {}
    for entry in sorted(path.iterdir()):
        if match := _CHUNK.fullmatch(entry.name):
            try:
                found[int(match[1]), match[2]] = entry.read_bytes()
            except OSError as error:
                raise InputError(f"cannot be read: {error.strerror}", source=str(entry)) from error
    return found


def _tar_files(path: Path) -> dict[tuple[int, str], bytes]:
    """The contents of the clients' files in a tar file, which are all in one folder. Nothing is unpacked to disk."""
    found: dict[tuple[int, str], bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                match = _CHUNK.fullmatch(member.name)
                content = archive.extractfile(member) if match and member.isfile() else None
                if match and content:
                    key = int(match[1]), match[2]
                    if key in found:
                        message = f"expected the clients of one model, found two files chunk-{match[1]}-{match[2]}"
                        raise InputError(message, source=str(path))
                    found[key] = content.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise InputError("expected a sound tar file", source=str(path)) from error
    return found
