"""One worker's life: what it refuses, what it writes down, and when its memory is whose."""

from __future__ import annotations

import pytest

from dlpm import events as ev
from dlpm.errors import InputError
from dlpm.policies.base import AdmissionStep
from dlpm.policies.fcfs import FCFS
from dlpm.request import Request
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from tests.reference.lockstep import real_policy, real_worker
from tests.reference.naive_worker import Rules
from tests.reference.scene import Scene, request

HASHED = Request("h", "A", 0, 6, 1, 1, blocks=(11, 12))
"""Six tokens in blocks of four: the second block is partial."""


def kinds(events: list[ev.Event]) -> list[str]:
    """Class names, in order."""
    return [type(event).__name__ for event in events]


# -- What it refuses.


def test_a_request_that_could_never_fit_is_refused_and_leaves_no_trace() -> None:
    stage = Scene(Rules(kv_tokens=5))
    with pytest.raises(InputError, match=r"^max_output: expected input \+ max_output <= 5 KV tokens, found 4 \+ 2 in"):
        stage.submit(request("A1", (1, 2, 3, 4), output=2))
    assert stage.log == []
    assert stage.worker.idle()


def test_a_request_that_fills_memory_to_the_last_token_runs() -> None:
    stage = Scene(Rules(kv_tokens=6))
    stage.submit(request("A1", (1, 2, 3, 4), output=2))
    stage.finish_all()
    assert stage.admitted() == ["A1"]


@pytest.mark.parametrize("memory", ["reserving", "optimistic"])
@pytest.mark.parametrize("visibility", ["at_admission", "after_forward"])
def test_a_prompt_whose_last_block_is_cached_whole_still_fits_memory_of_its_size(memory: str, visibility: str) -> None:
    """Its last token is computed again, in the block that already holds it: no fifth token of memory is needed."""
    stage = Scene(Rules(policy="fcfs", kv_tokens=5, block_size=4, memory=memory, visibility=visibility))
    stage.submit(request("A1", (1, 2, 3, 4)))
    stage.finish_all()
    stage.submit(request("A2", (1, 2, 3, 4)))
    stage.finish_all()
    assert [event.matched for event in stage.log if isinstance(event, ev.Admit)] == [0, 3]


# -- What it writes down.


def test_events_carry_step_time_and_worker() -> None:
    log: list[ev.Event] = []
    rules = Rules(kv_tokens=20, quantum=10)
    worker = Worker(real_worker(rules).config, real_policy(rules), FixedStep(7), log.append, index=3)
    worker.time_us = 100
    worker.submit(request("A1", (1, 2), output=2), arrived_us=90)
    assert worker.step().time_us == 107
    assert worker.step().time_us == 114
    assert [(type(event).__name__, event.step, event.time_us) for event in log] == [
        ("Arrive", 1, 100),
        ("Refill", 1, 100),
        ("Admit", 1, 100),
        ("Output", 1, 107),
        ("Output", 2, 114),
        ("Finish", 2, 114),
    ]
    assert {event.worker for event in log} == {3}


def test_an_arrival_says_when_it_was_sent_only_where_that_was_earlier() -> None:
    stage = Scene(Rules())
    stage.worker.time_us = 50
    stage.worker.submit(request("A1", (1,)), 20)
    stage.worker.submit(request("A2", (1,)), 50)
    assert [event.arrived_us for event in stage.log if isinstance(event, ev.Arrive)] == [20, None]


def test_the_order_and_free_memory_are_written_at_the_full_level_only() -> None:
    rules = Rules(kv_tokens=20, quantum=10)
    for full_log, expected in ((True, ["Arrive", "Order", "Refill", "Admit", "Output", "Finish"]), (False, None)):
        log: list[ev.Event] = []
        worker = real_worker(rules, log, full_log=full_log)
        worker.submit(request("A1", (1, 2)), 0)
        worker.step()
        assert kinds(log) == (expected or ["Arrive", "Refill", "Admit", "Output", "Finish"])
        assert [event.free for event in log if isinstance(event, ev.Admit)] == ([17] if full_log else [None])


def test_the_order_lists_the_queue_with_matched_tokens_and_what_is_free() -> None:
    stage = Scene(Rules(policy="dlpm", kv_tokens=20, quantum=10))
    stage.submit(request("A1", (1, 2, 3), output=3))
    stage.step()
    stage.submit(request("A2", (9,)), request("A3", (1, 2, 4)))
    stage.step()
    order = [event for event in stage.log if isinstance(event, ev.Order)][-1]
    assert (order.requests, order.matched, order.free) == (("A3", "A2"), (2, 0), 20 - 3 - 3)


def test_a_step_without_work_writes_nothing_and_takes_no_time() -> None:
    stage = Scene(Rules())
    result = stage.worker.step()
    assert (result.ran, result.finished, result.time_us) == (False, (), 0)
    assert stage.log == []


def test_what_is_evicted_is_written_down() -> None:
    """Four tokens stay cached; the next request needs five of six."""
    stage = Scene(Rules(policy="fcfs", kv_tokens=6))
    stage.submit(request("A1", (1, 2, 3, 4)))
    stage.finish_all()
    stage.submit(request("A2", (5, 6, 7, 8)))
    stage.finish_all()
    assert [event.tokens for event in stage.log if isinstance(event, ev.Evict)] == [3]
    assert stage.worker.cache.total == 5


@pytest.mark.parametrize("memory", ["reserving", "optimistic"])
def test_without_a_listener_the_run_is_the_same(memory: str) -> None:
    """Also where blocks are evicted and, under optimistic memory, requests preempted."""
    rules = Rules(policy="fcfs", kv_tokens=8, memory=memory)
    stage, silent = Scene(rules), real_worker(rules)
    for name, prompt in (("A1", (1, 2, 3)), ("B1", (1, 5)), ("A2", (4, 5, 6))):
        stage.submit(request(name, prompt, output=4))
        silent.submit(request(name, prompt, output=4), 0)
    while not stage.worker.idle():
        assert silent.step() == stage.worker.step()
    assert silent.idle()
    seen = set(kinds(stage.log))
    assert "Evict" in seen
    assert ("Preempt" in seen) == (memory == "optimistic")


def test_admission_is_left_out_while_nothing_has_changed_that_could_help() -> None:
    """B1 waits for A1's memory: the queue is looked at when both come, after A1's admission, and after its finish."""
    looked_at: list[int] = []

    class Watching(FCFS):
        def admit(self, step: AdmissionStep) -> None:
            looked_at.append(worker.step_number)
            super().admit(step)

    rules = Rules(policy="fcfs", kv_tokens=8)
    worker = Worker(real_worker(rules).config, Watching(), FixedStep(1))
    worker.submit(request("A1", (1, 2), output=5), 0)
    worker.submit(request("B1", (3, 4, 5), output=1), 0)
    while not worker.idle():
        worker.step()
    assert looked_at == [1, 2, 6]


# -- Whose memory it is.


def test_a_shared_prefix_is_held_once() -> None:
    """Three tokens are shared, one is each request's own, and each has an output token to come."""
    stage = Scene(Rules(policy="fcfs", kv_tokens=20))
    stage.submit(request("A1", (1, 2, 3, 4), output=2), request("A2", (1, 2, 3, 5), output=2))
    stage.step()
    assert stage.worker.cache.locked == 5
    assert stage.worker.free_tokens() == 20 - 5 - 2 * 2


def test_prompts_admitted_together_share_only_what_is_visible() -> None:
    """[DLPM §4.1; the engine decides when a prefix is visible]"""
    for visibility, extend in (("at_admission", [4, 1]), ("after_forward", [4, 4])):
        stage = Scene(Rules(policy="fcfs", kv_tokens=20, visibility=visibility))
        stage.submit(request("A1", (1, 2, 3, 4)), request("A2", (1, 2, 3, 5)))
        stage.step()
        assert [event.extend for event in stage.log if isinstance(event, ev.Admit)] == extend


def test_the_same_prompt_computed_twice_is_kept_once() -> None:
    """Both compute it in the same step; when it becomes visible the second copy is given back."""
    stage = Scene(Rules(policy="fcfs", kv_tokens=20, visibility="after_forward"))
    stage.submit(request("A1", (1, 2, 3), output=3), request("A2", (1, 2, 3), output=3))
    stage.step()
    assert stage.worker.cache.total == 3
    assert stage.worker.free_tokens() == 20 - 3 - 2 * 3


def test_a_finished_request_leaves_prompt_and_reply_cached_and_nothing_locked() -> None:
    stage = Scene(Rules(policy="fcfs", kv_tokens=20, block_size=2))
    stage.submit(request("A1", (1, 2, 3), output=2, reply=(4, 5)))
    stage.finish_all()
    assert (stage.worker.cache.total, stage.worker.cache.locked, stage.worker.free_tokens()) == (4, 0, 20)
    stage.submit(request("A2", (1, 2, 3, 4, 9)))
    stage.step()
    assert [event.matched for event in stage.log if isinstance(event, ev.Admit)] == [0, 4]


def test_a_partial_hashed_block_is_matched_by_the_same_prompt() -> None:
    stage = Scene(Rules(policy="fcfs", kv_tokens=20, block_size=4))
    stage.submit(HASHED)
    stage.finish_all()
    assert stage.worker.cache.total == 6
    stage.submit(HASHED)
    stage.step()
    assert [event.matched for event in stage.log if isinstance(event, ev.Admit)] == [0, 5]


def test_only_the_blocks_that_hold_the_matched_tokens_are_locked_at_first() -> None:
    """(1, 2, 3) is cached, and its last token is to be computed again: that block is not locked for nothing.

    Five tokens are cached, two are locked, and two are set aside, in six tokens of memory: one must go, and the oldest
    that may is the 3 itself.
    """
    stage = Scene(Rules(policy="fcfs", kv_tokens=6))
    stage.submit(request("A1", (1, 2, 3)))
    stage.finish_all()
    stage.submit(request("B1", (7, 8)))
    stage.finish_all()
    stage.submit(request("A2", (1, 2, 3)))
    stage.finish_all()
    assert [event.tokens for event in stage.log if isinstance(event, ev.Evict)] == [1]
    assert stage.worker.cache.total == 5


# -- Preemption.


def test_the_youngest_is_preempted_and_keeps_its_place_and_its_output() -> None:
    """Seven tokens: two prompts of two, then each grows by one a step until only the elder fits."""
    stage = Scene(Rules(policy="fcfs", kv_tokens=7, memory="optimistic"))
    stage.submit(request("A1", (1, 2), output=5), request("B1", (3, 4), output=5))
    assert [event[0] for event in stage.step()] == ["admit", "admit", "output"]
    assert stage.step() == [("preempt", "B1", "recompute", None), ("output", {"A1": 1}, {})]
    assert [queued.generated for queued in stage.worker.waiting()] == [1]
    stage.submit(request("C1", (5,)))
    assert [queued.id for queued in stage.worker.waiting()] == ["B1", "C1"]


def test_what_a_preempted_request_computes_again_is_charged_again() -> None:
    """Its prompt stayed cached; the one token that it had generated is computed again. [DLPM Alg. 1 l. 23]"""
    stage = Scene(Rules(policy="dlpm", kv_tokens=7, memory="optimistic", quantum=100))
    stage.submit(request("A1", (1, 2), output=2), request("B1", (3, 4), output=4))
    stage.step()
    assert stage.step()[0] == ("preempt", "B1", "recompute", 100 - 2 - 2)
    stage.finish_all()
    admissions = [event for event in stage.log if isinstance(event, ev.Admit) and event.request == "B1"]
    assert [(event.matched, event.extend) for event in admissions] == [(0, 2), (2, 1)]
    assert stage.deficits()["B"] == 100 - 2 - 1 - 4 * 2


def test_an_admission_is_charged_even_if_it_is_preempted_before_its_first_forward() -> None:
    """Optimistic memory admits on the extend tokens alone, so two steps may charge one prompt. [DLPM Alg. 1 l. 23]"""
    stage = Scene(Rules(policy="dlpm", kv_tokens=6, memory="optimistic", quantum=100))
    stage.submit(request("A1", (1, 2), output=2), request("B1", (3, 4, 5, 6), output=1))
    stage.step()
    assert stage.deficits()["B"] == 100 - 4
    stage.finish_all()
    assert stage.deficits()["B"] == 100 - 4 - 4 - 2


def test_blocks_that_were_never_computed_do_not_stay_cached() -> None:
    """B fills memory, and is preempted before its first forward: nobody may match what was not computed."""
    stage = Scene(Rules(policy="fcfs", kv_tokens=6, memory="optimistic"))
    stage.submit(request("A1", (1, 2), output=3), request("B1", (3, 4, 5, 6), output=1))
    assert [event[:2] for event in stage.step()] == [
        ("admit", "A1"),
        ("admit", "B1"),
        ("preempt", "B1"),
        ("output", {"A1": 1}),
    ]
    assert stage.worker.cache.total == 2


def test_blocks_that_were_cached_before_stay_when_an_uncomputed_request_is_preempted() -> None:
    """B matches (7, 8) of a finished request, enters 9, and is preempted before its first forward: only 9 goes."""
    stage = Scene(Rules(policy="fcfs", kv_tokens=7, memory="optimistic"))
    stage.submit(request("A1", (7, 8)))
    stage.finish_all()
    stage.submit(request("A2", (1, 2, 3), output=2), request("B1", (7, 8, 9)))
    assert [event[:2] for event in stage.step()] == [
        ("admit", "A2"),
        ("admit", "B1"),
        ("preempt", "B1"),
        ("output", {"A2": 1}),
    ]
    assert stage.worker.cache.total == 3 + 2


def test_the_watermark_is_kept_free_beside_others_but_never_blocks_an_empty_batch() -> None:
    stage = Scene(Rules(policy="fcfs", kv_tokens=8, memory="optimistic", watermark=3))
    stage.submit(request("A1", (1, 2, 3, 4, 5, 6), output=1), request("B1", (1, 2, 3, 4, 5, 7), output=1))
    stage.step()
    assert stage.admitted() == ["A1"]
    stage.step()
    assert stage.admitted() == ["A1", "B1"]


def test_no_more_requests_run_than_the_batch_may_hold() -> None:
    stage = Scene(Rules(policy="fcfs", kv_tokens=100, max_running=2))
    stage.submit(*(request(f"A{number}", (number,), output=2) for number in range(5)))
    stage.step()
    assert len(stage.worker.running) == 2
    stage.finish_all()
    assert stage.worker.step_number == 6
