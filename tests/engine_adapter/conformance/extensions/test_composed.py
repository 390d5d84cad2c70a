"""What is promised of a composition of extensions that changes nothing, and of one about which too little is stated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dlpm.events import Header, Limits
from dlpm_engine.conformance.extensions.composed import composed

HEADER = Header(
    engine="e",
    policy="dlpm",
    extend_weight=1,
    output_weight=2,
    default_quantum=1,
    limits=Limits(kv_tokens=8, max_running=2),
    memory="reserving",
)


def lowest(header: Header, **options: int) -> int:
    """The floor that is promised for a longest input of 1."""
    (floor,) = composed(header, "nothing in particular", **options).floors(1)
    return floor.lowest


def test_a_composition_of_nothing_has_the_plain_floor() -> None:
    """U* = 1 + 2 * 7 = 15 [T2*]: one token of input and seven of output fill M = 8."""
    assert lowest(HEADER) == -14


def test_a_step_of_delay_lowers_the_floor_by_what_the_largest_batch_yields_in_it() -> None:
    assert lowest(HEADER, late_steps=1) < lowest(HEADER)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (replace(HEADER, limits=Limits()), "the header states no limits.kv_tokens"),
        (replace(HEADER, memory=None), "the header does not say what memory is"),
    ],
)
def test_nothing_is_promised_where_too_little_is_stated(header: Header, reason: str) -> None:
    promises = composed(header, "nothing in particular")
    assert list(promises.floors(1)) == []
    unchecked = promises.not_checked()
    assert unchecked["extension-floor"] == unchecked["extension-gap"] == reason
    assert unchecked["deficit-floor"] == unchecked["gap-any"] == "not a theorem with nothing in particular"
