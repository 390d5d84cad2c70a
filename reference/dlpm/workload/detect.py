"""Which format a workload or trace is in, read off its first line."""

from __future__ import annotations

from pathlib import Path

from dlpm.errors import InputError
from dlpm.files import Opener, numbered_lines, open_binary
from dlpm.jsonl import parse_object
from dlpm.workload.traces.azure import AZURE
from dlpm.workload.traces.bailian import BAILIAN
from dlpm.workload.traces.burstgpt import BURSTGPT
from dlpm.workload.traces.coding_agent import CODING_AGENT
from dlpm.workload.traces.mooncake import MOONCAKE
from dlpm.workload.traces.row import TraceFormat, split_csv
from dlpm.workload.traces.servegen import SERVEGEN
from dlpm.workload.traces.servegen_parameters import is_parameters
from dlpm.workload.traces.vtc_arena import VTC_ARENA

DLPM = "dlpm"
"""The name of this project's own workload format."""

TRACE_FORMATS: dict[str, TraceFormat] = {
    trace.name: trace for trace in (MOONCAKE, BAILIAN, AZURE, BURSTGPT, VTC_ARENA, CODING_AGENT, SERVEGEN)
}
"""The formats of public traces, by name."""


def detect(path: Path, opener: Opener = open_binary) -> str:
    """The name of the format of a file or folder: `DLPM` or one of `TRACE_FORMATS`. Reads one line.

    Each format has fields that all its records have. Where one format's fields contain another's, the larger one wins;
    where two formats fit and neither contains the other, that is an error.

    Raises:
        InputError: the file is empty or cannot be read, no format fits, or two do.
    """
    if is_parameters(path):
        return SERVEGEN.name
    source = str(path)
    lines = numbered_lines(path, opener)
    number, text = next(lines, (1, ""))
    lines.close()
    if not text:
        raise InputError("expected a workload or a trace, found an empty file", source=source, line=number)
    if text.lstrip().startswith("{"):
        names = frozenset(parse_object(text, source=source, line=number))
        if "schema" in names:
            return DLPM
    else:
        names = frozenset(split_csv(text, source, number))
    return _best(names, source, number)


def _best(names: frozenset[str], source: str, line: int) -> str:
    """The one format that fits the names of fields best."""
    fitting = [trace for trace in TRACE_FORMATS.values() if trace.required <= names]
    best = [trace.name for trace in fitting if not any(trace.required < other.required for other in fitting)]
    if len(best) == 1:
        return best[0]
    known = ", ".join([DLPM, *TRACE_FORMATS])
    if best:
        raise InputError(
            f"expected one format, found the fields of {' and of '.join(best)}: name one", source=source, line=line
        )
    shown = ", ".join(sorted(names))[:100]
    raise InputError(f"expected one of the formats {known}, found the fields {shown}", source=source, line=line)
