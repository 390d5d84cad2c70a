"""The radix cache against a brute-force set of prefixes, and its corners by example."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dlpm.prefix_cache import Match, Node, PrefixCache, prefix_of

Blocks = tuple[int, ...]

SEQUENCES = tuple(
    (first, *rest)
    for first in (0, 1)
    for rest in ((), (0,), (1,), (0, 0), (0, 1), (1, 0), (0, 1, 0), (0, 1, 1), (0, 1, 1, 0))
)
sequences = st.sampled_from(SEQUENCES)


@dataclass
class Held:
    """A lock in both models: the sequence, the node, and where the sequence was found before it was inserted."""

    blocks: Blocks
    node: Node
    kept: Node
    new: list[Blocks]


class CacheMachine(RuleBasedStateMachine):
    """Insert, lock, unlock, touch, evict, discard and match, in any order.

    The brute-force model: `uses` maps every cached prefix to the time of its last use, and `held` are the locks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.block_size = 1
        self.cache = PrefixCache(1)
        self.uses: dict[Blocks, int] = {}
        self.clock = 0
        self.held: list[Held] = []
        self.remembered: dict[Blocks, Match] = {}
        self.gone: list[Node] = []

    @initialize(block_size=st.integers(1, 4))
    def start(self, block_size: int) -> None:
        self.block_size = block_size
        self.cache = PrefixCache(block_size)
        self.cache.on_evict = self.gone.append

    # The brute-force side.

    def longest(self, blocks: Blocks) -> Blocks:
        return max((blocks[:length] for length in range(len(blocks) + 1) if blocks[:length] in self.found()), key=len)

    def found(self) -> set[Blocks]:
        return {(), *self.uses}

    def locked(self, prefix: Blocks) -> bool:
        return any(held.blocks[: len(prefix)] == prefix for held in self.held)

    def use(self, blocks: Blocks) -> None:
        self.clock += 1
        for length in range(1, len(blocks) + 1):
            self.uses[blocks[:length]] = self.clock

    def evict_one(self) -> bool:
        leaves = [
            prefix
            for prefix in self.uses
            if not self.locked(prefix)
            and not any(other != prefix and other[: len(prefix)] == prefix for other in self.uses)
        ]
        if leaves:
            del self.uses[min(leaves, key=lambda prefix: self.uses[prefix])]
        return bool(leaves)

    # What may happen.

    @rule(blocks=sequences)
    def match_afresh_and_resumed(self, blocks: Blocks) -> None:
        expected = self.longest(blocks)
        fresh = self.cache.match(blocks, self.cache.start())
        resumed = self.cache.match(blocks, self.remembered.setdefault(blocks, self.cache.start()))
        assert fresh.depth == resumed.depth == len(expected)
        assert fresh.node is resumed.node
        assert fresh.node.end == len(expected) * self.block_size

    @rule(blocks=sequences)
    def insert_and_touch(self, blocks: Blocks) -> None:
        end = self.cache.insert(blocks, self.cache.match(blocks, self.cache.start()), len(blocks) * self.block_size)
        self.cache.touch(end)
        self.use(blocks)

    @rule(blocks=sequences)
    def insert_and_lock(self, blocks: Blocks) -> None:
        new = [blocks[:length] for length in range(1, len(blocks) + 1) if blocks[:length] not in self.uses]
        match = self.cache.match(blocks, self.cache.start())
        kept = match.node
        end = self.cache.insert(blocks, match, len(blocks) * self.block_size)
        self.cache.lock(end)
        self.use(blocks)
        self.held.append(Held(blocks, end, kept, new))

    @rule(blocks=sequences)
    def lock_what_is_there(self, blocks: Blocks) -> None:
        node = self.cache.match(blocks, self.cache.start()).node
        found = self.longest(blocks)
        self.cache.lock(node)
        if found:
            self.use(found)
        self.held.append(Held(found, node, node, []))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def unlock(self, data: st.DataObject) -> None:
        held = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.cache.unlock(held.node)

    @precondition(lambda self: self.held)
    @rule()
    def unlock_the_latest_and_discard(self) -> None:
        held = self.held.pop()
        self.cache.unlock(held.node)
        self.cache.discard(held.node, held.kept)
        for prefix in reversed(held.new):
            extended = any(other != prefix and other[: len(prefix)] == prefix for other in self.uses)
            if self.locked(prefix) or extended:
                break
            del self.uses[prefix]

    @rule(tokens=st.integers(0, 12))
    def evict(self, tokens: int) -> None:
        freed = 0
        while freed < tokens and self.evict_one():
            freed += self.block_size
        self.gone.clear()
        assert self.cache.evict(tokens) == freed
        assert sum(node.tokens for node in self.gone) == freed, "whoever listens hears of every block"

    # What must hold after each.

    @invariant()
    def the_tree_holds_exactly_the_prefixes(self) -> None:
        tree = prefixes_below(self.cache.root, ())
        assert tree.keys() == self.uses.keys()
        assert self.cache.total == len(self.uses) * self.block_size
        locked = [prefix for prefix in self.uses if self.locked(prefix)]
        assert self.cache.locked == len(locked) * self.block_size
        for prefix, node in tree.items():
            assert node.alive
            assert node.locks == sum(held.blocks[: len(prefix)] == prefix for held in self.held)
            above_lock = [prefix[:length] for length in range(1, len(prefix) + 1) if prefix[:length] not in locked]
            assert self.cache.unlocked_above(node) == len(above_lock) * self.block_size


def prefixes_below(node: Node, prefix: Blocks) -> dict[Blocks, Node]:
    """Every cached prefix below ``node``."""
    found: dict[Blocks, Node] = {}
    for key, child in node.children.items():
        assert isinstance(key, int)
        found[(*prefix, key)] = child
        found.update(prefixes_below(child, (*prefix, key)))
    return found


TestPrefixCacheAgainstASetOfPrefixes = CacheMachine.TestCase


def cached(cache: PrefixCache, blocks: Blocks, tokens: int | None = None) -> Node:
    """Cache ``blocks`` and mark them used."""
    length = len(blocks) * cache.block_size if tokens is None else tokens
    node = cache.insert(blocks, cache.match(blocks, cache.start()), length)
    cache.touch(node)
    return node


def matched(cache: PrefixCache, blocks: Blocks) -> int:
    """Tokens of ``blocks`` that are cached."""
    return cache.match(blocks, cache.start()).node.end


def test_a_block_is_found_only_below_its_whole_prefix() -> None:
    cache = PrefixCache(2)
    cached(cache, (1, 2, 3))
    assert matched(cache, (1, 2, 4)) == 4
    assert matched(cache, (2, 3)) == 0
    assert matched(cache, ()) == 0


def test_the_last_block_of_a_sequence_may_be_partial() -> None:
    cache = PrefixCache(4)
    node = cached(cache, (1, 2), tokens=6)
    assert (node.tokens, node.end, cache.total) == (2, 6, 6)
    assert cache.evict(1) == 2
    assert cache.total == 4


def test_the_least_recently_used_leaf_goes_first_and_its_prefix_stays() -> None:
    cache = PrefixCache(1)
    cached(cache, (1, 2))
    cached(cache, (1, 3))
    cached(cache, (1, 2))
    assert cache.evict(1) == 1
    assert matched(cache, (1, 3)) == 1
    assert matched(cache, (1, 2)) == 2


def test_a_locked_block_and_all_above_it_survive_any_eviction() -> None:
    cache = PrefixCache(1)
    deep = cached(cache, (1, 2, 3))
    cached(cache, (1, 2, 4, 5))
    cache.lock(deep)
    assert cache.evict(100) == 2
    assert cache.evict(100) == 0
    assert matched(cache, (1, 2, 3)) == 3
    cache.unlock(deep)
    assert cache.evict(100) == 3
    assert cache.total == cache.locked == 0


def test_eviction_stops_as_soon_as_enough_is_free() -> None:
    cache = PrefixCache(3)
    cached(cache, (1, 2, 3))
    assert cache.evict(0) == 0
    assert cache.evict(4) == 6
    assert cache.total == 3


def test_a_remembered_match_survives_the_eviction_and_return_of_its_end() -> None:
    cache = PrefixCache(1)
    cached(cache, (1, 2, 3))
    remembered = cache.match((1, 2, 3), cache.start())
    cache.evict(2)
    assert cache.match((1, 2, 3), remembered).depth == 1
    end = cached(cache, (1, 2, 3))
    assert cache.match((1, 2, 3), remembered).node is end


def test_matching_is_no_use_and_takes_no_lock() -> None:
    cache = PrefixCache(1)
    cached(cache, (1,))
    cached(cache, (2,))
    matched(cache, (1,))
    assert cache.locked == 0
    cache.evict(1)
    assert matched(cache, (1,)) == 0
    assert matched(cache, (2,)) == 1


def test_inserting_reuses_what_is_there_wherever_it_starts() -> None:
    cache = PrefixCache(1)
    end = cached(cache, (1, 2))
    longer = cache.insert((1, 2, 3), cache.start(), 3)
    assert longer.parent is end
    assert cache.total == 3


def test_discarding_stops_at_a_block_that_another_request_built_on() -> None:
    cache = PrefixCache(1)
    own = cached(cache, (1, 2, 3))
    cached(cache, (1, 2, 4))
    cache.discard(own, cache.root)
    assert matched(cache, (1, 2, 3)) == 2
    assert matched(cache, (1, 2, 4)) == 3


def test_the_prefix_of_a_block_is_known_even_after_its_eviction() -> None:
    cache = PrefixCache(1)
    end = cached(cache, (1, 2, 3))
    assert prefix_of(end) == (1, 2, 3)
    cache.evict(3)
    assert prefix_of(end) == (1, 2, 3)
    assert prefix_of(cache.root) == ()
