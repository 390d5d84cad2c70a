"""The lockstep comparison has teeth: each of these faults, planted in the real worker, is found within seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from dlpm.batch import AT_ADMISSION, QueuedRequest, RunningRequest
from dlpm.ledger import Ledger
from dlpm.memory import Optimistic, Reserving
from dlpm.policies.base import AdmissionStep, Waiting
from dlpm.policies.dlpm import DLPM
from dlpm.policies.fcfs import FCFS
from dlpm.policies.lpm import LPM
from dlpm.policies.vtc import VTC, VirtualCounters
from dlpm.prefix_cache import Match, Node, PrefixCache
from dlpm.request import BlockKey, ClientId, Request
from dlpm.worker import Worker
from tests.reference.lockstep import MEMORIES, lockstep_machine

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Fault:
    """A mistake that somebody could make, how to make it, and where to look for it."""

    sentence: str
    plant: Callable[[Patch], None]
    policies: tuple[str, ...] = ("dlpm",)
    memories: tuple[str, ...] = MEMORIES


# -- The ledger.


def refill_without_asking(patch: Patch) -> None:
    honest = Ledger.check_refill

    def check_refill(self: Ledger, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        return honest(self, [])

    patch.setattr(Ledger, "check_refill", check_refill)


def refill_only_queued_clients(patch: Patch) -> None:
    def check_refill(self: Ledger, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        queued = list(queued_clients)
        if any(self.deficits[client] > 0 for client in queued):
            return {}
        for client in queued:
            self.deficits[client] += self.quanta.of(client)
        return {client: self.deficits[client] for client in queued}

    patch.setattr(Ledger, "check_refill", check_refill)


def refill_everyone(patch: Patch) -> None:
    def check_refill(self: Ledger, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        if any(self.deficits[client] > 0 for client in queued_clients):
            return {}
        for client in self.deficits:
            self.deficits[client] += self.quanta.of(client)
        return dict(self.deficits)

    patch.setattr(Ledger, "check_refill", check_refill)


def refill_sets_the_counter(patch: Patch) -> None:
    honest = Ledger.check_refill

    def check_refill(self: Ledger, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        refilled = honest(self, queued_clients)
        for client in refilled:
            refilled[client] = self.deficits[client] = self.quanta.of(client)
        return refilled

    patch.setattr(Ledger, "check_refill", check_refill)


def gate_lets_zero_through(patch: Patch) -> None:
    def has_credit(self: Ledger, client: ClientId) -> bool:
        return self.deficits[client] >= 0

    patch.setattr(Ledger, "has_credit", has_credit)


def outputs_cost_one_request_a_client(patch: Patch) -> None:
    honest = Ledger.charge_outputs

    def charge_outputs(self: Ledger, tokens: Mapping[ClientId, int]) -> None:
        honest(self, dict.fromkeys(tokens, 1))

    patch.setattr(Ledger, "charge_outputs", charge_outputs)


def returning_client_starts_afresh(patch: Patch) -> None:
    def register(self: Ledger, client: ClientId) -> None:
        self.deficits[client] = 0

    patch.setattr(Ledger, "register", register)


# -- The policies.


def one_pass_is_enough(patch: Patch) -> None:
    def admit(self: DLPM, step: AdmissionStep) -> None:
        order = sorted(step.waiting(), key=lambda request: (-step.matched(request), request.rank))
        for request in order:
            self._visit(step, request)

    patch.setattr(DLPM, "admit", admit)


def arrival_order_instead_of_longest_prefix(patch: Patch) -> None:
    def arrival_order(step: AdmissionStep) -> list[Waiting]:
        return list(step.waiting())

    patch.setattr("dlpm.policies.dlpm.longest_prefix_first", arrival_order)
    patch.setattr("dlpm.policies.lpm.longest_prefix_first", arrival_order)


def latest_first_among_equal_prefixes(patch: Patch) -> None:
    def latest_first(step: AdmissionStep) -> list[Waiting]:
        return sorted(step.waiting(), key=lambda request: (-step.matched(request), -request.rank))

    patch.setattr("dlpm.policies.dlpm.longest_prefix_first", latest_first)
    patch.setattr("dlpm.policies.lpm.longest_prefix_first", latest_first)


def lpm_stops_at_what_does_not_fit(patch: Patch) -> None:
    def admit(self: LPM, step: AdmissionStep) -> None:
        for request in sorted(step.waiting(), key=lambda request: (-step.matched(request), request.rank)):
            if step.try_admit(request) is None:
                break
            step.admitted(request, None)

    patch.setattr(LPM, "admit", admit)


def fcfs_passes_over_what_does_not_fit(patch: Patch) -> None:
    def admit(self: FCFS, step: AdmissionStep) -> None:
        for request in step.waiting():
            if step.try_admit(request) is not None:
                step.admitted(request, None)

    patch.setattr(FCFS, "admit", admit)


def vtc_forgets_to_lift(patch: Patch) -> None:
    def lift(self: VirtualCounters, client: ClientId, queued_clients: Iterable[ClientId]) -> None:
        self.counters.setdefault(client, 0)

    patch.setattr(VirtualCounters, "lift", lift)


def vtc_forgets_who_left_last(patch: Patch) -> None:
    def leave(self: VTC, client: ClientId) -> None:
        return None

    patch.setattr(VTC, "leave", leave)


def vtc_never_looks_again(patch: Patch) -> None:
    def admission_due(self: VTC, queued_clients: Iterable[ClientId]) -> bool:
        return False

    patch.setattr(VTC, "admission_due", admission_due)


# -- The cache.


def fully_cached_prompt_computes_nothing(patch: Patch) -> None:
    def matched(self: Worker, request: Waiting) -> int:
        assert isinstance(request, QueuedRequest)
        return self.cache.match(request.blocks, request.match).node.end

    patch.setattr(Worker, "matched", matched)


def most_recently_used_goes_first(patch: Patch) -> None:
    honest = PrefixCache.evict

    def evict(self: PrefixCache, tokens: int) -> int:
        self._evictable = sorted((-last_use, serial, node) for last_use, serial, node in self._evictable)
        backwards = [(node.last_use, serial, node) for _, serial, node in self._evictable]
        freed = 0
        for entry in backwards:
            if freed < tokens and entry[2].alive:
                self._evictable = [entry]
                freed += honest(self, 1)
        self._evictable = sorted(backwards)
        return freed

    patch.setattr(PrefixCache, "evict", evict)


def finishing_does_not_count_as_use(patch: Patch) -> None:
    def touch(self: PrefixCache, node: Node) -> None:
        walk = node
        while walk.parent is not None:
            self._offer(walk)
            walk = walk.parent

    patch.setattr(PrefixCache, "touch", touch)


def locks_do_not_protect(patch: Patch) -> None:
    def evict(self: PrefixCache, tokens: int) -> int:
        freed = 0
        leaves = [self.root]
        while freed < tokens and leaves:
            leaves = [node for node in nodes_below(self.root) if not node.children]
            if leaves:
                freed += self._remove(min(leaves, key=lambda node: node.last_use))
        return freed

    patch.setattr(PrefixCache, "evict", evict)


def nodes_below(node: Node) -> list[Node]:
    """All nodes of the tree below ``node``."""
    return [found for child in node.children.values() for found in (child, *nodes_below(child))]


def evicted_blocks_still_match(patch: Patch) -> None:
    def match(self: PrefixCache, blocks: Sequence[BlockKey], last: Match) -> Match:
        while last.depth < len(blocks) and blocks[last.depth] in last.node.children:
            last.node = last.node.children[blocks[last.depth]]
            last.depth += 1
        return last

    patch.setattr(PrefixCache, "match", match)


def replies_are_not_cached(patch: Patch) -> None:
    def keep_sequence(self: Worker, queued: QueuedRequest) -> None:
        self.cache.touch(self.cache.match(queued.blocks, queued.match).node)

    patch.setattr(Worker, "_keep_sequence", keep_sequence)


# -- Memory and batch.


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
    Fault("check-refill does not ask who has credit", refill_without_asking),
    Fault("a refill forgets the clients that are not queued", refill_only_queued_clients),
    Fault("a refill pays those with credit too", refill_everyone),
    Fault("a refill forgives debt", refill_sets_the_counter),
    Fault("a client with nothing left is admitted", gate_lets_zero_through),
    Fault("two running requests of a client pay for one", outputs_cost_one_request_a_client),
    Fault("a client that returns is forgiven", returning_client_starts_afresh),
    Fault("the queue is gone through once", one_pass_is_enough),
    Fault("arrival order instead of longest prefix", arrival_order_instead_of_longest_prefix, ("dlpm", "lpm")),
    Fault("the latest goes first among equal prefixes", latest_first_among_equal_prefixes, ("dlpm", "lpm")),
    Fault("LPM stops at what does not fit", lpm_stops_at_what_does_not_fit, ("lpm",)),
    Fault("FCFS passes over what does not fit", fcfs_passes_over_what_does_not_fit, ("fcfs",)),
    Fault("VTC gives credit for absence", vtc_forgets_to_lift, ("vtc",)),
    Fault("VTC forgets who left last", vtc_forgets_who_left_last, ("vtc",)),
    Fault("VTC does not look again when outputs were charged", vtc_never_looks_again, ("vtc",), ("reserving",)),
    Fault("a fully cached prompt computes nothing", fully_cached_prompt_computes_nothing),
    Fault("the most recently used block is evicted first", most_recently_used_goes_first, ("lpm",)),
    Fault("finishing does not count as use", finishing_does_not_count_as_use, ("fcfs",)),
    Fault("locked blocks are evicted", locks_do_not_protect, ("lpm",), ("reserving",)),
    Fault("evicted blocks still match", evicted_blocks_still_match, ("lpm",)),
    Fault("replies are not cached", replies_are_not_cached, ("fcfs",)),
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


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.sentence)
def test_the_machine_notices_when(fault: Fault, monkeypatch: Patch) -> None:
    """The examples are always the same, and never shrunk: what counts is that one of them fails."""
    fault.plant(monkeypatch)
    bounded = settings(
        max_examples=3000,
        stateful_step_count=40,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(lockstep_machine(fault.policies, fault.memories), settings=bounded)


def test_the_machine_finds_nothing_where_nothing_was_planted() -> None:
    """The control of the tests above: same examples, no fault."""
    clean = settings(max_examples=40, stateful_step_count=40, derandomize=True, database=None, phases=(Phase.generate,))
    run_state_machine_as_test(lockstep_machine(), settings=clean)
