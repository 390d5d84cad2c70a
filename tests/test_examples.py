"""The scripts in `examples/` that make tables of the documentation run, and show what the pages say of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest


def table(repository: Path, script: str, *arguments: str) -> list[list[str]]:
    """The lines of what a script prints, split into cells."""
    command = [sys.executable, str(repository / "examples" / script), *arguments]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [re.split(r"\s{2,}", line.strip()) for line in printed.splitlines() if line]


@pytest.fixture(scope="module")
def swap_modes(repository: Path) -> dict[str, dict[str, float]]:
    """A small run of every mode."""
    small = ("--clients", "3", "--chats", "4", "--rate", "1", "--think", "1", "--kv-tokens", "2400")
    _, header, *rows = table(repository, "swap_modes.py", *small)
    return {row[0]: dict(zip(header[1:], map(float, row[1:]), strict=True)) for row in rows}


def test_recomputation_copies_nothing_and_every_way_to_swap_computes_less(
    swap_modes: dict[str, dict[str, float]],
) -> None:
    recompute = swap_modes["recompute"]
    assert recompute["preemptions"] > 0
    assert recompute["copies"] == recompute["stall s"] == 0
    for mode in (mode for name, mode in swap_modes.items() if name != "recompute"):
        assert mode["copies"] > 0
        assert mode["extend k"] < recompute["extend k"]


def test_groups_need_fewer_copies_and_copies_beside_the_steps_stall_less(
    swap_modes: dict[str, dict[str, float]],
) -> None:
    for when in ("steps wait", "beside steps"):
        blocks, groups = swap_modes[f"blocks, {when}"], swap_modes[f"groups, {when}"]
        assert groups["copies"] / groups["GB moved"] < blocks["copies"] / blocks["GB moved"] / 2
        assert groups["stall s"] < blocks["stall s"]
    assert swap_modes["blocks, beside steps"]["stall s"] < swap_modes["blocks, steps wait"]["stall s"]


def test_who_is_recomputed_waits_longest_for_the_next_token(swap_modes: dict[str, dict[str, float]]) -> None:
    recompute = swap_modes["recompute"]
    for name, mode in swap_modes.items():
        assert mode["TBT ms p50"] <= mode["TBT p99"] <= mode["TBT p99.9"] <= recompute["TBT p99.9"], name


def test_a_rider_pays_as_much_as_others_where_each_pays_as_if_alone(repository: Path) -> None:
    header, *rows = table(repository, "shared_prefix_payers.py", "--seconds", "60", "--rounds", "120")
    charged = header.index("charged") - len(header)
    of = {(row[0], row[1]): row for row in rows if len(row) == len(header)}
    assert float(of["first", "rider"][charged]) <= float(of["first", "rider"][header.index("as if alone")])
    assert of["alone", "rider"][charged] == of["alone", "rider"][header.index("as if alone")]
