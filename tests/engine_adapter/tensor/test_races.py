"""The detector of races sees each kind of race, and nothing where there is none."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("dlpm_engine.tensor.batched.kernel.dialect")

import torch

from dlpm_engine.tensor.batched.kernel.dialect import fence, interpreted, kernel, tl
from tests.engine_adapter.tensor.races import watched

pytestmark = pytest.mark.skipif(not interpreted(), reason="kernels are compiled here")


@kernel()
def shift(row: tl.tensor, fenced: tl.constexpr, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """Every entry takes the value of the next: a read of what another thread writes."""
    at = tl.program_id(0) * (BLOCK + 1) + tl.arange(0, BLOCK)
    following = tl.load(row + at + 1)
    if fenced:
        fence()
    tl.store(row + at, following)


@kernel()
def twice(row: tl.tensor, fenced: tl.constexpr, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """A write, and a read of it."""
    at = tl.program_id(0) * (BLOCK + 1) + tl.arange(0, BLOCK)
    tl.store(row + at, at.to(tl.int64))
    if fenced:
        fence()
    following = tl.load(row + at + 1)
    fence()
    tl.store(row + at, following)


@kernel()
def count(row: tl.tensor, total: tl.tensor, mixed: tl.constexpr, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """All threads of all programs add to one number; ``mixed``: one reads it, too."""
    at = tl.arange(0, BLOCK)
    tl.atomic_add(total + at * 0, tl.full([BLOCK], 1, tl.int64))
    if mixed:
        tl.store(row + tl.program_id(0), tl.load(total))


@kernel()
def collide(row: tl.tensor, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """All threads write to one address."""
    tl.store(row + tl.arange(0, BLOCK) // 2, tl.arange(0, BLOCK).to(tl.int64))


@kernel()
def neighbours(row: tl.tensor, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """Every program reads the first entry of the next one, and writes its own."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    following = tl.load(row + at + 1)
    fence()
    tl.store(row + at, following)


def test_a_fence_between_a_read_and_a_write_is_asked_for() -> None:
    row = torch.arange(10)
    with watched(lambda: [row]) as watch:
        shift[(2,)](row, True, BLOCK=4)
    assert row.tolist() == [1, 2, 3, 4, 4, 6, 7, 8, 9, 9]
    assert (watch.accesses, watch.fences) == (16, 2)
    with watched(lambda: [row]), pytest.raises(Exception, match="read and write of one address without a fence"):
        shift[(1,)](row, False, BLOCK=4)


def test_a_fence_between_a_write_and_a_read_is_asked_for() -> None:
    row = torch.zeros(10, dtype=torch.int64)
    with watched(lambda: [row]):
        twice[(2,)](row, True, BLOCK=4)
    with watched(lambda: [row]), pytest.raises(Exception, match="write and read of one address without a fence"):
        twice[(1,)](row, False, BLOCK=4)


def test_additions_commute_but_not_with_a_read() -> None:
    row, total = torch.zeros(4, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    with watched(lambda: [row, total]):
        count[(3,)](row, total, False, BLOCK=4)
    assert int(total) == 12
    with watched(lambda: [row, total]), pytest.raises(Exception, match="add and read of one address"):
        count[(3,)](row, total, True, BLOCK=4)


def test_two_threads_that_write_one_address_are_seen() -> None:
    row = torch.zeros(4, dtype=torch.int64)
    with watched(lambda: [row]), pytest.raises(Exception, match="two threads write one address"):
        collide[(1,)](row, BLOCK=4)


def test_a_program_that_writes_what_another_one_reads_is_seen() -> None:
    row = torch.arange(10)
    with watched(lambda: [row]), pytest.raises(Exception, match="by program 0 and write by program 1"):
        neighbours[(2,)](row, BLOCK=4)


def test_an_access_outside_all_tensors_is_seen() -> None:
    row = torch.arange(5)
    with watched(lambda: [row[:4]]), pytest.raises(Exception, match="read outside all tensors"):
        shift[(1,)](row, True, BLOCK=4)
