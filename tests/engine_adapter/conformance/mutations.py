"""Named mutations of a log: each turns a sound log into one with a single fault, and names the rule that it breaks.

A mutation yields, for every place of a log where it can be applied, the changed log and the line (from 1) at which the
checker must find the fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.engine_adapter.conformance.logs import Log
from tests.engine_adapter.conformance.samples import kind
from tests.engine_adapter.conformance.views import View, views

Places = Iterator[tuple[Log, int]]


@dataclass(frozen=True)
class Mutation:
    """A fault, the rule that must name it, the policies whose logs can have it, and what the logs must be like."""

    name: str
    rule: str
    places: Callable[[Log], Places]
    policies: tuple[str, ...] = ("dlpm",)
    memory: str = "reserving"
    full: bool = True


MUTATIONS: list[Mutation] = []
ALL = ("dlpm", "vtc", "lpm", "fcfs")


def mutation(
    rule: str, *, policies: tuple[str, ...] = ("dlpm",), memory: str = "reserving", full: bool = True
) -> Callable[[Callable[[Log], Places]], Callable[[Log], Places]]:
    """Register a mutation under the name of its function."""

    def register(places: Callable[[Log], Places]) -> Callable[[Log], Places]:
        MUTATIONS.append(Mutation(places.__name__, rule, places, policies, memory, full))
        return places

    return register


def events(log: Log, wanted: str) -> Iterator[tuple[int, Any, View]]:
    """Every event of one kind, with its index and the state before it."""
    for index, view in enumerate(views(log)):
        if kind(log[index]) == wanted:
            yield index, log[index], view


def replaced(log: Log, index: int, **changes: Any) -> Log:
    """The log with some fields of one line changed."""
    return [*log[:index], {**log[index], **changes}, *log[index + 1 :]]


def inserted(log: Log, index: int, line: Any) -> Log:
    """The log with a line put in at ``index``."""
    return [*log[:index], line, *log[index:]]


def dropped(log: Log, *indices: int) -> Log:
    """The log without some lines."""
    return [line for index, line in enumerate(log) if index not in indices]


def stamp(line: Any) -> Any:
    """Step and time of a line, for one that is put in beside it."""
    return {name: line[name] for name in ("step", "time_us") if name in line}


def next_kind(log: Log, index: int) -> tuple[int, Any]:
    """The next line that is no eviction, and its index."""
    while index < len(log) and kind(log[index]) == "evict":
        index += 1
    return index, log[index] if index < len(log) else {}


def quantum(log: Log) -> int:
    header: Any = log[0]
    return int(header["quantum"]["default"])


# -- the ledger --------------------------------------------------------------------------------------------------------


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


# -- order and fixpoint ------------------------------------------------------------------------------------------------


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


# -- the life of requests ----------------------------------------------------------------------------------------------


@mutation("resident", policies=ALL)
def a_match_is_overstated(log: Log) -> Places:
    for index, line, _ in events(log, "admit"):
        yield replaced(log, index, matched=line["matched"] + 1), index + 1


@mutation("extend-positive", policies=ALL)
def nothing_is_computed_for_an_admission(log: Log) -> Places:
    for index, line, _ in events(log, "admit"):
        yield replaced(log, index, matched=line["matched"] + line["extend"], extend=0), index + 1


@mutation("arrive-once", policies=ALL)
def a_queued_request_arrives_again(log: Log) -> Places:
    for index, line, _ in events(log, "arrive"):
        yield inserted(log, index + 1, line), index + 2


@mutation("arrive-in-limits", policies=ALL)
def a_request_arrives_that_could_never_fit(log: Log) -> Places:
    header: Any = log[0]
    for index, line, _ in events(log, "arrive"):
        yield replaced(log, index, max_output=header["limits"]["kv_tokens"] - line["input"] + 1), index + 1


@mutation("admit-queued", policies=ALL)
def a_running_request_is_admitted_again(log: Log) -> Places:
    for index, line, _ in events(log, "admit"):
        yield inserted(log, index + 1, line), index + 2


@mutation("admit-queued", policies=ALL, full=False)
def a_request_is_admitted_that_never_arrived(log: Log) -> Places:
    for index, line, _ in events(log, "admit"):
        arrival = next(k for k in range(index) if log[k].get("request") == line["request"])
        if all(kind(log[k]) in ("arrive", "evict", "refill") for k in range(arrival, index)):
            others = [k for k in range(arrival, index) if kind(log[k]) == "refill"]
            if not others:
                yield dropped(log, arrival), index


@mutation("output-running", policies=ALL)
def a_finished_request_gets_output(log: Log) -> Places:
    for index, line, view in events(log, "output"):
        if view.finished:
            yield replaced(log, index, tokens={**line["tokens"], view.finished[-1]: 1}), index + 1


@mutation("output-running", policies=ALL)
def a_queued_request_gets_output(log: Log) -> Places:
    for index, line, view in events(log, "output"):
        for name in list(view.queued)[:1]:
            yield replaced(log, index, tokens={**line["tokens"], name: 1}), index + 1


@mutation("output-complete", policies=ALL)
def a_running_request_gets_no_output(log: Log) -> Places:
    for index, line, _ in events(log, "output"):
        for name in line["tokens"]:
            yield replaced(log, index, tokens={n: c for n, c in line["tokens"].items() if n != name}), index + 1


@mutation("output-complete", policies=ALL)
def a_running_request_gets_zero_tokens(log: Log) -> Places:
    for index, line, _ in events(log, "output"):
        for name in line["tokens"]:
            yield replaced(log, index, tokens={**line["tokens"], name: 0}), index + 1


@mutation("output-complete", policies=ALL)
def a_finish_is_not_logged(log: Log) -> Places:
    """Where others go on running, and nothing else happens first."""
    for index, line, view in events(log, "finish"):
        after = index + 1
        while after < len(log) and kind(log[after]) in ("finish", "evict"):
            after += 1
        if after < len(log) and kind(log[after]) == "output" and len(view.running) > 1:
            assert line["request"] in view.running
            yield dropped(log, index), after


@mutation("output-in-limit", policies=ALL)
def a_request_gets_more_than_its_maximum_output_at_once(log: Log) -> Places:
    for index, line, view in events(log, "output"):
        for name in line["tokens"]:
            count = view.arrived[name]["max_output"] - view.generated[name] + 1
            yield replaced(log, index, tokens={**line["tokens"], name: count}), index + 1


@mutation("output-in-limit", policies=ALL, full=False)
def a_request_runs_on_after_its_maximum_output(log: Log) -> Places:
    """Its last forward step is followed by another."""
    for index, line, view in events(log, "output"):
        full = [n for n in line["tokens"] if view.generated[n] + 1 == view.arrived[n]["max_output"]]
        if full and not view.queued:
            later: Any = [{**other, "step": int(str(other["step"])) + 1} for other in log[index:]]
            yield [*log[: index + 1], *later], index + 2


@mutation("idle-forward", policies=ALL)
def a_forward_runs_on_an_empty_batch(log: Log) -> Places:
    for index, line, view in events(log, "order"):
        if not view.running and not view.finished:
            yield inserted(log, index, {"event": "output", **stamp(line), "tokens": {}}), index + 1


@mutation("finish-running", policies=ALL)
def a_request_finishes_twice(log: Log) -> Places:
    for index, line, _ in events(log, "finish"):
        yield inserted(log, index + 1, line), index + 2


@mutation("finish-running", policies=ALL)
def a_queued_request_finishes(log: Log) -> Places:
    for index, line, view in events(log, "output"):
        for name in list(view.queued)[:1]:
            yield inserted(log, index, {"event": "finish", **stamp(line), "request": name}), index + 1


@mutation("finish-with-output", policies=ALL)
def a_request_finishes_before_its_first_token(log: Log) -> Places:
    for index, line, _ in events(log, "admit"):
        finish = {"event": "finish", **stamp(line), "request": line["request"]}
        yield inserted(log, index + 1, finish), index + 2


@mutation("preempt-running", policies=ALL)
def a_queued_request_is_preempted(log: Log) -> Places:
    for index, line, view in events(log, "output"):
        for name, client in list(view.queued.items())[:1]:
            counter = {"deficit": view.counters[client]} if "deficits" in line else {}
            preempt = {"event": "preempt", **stamp(line), "request": name, "kind": "recompute", **counter}
            yield inserted(log, index, preempt), index + 1


# -- memory, batch, time -----------------------------------------------------------------------------------------------


@mutation("max-running", policies=ALL)
def the_batch_is_larger_than_its_limit(log: Log) -> Places:
    header: Any = log[0]
    for index, _, view in events(log, "admit"):
        if len(view.running) >= 1:
            limits = {**header["limits"], "max_running": len(view.running)}
            first = next(k for k, _, v in events(log, "admit") if len(v.running) == len(view.running))
            yield [{**header, "limits": limits}, *log[1:]], first + 1
            return
        assert index


@mutation("memory-overbooked", policies=ALL, full=False)
def a_request_declares_more_output_than_memory_has_room_for(log: Log) -> Places:
    """Beside another that holds some."""
    header: Any = log[0]
    for index, line, view in events(log, "admit"):
        if view.running and line["extend"] > 1:
            name = line["request"]
            arrival = next(k for k in range(index) if kind(log[k]) == "arrive" and log[k]["request"] == name)
            most = header["limits"]["kv_tokens"] - view.arrived[name]["input"]
            fresh = sum(1 for other in view.running if view.generated[other] == 0)
            if line["matched"] == 0 and fresh < len(view.running) + 1:
                yield replaced(log, arrival, max_output=most), index + 1


@mutation("free-memory", policies=ALL)
def more_memory_is_free_than_there_is(log: Log) -> Places:
    header: Any = log[0]
    for index, _, _ in events(log, "admit"):
        yield replaced(log, index, free=header["limits"]["kv_tokens"] + 1), index + 1


@mutation("free-memory", policies=ALL)
def free_memory_is_negative(log: Log) -> Places:
    for index, _, _ in events(log, "admit"):
        yield replaced(log, index, free=-1), index + 1


@mutation("work-conserving", policies=ALL)
def a_step_has_no_forward(log: Log) -> Places:
    for index, line, view in events(log, "output"):
        if index + 1 < len(log) and log[index + 1].get("step") != line["step"] and view.running:
            yield dropped(log, index), index + 1


@mutation("step-order", policies=ALL)
def a_step_goes_back(log: Log) -> Places:
    for index, line, _ in events(log, "output"):
        if log[index - 1].get("step") == line["step"]:
            yield replaced(log, index, step=line["step"] - 1), index + 1


@mutation("forward-once", policies=ALL, full=False)
def a_step_has_two_forwards(log: Log) -> Places:
    for index, line, _ in events(log, "output"):
        if log[index - 1].get("step") == line["step"] - 1:
            yield replaced(log, index, step=line["step"] - 1), index + 1


@mutation("time-order", policies=ALL)
def time_goes_back(log: Log) -> Places:
    for index, line, _ in events(log, "output"):
        if line["time_us"] > 1:
            following = [k for k in range(index + 1, len(log)) if log[k]["time_us"] < line["time_us"] + 9]
            if following:
                yield replaced(log, index, time_us=line["time_us"] + 9), following[0] + 1


@mutation("dispatch-first", policies=ALL)
def a_request_arrives_at_another_worker_than_it_was_sent_to(log: Log) -> Places:
    for index, line, _ in events(log, "arrive"):
        sent = {"event": "dispatch", **stamp(line), "request": line["request"], "matched_workers": [], "worker": 1}
        at_worker = [log[0], *({**other, "worker": 0} for other in log[1:])]
        if index == 1:
            yield inserted(at_worker, index, sent), index + 2


@mutation("dispatch-first", policies=ALL)
def a_request_arrives_that_was_not_dispatched(log: Log) -> Places:
    for index, line, _ in events(log, "arrive"):
        sent = {"event": "dispatch", **stamp(line), "request": "other", "matched_workers": [], "worker": 0}
        at_worker = [log[0], *({**other, "worker": 0} for other in log[1:])]
        if index == 1:
            yield inserted(at_worker, index, sent), index + 2


# -- the virtual token counter -----------------------------------------------------------------------------------------


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
