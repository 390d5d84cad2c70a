"""The metrics of a run by their definitions, over every moment of a made-up run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hypothesis import strategies as st

from dlpm.cost import CostModel
from dlpm.events import Admit, Arrive, Event, Evict, Finish, Output, Preempt, Refill

COST = CostModel(extend_weight=3, output_weight=2)
CLIENTS = ("A", "B", "C")


@dataclass
class Made:
    """A request of a made-up run."""

    name: str
    client: str
    input: int
    generated: int = 0


@st.composite
def runs(draw: st.DrawFn, timed: bool = True, uneven: bool = True, max_events: int = 40) -> list[Event]:
    """Events that some engine could have written: every admission, output, finish and preemption has its request."""
    events: list[Event] = []
    queue: list[Made] = []
    running: list[Made] = []
    clock = step = 0
    for index in range(draw(st.integers(min_value=0, max_value=max_events))):
        kinds = ["arrive", "refill", "evict"] + ["admit"] * 2 * bool(queue)
        kinds += (["output"] * 3 + ["finish", "preempt"]) * bool(running)
        kind = draw(st.sampled_from(kinds))
        clock += draw(st.integers(min_value=0, max_value=3))
        time_us = clock if timed else None
        if kind == "arrive":
            client = draw(st.sampled_from(CLIENTS))
            made = Made(f"r{index}", client, draw(st.integers(min_value=1, max_value=9)))
            sent = draw(st.none() | st.integers(min_value=0, max_value=clock)) if timed else None
            queue.append(made)
            events.append(
                Arrive(
                    step=step,
                    time_us=time_us,
                    request=made.name,
                    client=client,
                    input=made.input,
                    max_output=9,
                    arrived_us=sent,
                )
            )
        elif kind == "admit":
            made = queue.pop(draw(st.integers(min_value=0, max_value=len(queue) - 1)))
            prompt = made.input + made.generated
            matched = draw(st.integers(min_value=0, max_value=prompt - 1))
            running.append(made)
            events.append(
                Admit(step=step, time_us=time_us, request=made.name, matched=matched, extend=prompt - matched)
            )
        elif kind == "output":
            counts = {made.name: draw(st.integers(0, 3)) if uneven and draw(st.booleans()) else 1 for made in running}
            if not draw(st.booleans()):
                counts = {name: count for name, count in counts.items() if count}
            if counts:
                for made in running:
                    made.generated += counts.get(made.name, 0)
                step += 1
                events.append(Output(step=step, time_us=time_us, tokens=counts))
        elif kind == "finish":
            made = running.pop(draw(st.integers(min_value=0, max_value=len(running) - 1)))
            events.append(Finish(step=step, time_us=time_us, request=made.name))
        elif kind == "preempt":
            made = running.pop(draw(st.integers(min_value=0, max_value=len(running) - 1)))
            queue.append(made)
            events.append(Preempt(step=step, time_us=time_us, request=made.name, kind="recompute"))
        elif kind == "refill":
            events.append(Refill(step=step, time_us=time_us, deficits={"A": 1}))
        else:
            events.append(Evict(step=step, time_us=time_us, tokens=1))
    return events


@dataclass(frozen=True)
class Moment:
    """What is so between two events."""

    forward_steps: int
    actual: Mapping[str, int]
    perceived: Mapping[str, int]
    queued: frozenset[str]
    registered: frozenset[str]
    refill: bool


def moments(events: list[Event]) -> list[Moment]:
    """Replay the run, and remember everything after each event."""
    owner: dict[str, str] = {}
    prompt: dict[str, int] = {}
    queue: set[str] = set()
    actual, perceived = dict.fromkeys(CLIENTS, 0), dict.fromkeys(CLIENTS, 0)
    admitted: set[str] = set()
    forward_steps = 0
    found = [Moment(0, dict(actual), dict(perceived), frozenset(), frozenset(), False)]
    for event in events:
        if isinstance(event, Arrive):
            owner[event.request], prompt[event.request] = event.client, event.input
            queue.add(event.request)
        elif isinstance(event, Preempt):
            queue.add(event.request)
        elif isinstance(event, Admit):
            queue.remove(event.request)
            actual[owner[event.request]] += COST.extend(event.extend)
            if event.request not in admitted:
                perceived[owner[event.request]] += COST.extend(prompt[event.request])
            admitted.add(event.request)
        elif isinstance(event, Output):
            forward_steps += 1
            for request, tokens in event.tokens.items():
                actual[owner[request]] += COST.output(tokens)
                perceived[owner[request]] += COST.output(tokens)
        found.append(
            Moment(
                forward_steps,
                dict(actual),
                dict(perceived),
                frozenset(owner[request] for request in queue),
                frozenset(owner.values()),
                isinstance(event, Refill),
            )
        )
    return found


def largest_gap(run: list[Moment], *, at_refills: bool, against_any: bool) -> int:
    """By definition: every interval, every pair of which the one behind (or both) is backlogged throughout."""
    largest = 0
    for start, first in enumerate(run):
        backlogged = first.registered if at_refills else first.queued
        for moment in run[start:]:
            if not at_refills or (moment.refill and moment is not first):
                backlogged = backlogged & moment.queued
            for behind in backlogged:
                for ahead in CLIENTS if against_any else backlogged:
                    gained = moment.actual[ahead] - first.actual[ahead]
                    lost = moment.actual[behind] - first.actual[behind]
                    largest = max(largest, gained - lost)
    return largest


def after_forward(run: list[Moment], steps: int) -> Moment:
    """The moment right after so many forward steps."""
    return next(moment for moment in run if moment.forward_steps == steps)
