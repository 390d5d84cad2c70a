"""An engine's own numbers: which bounds it gets, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlpm.errors import InputError
from dlpm_proofs.engine_params import guarantees, read_params

GOOD = """
memory = "{memory}"
clients = 3
[weights]
extend = 1
output = 2
[quantum]
default = 8
[limits]
max_input = 1
kv_tokens = 64
"""


def written(folder: Path, text: str) -> Path:
    """A parameter file with this text."""
    path = folder / "engine.toml"
    path.write_text(text)
    return path


def test_a_reserving_engine_gets_the_printed_theorems(tmp_path: Path) -> None:
    found = guarantees(read_params(written(tmp_path, GOOD.format(memory="reserving"))))
    printed = [one for one in found if one.claim.startswith("as printed: ") and "T5" not in one.theorem]
    assert [one.theorem for one in printed] == ["T2/reserving", "T3/reserving, T4/reserving"]
    assert all(one.holds for one in printed)
    # U = 1 * 1 + 2 * 64 = 129, and 2 (129 + 8) = 274.
    assert "-U = -129" in printed[0].claim and "= 274" in printed[1].claim


def test_an_optimistic_engine_does_not_get_theorem_4_1_as_printed_but_the_gap_that_is_true(tmp_path: Path) -> None:
    found = {one.theorem: one for one in guarantees(read_params(written(tmp_path, GOOD.format(memory="optimistic"))))}
    assert not found["T2/optimistic"].holds
    assert not found["T3/optimistic"].holds and "reserving memory" in found["T3/optimistic"].reason
    # Sum over s <= 63 of 63 div s is 273, so U* = 63 + 2 * 273 = 609 and the gap is 2 (8 + 608).
    assert sum(63 // s for s in range(1, 64)) == 273
    assert "at most 1232" in found["T3*/optimistic, T4*/optimistic"].claim


def test_an_optimistic_engine_with_small_batches_keeps_the_printed_number_by_another_theorem(tmp_path: Path) -> None:
    text = GOOD.format(memory="optimistic") + "max_output = 4\nmax_running = 2\n"
    found = {one.theorem: one for one in guarantees(read_params(written(tmp_path, text)))}
    assert found["T3*/optimistic"].holds and "not by the paper's proof" in found["T3*/optimistic"].reason


@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [
        ("memory = ", None, "expected TOML"),
        (GOOD.format(memory="swapping"), "memory", "expected reserving or optimistic"),
        (GOOD.format(memory="reserving").replace("default = 8", "default = -8"), "quantum.default", "whole number"),
        (GOOD.format(memory="reserving").replace("extend = 1", "extend = 1.5"), "weights.extend", "whole number"),
        (GOOD.format(memory="reserving").replace("= 64", f"= {2**70}"), "limits.kv_tokens", "whole number"),
        (GOOD.format(memory="reserving").replace("kv_tokens", "kv_token"), "limits.kv_token", "expected one of"),
        (GOOD.format(memory="reserving").replace("[weights]\nextend = 1\noutput = 2", ""), "weights", "table"),
        (GOOD.format(memory="reserving") + "[quantum.clients]\ngold = 0\n", "quantum.clients.gold", "whole number"),
    ],
)
def test_bad_parameters_are_refused_with_file_and_field(
    tmp_path: Path, text: str, field: str | None, expected: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_params(path)
    assert caught.value.source == str(path)
    assert caught.value.field == field
    assert expected in str(caught.value)


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a readable file"):
        read_params(tmp_path / "absent.toml")


def test_the_bundled_examples_are_read(repository: Path) -> None:
    for path in sorted((repository / "examples" / "engines").glob("*.toml")):
        assert guarantees(read_params(path))
