"""The type of a parsed line against the typed events of the format."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import get_args, get_origin, get_type_hints

from dlpm.event_lines import FIELD_NAMES
from dlpm_engine.conformance.line import Line


def members(hint: object) -> set[object]:
    """The types that a hint allows, as JSON has them: no union, no ``None``, lists and dicts for their like."""
    if isinstance(hint, types.UnionType):
        return set().union(*map(members, get_args(hint)))
    if get_origin(hint) is tuple:
        return {types.GenericAlias(list, get_args(hint)[:1])}
    if get_origin(hint) is Mapping:
        return {types.GenericAlias(dict, get_args(hint))}
    return {hint} - {types.NoneType}


def test_a_line_has_the_fields_that_events_have_and_says_of_them_what_they_say() -> None:
    wanted: dict[str, set[object]] = {"event": {str}}
    for event, names in FIELD_NAMES.items():
        hints = get_type_hints(event)
        for name in names:
            wanted[name] = wanted.get(name, set()) | members(hints[name])
    assert {name: members(hint) for name, hint in get_type_hints(Line).items()} == wanted
