"""Planted faults in the waiting queue and the admission phase: order, passes, memory."""

from __future__ import annotations

from dataclasses import replace

import torch

from dlpm.batch import AFTER_FORWARD, AT_ADMISSION
from dlpm_engine.differential.fault import Fault, swap
from dlpm_engine.tensor.group import NEVER, Group, Queued
from dlpm_engine.tensor.scheduler import TensorScheduler
from dlpm_engine.tensor.waiting import ORDER, Place


def _tie_to_the_latest(scheduler: TensorScheduler) -> None:
    queue = scheduler.queue
    fitting = queue.next_fitting

    def next_fitting(after: Place, room: int, deficits: torch.Tensor) -> Queued | None:
        first = found = fitting(after, room, deficits)
        while found is not None and first is not None and found.group is not None and first.group is not None:
            if found.group.order != first.group.order:
                break
            last, found = found, fitting(Place(found.group.order, found.rank), room, deficits)
            first = last
        return first

    swap(queue, "next_fitting", next_fitting)


def _order_by_arrival(scheduler: TensorScheduler) -> None:
    queue = scheduler.queue
    note = queue._note_members

    def note_without_order(group: Group, joined: int = NEVER) -> None:
        note(group, joined)
        group.order = 0
        if group.members:
            queue._table[ORDER, group.index] = 0

    swap(queue, "_note_members", note_without_order)
    swap(queue, "_refresh", lambda groups: None)


def _thawed_order(scheduler: TensorScheduler) -> None:
    queue = scheduler.queue
    swap(queue, "freeze", queue.follow_cache)


def _stops_at_what_does_not_fit(scheduler: TensorScheduler) -> None:
    queue = scheduler.queue
    fitting = queue.next_fitting

    def next_fitting(after: Place, room: int, deficits: torch.Tensor) -> Queued | None:
        first = fitting(after, scheduler.config.kv_tokens, deficits)
        return first if first is not None and queue.fits(first, room) else None

    swap(queue, "next_fitting", next_fitting)


def _returned_memory_unseen(scheduler: TensorScheduler) -> None:
    admit, queue = scheduler._admit, scheduler.queue

    def admit_and_go_on(queued: Queued) -> None:
        start_pass = queue.start_pass
        swap(queue, "start_pass", lambda: None)
        admit(queued)
        swap(queue, "start_pass", start_pass)

    swap(scheduler, "_admit", admit_and_go_on)


def _one_pass(scheduler: TensorScheduler) -> None:
    queue = scheduler.queue
    freeze, start, fitting, following = queue.freeze, queue.start_pass, queue.next_fitting, queue.next_any
    passes = [0]

    def first_freeze() -> None:
        passes[0] = 0
        freeze()

    def counted_start() -> None:
        passes[0] += 1
        start()

    swap(queue, "freeze", first_freeze)
    swap(queue, "start_pass", counted_start)
    swap(queue, "next_fitting", lambda *place: fitting(*place) if passes[0] == 1 else None)
    swap(queue, "next_any", lambda after: following(after) if passes[0] == 1 else None)


def _starts_over_after_an_admission(scheduler: TensorScheduler) -> None:
    queue = scheduler.queue
    fitting = queue.next_fitting

    def next_fitting(after: Place, room: int, deficits: torch.Tensor) -> Queued | None:
        del after
        queue.start_pass()
        return fitting(Place(2**62, -1), room, deficits)

    swap(queue, "next_fitting", next_fitting)


def _new_rank_after_preemption(scheduler: TensorScheduler) -> None:
    enqueue = scheduler._enqueue

    def enqueue_last(queued: Queued) -> None:
        if queued.rank < scheduler._rank:
            scheduler._rank += 1
            queued.rank = scheduler._rank
        enqueue(queued)

    swap(scheduler, "_enqueue", enqueue_last)


def _ignores_watermark(scheduler: TensorScheduler) -> None:
    room = scheduler._room
    swap(scheduler, "_room", lambda: scheduler.free_tokens() if room() >= 0 else room())


def _watermark_for_an_empty_batch(scheduler: TensorScheduler) -> None:
    room = scheduler._room
    # An empty machine must let the first one in all the same, or the fault would be a hang.
    swap(
        scheduler,
        "_room",
        lambda: room() - (0 if len(scheduler.batch) else min(1, scheduler.config.watermark)),
    )


def _batch_one_too_large(scheduler: TensorScheduler) -> None:
    limit = scheduler.config.max_running
    if limit is not None:
        scheduler.config = replace(scheduler.config, max_running=limit + 1)


def _other_visibility(scheduler: TensorScheduler) -> None:
    other = AT_ADMISSION if scheduler.config.visibility == AFTER_FORWARD else AFTER_FORWARD
    scheduler.config = replace(scheduler.config, visibility=other)


def _reserves_one_too_few(scheduler: TensorScheduler) -> None:
    class Stingy:
        kind = scheduler.config.memory

        def reserve(self, output_left: int) -> int:
            return honest.reserve(output_left) - (1 if honest.reserve(output_left) > 1 else 0)

    honest = scheduler._memory
    swap(scheduler, "_memory", Stingy())  # type: ignore[arg-type]


def _preempts_the_oldest(scheduler: TensorScheduler) -> None:
    preempt = scheduler._preempt

    def preempt_oldest() -> None:
        batch = scheduler.batch
        batch.requests.append(batch.requests.pop(0))
        batch.rows().copy_(batch.rows().roll(-1, dims=1))
        preempt()

    swap(scheduler, "_preempt", preempt_oldest)


def _one_preemption_too_many(scheduler: TensorScheduler) -> None:
    make_room = scheduler._make_room_for_outputs

    def make_room_or_more() -> None:
        running = len(scheduler.batch)
        make_room()
        if 1 < len(scheduler.batch) < running:
            scheduler._preempt()

    swap(scheduler, "_make_room_for_outputs", make_room_or_more)


QUEUE_FAULTS = (
    Fault("tie-to-the-latest", "among equal matches the latest arrival goes first", _tie_to_the_latest),
    Fault("order-by-arrival", "the match does not count for the order", _order_by_arrival),
    Fault("order-not-frozen", "a prompt admitted in this step changes the order of this step", _thawed_order),
    Fault("stops-at-the-first", "what does not fit blocks what stands behind it", _stops_at_what_does_not_fit),
    Fault(
        "returned-memory-unseen",
        "an admission that gives memory back lets nobody fit who did not fit before",
        _returned_memory_unseen,
    ),
    Fault("one-pass", "the admission phase is one pass", _one_pass),
    Fault("starts-over", "each admission begins a new pass", _starts_over_after_an_admission),
    Fault("new-rank-after-preemption", "a preempted request goes to the end of the queue", _new_rank_after_preemption),
    Fault("ignores-watermark", "the watermark is not kept free", _ignores_watermark),
    Fault(
        "watermark-when-empty",
        "the watermark is asked of an empty batch, too",
        _watermark_for_an_empty_batch,
    ),
    Fault("batch-one-too-large", "the batch may hold one request more", _batch_one_too_large),
    Fault("other-visibility", "prompts become visible at the other moment", _other_visibility),
    Fault("reserves-one-too-few", "one token less than the declared output is reserved", _reserves_one_too_few),
    Fault("preempts-the-oldest", "the oldest running request is preempted", _preempts_the_oldest),
    Fault("one-preemption-too-many", "a preemption takes a second request along", _one_preemption_too_many),
)
