"""Blocks in groups: the allocator beside a plain array, and all that small pools can come to."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dlpm.errors import InputError
from dlpm.extensions.swap.block_groups import BlockPool, OutOfBlocksError, contiguous_pieces

OWNERS = ("a", "b", "c")


class Groups(RuleBasedStateMachine):
    """Take, hand over, release and close, beside an array that says who holds each block."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(1)
        self.holder: list[str | None] = [None]

    @initialize(blocks=st.integers(1, 24), group=st.integers(1, 6))
    def start(self, blocks: int, group: int) -> None:
        self.pool = BlockPool(blocks, group)
        self.holder = [None] * blocks

    @rule(owner=st.sampled_from(OWNERS), times=st.integers(1, 6))
    def take(self, owner: str, times: int) -> None:
        for _ in range(times):
            if None not in self.holder:
                with pytest.raises(OutOfBlocksError):
                    self.pool.take(owner)
                return
            spare = self.pool.spare_runs().get(owner)
            block = self.pool.take(owner)
            assert self.holder[block] is None
            assert spare is None or block == spare.start
            self.holder[block] = owner

    @precondition(lambda self: any(self.holder))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from([b for b, holder in enumerate(self.holder) if holder]))
        self.pool.release(block)
        self.holder[block] = None

    @precondition(lambda self: any(self.holder))
    @rule(data=st.data(), owner=st.sampled_from(OWNERS))
    def hand_over(self, data: st.DataObject, owner: str) -> None:
        block = data.draw(st.sampled_from([b for b, holder in enumerate(self.holder) if holder]))
        self.pool.hand_over(block, owner)
        self.holder[block] = owner

    @rule(owner=st.sampled_from(OWNERS))
    def close(self, owner: str) -> None:
        self.pool.close(owner)
        assert owner not in self.pool.spare_runs()

    @invariant()
    def every_block_has_one_place(self) -> None:
        free = [block for run in self.pool.free_runs() for block in range(run.start, run.end)]
        spare = [block for run in self.pool.spare_runs().values() for block in range(run.start, run.end)]
        held = dict(self.pool.held_blocks())
        assert sorted([*free, *spare, *held]) == list(range(self.pool.blocks))
        assert held == {block: holder for block, holder in enumerate(self.holder) if holder}

    @invariant()
    def free_runs_are_merged(self) -> None:
        runs = self.pool.free_runs()
        assert all(before.end < after.start for before, after in pairwise(runs))

    @invariant()
    def nobody_keeps_more_than_a_group(self) -> None:
        assert all(1 <= run.length <= self.pool.group_blocks for run in self.pool.spare_runs().values())


def test_blocks_are_never_lost_or_shared() -> None:
    run_state_machine_as_test(Groups, settings=settings(max_examples=150, stateful_step_count=40))


def test_a_request_that_grows_alone_is_one_piece() -> None:
    pool = BlockPool(20, 4)
    blocks = [pool.take("a") for _ in range(9)]
    assert blocks == list(range(9))


def test_two_requests_that_grow_side_by_side_alternate_by_groups_not_by_blocks() -> None:
    def pieces(group: int) -> int:
        pool = BlockPool(32, group)
        tables: dict[str, list[int]] = {"a": [], "b": []}
        for _ in range(12):
            for owner, table in tables.items():
                table.append(pool.take(owner))
        return contiguous_pieces((block, place) for place, block in enumerate(tables["a"]))

    assert pieces(1) == 12
    assert pieces(4) == 3


def test_spare_blocks_are_split_off_when_none_is_free() -> None:
    pool = BlockPool(8, 8)
    pool.take("a")
    assert pool.take("b") == 4  # a's seven spare blocks 1 to 7 are halved: 4 to 7 go
    assert pool.spare_runs()["a"] == (1, 3)
    assert pool.spare_runs()["b"] == (5, 3)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_pieces_are_counted_where_either_side_jumps(pairs: list[tuple[int, int]]) -> None:
    jumps = sum(
        1
        for place in range(len(pairs))
        if place == 0 or [x - y for x, y in zip(pairs[place], pairs[place - 1], strict=True)] != [1, 1]
    )
    assert contiguous_pieces(pairs) == jumps


def test_a_block_that_nobody_holds_can_neither_be_released_nor_handed_over() -> None:
    pool = BlockPool(2)
    with pytest.raises(KeyError):
        pool.release(0)
    with pytest.raises(KeyError):
        pool.hand_over(1, "a")


@pytest.mark.parametrize(("blocks", "group"), [(0, 1), (1, 0)])
def test_a_pool_of_nothing_is_refused(blocks: int, group: int) -> None:
    with pytest.raises(InputError):
        BlockPool(blocks, group)
