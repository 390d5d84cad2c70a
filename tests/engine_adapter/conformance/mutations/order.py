"""Faults in the order of a step's admissions, and in where it stops."""

from __future__ import annotations

from typing import Any

from tests.engine_adapter.conformance.edits import dropped, events, next_kind, replaced
from tests.engine_adapter.conformance.logs import Log
from tests.engine_adapter.conformance.mutations.mutation import ALL, Mutations, Places
from tests.engine_adapter.conformance.samples import kind

mutation = Mutations()


@mutation("fixpoint-refill", full=False)
def a_step_forgets_to_refill(log: Log) -> Places:
    """A refill and all admissions after it in its step are missing, while somebody still runs."""
    for index, _, view in events(log, "refill"):
        end = index
        while kind(log[end]) != "output":
            end += 1
        gone = [k for k in range(index, end) if kind(log[k]) in ("refill", "admit")]
        if view.running and not any(kind(log[k]) == "preempt" for k in range(index, end)):
            yield dropped(log, *gone), end - len(gone) + 1


@mutation("fixpoint-fit", policies=("dlpm", "lpm", "fcfs"))
def a_request_that_fits_is_left_waiting(log: Log) -> Places:
    """The last admission of a step is missing, although memory was ample."""
    header: Any = log[0]
    for index, line, view in events(log, "admit"):
        after, following = next_kind(log, index + 1)
        arrived = view.arrived[line["request"]]
        need = arrived["input"] + arrived["max_output"] + header["block_size"] - 1
        if kind(following) == "output" and view.free is not None and need <= view.free:
            yield dropped(log, index), after


@mutation("order-longest-first", policies=("dlpm", "lpm"))
def two_neighbours_in_the_order_change_places(log: Log) -> Places:
    for index, line, _ in events(log, "order"):
        for place in range(len(line["requests"]) - 1):
            yield replaced(log, index, **swapped_order(line, place)), index + 1


@mutation("order-arrival", policies=("fcfs",))
def two_neighbours_in_the_queue_change_places(log: Log) -> Places:
    for index, line, _ in events(log, "order"):
        for place in range(len(line["requests"]) - 1):
            yield replaced(log, index, **swapped_order(line, place)), index + 1


def swapped_order(line: Any, place: int) -> Any:
    """The fields of an order event with two neighbours exchanged, each with its own match."""
    requests, matched = list(line["requests"]), list(line["matched"])
    for values in (requests, matched):
        values[place], values[place + 1] = values[place + 1], values[place]
    return {"requests": requests, "matched": matched}


@mutation("order-covers-queue", policies=ALL)
def the_order_leaves_a_request_out(log: Log) -> Places:
    for index, line, _ in events(log, "order"):
        for place in range(len(line["requests"])):
            requests = line["requests"][:place] + line["requests"][place + 1 :]
            matched = line["matched"][:place] + line["matched"][place + 1 :]
            yield replaced(log, index, requests=requests, matched=matched), index + 1


@mutation("order-covers-queue", policies=ALL)
def the_order_names_a_request_that_does_not_wait(log: Log) -> Places:
    for index, line, view in events(log, "order"):
        for name in (*view.running, *view.finished[-1:], "nobody"):
            requests, matched = [name, *line["requests"]], [99, *line["matched"]]
            yield replaced(log, index, requests=requests, matched=matched), index + 1


@mutation("admit-in-order", policies=("dlpm", "lpm"))
def a_step_admits_without_having_considered_an_order(log: Log) -> Places:
    for index, _, _ in events(log, "order"):
        following, line = next_kind(log, index + 1)
        if kind(line) == "admit":
            yield dropped(log, index), following


@mutation("admit-in-order", policies=("dlpm", "lpm"))
def an_admission_jumps_the_queue(log: Log) -> Places:
    """Two admissions of two clients change places, although the first of them would have fitted before both."""
    header: Any = log[0]
    for index, line, view in events(log, "admit"):
        following, other = next_kind(log, index + 1)
        if kind(other) != "admit" or following != index + 1 or view.free is None:
            continue
        first, second = line["request"], other["request"]
        arrived = view.arrived[first]
        fits = arrived["input"] + arrived["max_output"] + header["block_size"] - 1 <= view.free
        credit = header["policy"] == "lpm" or all(view.counters[view.queued[name]] > 0 for name in (first, second))
        in_order = view.order.index(first) < view.order.index(second)
        if fits and credit and in_order and view.queued[first] != view.queued[second]:
            yield [*log[:index], {**other, "free": 0}, {**line, "free": 0}, *log[index + 2 :]], index + 1


@mutation("fcfs-head", policies=("fcfs",), full=False)
def a_later_request_is_admitted_first(log: Log) -> Places:
    for index, line, _ in events(log, "admit"):
        if kind(log[index + 1]) == "admit":
            yield [*log[:index], log[index + 1], line, *log[index + 2 :]], index + 1
