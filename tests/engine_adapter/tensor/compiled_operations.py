"""What `ttir.py` and `ttir_launch.py` make of small kernels: each group of operations, and what must be refused.

Run by `test_compiled_kernel.py`, in a process where kernels are compiled.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import triton

from dlpm_engine.tensor.batched.kernel.dialect import Kernel, fence, interpreted, kernel, tl
from tests.engine_adapter.tensor import test_races as racing
from tests.engine_adapter.tensor.absent_gpu import AbsentGPU
from tests.engine_adapter.tensor.races import RaceError
from tests.engine_adapter.tensor.ttir import translated
from tests.engine_adapter.tensor.ttir_launch import ArenaMemory, InPlaceOfLaunch, values_for
from tests.engine_adapter.tensor.ttir_numbers import TtirError, quotient

assert not interpreted()
triton.runtime.driver.set_active(AbsentGPU(90))

HIGHEST, LOWEST = 2**63 - 1, -(2**63)
LANES = 8
LEFT = [7, -7, 7, -7, HIGHEST, LOWEST, 0, 5]
RIGHT = [2, 2, -2, -2, 1, 1, 3, 5]


def executed(launched: Kernel) -> InPlaceOfLaunch:
    """A small kernel, ready to be executed in place of its launch."""
    return InPlaceOfLaunch(launched, seed=0)


def row(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


@kernel()
def arithmetic(left: tl.tensor, right: tl.tensor, results: tl.tensor, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """A row of results for each operation on blocks of int64."""
    at = tl.arange(0, BLOCK)
    x, y = tl.load(left + at), tl.load(right + at)
    tl.store(results + at, x + y)
    tl.store(results + BLOCK + at, x - y)
    tl.store(results + 2 * BLOCK + at, x * y)
    tl.store(results + 3 * BLOCK + at, x // y)
    tl.store(results + 4 * BLOCK + at, x % y)
    tl.store(results + 5 * BLOCK + at, tl.maximum(x, y))
    tl.store(results + 6 * BLOCK + at, tl.minimum(x, y))


def test_integers_wrap_and_divide_towards_0() -> None:
    results = torch.zeros((7, LANES), dtype=torch.int64)
    executed(arithmetic)[(1,)](row(*LEFT), row(*RIGHT), results, BLOCK=LANES)
    assert results.tolist() == [
        [9, -5, 5, -9, LOWEST, LOWEST + 1, 3, 10],
        [5, -9, 9, -5, HIGHEST - 1, HIGHEST, -3, 0],
        [14, -14, -14, 14, HIGHEST, LOWEST, 0, 25],
        [3, -3, -3, 3, HIGHEST, LOWEST, 0, 1],
        [1, -1, 1, -1, 0, 0, 0, 0],
        [7, 2, 7, -2, HIGHEST, 1, 3, 5],
        [2, -7, -2, -7, 1, LOWEST, 0, 5],
    ]


@kernel()
def comparisons(left: tl.tensor, right: tl.tensor, results: tl.tensor, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """A row of 0 and 1 for each comparison of blocks, for two of them together, and a choice."""
    at = tl.arange(0, BLOCK)
    x, y = tl.load(left + at), tl.load(right + at)
    tl.store(results + at, (x == y).to(tl.int64))
    tl.store(results + BLOCK + at, (x != y).to(tl.int64))
    tl.store(results + 2 * BLOCK + at, (x < y).to(tl.int64))
    tl.store(results + 3 * BLOCK + at, (x <= y).to(tl.int64))
    tl.store(results + 4 * BLOCK + at, (x > y).to(tl.int64))
    tl.store(results + 5 * BLOCK + at, (x >= y).to(tl.int64))
    tl.store(results + 6 * BLOCK + at, ((x < y) & (y > 2)).to(tl.int64))
    tl.store(results + 7 * BLOCK + at, ((x < y) | (y > 2)).to(tl.int64))
    tl.store(results + 8 * BLOCK + at, tl.where(x > y, x, -y))


def test_comparisons_are_signed_and_a_choice_is_made_by_entry() -> None:
    results = torch.zeros((9, LANES), dtype=torch.int64)
    executed(comparisons)[(1,)](row(*LEFT), row(*RIGHT), results, BLOCK=LANES)
    assert results.tolist() == [
        [0, 0, 0, 0, 0, 0, 0, 1],
        [1, 1, 1, 1, 1, 1, 1, 0],
        [0, 1, 0, 1, 0, 1, 1, 0],
        [0, 1, 0, 1, 0, 1, 1, 1],
        [1, 0, 1, 0, 1, 0, 0, 0],
        [1, 0, 1, 0, 1, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 1, 0],
        [0, 1, 0, 1, 0, 1, 1, 1],
        [7, -2, 7, 2, HIGHEST, -1, -3, -5],
    ]


@kernel()
def widths(numbers: tl.tensor, small: tl.tensor, results: tl.tensor, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """What becomes of numbers that are made narrower and wider, and of bytes."""
    at = tl.arange(0, BLOCK)
    x, byte = tl.load(numbers + at), tl.load(small + at)
    tl.store(results + at, (x.to(tl.int32) + 1).to(tl.int64))
    tl.store(results + BLOCK + at, byte.to(tl.int64))
    tl.store(results + 2 * BLOCK + at, tl.maximum(byte, tl.full([BLOCK], 130, tl.uint8)).to(tl.int64))
    fence()
    tl.store(small + at, x.to(tl.int32).to(tl.uint8))


def test_narrow_integers_wrap_where_wide_ones_do_not_and_bytes_have_no_sign() -> None:
    results = torch.zeros((3, 4), dtype=torch.int64)
    small = torch.tensor([0, 127, 128, 255], dtype=torch.uint8)
    executed(widths)[(1,)](row(2**31 - 1, 2**32 + 5, -1, 300), small, results, BLOCK=4)
    assert results.tolist() == [[-(2**31), 6, 0, 301], [0, 127, 128, 255], [130, 130, 130, 255]]
    assert small.tolist() == [255, 5, 255, 44]


@kernel("count")
def loops(starts: tl.tensor, results: tl.tensor, count: tl.tensor) -> None:
    """By program: turns until Collatz's sequence comes to 1; the even numbers below a start; ``count`` squares."""
    at = tl.program_id(0)
    start = tl.load(starts + at)
    number = start
    turns = tl.zeros([], tl.int64)
    while number != 1:
        if number % 2 == 0:
            number = number // 2
        else:
            number = 3 * number + 1
        turns += 1
    tl.store(results + 3 * at, turns)
    even = tl.zeros([], tl.int64)
    for candidate in range(0, start, 2):
        even += candidate
    tl.store(results + 3 * at + 1, even)
    squares, odd = tl.zeros([], tl.int64), tl.full([], 1, tl.int64)
    for _ in range(count):
        squares, odd = squares + odd, odd + 2
    if squares > 10:
        tl.store(results + 3 * at + 2, squares)


@pytest.mark.parametrize(("count", "squares"), [(3, -1), (4, 16)])
def test_loops_and_branches_carry_what_they_should(count: int, squares: int) -> None:
    results = torch.full((4, 3), -1, dtype=torch.int64)
    executed(loops)[(4,)](row(1, 6, 7, 27), results, count)
    assert results.tolist() == [[0, 0, squares], [8, 6, squares], [16, 12, squares], [111, 182, squares]]


@kernel()
def reductions(numbers: tl.tensor, results: tl.tensor, sums: tl.tensor, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """The sum, also of int32, the largest, the smallest, and all sums on the way."""
    at = tl.arange(0, BLOCK)
    x = tl.load(numbers + at)
    tl.store(results, tl.sum(x))
    tl.store(results + 1, tl.sum(x.to(tl.int32)).to(tl.int64))
    tl.store(results + 2, tl.max(x))
    tl.store(results + 3, tl.min(x))
    tl.store(sums + at, tl.cumsum(x))


def test_reductions_and_running_sums() -> None:
    results, sums = row(0, 0, 0, 0), row(0, 0, 0, 0)
    executed(reductions)[(1,)](row(2**31 - 1, -3, 9, 0), results, sums, BLOCK=4)
    assert results.tolist() == [2**31 + 5, 5 - 2**31, 2**31 - 1, -3]
    assert sums.tolist() == [2**31 - 1, 2**31 - 4, 2**31 + 5, 2**31 + 5]


@kernel()
def masks(table: tl.tensor, places: tl.tensor, results: tl.tensor, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """Entries of a table where there is a place, -1 elsewhere; written where they are not 0; and two single ones."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    place = tl.load(places + at)
    entry = tl.load(table + place, mask=place >= 0, other=-1)
    tl.store(results + at, entry, mask=entry != 0)
    first = tl.load(places + tl.program_id(0) * BLOCK)
    tl.atomic_add(table + 4, tl.full([], 1, tl.int64), mask=first >= 0)


def test_masks_leave_alone_what_they_do_not_select() -> None:
    table, results = row(0, 10, 20, 30, 0), row(7, 7, 7, 7, 7, 7, 7, 7)
    launch = executed(masks)
    launch[(2,)](table, row(2, 0, -1, 3, -5, 1, 1, 0), results, BLOCK=4)
    assert results.tolist() == [20, 7, -1, 30, -1, 10, 10, 7]
    assert table.tolist() == [0, 10, 20, 30, 1]
    # Two blocks of places, what they select, all of that but two zeros, two single places, and an addition.
    assert (launch.launches, launch.accesses, launch.fences) == (1, 8 + 6 + 6 + 2 + 1, 0)


def test_what_is_not_as_aligned_as_before_is_compiled_anew() -> None:
    launch, numbers = executed(racing.shift), torch.arange(8)
    launch[(1,)](numbers[:5], True, BLOCK=4)
    launch[(1,)](numbers[2:7], True, BLOCK=4)
    launch[(1,)](numbers[3:], True, BLOCK=4)
    assert numbers.tolist() == [1, 2, 4, 5, 6, 6, 7, 7]
    assert [program.divisors for program in launch.programs] == [(16,), (1,)]


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_fence_is_asked_for_as_in_the_interpreter() -> None:
    numbers = torch.arange(10)
    launch = executed(racing.shift)
    launch[(2,)](numbers, True, BLOCK=4)
    assert numbers.tolist() == [1, 2, 3, 4, 4, 6, 7, 8, 9, 9]
    assert (launch.accesses, launch.fences) == (16, 2)
    with pytest.raises(RaceError, match="read and write of one address without a fence"):
        launch[(1,)](numbers, False, BLOCK=4)
    with pytest.raises(RaceError, match="write and read of one address without a fence"):
        executed(racing.twice)[(1,)](numbers, False, BLOCK=4)


def test_threads_and_programs_that_meet_are_seen_but_additions_may() -> None:
    numbers, total = torch.arange(10), row(0)
    with pytest.raises(RaceError, match="two threads write one address"):
        executed(racing.collide)[(1,)](numbers, BLOCK=4)
    with pytest.raises(RaceError, match=r"by program \d and \w+ by program \d of one address"):
        executed(racing.neighbours)[(2,)](numbers, BLOCK=4)
    launch = executed(racing.count)
    launch[(3,)](numbers, total, False, BLOCK=4)
    assert int(total) == 12
    with pytest.raises(RaceError, match="add and read of one address"):
        launch[(3,)](numbers, total, True, BLOCK=4)


def test_an_access_outside_all_tensors_is_seen() -> None:
    with pytest.raises(RaceError, match="read outside all tensors"):
        executed(racing.shift)[(1,)](torch.arange(4), True, BLOCK=4)


def test_tensors_that_overlap_or_have_gaps_are_refused() -> None:
    numbers = torch.arange(12)
    launch = executed(racing.count)
    with pytest.raises(TtirError, match="two tensors share memory"):
        launch[(1,)](numbers[:5], numbers[4:], False, BLOCK=4)
    with pytest.raises(TtirError, match="a tensor with gaps"):
        launch[(1,)](numbers[::2], row(0), False, BLOCK=4)


def test_an_address_between_two_numbers_is_refused() -> None:
    memory = ArenaMemory([torch.arange(4)])
    (start,) = memory.addresses()
    assert memory.load("i64", np.int64(start + 8)) == 1  # type: ignore[arg-type]
    with pytest.raises(TtirError, match="no multiple of 8"):
        memory.load("i64", np.int64(start + 4))  # type: ignore[arg-type]


@kernel()
def differing(left: tl.tensor, right: tl.tensor, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """Bits that differ: an operation that the kernel of the scheduler does not use."""
    at = tl.arange(0, BLOCK)
    tl.store(left + at, tl.load(left + at) ^ tl.load(right + at))


def test_an_operation_that_is_not_known_is_refused() -> None:
    with pytest.raises(TtirError, match=r"not known here: .*arith\.xori"):
        executed(differing)[(1,)](torch.arange(4), torch.arange(4), BLOCK=4)


@pytest.mark.parametrize(("left", "right"), [(1, 0), (LOWEST, -1)])
def test_a_quotient_that_has_no_meaning_is_refused(left: int, right: int) -> None:
    with pytest.raises(TtirError, match="without a meaning"):
        quotient(np.array([left]), np.array([right]))


MODULE = """module {{
  tt.func public @one(%p: !tt.ptr<i64> {{tt.divisibility = 16 : i32}}, %n: i32) attributes {{noinline = false}} {{
    %one = arith.constant 1 : i64
    %yes = arith.constant true
    %row = arith.constant dense<3> : tensor<4xi64>
    {}
    tt.return
  }}
}}
"""
REDUCE = """%x = "tt.reduce"(%row) <{{axis = 0 : i32}}> ({{
    ^bb0(%a: i64, %b: i64):
      %c = {} : i64
      tt.reduce.return %c : i64
    }}) : (tensor<4xi64>) -> i64"""
SCAN = REDUCE.replace("tt.reduce", "tt.scan").replace("-> i64", "-> tensor<4xi64>")
FORWARD = SCAN.replace("axis = 0 : i32", "axis = 0 : i32, reverse = false")
ADD = "%x = tt.atomic_rmw add, acq_rel, gpu, %p, %one, %yes : (!tt.ptr<i64>, i64, i1) -> i64"


def is_refused(text: str) -> bool:
    """Whether a line or two in a module cannot be translated."""
    try:
        translated(MODULE.format(text))
    except TtirError:
        return True
    return False


@pytest.mark.parametrize(
    ("known", "unknown"),
    [
        ("%x = tt.load %p : !tt.ptr<i64>", "%x = tt.load %p {isVolatile = true} : !tt.ptr<i64>"),
        ("%x = tt.load %p, %yes, %one : !tt.ptr<i64>", "%x = tt.load %p, %yes : !tt.ptr<i64>"),
        ("tt.store %p, %one : !tt.ptr<i64>", "tt.store %p, %one cacheModifier = cs : !tt.ptr<i64>"),
        ("%x = arith.addi %one, %one : i64", "%x = arith.addi %one, %one overflow<nsw> : i64"),
        ("%x = arith.ori %yes, %yes : i1", "%x = arith.addi %yes, %yes : i1"),
        ("%x = arith.extui %yes : i1 to i64", "%x = arith.extsi %yes : i1 to i64"),
        ("%x = arith.cmpi slt, %one, %one : i64", "%x = arith.cmpi ult, %one, %one : i64"),
        ("%x = arith.cmpi eq, %yes, %yes : i1", "%x = arith.cmpi slt, %yes, %yes : i1"),
        ("%x = arith.constant 1 : i64", "%x = arith.constant 1.0 : f64"),
        ("%x = arith.constant dense<1> : tensor<4xi64>", "%x = arith.constant dense<[1, 2]> : tensor<2xi64>"),
        ("%x = tt.get_program_id x : i32", "%x = tt.get_program_id y : i32"),
        ("%x = tt.splat %one : i64 -> tensor<4xi64>", "%x = tt.splat %one : i64 -> tensor<2x2xi64>"),
        (REDUCE.format("arith.addi %a, %b"), REDUCE.format("arith.muli %a, %b")),
        (REDUCE.format("arith.maxsi %b, %a"), REDUCE.format("arith.maxsi %a, %a")),
        (FORWARD.format("arith.addi %a, %b"), SCAN.format("arith.addi %a, %b")),
        ("ttg.barrier all", "ttg.barrier local"),
        (ADD, ADD.replace("add", "max")),
        (ADD, f"{ADD}\n%y = arith.addi %x, %one : i64"),
        ("%x = arith.addi %one, %one : i64", "%x = arith.addi %one, %nowhere : i64"),
        ("", "tt.call @other() : () -> ()"),
        ("", "}"),
    ],
)
def test_a_line_is_refused_that_says_more_or_other_than_is_known(known: str, unknown: str) -> None:
    assert (is_refused(known), is_refused(unknown)) == (False, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arguments: arguments[:-1], "1 arguments, where the kernel takes 2"),
        (
            lambda arguments: [torch.zeros(4, dtype=torch.int32), arguments[1]],
            r"ptr<i32>, where the kernel takes .*i64",
        ),
        (lambda arguments: [arguments[0], torch.zeros(4, dtype=torch.int64)], r"ptr<i64>, where the kernel takes i32"),
        (lambda arguments: [arguments[0][1:], arguments[1]], "for a multiple of 16"),
    ],
)
def test_arguments_that_were_not_compiled_for_are_refused(
    change: Callable[[list[torch.Tensor | int]], list[torch.Tensor | int]], message: str
) -> None:
    program = translated(MODULE.format(""))
    right: list[torch.Tensor | int] = [torch.zeros(4, dtype=torch.int64), 5]
    assert len(values_for(program, right, memory_of(right))) == 2
    wrong = change(right)
    with pytest.raises(TtirError, match=message):
        values_for(program, wrong, memory_of(wrong))


def memory_of(arguments: list[torch.Tensor | int]) -> ArenaMemory:
    """A memory of the tensors among some arguments."""
    return ArenaMemory([each for each in arguments if isinstance(each, torch.Tensor)])
