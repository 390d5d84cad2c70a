"""A campaign's result as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator

from dlpm_engine.differential.campaign import Summary
from dlpm_engine.differential.kinds import KINDS


def lines(summary: Summary) -> Iterator[str]:
    """The result, line by line; a divergence with its whole report."""
    total = summary.total
    tally = total.tally
    events = tally.decisions() - tally.passed_over
    rate = tally.decisions() / summary.wall_seconds if summary.wall_seconds and not summary.resumed else None
    core_rate = tally.decisions() / total.cpu_seconds if total.cpu_seconds else 0.0
    yield f"cases                 {tally.cases:,} in {tally.steps:,} steps"
    yield f"decisions compared    {tally.decisions():,}: {events:,} events, {tally.passed_over:,} requests passed over"
    yield f"other values compared {tally.values:,}"
    if rate is not None:
        yield f"time                  {summary.wall_seconds:,.1f} s, {rate:,.0f} decisions/s"
    else:
        yield f"time                  {total.seconds:,.1f} s of work, {summary.resumed} chunks from the journal"
    yield f"processor time        {total.cpu_seconds:,.1f} s, {core_rate:,.0f} decisions/s of one core"
    if total.out_of_range:
        yield f"left int64            {total.out_of_range} cases, said so at the step where the reference does"
    if total.unfinished:
        yield f"unfinished            {len(total.unfinished)} cases took too long: {', '.join(total.unfinished[:5])}"
    never = summary.never_reached()
    yield f"kinds of decision     {len(KINDS) - len(never)} of {len(KINDS)} reached, {summary.required} asked for"
    for kind in never if summary.required else ():
        yield f"  never reached       {kind}: {KINDS[kind]}"
    if total.found is None:
        nothing = "" if tally.decisions() else ": nothing was compared"
        yield f"divergences           0{nothing}"
        return
    yield "divergences           1, made small:" if total.found.get("repeats", True) else "divergences           1:"
    yield ""
    yield str(total.found["report"])
