"""Bugs of real systems, as workloads that the reference gets right (examples/workloads/regressions)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dlpm import events as ev
from dlpm.policies.dlpm_literal import EndlessLoopError
from dlpm.request import Workload
from dlpm.simulate import simulate
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm.workload.files import read
from tests.reference.lockstep import real_policy, real_worker
from tests.reference.naive_worker import Rules

ORDINARY = ("fcfs", "lpm", "vtc", "dlpm")
STEP_US = 1000


@pytest.fixture(scope="module")
def regressions(repository: Path) -> Path:
    """The folder of the workloads."""
    return repository / "examples" / "workloads" / "regressions"


def run(workload: Workload, rules: Rules) -> list[ev.Event]:
    """The events of the whole workload, at a millisecond a step."""
    log: list[ev.Event] = []
    worker = Worker(real_worker(rules).config, real_policy(rules), FixedStep(STEP_US), log.append)
    assert simulate(workload, worker) == len(workload.requests)
    return log


def admissions(log: list[ev.Event]) -> list[ev.Admit]:
    """All admissions, in order."""
    return [event for event in log if isinstance(event, ev.Admit)]


def first_admission(log: list[ev.Event]) -> dict[str, int]:
    """Request -> the step of its first admission."""
    steps: dict[str, int] = {}
    for event in admissions(log):
        steps.setdefault(event.request, event.step)
    return steps


@pytest.mark.parametrize("policy", ORDINARY)
@pytest.mark.parametrize("visibility", ["at_admission", "after_forward"])
def test_full_memory_never_makes_an_empty_step(regressions: Path, policy: str, visibility: str) -> None:
    """Some request computes a token in every step, so the run is over in as many steps as there are output tokens."""
    workload = read(regressions / "full-memory-livelock.jsonl")
    rules = Rules(policy=policy, kv_tokens=12, memory="optimistic", visibility=visibility, quantum=5)
    log: list[ev.Event] = []
    worker = real_worker(rules, log)
    for request in workload.requests:
        worker.submit(request, 0)
    least_free = rules.kv_tokens
    while not worker.idle():
        assert worker.step().ran
        least_free = min(least_free, worker.free_tokens())
    assert least_free == 0, "the workload fills memory"
    assert any(isinstance(event, ev.Preempt) for event in log), "and preempts"
    assert worker.step_number <= sum(request.output_tokens for request in workload.requests)


def test_the_printed_loop_livelocks_at_full_memory(regressions: Path) -> None:
    """What the issue describes is what line 17 says. [DLPM Alg. 1 l. 17]"""
    workload = read(regressions / "full-memory-livelock.jsonl")
    with pytest.raises(EndlessLoopError):
        run(workload, Rules(policy="dlpm-literal", kv_tokens=12, memory="optimistic", quantum=5))


@pytest.mark.parametrize(("policy", "blocks"), [("fcfs", True), ("vtc", True), ("lpm", False), ("dlpm", False)])
def test_a_request_that_does_not_fit_blocks_those_behind_it_under_fcfs_and_vtc_only(
    regressions: Path, policy: str, blocks: bool
) -> None:
    """The large request fits when the running one has finished: after its eight steps."""
    workload = read(regressions / "head-of-line-blocking.jsonl")
    steps = first_admission(run(workload, Rules(policy=policy, kv_tokens=16, quantum=100)))
    assert steps["large"] == 9
    small = [steps[f"small{number}"] for number in range(4)]
    assert min(small) == (9 if blocks else 2)
    assert max(small) == (10 if blocks else 3), "memory holds two small ones at a time"


def hot_before_cold(workload: Workload, policy: str, hot: int) -> list[int]:
    """How many hot requests were admitted before each cold one, if there are ``hot`` of them."""
    kept = tuple(one for one in workload.requests if one.client == "C" or int(one.id.removeprefix("hot")) < hot)
    log = run(replace(workload, requests=kept), Rules(policy=policy, kv_tokens=8, quantum=8))
    order = [event.request for event in admissions(log)]
    return [sum(name.startswith("hot") for name in order[: order.index(cold)]) for cold in ("cold0", "cold1")]


def test_longest_prefix_match_lets_cold_requests_wait_for_the_whole_hot_stream(regressions: Path) -> None:
    workload = read(regressions / "cold-starvation.jsonl")
    for hot in (10, 20, 38):
        assert hot_before_cold(workload, "lpm", hot) == [hot, hot]


def test_under_dlpm_a_cold_request_waits_for_a_quantum_of_hot_ones_however_long_their_stream(
    regressions: Path,
) -> None:
    """A hot request costs an extend and an output token: 3 of the quantum of 8, so three close the gate. [DLPM §4.1]"""
    workload = read(regressions / "cold-starvation.jsonl")
    waits = {hot: hot_before_cold(workload, "dlpm", hot) for hot in (10, 20, 38)}
    assert waits[10] == waits[20] == waits[38]
    before_arrival = 1
    assert waits[38][0] <= before_arrival + 3
    assert waits[38][1] <= waits[38][0] + 3


def test_one_request_in_twenty_does_most_of_the_waiting_under_longest_prefix_match_and_not_under_dlpm(
    regressions: Path,
) -> None:
    workload = read(regressions / "cold-starvation.jsonl")
    cold = [one for one in workload.requests if one.client == "C"]
    assert len(cold) * 20 == len(workload.requests)
    share = {}
    for policy in ("lpm", "dlpm"):
        sent = {one.id: one.arrival_us for one in workload.requests}
        log = run(workload, Rules(policy=policy, kv_tokens=8, quantum=8))
        waited = {event.request: (event.time_us or 0) - sent[event.request] for event in admissions(log)}
        share[policy] = sum(waited[one.id] for one in cold) / sum(waited.values())
    assert share["lpm"] > 0.75
    assert share["dlpm"] < 0.25


@pytest.mark.parametrize("visibility", ["at_admission", "after_forward"])
def test_matched_tokens_are_counted_anew_when_a_preempted_request_returns(regressions: Path, visibility: str) -> None:
    """b1 comes back to more cached tokens than it first found, b2 to fewer; each has generated one token.

    b1 finds nothing, and on its return its own five. b2 finds the four that it shares with b1; while it waits, a2 grows
    to ten tokens, which is all of memory, so nothing is left.
    """
    workload = read(regressions / "stale-cached-count.jsonl")
    rules = Rules(policy="fcfs", kv_tokens=10, memory="optimistic", watermark=2, visibility=visibility)
    seen = [(event.request, event.matched, event.extend) for event in admissions(run(workload, rules))]
    assert [entry for entry in seen if entry[0] in ("b1", "b2")] == [
        ("b1", 0, 5),
        ("b1", 5, 1),
        ("b2", 4, 1),
        ("b2", 0, 6),
    ]
