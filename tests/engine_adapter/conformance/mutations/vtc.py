"""Faults in the counters and the order of VTC."""

from __future__ import annotations

from tests.engine_adapter.conformance.edits import events, replaced
from tests.engine_adapter.conformance.logs import Log
from tests.engine_adapter.conformance.mutations.mutation import Mutations, Places
from tests.engine_adapter.conformance.samples import kind

mutation = Mutations()


@mutation("vtc-charge-input", policies=("vtc",))
def vtc_charges_only_what_is_not_cached(log: Log) -> Places:
    for index, line, view in events(log, "admit"):
        without_lift = view.counters[view.queued[line["request"]]] + line["matched"] + line["extend"]
        cheap = line["deficit"] - line["matched"]
        if line["matched"] and cheap != without_lift:
            yield replaced(log, index, deficit=cheap), index + 1


@mutation("vtc-lift", policies=("vtc",))
def vtc_does_not_lift_a_client_that_comes_back(log: Log) -> Places:
    for index, line, view in events(log, "admit"):
        without_lift = view.counters[view.queued[line["request"]]] + line["matched"] + line["extend"]
        if line["deficit"] != without_lift:
            yield replaced(log, index, deficit=without_lift), index + 1


@mutation("vtc-charge-output", policies=("vtc",))
def vtc_does_not_charge_output(log: Log) -> Places:
    for index, line, view in events(log, "output"):
        for client, counter in line["deficits"].items():
            count = sum(1 for request in line["tokens"] if view.running[request] == client)
            free = {**line["deficits"], client: counter - 2 * count}
            if not any(
                kind(log[k]) == "arrive" and log[k]["client"] == client for k in range(max(index - 12, 1), index)
            ):
                yield replaced(log, index, deficits=free), index + 1


@mutation("vtc-charge-preempt", policies=("vtc",), memory="optimistic")
def vtc_gives_the_charge_of_a_preemption_back(log: Log) -> Places:
    for index, line, _ in events(log, "preempt"):
        yield replaced(log, index, deficit=line["deficit"] - 1), index + 1


@mutation("vtc-first-of-client", policies=("vtc",), full=False)
def vtc_serves_a_later_request_of_a_client_first(log: Log) -> Places:
    """Two admissions of one client change places; the counters stay as they would be."""
    for index, line, view in events(log, "admit"):
        other = log[index + 1]
        if kind(other) != "admit":
            continue
        name = str(other["request"])
        if view.queued[name] == view.queued[line["request"]]:
            first_charge = view.arrived[name]["input"] + view.generated[name]
            charged = view.arrived[line["request"]]["input"] + view.generated[line["request"]]
            early = {**other, "deficit": line["deficit"] - charged + first_charge}
            late = {**line, "deficit": line["deficit"] + first_charge}
            yield [*log[:index], early, late, *log[index + 2 :]], index + 1


@mutation("vtc-least-served", policies=("vtc",), full=False)
def vtc_serves_a_client_that_has_had_more(log: Log) -> Places:
    """The admission is of a request of another client, with a higher counter, at the right price."""
    for index, line, view in events(log, "admit"):
        client = view.queued[line["request"]]
        last = log[index - 1]
        if kind(last) != "admit":
            continue
        for name, other in view.queued.items():
            if view.counters[other] > view.counters[client] and view.arrived[name]["input"] == 1:
                price = view.arrived[name]["input"] + view.generated[name]
                resident = {"matched": 0, "extend": price, "deficit": view.counters[other] + price}
                yield replaced(log, index, request=name, **resident), index + 1
                break
