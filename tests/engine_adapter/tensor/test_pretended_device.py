"""The pretended device refuses what a real one refuses, and counts what makes the host wait for a real one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")

from tests.engine_adapter.tensor.pretended_device import (
    Account,
    CurrentDevice,
    MixedDevicesError,
    NotModelledError,
    OnDevice,
    Synchronisation,
    Wait,
    device_guard,
    pretended_device,
)
from tests.engine_adapter.tensor.pretended_liberties import UndefinedResultError

CUDA = torch.device("cuda")


@pytest.fixture(params=[True, False], ids=["inference", "plain"])
def account(request: pytest.FixtureRequest) -> Iterator[Account]:
    """The account of a pretended device, in inference mode (as the scheduler) and out of it."""
    with torch.inference_mode(bool(request.param)), pretended_device() as account:
        yield account


Index: TypeAlias = "torch.Tensor | int | tuple[torch.Tensor | slice | int, ...]"


class Things:
    """Some tensors of the device, and some of the host."""

    def __init__(self) -> None:
        self.table = torch.zeros((3, 3), dtype=torch.int64, device=CUDA)
        self.line = torch.arange(3, device=CUDA)
        self.two = self.line[2]
        self.host = torch.arange(3)
        self.host_table = torch.zeros((3, 3), dtype=torch.int64)
        self.host_two = torch.tensor(2)

    def put(self, index: Index, value: torch.Tensor | int) -> None:
        """``table[index] = value``."""
        self.table[index] = value


FREE: dict[str, Callable[[Things], object]] = {
    "arithmetic with numbers": lambda t: (t.line * 2 + 1).clamp(min=0) - t.line,
    "arithmetic with a number in a tensor of the host": lambda t: t.line + t.host_two,
    "a comparison with a number in a tensor of the host": lambda t: t.host_two < t.line,
    "a choice between a tensor and a number": lambda t: torch.where(t.line > 0, t.line, 0),
    "sums, minima and orders": lambda t: (
        t.table.sum(1),
        t.table.amin(),
        t.table.argmax(1),
        t.line.argsort(stable=True),
    ),
    "factories": lambda t: (torch.zeros(3, device=CUDA), torch.arange(3, device="cuda"), t.line.new_zeros(2)),
    "a factory on the host": lambda t: torch.zeros_like(t.line, device="cpu"),
    "slices": lambda t: (t.table[1], t.table[:, 1:], t.table[None], t.table[..., -1]),
    "indices on the device": lambda t: t.table[t.line, t.line],
    "a place set to a number": lambda t: t.put((slice(None), 1), 7),
    "indices set to a tensor": lambda t: t.put((t.line, t.line), t.line),
    "a mask set to a number": lambda t: t.put(t.table > 0, 7),
    "indices of gather and scatter": lambda t: t.table.scatter_(1, t.table + 1, t.table.gather(1, t.table)),
    "another type": lambda t: t.line.to(torch.bool),
    "the device it is on": lambda t: t.line.to(CUDA),
    "sizes": lambda t: (len(t.line), t.table.shape, t.table.numel(), t.table.stride()),
}
COSTS: dict[str, tuple[Callable[[Things], object], list[Wait]]] = {
    "bool": (lambda t: bool((t.line > 1).any()), [Wait.READ]),
    "if": (lambda t: 1 if t.two else 0, [Wait.READ]),
    "int": (lambda t: int(t.line.amax()), [Wait.READ]),
    "item": (lambda t: t.two.item(), [Wait.READ]),
    "a loop over numbers": (lambda t: [int(each) for each in t.line], [Wait.READ] * 3),
    "a number of the device as the end of a slice": (lambda t: t.table[: t.two], [Wait.READ]),
    "bytes": (lambda t: bytes(t.line), [Wait.READ] * 3),
    "equal": (lambda t: torch.equal(t.line, t.line), [Wait.READ]),
    "nonzero": (lambda t: t.line.nonzero(), [Wait.SIZE]),
    "where with one argument": (lambda t: torch.where(t.line > 0), [Wait.SIZE]),
    "unique": (lambda t: torch.unique(t.line), [Wait.SIZE]),
    "masked_select": (lambda t: t.line.masked_select(t.line > 0), [Wait.SIZE]),
    "repeats": (lambda t: t.line.repeat_interleave(t.line), [Wait.SIZE]),
    "a mask read": (lambda t: t.line[t.line > 0], [Wait.SIZE]),
    "a mask set to a tensor": (lambda t: t.put(t.line > 0, t.line), [Wait.SIZE]),
    "tolist": (lambda t: t.table.tolist(), [Wait.COPY_BACK]),
    "cpu": (lambda t: t.table.cpu(), [Wait.COPY_BACK]),
    "to the host": (lambda t: t.table.to("cpu"), [Wait.COPY_BACK]),
    "a tensor of the host overwritten": (lambda t: t.host.copy_(t.line), [Wait.COPY_BACK]),
    "numbers": (lambda t: torch.tensor([1, 2]).to(CUDA), [Wait.COPY_IN]),
    "numbers, at once": (lambda t: torch.tensor([1, 2], device=CUDA), [Wait.COPY_IN]),
    "a number": (lambda t: torch.as_tensor(1, device=CUDA), [Wait.COPY_IN]),
    "cuda": (lambda t: t.host.to("cuda"), [Wait.COPY_IN]),
    "a row set to one of the host": (lambda t: t.put(1, t.host), [Wait.COPY_IN]),
    "indices set to a number": (lambda t: t.put((t.line, t.line), 7), [Wait.HIDDEN_COPY]),
    "indices of the host": (lambda t: t.table[t.host, t.line], [Wait.HIDDEN_COPY]),
    "two indices of the host and a number": (lambda t: t.put((t.host, t.host), 7), [Wait.HIDDEN_COPY] * 3),
    "a choice that is a tensor of the host": (
        lambda t: torch.where(t.line > 0, t.line, t.host_two),
        [Wait.HIDDEN_COPY],
    ),
}
MIXED: dict[str, Callable[[Things], object]] = {
    "a sum": lambda t: t.line + t.host,
    "a sum in place": lambda t: t.line.add_(t.host),
    "a sum in a tensor of the host": lambda t: t.host.add_(t.line),
    "a number of the device added in place on the host": lambda t: t.host.add_(t.two),
    "a number of the device added on the host": lambda t: t.host + t.two,
    "a comparison": lambda t: t.host < t.line,
    "a minimum": lambda t: torch.minimum(t.line, t.host),
    "a choice": lambda t: torch.where(t.line > 0, t.line, t.host),
    "a condition": lambda t: torch.where(t.host > 0, t.line, t.line),
    "gather": lambda t: t.table.gather(1, t.host_table),
    "scatter": lambda t: t.table.scatter_(1, t.table, t.host_table),
    "scatter with indices of the host": lambda t: t.table.scatter_add_(1, t.host_table, t.table),
    "cat": lambda t: torch.cat((t.line, t.host)),
    "stack": lambda t: torch.stack((t.two, t.host_two)),
    "a tensor of the host indexed by one of the device": lambda t: t.host[t.line],
    "indices set to a tensor of the host": lambda t: t.put((t.line, t.line), t.host),
    "a result on the host": lambda t: torch.add(t.line, t.line, out=t.host),
    "a number as a result on the host": lambda t: torch.add(t.two, t.two, out=t.host_two),
    "a fill in a tensor of the host": lambda t: t.host.fill_(t.two),
    "a mask of the host": lambda t: t.line.masked_fill(t.host > 0, 0),
}
LOOKS: dict[str, Callable[[Things], object]] = {
    "numpy": lambda t: t.line.numpy(),
    "storage": lambda t: bytes(t.line.untyped_storage()),
}


@pytest.mark.parametrize("name", FREE)
def test_what_a_device_does_by_itself_makes_nobody_wait(account: Account, name: str) -> None:
    things = Things()
    FREE[name](things)
    assert account.waits == []


@pytest.mark.parametrize("name", COSTS)
def test_what_the_host_waits_for_is_counted(account: Account, name: str) -> None:
    things = Things()
    act, waits = COSTS[name]
    act(things)
    assert [each.wait for each in account.waits] == waits


@pytest.mark.parametrize("name", MIXED)
def test_tensors_of_host_and_device_do_not_mix(account: Account, name: str) -> None:
    things = Things()
    with pytest.raises(MixedDevicesError, match=r"cuda|device"):
        MIXED[name](things)
    assert account.waits == []


def _raises_on_fake_tensors(act: Callable[[Things], object]) -> bool:
    """Whether torch's own tensors without data, said to be on a CUDA device, refuse it."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with device_guard(), FakeTensorMode(allow_non_fake_inputs=True), CurrentDevice(Account()):
        things = Things()
        try:
            act(things)
        except Exception:
            return True
    return False


def test_torch_itself_holds_the_same_for_mixed_and_for_free() -> None:
    """Fake tensors know no costs. They let pass two mixes that a CUDA build refuses."""
    assert {name for name, act in MIXED.items() if not _raises_on_fake_tensors(act)} == {
        "stack",
        "a tensor of the host indexed by one of the device",
    }
    assert not [name for name, act in FREE.items() if _raises_on_fake_tensors(act)]


def test_torch_itself_holds_the_same_to_depend_on_values() -> None:
    """Having none, fake tensors refuse it; but not a mask to write by, which changes no size that the program sees."""
    depend = {name for name, (_, waits) in COSTS.items() if {Wait.READ, Wait.SIZE} & set(waits)}
    assert {name for name, (act, _) in COSTS.items() if _raises_on_fake_tensors(act)} == (
        depend - {"a mask set to a tensor"} | {"tolist"}
    )


@pytest.mark.parametrize("name", LOOKS)
def test_values_cannot_be_seen_without_a_copy(account: Account, name: str) -> None:
    things = Things()
    with pytest.raises((RuntimeError, TypeError, NotImplementedError, BufferError)):
        LOOKS[name](things)
    assert account.waits == []


def test_a_wait_knows_the_function_that_asked(account: Account) -> None:
    def asks() -> bool:
        return bool(torch.ones(1, device=CUDA).any())

    assert asks()
    (wait,) = account.waits
    assert wait == Synchronisation(Wait.READ, "_local_scalar_dense", asks.__qualname__)


def test_operations_are_counted_and_views_and_copies_are_none(account: Account) -> None:
    table = torch.zeros((2, 3), dtype=torch.int64, device=CUDA)
    table[0] += 1
    empty = torch.empty_like(table.T)
    empty.copy_(table.flatten().view(3, 2))
    table.tolist()
    # `table[0] += 1` adds in the row, and then copies the row onto itself.
    assert account.operations == Counter({"zeros.default": 1, "add_.Tensor": 1, "copy_.default": 2})


def test_views_share_memory_and_results_are_those_of_the_cpu(account: Account) -> None:
    def compute(device: str) -> list[object]:
        table = torch.arange(12, device=device).view(3, 4)
        table[:, 1] = 50
        flat = table.flatten()
        flat += 1
        row = table[2]
        row[torch.arange(2, device=device)] = torch.full((2,), 9, device=device)
        order = table.argsort(dim=1, stable=True)
        again = table.clone().scatter_add_(1, order, table).cumsum(1)
        same = table.sub_(1)
        return [each.tolist() for each in (table, flat, order, again, same, table.T[1:], table > 4)] + [same is table]

    assert compute("cuda") == compute("cpu")
    assert account.kinds() == Counter({Wait.COPY_BACK: 7})


def test_a_sort_that_need_not_be_stable_is_not(account: Account) -> None:
    table = torch.tensor([[3, 1, 3, 1], [0, 0, 0, 0]]).to(CUDA)
    assert table.argsort(dim=1, stable=True).tolist() == [[1, 3, 0, 2], [0, 1, 2, 3]]
    assert table.argsort(dim=1).tolist() == [[3, 1, 2, 0], [3, 2, 1, 0]]
    assert table.argsort(dim=1, descending=True).tolist() == [[2, 0, 3, 1], [3, 2, 1, 0]]
    assert table.sort(dim=0)[0].tolist() == [[0, 0, 0, 0], [3, 1, 3, 1]]
    assert account.kinds()[Wait.COPY_BACK] == 4


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
def test_memory_that_nobody_filled_is_not_zero(account: Account, dtype: torch.dtype) -> None:
    zeros = torch.zeros(3, dtype=dtype, device=CUDA)
    for unfilled in (torch.empty(3, dtype=dtype, device=CUDA), torch.empty_like(zeros), zeros.new_empty(3)):
        assert all(value != 0 for value in unfilled.tolist())
    assert account.kinds() == Counter({Wait.COPY_BACK: 3})


def test_different_values_for_one_place_are_refused_and_equal_ones_are_not(account: Account) -> None:
    line = torch.arange(3, device=CUDA)
    same, twice = torch.zeros_like(line), (line > 1).to(torch.int64)
    for index in (line, same, twice):
        line.clone().scatter_(0, index, torch.full_like(line, 7))
        line.clone().scatter_add_(0, index, line)
        line.clone().index_put_((index,), line, accumulate=True)
    for index in (same, twice):
        with pytest.raises(UndefinedResultError, match="scatter_"):
            line.clone().scatter_(0, index, line)
        with pytest.raises(UndefinedResultError, match="index_put_"):
            line.clone()[index] = line
    assert line.clone().scatter_(0, line, line.flip(0)).tolist() == [2, 1, 0]
    assert account.kinds() == Counter({Wait.COPY_BACK: 1})


def test_the_device_is_there_in_the_block_alone() -> None:
    with pretended_device():
        line = torch.arange(3, device=CUDA)
        assert isinstance(line, OnDevice)
        assert line.is_cuda
        assert line.device == torch.device("cuda", 0)
    with pytest.raises(NotModelledError):
        line.add(1)
    with pytest.raises(NotModelledError):
        bool(line.any())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_device_is_left_behind() -> None:
    with pretended_device():
        line = torch.arange(3, device=CUDA)
    with pytest.raises((AssertionError, RuntimeError)):
        torch.zeros(1, device=CUDA)
    with pytest.raises(RuntimeError):
        line[0]


def test_what_is_not_known_of_a_device_is_refused(account: Account) -> None:
    things = Things()
    with pytest.raises(NotModelledError):
        torch.zeros(1, device="meta")
    with pytest.raises(NotModelledError):
        things.table.resize_(2, 2)
    with pytest.raises(NotModelledError):
        things.line[things.host > 0]
    assert account.waits == []
