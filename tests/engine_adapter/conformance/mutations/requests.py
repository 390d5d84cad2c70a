"""Faults in arrivals, admissions, outputs, finishes and preemptions of requests."""

from __future__ import annotations

from typing import Any

from tests.engine_adapter.conformance.edits import dropped, events, inserted, replaced, stamp
from tests.engine_adapter.conformance.logs import Log
from tests.engine_adapter.conformance.mutations.mutation import ALL, Mutations, Places
from tests.engine_adapter.conformance.samples import kind

mutation = Mutations()


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
