"""A CUDA device that is not there: its tensors say that they are on it, and the CPU does the work.

Tensors made or copied inside `pretended_device` for the device ``cuda`` are `OnDevice`: torch takes them for CUDA
tensors, while each holds a CPU tensor. What a device refuses is refused: an operation on tensors of both kinds, and a
look at values other than by a copy. What makes the host wait for a device is written down in an `Account`.

The rules are those of a CUDA build of torch, as far as they concern the host:

- ``bool``, ``int``, ``item`` and ``equal`` read a value: the host waits for all work queued before.
- An operation whose result is as large as the values say (``nonzero``, ``unique``, a mask as an index) waits for that
  size.
- A copy between host and device waits, for it is from or to memory that is not pinned.
- A CPU tensor with no dimensions may be an operand of arithmetic, comparisons and fills: it goes along with the kernel.
  Where torch moves it, or a CPU tensor of indices, to the device unasked, that is a copy as well: a hidden one.

Where a device may do otherwise than the CPU, this one does (`pretended_liberties`). No kernel of a device runs, nothing
is asynchronous, and what an operation's own CUDA code may do beyond this (a sort that waited, say) is not seen. What is
not modelled is refused.
"""

from __future__ import annotations

import ctypes
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import torch
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.engine_adapter.tensor.pretended_liberties import perform

DEVICE = torch.device("cuda", 0)
_CUDA, _META, _DEVICE_TYPES = 1, 14, 21


class Wait(Enum):
    """Why the host waits for the device."""

    READ = "a value is read"
    SIZE = "a size depends on values"
    COPY_BACK = "a copy to the host"
    COPY_IN = "a copy to the device"
    HIDDEN_COPY = "a copy to the device that nobody asked for"


@dataclass(frozen=True, slots=True)
class Synchronisation:
    """One wait: why, in which operation of torch, and in which function that is not torch's."""

    wait: Wait
    operation: str
    place: str


@dataclass(slots=True)
class Account:
    """What has been asked of the device: each wait of the host in order, and how often each operation was launched.

    One operation, named as ``add.Tensor``, is one kernel at least. Views and bare allocations are no operations, copies
    are waits.
    """

    waits: list[Synchronisation] = field(default_factory=list)
    operations: Counter[str] = field(default_factory=Counter)

    def note(self, wait: Wait, operation: str) -> None:
        """The host waits."""
        self.waits.append(Synchronisation(wait, operation, _caller()))

    def kinds(self, since: int = 0) -> Counter[Wait]:
        """How often the host waited for which reason, without the first ``since`` waits."""
        return Counter(each.wait for each in self.waits[since:])


class MixedDevicesError(RuntimeError):
    """An operation was given tensors of the device and of the host, as a real device would not have it."""


class NotModelledError(RuntimeError):
    """The pretended device does not know what a real one would do."""


class OnDevice(torch.Tensor):
    """A tensor of the pretended device."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnDevice:
        self = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        assert isinstance(self, OnDevice)
        self.held = held
        return self

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: OpOverload, types: Sequence[type], args: tuple[object, ...] = (), kwargs: object = None
    ) -> object:
        raise NotModelledError(f"{func}: outside the pretended device")


@contextmanager
def pretended_device() -> Iterator[Account]:
    """A machine with a CUDA device, for as long as the block lasts; gives what is asked of it."""
    account = Account()
    with ExitStack() as stack:
        stack.enter_context(device_guard())
        # So torch.tensor(..., device="cuda") is a copy that a dispatch mode can see.
        stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)
        stack.enter_context(CurrentDevice(account))
        stack.enter_context(_Device(account))
        yield account


@contextmanager
def device_guard() -> Iterator[None]:
    """Let torch's own indexing run on tensors that say they are on a CUDA device.

    It switches to their device first, for which a build without CUDA has no means; it gets those of the `meta` device,
    which do nothing.
    """
    torch._C._ensureCUDADeviceGuardSet()
    library = next((Path(torch.__file__).parent / "lib").glob("libc10.*"))
    guards = (ctypes.c_void_p * _DEVICE_TYPES).in_dll(
        ctypes.CDLL(str(library)), "_ZN3c104impl26device_guard_impl_registryE"
    )
    before = guards[_CUDA]
    if before is None:
        guards[_CUDA] = guards[_META]
    try:
        yield
    finally:
        guards[_CUDA] = before


class CurrentDevice(TorchFunctionMode):
    """What torch does before it dispatches: ``cuda`` is the first device, and ``tolist`` copies."""

    def __init__(self, account: Account) -> None:
        super().__init__()
        self._account = account

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if func is torch.Tensor.tolist and isinstance(args[0], OnDevice):
            self._account.note(Wait.COPY_BACK, "tolist")
            with torch._C.DisableTorchFunction():
                return args[0].held.tolist()
        given = _as_it_is if func is torch.device else _with_index
        return func(*map(given, args), **{name: given(value) for name, value in (kwargs or {}).items()})


class _Device(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs every operation, on the CPU tensors inside where it concerns the device."""

    # Where torch sees a mode of this kind it does not start CUDA. Fake tensors have the same: do not use both at once.
    _mode_key = torch._C._TorchDispatchModeKey.FAKE

    def __init__(self, account: Account) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._account = account

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here."""
        return False

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = dict(kwargs or {})
        tensors = list(_tensors([*args, *kwargs.values()]))
        here = [each for each in tensors if isinstance(each, OnDevice)]
        wanted = kwargs.get("device")
        assert wanted is None or isinstance(wanted, torch.device)
        if wanted is not None and wanted.type not in {"cpu", "cuda"}:
            raise NotModelledError(f"{func}: the device {wanted}")
        to_device = bool(here) if wanted is None else wanted.type == "cuda"
        if not here and not to_device:
            return func(*args, **kwargs)
        if func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
            with self:
                return func.decompose(*args, **kwargs)
        if torch.Tag.inplace_view in func.tags and func is not torch.ops.aten.detach_.default:
            raise NotModelledError(f"{func}: changes the shape in place")
        name = func._schema.name.removeprefix("aten::")
        waits = [*_copies(name, args, tensors, to_device), *_reads(func, name, args)]
        for wait in waits:
            self._account.note(wait, name)
        if not (func.is_view or name in _NO_KERNEL or (name in _COPIES and waits)):
            self._account.operations[func.__name__] += 1
        if wanted is not None:
            kwargs["device"] = torch.device("cpu")
        results = perform(
            func, name, [_held(each) for each in args], {key: _held(each) for key, each in kwargs.items()}
        )
        return _placed(func, results, here, to_device, Wait.READ in waits)


_NO_KERNEL = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
_NO_KERNEL |= {"detach_", "_local_scalar_dense"}
_COPIES = {"_to_copy", "copy_"}
_FILLS = {"fill_", "masked_fill", "masked_fill_"}
_INDEXING = {"index", "index_put", "index_put_"}
_ARITHMETIC = {"add", "sub", "mul", "div", "floor_divide", "remainder", "minimum", "maximum"}
_ARITHMETIC |= {"eq", "ne", "lt", "le", "gt", "ge", "bitwise_and", "bitwise_or", "bitwise_xor"}
_ARITHMETIC |= {"logical_and", "logical_or", "logical_xor"}


def _copies(name: str, args: tuple[object, ...], tensors: Sequence[torch.Tensor], to_device: bool) -> list[Wait]:
    """The copies between host and device that an operation makes, asked for or not.

    Raises:
        MixedDevicesError: it makes none, and its operands are on both.
    """
    strangers = [each for each in tensors if not isinstance(each, OnDevice)]
    if name == "_to_copy":
        return [] if to_device is not bool(strangers) else [Wait.COPY_IN if to_device else Wait.COPY_BACK]
    if not strangers or len(strangers) == len(tensors):
        return []
    first_here = isinstance(args[0], OnDevice)
    if name == "copy_":
        return [Wait.COPY_IN if first_here else Wait.COPY_BACK]
    scalars = all(each.dim() == 0 for each in strangers)
    if name == "where" and scalars:
        return [Wait.HIDDEN_COPY] * len(strangers)
    if name in _INDEXING and first_here:
        return _copies_of_indexing(args)
    if name in _FILLS and scalars and len(strangers) == 1 and strangers[0] is args[-1]:
        return []
    read_only = args[1:] if name.endswith("_") else args
    if name.removesuffix("_") in _ARITHMETIC and scalars and all(_is_among(each, read_only) for each in strangers):
        return []
    found = ", ".join(f"{'cuda' if isinstance(each, OnDevice) else 'cpu'}{list(each.shape)}" for each in tensors)
    raise MixedDevicesError(f"{name}: expected all tensors on one device, found {found} (in {_caller()})")


def _is_among(tensor: torch.Tensor, values: Iterable[object]) -> bool:
    """Whether the tensor is one of the values, and not only equal to one."""
    return any(value is tensor for value in values)


def _copies_of_indexing(args: tuple[object, ...]) -> list[Wait]:
    """What `_copies` says of a tensor of the device with indices, or a value, that are not.

    Raises:
        MixedDevicesError: the value is of the host and has dimensions.
        NotModelledError: a mask is of the host.
    """
    strangers = [each for each in _indices(args) if not isinstance(each, OnDevice)]
    if any(_is_mask(each) for each in strangers):
        raise NotModelledError("a mask of the host as an index")
    copies = [Wait.HIDDEN_COPY] * len(strangers)
    value = args[2] if len(args) > 2 else None
    if isinstance(value, torch.Tensor) and not isinstance(value, OnDevice):
        if value.dim() > 0:
            raise MixedDevicesError(f"index_put_: expected a value on the device, found cpu{list(value.shape)}")
        if not _fills_by_mask(args):
            copies.append(Wait.HIDDEN_COPY)
    return copies


def _reads(func: OpOverload, name: str, args: tuple[object, ...]) -> list[Wait]:
    """The waits for values or sizes."""
    if torch.Tag.data_dependent_output in func.tags:
        return [Wait.READ]
    if name in _INDEXING:
        return [] if _fills_by_mask(args) else [Wait.SIZE for each in _indices(args) if _is_mask(each)]
    return [Wait.SIZE] if torch.Tag.dynamic_output_shape in func.tags else []


def _indices(args: tuple[object, ...]) -> list[torch.Tensor]:
    """The tensors among the indices."""
    indices = args[1]
    assert isinstance(indices, list | tuple)
    return [each for each in indices if isinstance(each, torch.Tensor)]


def _is_mask(index: torch.Tensor) -> bool:
    """Whether it chooses by true and false."""
    return index.dtype in {torch.bool, torch.uint8}


def _fills_by_mask(args: tuple[object, ...]) -> bool:
    """Whether one number of the host goes where one mask says: torch fills then, which needs no size."""
    value = args[2] if len(args) > 2 else None
    alone = isinstance(value, torch.Tensor) and not isinstance(value, OnDevice) and value.numel() == 1
    return alone and [_is_mask(each) for each in _indices(args)] == [True]


def _placed(func: OpOverload, results: object, here: Sequence[OnDevice], to_device: bool, read: bool) -> object:
    """The results on the device if they belong there; those that are operands are the same tensors as before.

    Raises:
        NotModelledError: they tell the host something and are not known to.
    """
    if isinstance(results, list | tuple):
        return type(results)(_placed(func, each, here, to_device, read) for each in results)
    if isinstance(results, torch.Tensor):
        if not to_device:
            return results
        known = [each for each in here if each.held is results]
        return known[0] if known else OnDevice(results)
    if results is not None and not read:
        raise NotModelledError(f"{func}: gives a {type(results).__name__}")
    return results


def _held(value: object) -> object:
    """What the CPU works on."""
    if isinstance(value, list | tuple):
        return [_held(each) for each in value]
    return value.held if isinstance(value, OnDevice) else value


def _tensors(values: Iterable[object]) -> Iterator[torch.Tensor]:
    """The tensors among operands, which may be lists."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _as_it_is(value: object) -> object:
    """The value."""
    return value


def _with_index(value: object) -> object:
    """The device ``cuda`` is ``cuda:0``."""
    if isinstance(value, torch.device) and value.type == "cuda" and value.index is None:
        return DEVICE
    return DEVICE if isinstance(value, str) and value == "cuda" else value


def _caller() -> str:
    """The innermost function that belongs neither to torch nor to this file."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        module = str(frame.f_globals.get("__name__"))
        if module != __name__ and module.partition(".")[0] != "torch":
            break
        frame = frame.f_back
    return frame.f_code.co_qualname
