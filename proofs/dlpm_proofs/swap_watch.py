"""A swapping worker under observation: what every block of both memories really holds, and who touches it when.

The worker under observation is the reference's own. Beside it each block has a content, which forward steps write,
copies carry over when they are done, and whoever gets a block for something else destroys. From that follows what went
wrong, if anything did: a block that was overwritten while it was being copied, a request that decoded on blocks that do
not hold its context, a copy of a copy that was not there yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dlpm.batch import RunningRequest
from dlpm.extensions.swap.cpu_copies import context_keys
from dlpm.extensions.swap.worker import SwapWorker
from dlpm.request import BlockKey

Content = tuple[BlockKey, ...]
"""The keys of a block and of all blocks before it."""


@dataclass(frozen=True, slots=True)
class Moving:
    """One copy under way: content from each source block to its target, done at ``done_us``."""

    out: bool
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    contents: tuple[Content | None, ...]
    done_us: int


class Watch:
    """Contents of GPU and CPU blocks, the copies under way, and what was found wrong."""

    def __init__(self) -> None:
        """Nothing anywhere."""
        self.gpu: dict[int, Content] = {}
        self.cpu: dict[int, Content] = {}
        self.moving: list[Moving] = []
        self.wrong: list[str] = []

    def settle(self, now_us: int) -> None:
        """Copies that are done by now have brought their contents. O(copies under way)."""
        for copy in sorted(self.moving, key=lambda one: one.done_us):
            if copy.done_us <= now_us:
                memory = self.cpu if copy.out else self.gpu
                for target, content in zip(copy.targets, copy.contents, strict=True):
                    if content is not None:
                        memory[target] = content
        self.moving = [copy for copy in self.moving if copy.done_us > now_us]

    def write(self, block: int, content: Content) -> None:
        """A forward step computes the content of a GPU block. O(copies under way)."""
        if self.gpu.get(block) != content and any(copy.out and block in copy.sources for copy in self.moving):
            self.wrong.append(f"GPU block {block} is overwritten while it is copied out")
        if any(not copy.out and block in copy.targets for copy in self.moving):
            self.wrong.append(f"GPU block {block} is computed while it is copied in")
        self.gpu[block] = content

    def begin(self, copy: Moving) -> None:
        """A copy begins: its targets are worth nothing until it is done, and nobody else may be using them."""
        for other in self.moving:
            if copy.out != other.out and set(copy.targets) & set(other.sources):
                self.wrong.append("blocks are overwritten that another copy still reads")
            if copy.out == other.out and set(copy.targets) & set(other.targets):
                self.wrong.append("two copies write the same block")
        for target in copy.targets:
            (self.cpu if copy.out else self.gpu).pop(target, None)
        self.moving.append(copy)

    def expect(self, request: str, block: int, content: Content) -> None:
        """A forward step reads a GPU block."""
        if self.gpu.get(block) != content:
            self.wrong.append(f"{request} decodes on block {block}, which does not hold its context")


class WatchedSwapWorker(SwapWorker):
    """The swapping worker, with a `Watch` on everything that it does to blocks."""

    watch: Watch
    _forward_us = 0

    def begin_step(self) -> int | None:
        """As ever; the forward begins when the step has waited for all that it waits for."""
        ends_us = super().begin_step()
        self._forward_us = self._now_us()
        return ends_us

    def _copy_out(self, run: RunningRequest, sources: Sequence[int], targets: Sequence[int], tokens: int) -> int:
        """Watch the blocks that are read and written."""
        watch = self.watch
        watch.settle(self._now_us())
        skipped = len(self._contents(run)) - len(sources)
        for block, content in zip(sources, self._contents(run)[skipped:], strict=True):
            watch.expect(run.queued.id, block, content)
        held = tuple(watch.gpu.get(block) for block in sources)
        done_us = super()._copy_out(run, sources, targets, tokens)
        watch.begin(Moving(True, tuple(sources), tuple(targets), held, done_us))
        return done_us

    def _copy_in(self, run: RunningRequest, sources: Sequence[int], targets: Sequence[int], tokens: int) -> int:
        """The sources must hold the context, all of what is missing of it."""
        watch = self.watch
        watch.settle(self._now_us())
        held = tuple(watch.cpu.get(block) for block in sources)
        contents = self._contents(run)
        if list(held) != contents[len(contents) - len(held) :]:
            watch.wrong.append(f"{run.queued.id} is copied back from blocks that do not hold its context")
        done_us = super()._copy_in(run, sources, targets, tokens)
        watch.begin(Moving(False, tuple(sources), tuple(targets), held, done_us))
        return done_us

    def _forward(self) -> None:
        """A forward step reads all that its requests have, and writes what they get."""
        watch = self.watch
        watch.settle(self._forward_us)
        written = {}
        for run in self.running:
            written[run.queued.id] = (run.queued.resident if run.computed else run.matched) // self.config.block_size
            if run.computed:
                self._expect_all(run)
        super()._forward()
        for run in self.running:
            contents = list(enumerate(self._contents(run)))[written[run.queued.id] :]
            table = self.placement.table(run)
            for place, content in contents:
                watch.write(table[place], content)
        for run in self.running:
            self._expect_all(run)

    def _expect_all(self, run: RunningRequest) -> None:
        """Every block of ``run`` holds what it should."""
        for block, content in zip(self.placement.table(run), self._contents(run), strict=True):
            self.watch.expect(run.queued.id, block, content)

    def _contents(self, run: RunningRequest) -> list[Content]:
        """What the blocks of ``run`` hold once all its resident tokens are computed."""
        keys = context_keys(run.queued, self.config.block_size)
        return [keys[: place + 1] for place in range(len(keys))]
