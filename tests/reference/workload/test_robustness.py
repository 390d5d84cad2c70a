"""Whatever a file holds, loading it gives a workload or one clear line: no other exception, no endless loop."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dlpm.errors import InputError
from dlpm.workload import LoadOptions, load, read, write
from tests.reference.workload import samples

WORKLOAD = (
    '{"schema": "dlpm.workload/1", "block_size": 4}\n'
    '{"id": "a", "client": "A", "arrival": 0.5, "blocks": [7, 8], "input": 8, "output": 4, "reply_blocks": [9]}\n'
    '{"id": "b", "client": "B", "arrival": 1, "prompt": [1, 2], "output": 1, "reply": [3],'
    ' "after": ["a"], "think": 2}\n'
)
TEXTS = [WORKLOAD, *(sample.text for sample in samples.ALL)]
# Pieces that mean something to a parser, between what they replace.
PIECES = ["", "0", "-1", "1e9", "1e999", "NaN", "null", "true", '"', "[", "]", "{", "}", ",", ":", "\n", "\r\n", "\x00"]
PIECES += ["é", "\\ud800", "9" * 30, '"a"', "[]", "{}", "-", ".", ";", "2023-02-30 00:00:00"]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """One of the texts with a few pieces replaced, as bytes that may be cut short."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        text = text[:start] + draw(st.sampled_from(PIECES)) + text[end:]
    content = text.encode()
    return content[: draw(st.integers(len(content) // 2, len(content)))]


@given(damaged() | st.binary(max_size=200), st.booleans())
@settings(max_examples=300)
@example(b"", False)
def test_a_damaged_file_loads_or_is_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, closed_loop: bool
) -> None:
    path: Path = tmp_path_factory.mktemp("damaged") / "trace"
    path.write_bytes(content)
    try:
        workload = load(path, "auto", LoadOptions(closed_loop=closed_loop))
    except InputError as error:
        assert "\n" not in str(error)
        assert error.source == str(path) or error.field in {"closed_loop", "clients"}
    else:
        write(path, workload)
        assert read(path) == workload
