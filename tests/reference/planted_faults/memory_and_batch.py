"""Faults in memory and the running batch: what fits, what is preempted and what is freed."""

from __future__ import annotations

from dlpm.batch import AT_ADMISSION, QueuedRequest, RunningRequest
from dlpm.memory import Optimistic, Reserving
from dlpm.policies.base import Waiting
from dlpm.prefix_cache import Node, PrefixCache
from dlpm.request import Request
from dlpm.worker import Worker
from tests.reference.planted_faults.fault import Fault, Patch


def reserving_forgets_the_output(patch: Patch) -> None:
    def can_add(self: Reserving, free: int, extend: int, output_left: int, running: int) -> bool:
        return extend <= free

    patch.setattr(Reserving, "can_add", can_add)


def watermark_blocks_an_empty_batch(patch: Patch) -> None:
    def can_add(self: Optimistic, free: int, extend: int, output_left: int, running: int) -> bool:
        return extend + self.watermark <= free

    patch.setattr(Optimistic, "can_add", can_add)


def locked_path_counts_as_free(patch: Patch) -> None:
    def unlocked_above(self: PrefixCache, node: Node) -> int:
        return 0

    patch.setattr(PrefixCache, "unlocked_above", unlocked_above)


def recomputed_token_needs_memory_beside_its_block(patch: Patch) -> None:
    def unlocked_above(self: PrefixCache, node: Node) -> int:
        path = 0
        while node.locks == 0 and node.parent is not None:
            path += node.tokens
            node = node.parent
        return path + (1 if path and self.block_size > 1 else 0)

    patch.setattr(PrefixCache, "unlocked_above", unlocked_above)


def oldest_is_preempted(patch: Patch) -> None:
    honest = Worker._preempt

    def preempt(self: Worker, run: RunningRequest) -> None:
        honest(self, self.running[0])

    patch.setattr(Worker, "_preempt", preempt)


def preempted_request_queues_at_the_end(patch: Patch) -> None:
    honest = Worker._preempt

    def preempt(self: Worker, run: RunningRequest) -> None:
        self._rank += 1
        run.queued.rank = self._rank
        honest(self, run)

    patch.setattr(Worker, "_preempt", preempt)


def uncomputed_blocks_stay_cached(patch: Patch) -> None:
    def discard(self: PrefixCache, node: Node, keep: Node) -> None:
        return None

    patch.setattr(PrefixCache, "discard", discard)


def preempted_request_keeps_its_matched_count(patch: Patch) -> None:
    """What nano-vllm did before its pull request 211: the count of cached tokens survived the preemption."""
    honest = Worker.matched
    first: dict[str, int] = {}

    def matched(self: Worker, request: Waiting) -> int:
        assert isinstance(request, QueuedRequest)
        if request.generated:
            return first.get(request.id, honest(self, request))
        first[request.id] = honest(self, request)
        return first[request.id]

    patch.setattr(Worker, "matched", matched)


def preempted_request_forgets_its_output(patch: Patch) -> None:
    honest = Worker._preempt

    def preempt(self: Worker, run: RunningRequest) -> None:
        honest(self, run)
        run.queued.resident = run.queued.request.input_tokens

    patch.setattr(Worker, "_preempt", preempt)


def finished_request_keeps_its_reservation(patch: Patch) -> None:
    def release(self: Worker, run: RunningRequest) -> None:
        self.cache.unlock(run.node)
        self._set_aside -= run.private

    patch.setattr(Worker, "_release", release)


def prompts_are_visible_too_early(patch: Patch) -> None:
    honest = Worker._admit

    def admit(self: Worker, queued: QueuedRequest, node: Node, matched: int, private: int) -> None:
        honest(self, queued, node, matched, private)
        if self.config.visibility != AT_ADMISSION:
            self._insert(self.running[-1])

    patch.setattr(Worker, "_admit", admit)


def nobody_looks_at_the_queue_after_a_finish(patch: Patch) -> None:
    honest = Worker._finish

    def finish(self: Worker) -> tuple[Request, ...]:
        before = self._changed
        finished = honest(self)
        self._changed = before
        return finished

    patch.setattr(Worker, "_finish", finish)


FAULTS = (
    Fault("reserving memory forgets the output", reserving_forgets_the_output, ("fcfs",), ("reserving",)),
    Fault("the watermark blocks an empty batch", watermark_blocks_an_empty_batch, ("fcfs",), ("optimistic",)),
    Fault("the path that an admission locks counts as free", locked_path_counts_as_free, ("fcfs",)),
    Fault(
        "a recomputed token needs memory twice",
        recomputed_token_needs_memory_beside_its_block,
        ("fcfs",),
        ("reserving",),
    ),
    Fault("the oldest is preempted", oldest_is_preempted, ("fcfs",), ("optimistic",)),
    Fault(
        "a preempted request goes to the end of the queue",
        preempted_request_queues_at_the_end,
        ("fcfs",),
        ("optimistic",),
    ),
    Fault("blocks that were never computed stay cached", uncomputed_blocks_stay_cached, ("fcfs",), ("optimistic",)),
    Fault(
        "a preempted request keeps its count of cached tokens",
        preempted_request_keeps_its_matched_count,
        ("fcfs",),
        ("optimistic",),
    ),
    Fault("a preempted request forgets its output", preempted_request_forgets_its_output, ("fcfs",), ("optimistic",)),
    Fault(
        "a finished request keeps its reservation", finished_request_keeps_its_reservation, ("fcfs",), ("reserving",)
    ),
    Fault("prompts are visible before they are computed", prompts_are_visible_too_early, ("fcfs",)),
    Fault("nobody looks at the queue after a finish", nobody_looks_at_the_queue_after_a_finish, ("fcfs", "lpm")),
)
