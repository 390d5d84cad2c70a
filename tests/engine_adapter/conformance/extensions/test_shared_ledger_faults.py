"""A shared ledger: each fault of a log is found first, at its line, by its own rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.engine_adapter.conformance.edits import dropped, inserted, replaced, stamp
from tests.engine_adapter.conformance.extensions.shared_runs import lines, moves, samples
from tests.engine_adapter.conformance.extensions.variants import Fault, Places, found_exactly, rules_broken
from tests.engine_adapter.conformance.logs import Log, check
from tests.engine_adapter.conformance.samples import kind


def an_admission_costs_one_less(log: Log) -> Places:
    for index, line in lines(log, "admit"):
        yield replaced(log, index, deficit=line["deficit"] + 100), index + 1


def a_forward_step_costs_more(log: Log) -> Places:
    for index, line in lines(log, "output"):
        client = next(iter(line["deficits"]))
        yield replaced(log, index, deficits={**line["deficits"], client: line["deficits"][client] - 100}), index + 1


def a_refill_pays_less(log: Log) -> Places:
    for index, line in lines(log, "refill"):
        client = next(iter(line["deficits"]))
        yield replaced(log, index, deficits={**line["deficits"], client: line["deficits"][client] - 100}), index + 1


def a_refill_forgets_somebody(log: Log) -> Places:
    for index, line in lines(log, "refill"):
        if len(line["deficits"]) > 1:
            client = next(iter(line["deficits"]))
            left = {name: after for name, after in line["deficits"].items() if name != client}
            yield replaced(log, index, deficits=left), index + 1


def more_is_delivered_than_was_kept(log: Log) -> Places:
    for index, line in lines(log, "deliver"):
        yield replaced(log, index, updates=line["updates"] + 1), index + 1


def a_delivery_comes_twice(log: Log) -> Places:
    for index, line in lines(log, "deliver"):
        yield inserted(log, index + 1, line), index + 2


def a_move_charges_the_router_twice(log: Log) -> Places:
    for index in moves(log):
        line: Any = log[index]
        yield replaced(log, index, counter=line["counter"] - line["input"]), index + 1


def a_request_moves_to_where_its_client_is_poor(log: Log) -> Places:
    """Another request, of a client whose latest counter at that worker is not positive, moves instead."""
    for index, worker, name in poor_moves(log):
        line: Any = log[index]
        arrived: Any = next(item for item in log if kind(item) == "arrive" and item["request"] == name)
        event = {**stamp(line), "event": "dispatch", "worker": worker, "request": name, "matched_workers": []}
        told = {"client": arrived["client"], "input": arrived["input"], "counter": 0}
        yield inserted(log, index, {**event, **told}), index + 1


def poor_moves(log: Log) -> Iterator[tuple[int, int, str]]:
    """Places of moves with another request that waits at a third worker, its client known to be poor at the target."""
    at: dict[str, int] = {}
    waits: dict[str, str] = {}
    counters: dict[tuple[int, str], int] = {}
    moving = set(moves(log))
    for index, raw in enumerate(log):
        line: Any = raw
        if index in moving and index - 1 not in moving:
            for name, client in waits.items():
                if counters.get((line["worker"], client), 1) <= 0 and at[name] != line["worker"]:
                    yield index, line["worker"], name
                    break
        if kind(line) == "arrive":
            waits[line["request"]] = line["client"]
            at[line["request"]] = line["worker"]
        elif index in moving:
            at[line["request"]] = line["worker"]
        elif kind(line) == "admit":
            counters[line["worker"], waits.pop(line["request"])] = line["deficit"]
        elif kind(line) == "output":
            counters.update({(line["worker"], client): after for client, after in line["deficits"].items()})
        elif kind(line) == "refill":
            counters.clear()


def a_refill_was_left_out(log: Log) -> Places:
    """The admission after it is of a client that had no credit."""
    for index, line in lines(log, "refill"):
        following: Any = log[index + 1]
        before = line["deficits"]
        if kind(following) == "admit" and before:
            yield dropped(log, index), index + 1


FAULTS = (
    Fault("charge-extend", an_admission_costs_one_less),
    Fault("charge-output", a_forward_step_costs_more),
    Fault("refill-amount", a_refill_pays_less),
    Fault("refill-forgot", a_refill_forgets_somebody),
    Fault("deliver-kept", more_is_delivered_than_was_kept),
    Fault("deliver-kept", a_delivery_comes_twice),
    Fault("router-charge", a_move_charges_the_router_twice),
    Fault("move-credit", a_request_moves_to_where_its_client_is_poor),
    Fault("gate", a_refill_was_left_out),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.places.__name__)
def test_exactly_the_right_rule_fires_first(fault: Fault) -> None:
    found_exactly(fault, samples())


def test_a_delivery_that_is_not_logged_is_missed_by_the_views() -> None:
    found = [
        rules_broken(check(dropped(log, index), every=False)) for log in samples() for index, _ in lines(log, "deliver")
    ]
    assert set().union(*found) <= {"shared-view", "refill-due", "refill-forgot", "refill-credit"}
    assert {"shared-view"} in found
