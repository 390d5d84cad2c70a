"""The radix cache of the tensor path keeps and evicts exactly what the reference's cache does."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

torch = pytest.importorskip("torch")

from dlpm.prefix_cache import Match, PrefixCache  # noqa: E402
from dlpm.prefix_cache import Node as ReferenceNode  # noqa: E402
from dlpm_engine.tensor.edge import Node, Path  # noqa: E402
from dlpm_engine.tensor.exact import INT64  # noqa: E402
from dlpm_engine.tensor.radix import RadixCache  # noqa: E402

sequences = st.lists(st.integers(0, 1), max_size=6).map(tuple)


class Caches(RuleBasedStateMachine):
    """Drives both caches as a worker does: what is inserted is locked or touched at once, and unlocked later."""

    @initialize(block_size=st.integers(1, 3))
    def start(self, block_size: int) -> None:
        self.block_size = block_size
        self.reference = PrefixCache(block_size)
        self.ours = RadixCache(block_size)
        self.locked: list[tuple[ReferenceNode, Node]] = []
        self.paths: list[Path] = []

    def _path(self, blocks: tuple[int, ...]) -> Path:
        path = self.ours.path(torch.tensor(blocks, dtype=INT64))
        self.paths.append(path)
        return path

    def _match(self, blocks: tuple[int, ...]) -> Match:
        return self.reference.match(blocks, self.reference.start())

    def _inserted(self, blocks: tuple[int, ...], lacking: int) -> tuple[ReferenceNode, Node]:
        tokens = len(blocks) * self.block_size - min(lacking, self.block_size - 1) * bool(blocks)
        reference = self.reference.insert(blocks, self._match(blocks), tokens)
        return reference, self.ours.insert(self._path(blocks), tokens)

    @rule(blocks=sequences, lacking=st.integers(0, 2))
    def insert_and_lock(self, blocks: tuple[int, ...], lacking: int) -> None:
        nodes = self._inserted(blocks, lacking)
        self.reference.lock(nodes[0])
        self.ours.lock(nodes[1])
        self.locked.append(nodes)

    @rule(blocks=sequences, lacking=st.integers(0, 2))
    def insert_and_touch(self, blocks: tuple[int, ...], lacking: int) -> None:
        reference, ours = self._inserted(blocks, lacking)
        self.reference.touch(reference)
        self.ours.touch(ours)

    @rule(blocks=sequences)
    def lock_the_match(self, blocks: tuple[int, ...]) -> None:
        reference, ours = self._match(blocks).node, self.ours.match(self._path(blocks))
        self.reference.lock(reference)
        self.ours.lock(ours)
        self.locked.append((reference, ours))

    @precondition(lambda self: self.locked)
    @rule(data=st.data())
    def unlock(self, data: st.DataObject) -> None:
        reference, ours = self.locked.pop(data.draw(st.integers(0, len(self.locked) - 1)))
        self.reference.unlock(reference)
        self.ours.unlock(ours)

    @precondition(lambda self: self.locked)
    @rule(blocks=sequences)
    def discard_what_was_never_computed(self, blocks: tuple[int, ...]) -> None:
        match, before = self._match(blocks), self.ours.match(self._path(blocks))
        kept = match.node
        reference = self.reference.insert(blocks, match, len(blocks) * self.block_size)
        ours = self.ours.insert(self._path(blocks), len(blocks) * self.block_size)
        for cache, node in ((self.reference, reference),):
            cache.lock(node)
            cache.unlock(node)
        self.ours.lock(ours)
        self.ours.unlock(ours)
        self.reference.discard(reference, kept)
        self.ours.discard(ours, before)

    @rule(tokens=st.integers(1, 9))
    def evict(self, tokens: int) -> None:
        assert self.ours.evict(tokens) == self.reference.evict(tokens)

    @precondition(lambda self: self.paths)
    @rule(data=st.data())
    def forget_a_path(self, data: st.DataObject) -> None:
        self.ours.release(self.paths.pop(data.draw(st.integers(0, len(self.paths) - 1))))

    @rule(blocks=sequences)
    def everything_agrees(self, blocks: tuple[int, ...]) -> None:
        assert self.ours.total == self.reference.total
        assert self.ours.locked == self.reference.locked
        edge, matched = self.ours.match(self._path(blocks))
        node = self._match(blocks).node
        assert edge.tokens(matched) == node.end
        assert edge.locked_tokens(matched) == node.end - self.reference.unlocked_above(node)

    def teardown(self) -> None:
        while self.reference.evict(1):
            assert self.ours.evict(1)
        assert self.ours.total == self.reference.total


class LongCaches(Caches):
    """The same with sequences that share long beginnings."""

    @rule(shared=st.integers(0, 12), own=st.lists(st.integers(2, 3), max_size=4))
    def insert_long(self, shared: int, own: list[int]) -> None:
        self.insert_and_touch((0,) * shared + tuple(own), 0)

    @rule(shared=st.integers(0, 12), own=st.lists(st.integers(2, 3), max_size=4))
    def lock_long(self, shared: int, own: list[int]) -> None:
        self.insert_and_lock((0,) * shared + tuple(own), 0)


TestCaches = Caches.TestCase
TestCaches.settings = settings(max_examples=30, stateful_step_count=25)
TestLongCaches = LongCaches.TestCase
TestLongCaches.settings = settings(max_examples=30, stateful_step_count=25)


def test_edges_that_nobody_uses_are_forgotten() -> None:
    cache = RadixCache(1)
    paths = [cache.path(torch.tensor([1, 2, place], dtype=INT64)) for place in range(100)]
    cache.touch(cache.insert(paths[0], 3))
    for path in paths:
        cache.release(path)
    assert cache.evict(3) == 3
    assert cache.root.children == {}
