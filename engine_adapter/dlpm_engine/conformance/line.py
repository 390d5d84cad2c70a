"""What a line of a log says, as the fast reader hands it over."""

from __future__ import annotations

from typing import TypedDict


class Line(TypedDict, total=False):
    """An event as it was parsed: the fields of all kinds of events, as the format has them (docs/formats/events.md).

    Parsing checks nothing, so this is what a line ought to say. Whoever reads a field checks what it relies on, or has
    the whole line read strictly first (`Findings.strictly_parsed`); a field that is not there is a `KeyError`. Costs
    nothing: at run time a line is a plain dict.
    """

    event: str
    step: int
    worker: int
    time_us: int
    request: str
    client: str
    input: int
    max_output: int
    arrived_us: int
    requests: list[str]
    matched: list[int] | int
    """One number for each request in an `order` event, one number in an `admit` event."""
    free: int
    deficits: dict[str, int]
    extend: int
    deficit: int
    chunk: int
    payer: str
    payer_deficit: int
    charged: int
    refunds: dict[str, int]
    tokens: dict[str, int] | int
    """Numbers by request in an `output` event, one number in a `chunk` or `evict` event."""
    accepted: dict[str, int]
    kind: str
    copied: int
    copied_us: int
    began_us: int
    matched_workers: list[int]
    counter: int
    updates: int
    blocks: list[int]
