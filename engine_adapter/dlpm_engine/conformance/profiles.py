"""A log's header and its operator's profile of the engine, put together (`dlpm check --params`).

The profile supplies what the header does not state. What both state must be the same, but a limit of the header may be
stricter: a log that contradicts the profile is of another engine, or of another configuration, and no number of the
profile would say anything about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

from dlpm.engine_profile import EngineProfile
from dlpm.errors import InputError
from dlpm.events import Extensions, Header, JsonValue, Limits

PROFILED = ("chunked_prefill", "late", "speculation")
"""The extensions that a profile can state, and states by a table, or not at all."""


def with_profile(header: Header, profile: EngineProfile, source: str, line: int) -> Header:
    """The header of the log ``source`` with what ``profile`` says beside it.

    Raises:
        InputError: the two contradict each other; field and both values are named.
    """
    check = _Comparison(source, line)
    check.same("weights.extend", header.extend_weight, profile.cost.extend_weight)
    check.same("weights.output", header.output_weight, profile.cost.output_weight)
    default, quanta = header.default_quantum, header.quanta
    if default is not None:
        check.same("quantum.default", default, profile.quanta.default)
        for client in {**quanta, **profile.quanta.clients}:
            check.same(f"quantum.clients.{client}", quanta.get(client, default), profile.quanta.of(client))
    elif header.policy == "dlpm":
        default, quanta = profile.quanta.default, profile.quanta.clients
    if header.memory is not None:
        check.same("memory", header.memory, profile.memory)
    return replace(
        header,
        default_quantum=default,
        quanta=quanta,
        memory=profile.memory,
        limits=Limits(
            **{
                item.name: check.limit(
                    f"limits.{item.name}", getattr(header.limits, item.name), getattr(profile, item.name)
                )
                for item in fields(Limits)
            }
        ),
        extensions=_extensions(header.extensions, profile, check),
    )


def _extensions(stated: Extensions, profile: EngineProfile, check: _Comparison) -> Extensions:
    """The stated extensions, and those of the profile. O(extensions)."""
    own: dict[str, dict[str, JsonValue]] = {}
    if profile.chunk_budget is not None:
        own["chunked_prefill"] = {"budget": profile.chunk_budget}
    if profile.late_steps:
        own["late"] = {"steps": profile.late_steps}
    if profile.most_accepted > 1:
        own["speculation"] = {"most_accepted": profile.most_accepted}
    together: dict[str, Mapping[str, JsonValue]] = {**own, **stated}
    for name in PROFILED:
        if name in stated:
            if name not in own:
                raise check.refusal(f"extensions.{name}", "no such extension", "it")
            for option, value in own[name].items():
                check.same(f"extensions.{name}.{option}", stated[name].get(option), value)
    return together


class _Comparison:
    """What a header says, against what a profile says."""

    def __init__(self, source: str, line: int) -> None:
        """The header is line ``line`` of ``source``."""
        self._source = source
        self._line = line

    def same(self, field: str, found: JsonValue, expected: JsonValue) -> None:
        """Both say the same.

        Raises:
            InputError: they don't.
        """
        if found != expected:
            raise self.refusal(field, repr(expected), repr(found))

    def limit(self, field: str, found: int | None, most: int | None) -> int | None:
        """The stricter of two limits, which must be the header's if both are stated.

        Raises:
            InputError: it is not.
        """
        if found is None:
            return most
        if most is not None and found > most:
            raise self.refusal(field, f"at most {most}", repr(found))
        return found

    def refusal(self, field: str, expected: str, found: str) -> InputError:
        """The error that names a field of the header."""
        message = f"expected {expected}, as the parameters say, found {found}"
        return InputError(message, source=self._source, line=self._line, field=field)
