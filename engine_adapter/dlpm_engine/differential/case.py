"""One differential test case: requests, the engine's parameters, and the file that holds both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from dlpm.errors import InputError
from dlpm.files import numbered_lines
from dlpm.jsonl import JsonValue, parse_object, shown
from dlpm.request import Request, Workload
from dlpm.workload.files import Document, read_document, write
from dlpm_engine.adapter import EngineConfig
from dlpm_engine.files import compressor, open_binary

STEP_US = 1_000
"""How long a step takes where a case does not say otherwise: arrivals are in whole milliseconds, one a step."""

HEADER_FIELD = "dlpm_case"
"""Field of a workload file's header that holds the parameters of a case."""

_CASE_FIELDS = frozenset({"config", "step_us"})


@dataclass(frozen=True, slots=True)
class Case:
    """What one comparison runs.

    Attributes:
        name: where it came from: a corpus entry, or a profile with its seed and number.
        config: parameters of both engines.
        requests: in file order.
        step_us: duration of every step in microseconds; it turns arrival times into steps.
    """

    name: str
    config: EngineConfig
    requests: tuple[Request, ...]
    step_us: int = STEP_US


def write_case(path: Path, case: Case) -> None:
    """Write a case as a workload file (docs/formats/workload.md) with its parameters in the header.

    Raises:
        InputError: the file cannot be written.
    """
    config: dict[str, JsonValue] = asdict(case.config)
    header: dict[str, JsonValue] = {HEADER_FIELD: {"config": config, "step_us": case.step_us}}
    workload = Workload(block_size=case.config.block_size, requests=case.requests, name=case.name)
    write(path, workload, header_extra=header, compressor=compressor)


def carries_case(path: Path) -> bool:
    """Whether a file is a workload whose header carries parameters. O(its header).

    Raises:
        InputError: the file cannot be read.
    """
    first = next(numbered_lines(path, open_binary), None)
    try:
        return first is not None and HEADER_FIELD in parse_object(first[1])
    except InputError:
        return False


def read_case(path: Path) -> Case:
    """Read a case that `write_case` wrote, or somebody by hand.

    Raises:
        InputError: the file is not a workload, or its header does not carry a case.
    """
    document = read_document(path, open_binary)
    stated = document.header_extra.get(HEADER_FIELD)
    name = document.workload.name or path.name
    try:
        return _parse(stated, document, name)
    except InputError as error:
        raise error.at(source=str(path), line=1) from error


def _parse(stated: JsonValue, document: Document, name: str) -> Case:
    """The case that a header describes."""
    if not isinstance(stated, dict) or stated.keys() != _CASE_FIELDS:
        raise InputError(f"expected an object with config and step_us, found {shown(stated)}", field=HEADER_FIELD)
    config, step_us = stated["config"], stated["step_us"]
    if not isinstance(step_us, int) or isinstance(step_us, bool) or step_us < 1:
        raise InputError(f"expected an integer > 0, found {shown(step_us)}", field=f"{HEADER_FIELD}.step_us")
    if not isinstance(config, dict):
        raise InputError(f"expected an object, found {shown(config)}", field=f"{HEADER_FIELD}.config")
    parsed = _config(config)
    if parsed.block_size != document.workload.block_size:
        raise InputError("expected the block size of the header", field=f"{HEADER_FIELD}.config.block_size")
    return Case(name, parsed, document.workload.requests, step_us)


def _config(values: Mapping[str, JsonValue]) -> EngineConfig:
    """The parameters in a case's header."""
    known = {field.name for field in fields(EngineConfig)}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise InputError("expected no such parameter", field=f"{HEADER_FIELD}.config.{unknown[0]}")

    def integer(name: str) -> int:
        value = values.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise InputError(f"expected an integer, found {shown(value)}", field=f"{HEADER_FIELD}.config.{name}")
        return value

    def text(name: str) -> str:
        value = values.get(name)
        if not isinstance(value, str):
            raise InputError(f"expected a string, found {shown(value)}", field=f"{HEADER_FIELD}.config.{name}")
        return value

    stated = values.get("quanta", {})
    if not isinstance(stated, dict):
        raise InputError(f"expected an object, found {shown(stated)}", field=f"{HEADER_FIELD}.config.quanta")
    quanta: dict[str, int] = {}
    for client, value in stated.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise InputError(f"expected integers, found {shown(value)}", field=f"{HEADER_FIELD}.config.quanta")
        quanta[client] = value
    return EngineConfig(
        quantum=integer("quantum"),
        quanta=quanta,
        extend_weight=integer("extend_weight"),
        output_weight=integer("output_weight"),
        kv_tokens=integer("kv_tokens"),
        block_size=integer("block_size"),
        max_running=None if values.get("max_running") is None else integer("max_running"),
        memory=text("memory"),
        watermark=integer("watermark"),
        visibility=text("visibility"),
    )
