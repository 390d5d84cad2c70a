"""What a worker keeps of its requests, waiting and running, and its limits."""

from __future__ import annotations

from dataclasses import dataclass

from dlpm.errors import InputError
from dlpm.memory import AdmissionControl
from dlpm.prefix_cache import Match, Node
from dlpm.request import BlockKey, ClientId, Request, RequestId

AT_ADMISSION = "at_admission"
AFTER_FORWARD = "after_forward"


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """A worker's limits.

    Attributes:
        kv_tokens: ``M``, the KV memory in tokens.
        memory: admission control, reserving or optimistic.
        block_size: tokens a cached block, 1 for a token-granular tree.
        visibility: when an admitted prompt can be matched by others: ``at_admission`` or ``after_forward``.
        max_running: ``B``, the largest running batch in requests, or ``None``.

    Raises:
        InputError: if a limit is not positive or the visibility is unknown.
    """

    kv_tokens: int
    memory: AdmissionControl
    block_size: int = 1
    visibility: str = AT_ADMISSION
    max_running: int | None = None

    def __post_init__(self) -> None:
        """Refuse limits under which nothing could ever run."""
        limits = {"kv_tokens": self.kv_tokens, "block_size": self.block_size, "max_running": self.max_running}
        for name, value in limits.items():
            if value is not None and value <= 0:
                raise InputError(f"expected an integer > 0, found {value}", field=name)
        if self.visibility not in (AT_ADMISSION, AFTER_FORWARD):
            raise InputError(
                f"expected {AT_ADMISSION} or {AFTER_FORWARD}, found {self.visibility!r}", field="visibility"
            )


@dataclass(slots=True)
class QueuedRequest:
    """A request in the waiting queue, and later in the running batch, with its remembered prefix match.

    ``resident`` are the tokens that must be in memory once it runs: its input and what it has generated so far.
    ``id`` and ``client`` are those of ``request``, kept here because policies ask for them most often.
    """

    id: RequestId
    client: ClientId
    request: Request
    rank: int
    blocks: tuple[BlockKey, ...]
    match: Match
    resident: int
    admitted: bool = False

    @property
    def generated(self) -> int:
        """Output tokens so far; more than 0 in the queue after a preemption."""
        return self.resident - self.request.input_tokens

    @property
    def output_left(self) -> int:
        """The most output tokens that may still come."""
        return self.request.max_output - self.generated


@dataclass(slots=True)
class RunningRequest:
    """A request in the running batch.

    ``node`` is the end of its locked path; ``private`` are its tokens in memory outside the cache, ``reserved``
    those set aside for output to come. ``kept`` is where its own uncomputed blocks begin, until its first forward.
    """

    queued: QueuedRequest
    node: Node
    matched: int
    extend: int
    private: int
    reserved: int
    kept: Node
    computed: bool = False


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step did: requests that finished, whether anything ran, and when the step ended."""

    finished: tuple[Request, ...]
    ran: bool
    time_us: int
