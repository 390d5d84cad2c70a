"""Faults in gate, refills and charges of DLPM."""

from __future__ import annotations

from tests.engine_adapter.conformance.edits import dropped, events, inserted, next_kind, quantum, replaced, stamp
from tests.engine_adapter.conformance.logs import Log
from tests.engine_adapter.conformance.mutations.mutation import Mutations, Places
from tests.engine_adapter.conformance.samples import kind

mutation = Mutations()


@mutation("gate")
def a_gated_client_is_admitted(log: Log) -> Places:
    """The refill that gave it credit never happened."""
    for index, event, view in events(log, "refill"):
        following, line = next_kind(log, index + 1)
        if kind(line) == "admit" and view.counters[view.queued[line["request"]]] <= 0:
            assert event["deficits"]
            yield dropped(log, index), following


@mutation("refill-due")
def a_refill_comes_while_a_queued_client_has_credit(log: Log) -> Places:
    for index, line, view in events(log, "admit"):
        if view.counters[view.queued[line["request"]]] > 0:
            poor = {client: c + quantum(log) for client, c in view.counters.items() if c <= 0}
            yield inserted(log, index, {"event": "refill", **stamp(line), "deficits": poor}), index + 1


@mutation("refill-due")
def a_refill_comes_with_nobody_queued(log: Log) -> Places:
    for index, line, view in events(log, "output"):
        if not view.queued:
            poor = {client: c + quantum(log) for client, c in view.counters.items() if c <= 0}
            yield inserted(log, index, {"event": "refill", **stamp(line), "deficits": poor}), index + 1


@mutation("refill-due")
def a_refill_is_logged_twice_although_the_first_gave_credit(log: Log) -> Places:
    for index, line, view in events(log, "refill"):
        if any(line["deficits"].get(client, view.counters[client]) > 0 for client in view.queued_clients()):
            yield inserted(log, index + 1, line), index + 2


@mutation("refill-forgot")
def a_refill_forgets_a_client(log: Log) -> Places:
    for index, line, _ in events(log, "refill"):
        for client in line["deficits"]:
            kept = {name: value for name, value in line["deficits"].items() if name != client}
            yield replaced(log, index, deficits=kept), index + 1


@mutation("refill-credit")
def a_refill_pays_a_client_with_credit(log: Log) -> Places:
    for index, line, view in events(log, "refill"):
        for client, counter in view.counters.items():
            if counter > 0:
                paid = {**line["deficits"], client: counter + quantum(log)}
                yield replaced(log, index, deficits=paid), index + 1


@mutation("refill-twice")
def a_refill_pays_a_client_twice(log: Log) -> Places:
    for index, line, _ in events(log, "refill"):
        for client, value in line["deficits"].items():
            yield replaced(log, index, deficits={**line["deficits"], client: value + quantum(log)}), index + 1


@mutation("refill-amount")
def a_refill_pays_one_token_too_many(log: Log) -> Places:
    for index, line, _ in events(log, "refill"):
        for client, value in line["deficits"].items():
            yield replaced(log, index, deficits={**line["deficits"], client: value + 1}), index + 1


@mutation("refill-amount")
def a_refill_forgives_debt(log: Log) -> Places:
    for index, line, view in events(log, "refill"):
        for client in line["deficits"]:
            if view.counters[client] < 0:
                paid = {**line["deficits"], client: quantum(log)}
                if view.counters[client] != -quantum(log):
                    yield replaced(log, index, deficits=paid), index + 1


@mutation("known-client")
def a_refill_pays_a_client_that_never_arrived(log: Log) -> Places:
    for index, line, _ in events(log, "refill"):
        yield replaced(log, index, deficits={**line["deficits"], "nobody": quantum(log)}), index + 1


@mutation("charge-extend")
def an_admission_costs_one_token_too_many(log: Log) -> Places:
    for index, line, _ in events(log, "admit"):
        yield replaced(log, index, deficit=line["deficit"] - 1), index + 1


@mutation("charge-extend")
def an_admission_is_free(log: Log) -> Places:
    for index, line, view in events(log, "admit"):
        yield replaced(log, index, deficit=view.counters[view.queued[line["request"]]]), index + 1


@mutation("charge-extend")
def an_admission_costs_its_matched_tokens_too(log: Log) -> Places:
    for index, line, _ in events(log, "admit"):
        if line["matched"]:
            yield replaced(log, index, deficit=line["deficit"] - line["matched"]), index + 1


@mutation("charge-output")
def output_is_free(log: Log) -> Places:
    for index, line, view in events(log, "output"):
        for client in line["deficits"]:
            yield replaced(log, index, deficits={**line["deficits"], client: view.counters[client]}), index + 1


@mutation("charge-output")
def output_is_charged_at_the_price_of_input(log: Log) -> Places:
    for index, line, view in events(log, "output"):
        for client in line["deficits"]:
            count = sum(1 for request in line["tokens"] if view.running[request] == client)
            cheap = {**line["deficits"], client: view.counters[client] - count}
            yield replaced(log, index, deficits=cheap), index + 1


@mutation("charge-output")
def the_counter_of_a_client_is_left_out(log: Log) -> Places:
    for index, line, _ in events(log, "output"):
        for client in line["deficits"]:
            kept = {name: value for name, value in line["deficits"].items() if name != client}
            yield replaced(log, index, deficits=kept), index + 1


@mutation("charge-output")
def a_client_without_output_is_charged(log: Log) -> Places:
    for index, line, view in events(log, "output"):
        for client, counter in view.counters.items():
            if client not in line["deficits"]:
                yield replaced(log, index, deficits={**line["deficits"], client: counter - 2}), index + 1


@mutation("known-client")
def a_client_that_never_arrived_is_charged(log: Log) -> Places:
    for index, line, _ in events(log, "output"):
        yield replaced(log, index, deficits={**line["deficits"], "nobody": -2}), index + 1


@mutation("charge-preempt", memory="optimistic")
def a_preemption_gives_the_charge_back(log: Log) -> Places:
    for index, line, _ in events(log, "preempt"):
        yield replaced(log, index, deficit=line["deficit"] + 1), index + 1
