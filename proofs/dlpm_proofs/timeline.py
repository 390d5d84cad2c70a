"""A run as a person can follow it: one line a step, plain decoding taken together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dlpm.events import Admit, Arrive, Event, Evict, Finish, Order, Output, Preempt, Refill
from dlpm.request import ClientId, RequestId

WIDTH = 110


def timeline(events: Sequence[Event]) -> tuple[str, ...]:
    """What happened, step by step. Steps in which the same requests only decode are one line. O(events)."""
    lines: list[str] = []
    decoding: list[Output] = []
    for step in _by_step(events):
        output = next((event for event in step if isinstance(event, Output)), None)
        notable = [event for event in step if not isinstance(event, Order | Output | Evict)]
        if output is not None and not notable and _same_batch(decoding, output):
            decoding.append(output)
            continue
        lines += _decoded(decoding)
        decoding = []
        if output is not None and not notable:
            decoding.append(output)
            continue
        lines.append(_line(step[0].step, step[0].step, _words(step), output.deficits if output else {}))
    return (*lines, *_decoded(decoding))


def _by_step(events: Sequence[Event]) -> list[list[Event]]:
    """The events of each step; arrivals belong to the step they are about to take part in."""
    steps: list[list[Event]] = []
    for event in events:
        if not steps or steps[-1][0].step != event.step:
            steps.append([])
        steps[-1].append(event)
    return steps


def _same_batch(decoding: Sequence[Output], output: Output) -> bool:
    """Nothing is pending, or the same requests go on."""
    return bool(decoding) and decoding[-1].tokens.keys() == output.tokens.keys()


def _decoded(decoding: Sequence[Output]) -> list[str]:
    """One line for forward steps of one batch."""
    if not decoding:
        return []
    requests = ", ".join(decoding[-1].tokens)
    return [_line(decoding[0].step, decoding[-1].step, [f"{requests} decode"], decoding[-1].deficits)]


def _line(first: int, last: int, words: Sequence[str], deficits: Mapping[ClientId, int]) -> str:
    """Step numbers, what happened, and the counters after the forward step."""
    steps = f"step {first}" if first == last else f"steps {first}-{last}"
    counters = ", ".join(f"{client} {value}" for client, value in sorted(deficits.items()))
    text = f"{steps:<12} {'; '.join(words)}"
    if len(text) > WIDTH:
        text = f"{text[: WIDTH - 3]}..."
    return f"{text}  -> {counters}" if counters else text


def _words(step: Sequence[Event]) -> list[str]:
    """What is worth telling of one step."""
    words: list[str] = []
    arrived: list[RequestId] = []
    for event in step:
        match event:
            case Arrive():
                arrived.append(event.request)
            case Refill():
                words.append("refill " + ", ".join(f"{client} to {value}" for client, value in event.deficits.items()))
            case Admit():
                words.append(f"{event.request} in, {event.extend} extend")
            case Finish():
                words.append(f"{event.request} ends")
            case Preempt():
                words.append(f"{event.request} preempted")
            case _:
                pass
    return [*([f"{_listed(arrived)} arrive"] if arrived else []), *(words or (["decode"] if not arrived else []))]


def _listed(names: Sequence[RequestId]) -> str:
    """Names, or the first, the last and how many."""
    if len(names) <= 4:
        return ", ".join(names)
    return f"{names[0]} .. {names[-1]} ({len(names)})"
