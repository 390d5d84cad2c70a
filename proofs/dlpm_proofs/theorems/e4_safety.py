"""E4: what copies may not do, explored: nothing is reused while it is copied, nobody decodes on what is not there.

Small instances of the real worker and of the real allocator are explored to the last state, for copies that take less
than a step and for copies that take longer. Beside the worker stands a watch that knows what each block really holds.
"""

from __future__ import annotations

from dataclasses import replace

from dlpm.batch import QueuedRequest, WorkerConfig
from dlpm.events import EventSink
from dlpm.extensions.swap.block_groups import BlockPool, Run
from dlpm.extensions.swap.config import SwapConfig
from dlpm.extensions.swap.cpu_copies import Copy, CpuCopies
from dlpm.policies.base import Policy
from dlpm.swap_timing import CopyTimer
from dlpm.timing import StepTimer
from dlpm_proofs.explore import Kind
from dlpm_proofs.swap_explore import SwapInstance, explore_pool, explore_swapping
from dlpm_proofs.swap_watch import WatchedSwapWorker
from dlpm_proofs.theorem import Theorem, Verdict
from dlpm_proofs.theorems.e4_once import GivesBackAtOnce, JoinsAtOnce, worker_obligations
from dlpm_proofs.witness import Demonstration

KINDS = (Kind("a", "f", (1,), 3, 3), Kind("b", "g", (2, 3), 3, 3), Kind("c", "f", (2, 4), 2, 2))
IN_BLOCKS = (Kind("a", "f", (1, 1, 2), 4, 4), Kind("b", "g", (1, 1, 3), 4, 4))
"""Requests that share a first block of two tokens."""

GROUPS = SwapInstance(
    "block groups, beside copies", 7, SwapConfig(8, group_blocks=2, piecewise=True, asynchronous=True), KINDS
)
INSTANCES = (
    SwapInstance("block by block, waiting for copies", 7, SwapConfig(8), KINDS),
    SwapInstance("block groups, waiting for copies", 7, SwapConfig(8, group_blocks=2, piecewise=True), KINDS),
    GROUPS,
    SwapInstance("beside copies, little CPU memory", 7, SwapConfig(3, asynchronous=True), KINDS),
    SwapInstance(
        "beside copies, admitting beside who is away", 7, SwapConfig(8, asynchronous=True, resume_first=False), KINDS
    ),
    SwapInstance("blocks of two tokens, in groups", 8, GROUPS.swap, IN_BLOCKS, block_size=2, max_running=2),
)
"""Two or three requests, in any order; memory that does not hold all of them."""


def copies_are_safe() -> tuple[Demonstration, ...]:
    """Every instance: nothing goes wrong, everything ends, and somebody is swapped out."""
    shown = []
    for instance in INSTANCES:
        found = explore_swapping(instance)
        story = (
            f"{instance.name}: {found.states} states, {found.steps} steps, {found.swaps} of them with a swap-out.",
            *(found.wrong or ("No block is overwritten while it is copied, nobody decodes on what is not there.",)),
            "Some run never ends." if found.endless else "Every run ends.",
        )
        sound = not found.wrong and not found.endless and found.swaps > 0
        shown.append(Demonstration(f"explored: {instance.name}", story, sound))
    return (*shown, *faults_are_noticed())


class ReusesTooEarly(GivesBackAtOnce, WatchedSwapWorker):
    """GPU blocks are given away while they are still being copied out."""


class DecodesTooEarly(JoinsAtOnce, WatchedSwapWorker):
    """A request decodes while its tokens are still on their way back."""


class OneBlockMore(CpuCopies):
    """Takes a block more for valid than was copied."""

    def begin(self, queued: QueuedRequest) -> Copy | None:
        """The first new block is not copied."""
        copy = super().begin(queued)
        if copy is None or not copy.new_blocks:
            return copy
        return replace(copy, valid=copy.valid + 1, new_blocks=copy.new_blocks[1:])


class TrustsCopies(WatchedSwapWorker):
    """CPU memory is believed to hold a block more than was copied there."""

    def __init__(
        self,
        config: WorkerConfig,
        policy: Policy,
        timer: StepTimer,
        swap: SwapConfig,
        copies: CopyTimer,
        sink: EventSink | None = None,
        *,
        index: int | None = None,
        full_log: bool = False,
    ) -> None:
        """With a valid prefix that is too long."""
        super().__init__(config, policy, timer, swap, copies, sink, index=index, full_log=full_log)
        self.cpu = OneBlockMore(swap.cpu_tokens // config.block_size, config.block_size, swap.group_blocks)


def faults_are_noticed() -> tuple[Demonstration, ...]:
    """Workers that do not wait, or trust too much, are found out in the same instances."""
    shown = []
    for worker in (ReusesTooEarly, DecodesTooEarly, TrustsCopies):
        wrong = explore_swapping(replace(GROUPS, worker_type=worker)).wrong
        story = ((worker.__doc__ or "").strip(), f"Found: {wrong[0] if wrong else 'nothing'}.")
        shown.append(Demonstration(f"noticed: {worker.__name__}", story, bool(wrong)))
    return tuple(shown)


def blocks_have_one_owner() -> tuple[Demonstration, ...]:
    """The allocator of block groups, for every size of group: no block is lost, or in two places."""
    shown = []
    for group in (1, 2, 3):
        states, wrong = explore_pool(4, group)
        story = (
            f"4 blocks in groups of {group}, two owners: {states} states of taking, handing over, closing, releasing.",
            "Each block is in one place in each, free runs that touch are merged, and nobody else's change hands.",
        )
        shown.append(Demonstration(f"explored: groups of {group}", story, not wrong))
    for pool in (Leaking, NeverMerges, SharesSpare):
        _, wrong = explore_pool(4, 3, pool)
        shown.append(Demonstration(f"noticed: {pool.__name__}", ((pool.__doc__ or "").strip(), *wrong), bool(wrong)))
    return tuple(shown)


class Leaking(BlockPool):
    """Loses what an owner had reserved and not used."""

    def close(self, owner: object) -> None:
        """Forget the reserve."""
        self._spare.pop(owner, None)


class NeverMerges(BlockPool):
    """Leaves free runs in pieces."""

    def _give_back(self, run: Run) -> None:
        """Sorted, not merged."""
        self._free = sorted([*self._free, run])


class SharesSpare(BlockPool):
    """Splits a spare run off and leaves it where it was."""

    def _split_spare(self) -> Run:
        """Both owners have it."""
        before = dict(self._spare)
        run = super()._split_spare()
        self._spare.update(before)
        return run


E4_SAFE = Theorem(
    id="E4/safe",
    title="Copies under way are safe",
    source="ours, for FastSwitch [arXiv:2411.18424]",
    statement="No block is reused before its copy-out is done, nobody decodes before its copy-in is done, a copy's"
    " valid prefix is what was there, and every run ends.",
    hypotheses=(
        "two or three requests in seven or eight tokens of GPU memory, in any order",
        "a copy takes less than a step, or more",
    ),
    expected=Verdict.PROVED,
    checked="Every state of six small instances of the real worker, beside a watch on what each block holds; and the"
    " worker's own functions on symbolic sizes (E4/once).",
    argued="Larger instances: E4/once.",
    obligations=worker_obligations,
    demonstrations=copies_are_safe,
)

E4_BLOCKS = Theorem(
    id="E4/blocks",
    title="Block groups conserve ownership",
    source="ours, for FastSwitch [arXiv:2411.18424]",
    statement="Splitting, merging, handing over and releasing runs of blocks leave each block with one owner, or free.",
    hypotheses=("four blocks, two owners, groups of one to three blocks",),
    expected=Verdict.PROVED,
    checked="Every state of the real allocator that its operations can reach, with ownership counted beside it.",
    argued="More blocks and owners are alike: runs split and merge in twos.",
    obligations=tuple,
    demonstrations=blocks_have_one_owner,
)
