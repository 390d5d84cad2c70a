"""Logs of clusters: each worker is held to the rules on its own, and requests arrive where they were sent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dlpm.cluster import Cluster
from dlpm.dispatch.least_loaded import LeastLoaded
from dlpm.errors import InputError
from dlpm.event_codec import encode_event, encode_header
from dlpm.events import Event
from dlpm.request import Workload
from dlpm_engine.conformance import check_log
from tests.engine_adapter.conformance.logs import Log, as_bytes, check, header_of
from tests.engine_adapter.conformance.samples import SEEDS, sample_plan, sample_rules
from tests.reference.lockstep import real_worker

WORKERS = 3


def cluster_log(policy: str, seed: int) -> Log:
    """A run of three workers behind a router."""
    rules = sample_rules(policy, seed)
    events: list[Event] = []
    workers = [real_worker(rules, events) for _ in range(WORKERS)]
    for index, worker in enumerate(workers):
        worker.index = index
    shapes = [item for item in sample_plan(seed, 60) if not isinstance(item, int)]
    requests = [shape.request(f"r{number}", rules.block_size) for number, shape in enumerate(shapes)]
    fitting = [request for request in requests if request.input_tokens + request.max_output <= rules.kv_tokens]
    timed = tuple(replace(request, arrival_us=number // 4) for number, request in enumerate(fitting))
    Cluster(workers, LeastLoaded(WORKERS), events.append).run(Workload(rules.block_size, timed))
    return [encode_header(header_of(rules)), *map(encode_event, events)]


@pytest.mark.parametrize("policy", ["dlpm", "vtc", "lpm", "fcfs"])
def test_logs_of_the_reference_cluster_hold(policy: str) -> None:
    for seed in SEEDS:
        report = check(cluster_log(policy, seed))
        assert report.violations == ()


def test_a_fault_of_one_worker_is_found_among_the_lines_of_the_others() -> None:
    log = cluster_log("dlpm", 0)
    faults = 0
    for index, line in enumerate(log):
        deficits = line.get("deficits")
        if line.get("event") == "output" and isinstance(deficits, dict) and deficits:
            client, value = next(iter(deficits.items()))
            assert isinstance(value, int)
            faulty = [*log[:index], {**line, "deficits": {**deficits, client: value + 1}}, *log[index + 1 :]]
            report = check_log(as_bytes(faulty))
            assert [(violation.line, violation.rule) for violation in report.violations] == [
                (index + 1, "charge-output")
            ]
            assert report.violations[0].worker == line["worker"]
            faults += 1
    assert faults > 10


@pytest.mark.parametrize("worker", [-1, 2**60, "1", None, True, 1.0])
def test_an_event_of_a_worker_that_cannot_be_is_bad_input(worker: Any) -> None:
    log = cluster_log("dlpm", 0)
    index = next(index for index, line in enumerate(log) if line.get("event") == "output")
    log[index] = {**log[index], "worker": worker}
    with pytest.raises(InputError) as caught:
        check(log)
    assert (caught.value.line, caught.value.field) == (index + 1, "worker")


@pytest.mark.parametrize("worker", [-1, 2**60, "1", None])
def test_an_event_that_breaks_no_rule_is_bad_input_all_the_same(worker: Any) -> None:
    log: list[Any] = cluster_log("dlpm", 0)
    last = {name: log[-1][name] for name in ("step", "time_us")}
    with pytest.raises(InputError) as caught:
        check([*log, {"event": "evict", **last, "worker": worker, "tokens": 1}])
    assert (caught.value.line, caught.value.field) == (len(log) + 1, "worker")


def test_an_event_without_a_worker_among_those_of_workers_is_of_one_more() -> None:
    log = cluster_log("dlpm", 0)
    last: Any = {"event": "arrive", "step": 1, "time_us": log[-1]["time_us"], "request": "alone", "client": "A"}
    report = check([*log, {**last, "input": 1, "max_output": 1}, {"event": "finish", "step": 1, "request": "alone"}])
    assert [(violation.rule, violation.worker) for violation in report.violations] == [("finish-running", None)]
