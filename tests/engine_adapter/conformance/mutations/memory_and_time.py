"""Faults in memory, batch, steps, times and dispatches."""

from __future__ import annotations

from typing import Any

from tests.engine_adapter.conformance.edits import dropped, events, inserted, replaced, stamp
from tests.engine_adapter.conformance.logs import Log
from tests.engine_adapter.conformance.mutations.mutation import ALL, Mutations, Places
from tests.engine_adapter.conformance.samples import kind

mutation = Mutations()


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
