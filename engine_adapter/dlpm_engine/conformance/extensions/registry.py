"""Extensions by the name that a log's header states, and which of them have rules together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dlpm.errors import InputError
from dlpm.events import Header
from dlpm.fields import Fields
from dlpm_engine.conformance.extensions import (
    chunked_prefill,
    chunked_together,
    churn,
    late,
    quantum_range,
    recompute,
    shared_ledger,
    shared_prefixes,
    speculation,
    swap,
    weights,
)
from dlpm_engine.conformance.extensions.mode import Extension, Mode
from dlpm_engine.conformance.extensions.together import Together

EXTENSIONS: Mapping[str, Extension] = {
    extension.name: extension
    for extension in (
        weights.EXTENSION,
        chunked_prefill.EXTENSION,
        recompute.EXTENSION,
        swap.EXTENSION,
        speculation.EXTENSION,
        churn.EXTENSION,
        shared_prefixes.EXTENSION,
        late.EXTENSION,
        quantum_range.EXTENSION,
        shared_ledger.EXTENSION,
    )
}
"""Every extension, in the order of docs/rules.md."""

COMBINATIONS: Mapping[frozenset[str], Callable[[Mapping[str, Fields], Header], Mode]] = {
    frozenset(("late", "speculation")): Together,
    frozenset(("late", "recompute")): Together,
    **dict.fromkeys(chunked_together.TOGETHER, chunked_together.ChunkedTogether),
}
"""The sets of two or more extensions that have rules together, each with what reads all their options."""


def mode_of(header: Header, source: str, line: int) -> Mode:
    """The mode of a log whose header is line ``line`` of ``source``.

    Raises:
        InputError: an extension that is not known, or that has no rules for this policy or beside the others; or an
            option that is not what it must be.
    """
    stated = {name: Fields(options, source, line, f"extensions.{name}.") for name, options in header.extensions.items()}
    if not stated:
        return Mode(header)
    for name in stated:
        if name not in EXTENSIONS:
            known = ", ".join(EXTENSIONS)
            raise InputError(f"expected one of {known}", source=source, line=line, field=f"extensions.{name}")
    if header.policy != "dlpm":
        raise InputError(
            f"expected policy dlpm: there are no rules for {' and '.join(stated)} under policy {header.policy}",
            source=source,
            line=line,
            field="extensions",
        )
    if len(stated) == 1:
        [(name, options)] = stated.items()
        return EXTENSIONS[name].read(options, header)
    together = COMBINATIONS.get(frozenset(stated))
    if together is None:
        known = ", ".join(" and ".join(name for name in EXTENSIONS if name in names) for names in COMBINATIONS)
        raise InputError(
            f"expected one extension, or {known or 'no other'}: there are no rules for {' and '.join(stated)} together",
            source=source,
            line=line,
            field="extensions",
        )
    return together(stated, header)
