"""Strict JSON: `dlpm.jsonl`."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlpm.errors import InputError
from dlpm.jsonl import JsonValue, dump, parse_object, shown

VALUES: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_what_is_dumped_parses_back_and_is_ascii(value: dict[str, JsonValue]) -> None:
    text = dump(value)
    assert text.isascii()
    assert parse_object(text) == value


@given(st.text())
def test_any_text_is_parsed_like_json_or_refused_in_one_line(text: str) -> None:
    try:
        value = parse_object(text, source="f", line=3)
    except InputError as error:
        assert str(error).startswith("f:3: expected a JSON object, found ")
        assert "\n" not in str(error)
    else:
        assert value == json.loads(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "column 1"),
        ('{"a": 1', "column 8"),
        ('{"a": 1} {', "column 10"),
        ("[1, 2]", "[1, 2]"),
        ("17", "17"),
        ("null", "null"),
        ('{"a": NaN}', "NaN, which is not a JSON number"),
        ('{"a": [Infinity]}', "Infinity, which is not a JSON number"),
        ('{"a": -Infinity}', "-Infinity, which is not a JSON number"),
        ('{"a": 1e999}', "the number 1e999, which is too large"),
        ('{"a": 1, "b": 2, "a": 3}', 'the key "a" twice'),
        ('{"o": {"a": 1, "a": 1}}', 'the key "a" twice'),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "one nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "a whole number of thousands of digits"),
    ],
)
def test_what_is_not_a_strict_json_object_is_refused_with_what_was_found(text: str, found: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_object(text)
    assert found in raised.value.expected


def test_what_json_cannot_say_is_not_written() -> None:
    with pytest.raises(ValueError):
        dump({"a": math.nan})


def test_a_long_value_is_quoted_in_part() -> None:
    assert shown([1, 2]) == "[1, 2]"
    assert len(shown("x" * 1000)) < 80
