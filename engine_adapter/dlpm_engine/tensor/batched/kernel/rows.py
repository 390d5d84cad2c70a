"""What the kernel knows of one instance: where its rows of the scheduler's tensors begin, and how long they are.

Every pointer is to int64 but where it says byte (a bool as torch stores it). Sizes are numbers of entries.
"""

from __future__ import annotations

from typing import NamedTuple

from dlpm_engine.tensor.batched import layout, scheduler, tape
from dlpm_engine.tensor.batched.kernel.dialect import tl
from dlpm_engine.tensor.exact import HIGHEST

ROOT = tl.constexpr(layout.ROOT)
WAITING, RUNNING, DONE = (tl.constexpr(phase) for phase in (scheduler.WAITING, scheduler.RUNNING, scheduler.DONE))
REFILL, ADMIT, PREEMPT = (tl.constexpr(kind) for kind in (tape.REFILL, tape.ADMIT, tape.PREEMPT))
EVICT, OUTPUT, FINISH = (tl.constexpr(kind) for kind in (tape.EVICT, tape.OUTPUT, tape.FINISH))
LAST = tl.constexpr(2**62)
"""Beyond every rank, place and time."""
MOST = tl.constexpr(HIGHEST)


class Cache(NamedTuple):
    """The prefix cache: by prefix; then tokens cached, tokens locked and the clock, one number each."""

    cached: tl.tensor
    ends: tl.tensor
    locks: tl.tensor
    last_use: tl.tensor
    parents: tl.tensor
    depths: tl.tensor
    total: tl.tensor
    locked: tl.tensor
    clock: tl.tensor
    block_size: tl.tensor
    prefixes: tl.tensor


class Requests(NamedTuple):
    """The requests, by slot: what they are, and how far they are. ``computed`` is a byte.

    ``paths`` and ``sequences`` hold ``path_width`` and ``sequence_width`` numbers a slot. ``order`` and ``need`` are
    working space: matched tokens as an admission phase began, and tokens of memory that an admission would take.
    """

    client: tl.tensor
    input: tl.tensor
    output: tl.tensor
    limit: tl.tensor
    blocks: tl.tensor
    sequence_blocks: tl.tensor
    paths: tl.tensor
    path_width: tl.tensor
    sequences: tl.tensor
    sequence_width: tl.tensor
    phase: tl.tensor
    rank: tl.tensor
    admitted: tl.tensor
    generated: tl.tensor
    private: tl.tensor
    reserved: tl.tensor
    locked_depth: tl.tensor
    kept_depth: tl.tensor
    computed: tl.tensor
    order: tl.tensor
    need: tl.tensor
    slots: tl.tensor


class Ledger(NamedTuple):
    """The deficits, by client, and working space to count in; ``registered`` are bytes, ``out_of_range`` is one."""

    deficits: tl.tensor
    quanta: tl.tensor
    registered: tl.tensor
    counts: tl.tensor
    out_of_range: tl.tensor
    extend_weight: tl.tensor
    output_weight: tl.tensor
    clients: tl.tensor


class Worker(NamedTuple):
    """The parameters, as numbers, and two counters of one number each: tokens set aside, and admissions so far."""

    kv_tokens: tl.tensor
    max_running: tl.tensor
    watermark: tl.tensor
    reserving: tl.tensor
    at_admission: tl.tensor
    set_aside: tl.tensor
    admissions: tl.tensor


class Tape(NamedTuple):
    """Where events go: fields ``field_stride`` apart, deficits ``[events, clients]``, bytes likewise, one counter."""

    events: tl.tensor
    field_stride: tl.tensor
    deficits: tl.tensor
    concerned: tl.tensor
    count: tl.tensor
