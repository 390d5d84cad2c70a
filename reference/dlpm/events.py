"""The event log: typed events, and their JSON Lines form `dlpm.events/1` (docs/formats/events.md).

Emitting costs nothing when nobody listens: a worker without a sink builds no event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dlpm.request import ClientId, RequestId

SCHEMA = "dlpm.events/1"

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
"""What the standard library's `json` reads and writes."""


Extensions = Mapping[str, Mapping[str, JsonValue]]
"""The variants of the plain algorithm that ran, each with its options, as a header states them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The engine's limits, all in tokens but ``max_running`` (requests). ``None``: not stated, or unlimited."""

    max_input: int | None = None
    max_output: int | None = None
    kv_tokens: int | None = None
    max_running: int | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """First line of a log: who ran, under which rules.

    ``default_quantum`` and ``quanta`` are in weighted tokens and are ``None``/empty for policies without quanta.
    ``memory`` is ``reserving`` or ``optimistic``; ``visibility`` is ``at_admission`` or ``after_forward``.
    ``level`` is ``decisions`` or ``full`` (with `order` events and free memory). ``extensions`` are the variants of the
    plain algorithm that ran, each with its options (docs/formats/events.md). ``extra`` keeps unknown fields.
    """

    engine: str
    policy: str
    extend_weight: int
    output_weight: int
    default_quantum: int | None = None
    quanta: Mapping[ClientId, int] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    memory: str | None = None
    visibility: str | None = None
    block_size: int | None = None
    watermark: int | None = None
    level: str = "decisions"
    extensions: Extensions = field(default_factory=dict)
    extra: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What every event carries: the worker's own step, the worker in a cluster, and the time where a run has one.

    ``extra`` keeps the fields of a log that this version does not know.
    """

    step: int
    worker: int | None = None
    time_us: int | None = None
    extra: Mapping[str, JsonValue] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrive(Event):
    """A request joins the queue; ``input`` and ``max_output`` in tokens.

    ``arrived_us`` is when the user sent it, where that is earlier than ``time_us`` (a queue is read between steps);
    latencies count from there.
    """

    request: RequestId
    client: ClientId
    input: int
    max_output: int
    arrived_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Event):
    """The order in which this step considered the queue (level `full`).

    ``matched`` are reusable tokens, request by request; ``free`` are the tokens neither locked nor reserved
    before the first admission of the step.
    """

    requests: tuple[RequestId, ...]
    matched: tuple[int, ...]
    free: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refill(Event):
    """One check-refill that fired: every client that got its quantum, with its deficit afterwards."""

    deficits: Mapping[ClientId, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admit(Event):
    """A request joins the running batch.

    ``matched + extend`` is its input plus what it had generated before a preemption. ``deficit`` is its client's
    counter after the charge (``None`` for policies without a ledger); ``free`` as in `Order`, after this admission.
    ``chunk``: how many of the extend tokens this step computes, where that is not all of them (chunked prefill).
    ``payer`` is who paid for the extend tokens instead of the client, with ``payer_deficit`` its counter after that
    (recomputation that the causer pays for).
    ``charged`` are the tokens that the client pays for, where it does not simply pay for the extend tokens; ``refunds``
    are the tokens for which others get their charge back, and ``deficits`` their counters afterwards (shared prefixes).
    """

    request: RequestId
    matched: int
    extend: int
    deficit: int | None = None
    free: int | None = None
    chunk: int | None = None
    payer: ClientId | None = None
    payer_deficit: int | None = None
    charged: int | None = None
    refunds: Mapping[ClientId, int] | None = None
    deficits: Mapping[ClientId, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk(Event):
    """A later chunk of an admitted request's extend tokens, computed in this step (chunked prefill).

    ``deficit`` is its client's counter after the charge.
    """

    request: RequestId
    tokens: int
    deficit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Output(Event):
    """One forward step: output tokens of each running request, counters of their clients afterwards.

    ``accepted`` are the tokens that were computed and accepted, for requests of which more were than they still needed.
    """

    tokens: Mapping[RequestId, int]
    deficits: Mapping[ClientId, int] = field(default_factory=dict)
    accepted: Mapping[RequestId, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish(Event):
    """A request left the running batch with all its output."""

    request: RequestId


@dataclass(frozen=True, slots=True, kw_only=True)
class Preempt(Event):
    """A request left the running batch unfinished; ``kind`` is `recompute` or `swap`. It is back in the queue.

    With the extension `swap`, one that was swapped is in CPU memory instead, until its `Resume`: ``copied`` tokens are
    copied there, which is done at ``copied_us``.
    """

    request: RequestId
    kind: str
    deficit: int | None = None
    copied: int | None = None
    copied_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume(Event):
    """A swapped request is back in the running batch, with the extension `swap`; ``deficit`` is its client's counter.

    ``copied`` tokens were copied back, from ``began_us`` to ``copied_us``.
    """

    request: RequestId
    copied: int
    began_us: int
    copied_us: int
    deficit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch(Event):
    """A router's decision; ``worker`` is the target, ``counter`` its credit for this client after the charge.

    ``matched_workers`` are those believed to hold the longest cached prefix. ``client`` and ``input`` (tokens) are
    those of the request: its `arrive` comes only when the worker's present step has ended, and the charge is made now.
    """

    request: RequestId
    matched_workers: tuple[int, ...]
    counter: int | None = None
    client: ClientId | None = None
    input: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver(Event):
    """With the extension `shared_ledger`: the ``updates`` oldest updates that ``worker`` kept back reach all others."""

    updates: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evict(Event):
    """Cached prefixes given up: how many tokens, or the hashes of the blocks (exactly one of the two)."""

    tokens: int | None = None
    blocks: tuple[int, ...] | None = None


EventSink = Callable[[Event], None]
