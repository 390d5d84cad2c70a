"""What a user may say about a simulated run: the engine, its memory, and the policies to compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dlpm import timing
from dlpm.batch import AT_ADMISSION, WorkerConfig
from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.fields import MAX_TOKENS
from dlpm.memory import AdmissionControl, Optimistic, Reserving
from dlpm.policies.dlpm import DLPM
from dlpm.policies.dlpm_literal import DLPMLiteral
from dlpm.policies.fcfs import FCFS
from dlpm.policies.lpm import LPM
from dlpm.policies.preble import PrebleLevels
from dlpm.policies.vtc import VTC
from dlpm.request import Workload

POLICIES = (FCFS.name, LPM.name, VTC.name, DLPM.name, DLPMLiteral.name, PrebleLevels.name)
"""The policies of one worker, by name."""

WITH_QUANTUM = (DLPM.name, DLPMLiteral.name)
"""Those that hand out quanta."""

DEFAULT_POLICIES = (FCFS.name, LPM.name, VTC.name, DLPM.name)
DEFAULT_QUANTUM = 2000
MOST_QUANTUM = 2**62
"""Counters lie between this and the floor, which the largest weights (`parse_weights`) keep above -2**62."""

MEMORY_KINDS = (Reserving.kind, Optimistic.kind)


@dataclass(frozen=True, slots=True)
class DispatchChoice:
    """The router of a cluster; ``worker_quantum`` in weighted tokens, for the router that has one."""

    name: str
    worker_quantum: int | None = None

    @property
    def label(self) -> str:
        """How tables and pictures call it."""
        return self.name if self.worker_quantum is None else f"{self.name} Qw={self.worker_quantum}"

    @property
    def slug(self) -> str:
        """How file names call it."""
        return self.name if self.worker_quantum is None else f"{self.name}-qw{self.worker_quantum}"


@dataclass(frozen=True, slots=True)
class PolicyChoice:
    """One policy to run; ``quantum`` in weighted tokens, for the policies that have one.

    ``dispatch`` is the router in front of it, in a cluster.
    """

    name: str
    quantum: int | None = None
    dispatch: DispatchChoice | None = None

    @property
    def label(self) -> str:
        """How tables and pictures call it."""
        local = self.name if self.quantum is None else f"{self.name} Q={self.quantum}"
        return local if self.dispatch is None else f"{self.dispatch.label} + {local}"

    @property
    def slug(self) -> str:
        """How file names call it."""
        local = self.name if self.quantum is None else f"{self.name}-q{self.quantum}"
        return local if self.dispatch is None else f"{self.dispatch.slug}-{local}"


def policy_choices(names: Sequence[str], quanta: Sequence[int]) -> tuple[PolicyChoice, ...]:
    """The runs of a comparison: each policy once, and those with a quantum once for each of ``quanta``.

    No names stand for `DEFAULT_POLICIES`, no quanta for `DEFAULT_QUANTUM`.

    Raises:
        InputError: a policy is unknown or named twice, a quantum is not positive or named twice, or quanta are given
            for policies that have none.
    """
    for name in names:
        if name not in POLICIES:
            raise InputError(f"expected one of {', '.join(POLICIES)}, found {name!r}", field="--policy")
    for quantum in quanta:
        check_quantum("--quantum", quantum)
    _refuse_repeats("--policy", names)
    _refuse_repeats("--quantum", quanta)
    chosen = names or DEFAULT_POLICIES
    if quanta and not any(name in WITH_QUANTUM for name in chosen):
        raise InputError(f"expected one of {', '.join(WITH_QUANTUM)} as --policy beside it", field="--quantum")
    choices: list[PolicyChoice] = []
    for name in chosen:
        if name in WITH_QUANTUM:
            choices.extend(PolicyChoice(name, quantum) for quantum in quanta or (DEFAULT_QUANTUM,))
        else:
            choices.append(PolicyChoice(name))
    return tuple(choices)


def check_quantum(option: str, quantum: int) -> None:
    """Refuse a quantum that is not positive, or with which counters could leave the 64 bits that logs have.

    Raises:
        InputError: it is one of these.
    """
    if not 1 <= quantum <= MOST_QUANTUM:
        raise InputError(f"expected a whole number from 1 to {MOST_QUANTUM}, found {quantum}", field=option)


def _refuse_repeats(option: str, values: Sequence[str] | Sequence[int]) -> None:
    """Refuse the same run twice."""
    for place, value in enumerate(values):
        if value in values[:place]:
            raise InputError(f"expected once, found {value} twice", field=option)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The simulated engine.

    Attributes:
        gpu: a name of `dlpm.timing.GPUS`.
        model: a name of `dlpm.timing.MODELS`; ``None`` for the GPU's usual one.
        kv_tokens: ``M``; ``None`` for what fits in the GPU beside the model.
        block_size: tokens a cached block; ``None`` for the workload's own.
        max_running: largest running batch in requests; ``None`` for no limit but memory.
        memory: ``reserving`` or ``optimistic``.
        watermark: tokens that optimistic admission keeps free.
        visibility: when an admitted prompt can be matched by others: ``at_admission`` or ``after_forward``.
        cost: the weights of extend and output tokens.
    """

    gpu: str = "a10g"
    model: str | None = None
    kv_tokens: int | None = None
    block_size: int | None = None
    max_running: int | None = None
    memory: str = Reserving.kind
    watermark: int = 0
    visibility: str = AT_ADMISSION
    cost: CostModel = field(default_factory=CostModel)

    def timer(self) -> timing.Roofline:
        """The step-time model.

        Raises:
            InputError: the GPU or the model is unknown.
        """
        return timing.preset(self.gpu, self.model)

    def worker_config(self, workload: Workload) -> WorkerConfig:
        """The limits of a worker that can run every request of ``workload``. O(requests).

        Raises:
            InputError: a limit is out of range or unknown, the block size is not the one that the workload was hashed
                with, or a request could never fit into the memory.
        """
        kv_tokens = self.kv_tokens
        if kv_tokens is None:
            timer = self.timer()
            kv_tokens = timing.kv_tokens_that_fit(timer.gpu, timer.model)
        limits = ("kv-tokens", kv_tokens), ("max-running", self.max_running), ("watermark", self.watermark)
        for name, value in limits:
            if value is not None and value > MAX_TOKENS:
                raise InputError(f"expected at most {MAX_TOKENS}, found {value}", field=f"--{name}")
        config = WorkerConfig(
            kv_tokens=kv_tokens,
            memory=self._admission_control(),
            block_size=_block_size(self.block_size, workload),
            visibility=self.visibility,
            max_running=self.max_running,
        )
        _check_room(workload, kv_tokens)
        return config

    def _admission_control(self) -> AdmissionControl:
        """Reserving or optimistic admission."""
        if self.memory == Optimistic.kind:
            return Optimistic(self.watermark)
        if self.memory != Reserving.kind:
            raise InputError(f"expected one of {', '.join(MEMORY_KINDS)}, found {self.memory!r}", field="--memory")
        if self.watermark:
            raise InputError("expected --memory optimistic beside it: reserving memory has none", field="--watermark")
        return Reserving()


def _block_size(wanted: int | None, workload: Workload) -> int:
    """The block size of the cache; that of hashed prompts cannot be chosen."""
    if wanted is None or wanted == workload.block_size:
        return workload.block_size
    if any(request.blocks for request in workload.requests):
        message = f"expected {workload.block_size}, at which the prompts were hashed, found {wanted}"
        raise InputError(message, field="--block-size")
    return wanted


def _check_room(workload: Workload, kv_tokens: int) -> None:
    """Refuse a memory that some request could never fit into, before anything runs. O(requests)."""
    for request in workload.requests:
        needed = request.input_tokens + request.max_output
        if needed > kv_tokens:
            largest = max(other.input_tokens + other.max_output for other in workload.requests)
            message = (
                f"expected at least {largest} for the largest request, found {kv_tokens} "
                f"({request.id!r} needs {request.input_tokens} + {request.max_output})"
            )
            raise InputError(message, field="--kv-tokens")


def parse_weights(text: str) -> CostModel:
    """Read ``EXTEND,OUTPUT``, such as ``1,2``.

    Raises:
        InputError: it reads otherwise, or a weight is not positive.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) <= 9 for part in parts):
        raise InputError(f"expected two whole numbers such as 1,2, found {text!r}", field="--weights")
    return CostModel(int(parts[0]), int(parts[1]))
