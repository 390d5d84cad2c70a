"""An engine as its operator describes it: the TOML file of docs/formats/params.md.

Its optional tables bear the names of the extensions, and their fields, that an event log's header states.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.fields import MAX_TOKENS, Fields
from dlpm.jsonl import JsonValue
from dlpm.quanta import Quanta

RESERVING, OPTIMISTIC = "reserving", "optimistic"
MAX_WEIGHT = 2**31 - 1
MAX_STEPS = 2**20
KNOWN = {
    "": {
        *("engine", "memory", "clients", "service_rate", "weights", "quantum", "limits"),
        *("chunked_prefill", "late", "speculation"),
    },
    "weights": {"extend", "output"},
    "quantum": {"default", "clients"},
    "limits": {"max_input", "max_output", "kv_tokens", "max_running"},
    "chunked_prefill": {"budget"},
    "late": {"steps"},
    "speculation": {"most_accepted"},
}
OPTIONAL = ("chunked_prefill", "late", "speculation")


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """What an engine's bounds depend on.

    Attributes:
        engine: its name.
        cost: the weights.
        quanta: the quanta, in weighted tokens.
        memory: `reserving` or `optimistic` (with recomputation that clients pay for).
        kv_tokens: ``M``, in tokens.
        max_input: ``L_input``, in tokens.
        max_output: ``L_output`` in tokens, or ``None``.
        max_running: ``B`` in requests, or ``None``.
        clients: how many clients there are at most, or ``None``.
        service_rate: what a worker serves, at least, in weighted tokens per second of every step, or ``None``.
        chunk_budget: tokens of a step's budget, where prompts are computed in chunks, decodes first; or ``None``.
        late_steps: how many forward steps late outputs are charged, at most.
        most_accepted: how many tokens a forward step yields a request, at most.
    """

    engine: str
    cost: CostModel
    quanta: Quanta
    memory: str
    kv_tokens: int
    max_input: int
    max_output: int | None = None
    max_running: int | None = None
    clients: int | None = None
    service_rate: int | None = None
    chunk_budget: int | None = None
    late_steps: int = 0
    most_accepted: int = 1

    @property
    def departs(self) -> bool:
        """Whether the engine does anything that the paper's engine, under some memory, does not."""
        return self.chunk_budget is not None or self.late_steps > 0 or self.most_accepted > 1


def read_profile(path: Path) -> EngineProfile:
    """Read and check a profile.

    Raises:
        InputError: the file cannot be read, is not TOML, lacks a field, has an unknown one, or one out of range.
    """
    source = str(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"expected a readable file: {error.strerror}", source=source) from error
    except UnicodeDecodeError as error:
        raise InputError("expected UTF-8 text", source=source) from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"expected TOML: {error}", source=source) from error
    tables = {name: _table(document, name, source) for name in KNOWN}
    weights, quantum, limits, top = tables["weights"], tables["quantum"], tables["limits"], tables[""]
    memory = top.text("memory")
    if memory not in (RESERVING, OPTIMISTIC):
        raise top.wrong("memory", f"expected {RESERVING} or {OPTIMISTIC}, found {memory!r}")
    own = _subtable(quantum, "clients", source)
    profile = EngineProfile(
        engine=top.text("engine") if "engine" in top.values else path.stem,
        cost=CostModel(weights.integer("extend", 1, MAX_WEIGHT), weights.integer("output", 1, MAX_WEIGHT)),
        quanta=Quanta(
            quantum.integer("default", 1, MAX_WEIGHT), {name: own.integer(name, 1, MAX_WEIGHT) for name in own.values}
        ),
        memory=memory,
        kv_tokens=limits.integer("kv_tokens", 2, MAX_TOKENS),
        max_input=limits.integer("max_input", 1, MAX_TOKENS),
        max_output=_optional(limits, "max_output"),
        max_running=_optional(limits, "max_running"),
        clients=_optional(top, "clients"),
        service_rate=_optional(top, "service_rate"),
        chunk_budget=_optional(tables["chunked_prefill"], "budget"),
        late_steps=tables["late"].integer("steps", 0, MAX_STEPS) if tables["late"].values else 0,
        most_accepted=_optional(tables["speculation"], "most_accepted") or 1,
    )
    _check_budget(profile, tables["chunked_prefill"])
    return profile


def _check_budget(profile: EngineProfile, chunks: Fields) -> None:
    """A token budget must have room for every decode of a full batch: engines that chunk decode first."""
    if profile.chunk_budget is None:
        return
    if profile.max_running is None:
        raise chunks.wrong("budget", "expected limits.max_running beside it: decodes come first, and must fit")
    decodes = profile.max_running * profile.most_accepted
    if profile.chunk_budget < decodes:
        raise chunks.wrong("budget", f"expected at least {decodes}, a decode of each running request")


def _table(document: Mapping[str, JsonValue], name: str, source: str) -> Fields:
    """One table of the file, without unknown fields; ``""`` is the top."""
    values = document if not name else document.get(name, {} if name in OPTIONAL else None)
    if not isinstance(values, dict):
        raise InputError(f"expected a table [{name}]", source=source, field=name)
    for field in values:
        if field not in KNOWN[name]:
            known = ", ".join(sorted(KNOWN[name]))
            raise InputError(f"expected one of {known}", source=source, field=f"{name}.{field}" if name else field)
    return Fields(values, source, None, f"{name}." if name else "")


def _subtable(fields: Fields, name: str, source: str) -> Fields:
    """A table whose keys are free, empty where absent."""
    values = fields.values.get(name, {})
    if not isinstance(values, dict):
        raise fields.mismatch(name, "expected a table of client = quantum")
    return Fields(values, source, None, f"{fields.within}{name}.")


def _optional(fields: Fields, name: str) -> int | None:
    """A positive number, or ``None`` where it is not stated."""
    return fields.integer(name, 1, MAX_TOKENS) if name in fields.values else None
