"""What an engine implements so that its decisions can be compared, one by one, with the reference (docs/adapter.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dlpm.batch import AT_ADMISSION, WorkerConfig
from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.events import Event
from dlpm.ledger import Quanta
from dlpm.memory import AdmissionControl, Optimistic, Reserving
from dlpm.request import ClientId, Request, RequestId

RESERVING = Reserving.kind
OPTIMISTIC = Optimistic.kind


class OutOfRangeError(OverflowError):
    """A value that the algorithm calls for does not fit the engine's integers: it says so rather than wrap."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """The parameters of one run of DLPM, as plain values that any engine can be set up from.

    Attributes:
        quantum: ``Q^u`` in weighted tokens, for every client not in ``quanta``.
        quanta: clients with a quantum of their own.
        extend_weight: ``w_e``, service of one extend token.
        output_weight: ``w_q``, service of one output token.
        kv_tokens: ``M``, the KV memory in tokens.
        block_size: tokens a cached block.
        max_running: ``B``, the largest running batch in requests, or ``None``.
        memory: ``reserving`` or ``optimistic``.
        watermark: tokens that optimistic memory keeps free beside a running batch.
        visibility: ``at_admission`` or ``after_forward``.

    Raises:
        InputError: a value under which no scheduler could run.
    """

    quantum: int
    quanta: Mapping[ClientId, int] = field(default_factory=dict)
    extend_weight: int = 1
    output_weight: int = 2
    kv_tokens: int = 100_000
    block_size: int = 1
    max_running: int | None = None
    memory: str = RESERVING
    watermark: int = 0
    visibility: str = AT_ADMISSION

    def __post_init__(self) -> None:
        """Refuse what the reference would refuse."""
        self.cost()
        self.quanta_table()
        self.worker()

    def cost(self) -> CostModel:
        """The two weights."""
        return CostModel(self.extend_weight, self.output_weight)

    def quanta_table(self) -> Quanta:
        """The quantum of every client."""
        return Quanta(self.quantum, self.quanta)

    def admission_control(self) -> AdmissionControl:
        """Reserving or optimistic memory.

        Raises:
            InputError: neither of them is named.
        """
        if self.memory == RESERVING:
            return Reserving()
        if self.memory == OPTIMISTIC:
            return Optimistic(self.watermark)
        raise InputError(f"expected {RESERVING} or {OPTIMISTIC}, found {self.memory!r}", field="memory")

    def worker(self) -> WorkerConfig:
        """The limits as the reference worker takes them."""
        return WorkerConfig(
            kv_tokens=self.kv_tokens,
            memory=self.admission_control(),
            block_size=self.block_size,
            visibility=self.visibility,
            max_running=self.max_running,
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An engine's state between two steps.

    Attributes:
        deficits: the counter of every registered client, in weighted tokens.
        queue: waiting requests in order of arrival.
        running: the running batch in order of admission.
        free_tokens: ``M`` less what running requests lock or have set aside.
        cached_tokens: tokens in the prefix cache, locked or not; ``None`` if the engine does not say.
    """

    deficits: Mapping[ClientId, int]
    queue: tuple[RequestId, ...]
    running: tuple[RequestId, ...]
    free_tokens: int
    cached_tokens: int | None = None


class EngineAdapter(Protocol):
    """One engine under test. The reference, the tensor path and anything else look the same from here.

    The tester calls `configure` once, then for every step of the reference: `submit` for each request that is due, in
    order, then `step`, then `snapshot`; and `close` at the end, whatever happened. Requests carry their true output
    length, because the tester plays the model: an engine generates exactly ``output_tokens`` tokens, and its scheduler
    must not look at that number.
    """

    @property
    def name(self) -> str:
        """What reports call this engine."""

    def configure(self, config: EngineConfig, *, full_log: bool) -> None:
        """Start afresh under ``config``. With ``full_log``, `order` events and free memory are wanted, too.

        Raises:
            InputError: this engine cannot run under ``config``.
        """

    def submit(self, request: Request) -> None:
        """``request`` joins the waiting queue now; its arrival time is the tester's business.

        Raises:
            InputError: the request could never fit into memory.
        """

    def step(self) -> tuple[Event, ...]:
        """One admission phase, one forward, finish: what happened, in order.

        `admit`, `refill`, `output`, `finish`, `preempt` and `evict` events are decisions and wanted; `order` is
        compared where given; `arrive`, times and worker numbers are ignored.

        Raises:
            OutOfRangeError: a counter would leave the range of the engine's integers.
        """

    def snapshot(self) -> Snapshot:
        """The state after the last step."""

    def close(self) -> None:
        """Release what the engine holds."""
