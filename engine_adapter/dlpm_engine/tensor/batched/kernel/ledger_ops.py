"""Operations on the ledger of one instance, and the tape of what happened; `..scheduler` says what each means."""

from __future__ import annotations

from dlpm_engine.tensor.batched.kernel.dialect import fence, jit, tl
from dlpm_engine.tensor.batched.kernel.rows import MOST, RUNNING, Ledger, Requests, Tape


@jit
def too_low(values: tl.tensor, weight: tl.tensor, counts: tl.tensor) -> tl.tensor:
    """Where ``values - weight * counts`` lies below int64; `dlpm_engine.tensor.exact.too_low` for numbers of tokens.

    Divides nothing negative: there Triton rounds towards 0. ``counts`` are in 0..2^61. O(1).
    """
    quotient = MOST // weight
    remainder = MOST - quotient * weight
    positive = tl.maximum(values, 0)
    carry = (positive % weight >= weight - 1 - remainder).to(tl.int64)
    cap = tl.full([], 2**61, tl.int64)
    room_above = tl.minimum(quotient, cap) + tl.minimum(positive // weight, cap) + carry
    room_below = (tl.minimum(values, -1) + MOST + 1) // weight
    return counts > tl.where(values >= 0, room_above, room_below)


@jit
def spend(ledger: Ledger, client: tl.tensor, weight: tl.tensor, counts: tl.tensor, chosen: tl.tensor) -> None:
    """Take ``weight * counts`` from the deficits of clients ``[BLOCK]``; note where that leaves int64. O(1)."""
    deficit = tl.load(ledger.deficits + client, mask=chosen, other=0)
    beyond = chosen & too_low(deficit, weight, counts)
    before = tl.load(ledger.out_of_range)
    fence()
    # Where the true result is in range, wrapping on the way there does no harm.
    tl.store(ledger.deficits + client, deficit - tl.where(beyond, 0, counts * weight), mask=chosen)
    tl.store(ledger.out_of_range, tl.maximum(before, tl.max(beyond.to(tl.int32)).to(tl.uint8)))
    fence()


@jit
def charge_extend(ledger: Ledger, client: tl.tensor, tokens: tl.tensor, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """Charge one client for extend tokens [DLPM Alg. 1 l. 23]. O(1)."""
    lane = tl.arange(0, BLOCK)
    spend(ledger, client + tl.zeros([BLOCK], tl.int64), ledger.extend_weight, tokens, lane == 0)


@jit
def refill(ledger: Ledger, tape: Tape, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """Every client at or below 0 gets its quantum [DLPM Alg. 1 ll. 6-8]; who did stays on the tape. O(clients)."""
    event = tl.load(tape.count)
    for first in range(0, ledger.clients, BLOCK):
        client = first + tl.arange(0, BLOCK).to(tl.int64)
        here = client < ledger.clients
        deficit = tl.load(ledger.deficits + client, mask=here, other=1)
        low = (tl.load(ledger.registered + client, mask=here, other=0) > 0) & (deficit <= 0)
        quantum = tl.load(ledger.quanta + client, mask=low, other=0)
        fence()
        # At or below 0 plus an int64 above 0 never leaves the range.
        tl.store(ledger.deficits + client, deficit + quantum, mask=low)
        tl.store(tape.concerned + event * ledger.clients + client, low.to(tl.uint8), mask=here)
    fence()


@jit
def charge_outputs(ledger: Ledger, requests: Requests, tape: Tape, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """Charge one output token for each running request; who paid stays on the tape. O(clients + slots)."""
    event = tl.load(tape.count)
    for first in range(0, ledger.clients, BLOCK):
        client = first + tl.arange(0, BLOCK).to(tl.int64)
        tl.store(ledger.counts + client, tl.zeros([BLOCK], tl.int64), mask=client < ledger.clients)
    fence()
    for first in range(0, requests.slots, BLOCK):
        slot = first + tl.arange(0, BLOCK).to(tl.int64)
        here = slot < requests.slots
        running = tl.load(requests.phase + slot, mask=here, other=0) == RUNNING
        client = tl.load(requests.client + slot, mask=here, other=0)
        tl.atomic_add(ledger.counts + client, tl.full([BLOCK], 1, tl.int64), mask=running)
    fence()
    for first in range(0, ledger.clients, BLOCK):
        client = first + tl.arange(0, BLOCK).to(tl.int64)
        here = client < ledger.clients
        counts = tl.load(ledger.counts + client, mask=here, other=0)
        spend(ledger, client, ledger.output_weight, counts, here)
        tl.store(tape.concerned + event * ledger.clients + client, (counts > 0).to(tl.uint8), mask=here)
    fence()


@jit
def write(
    tape: Tape,
    ledger: Ledger,
    kind: tl.constexpr,
    slot: tl.tensor,
    first: tl.tensor,
    second: tl.tensor,
    BLOCK: tl.constexpr,  # noqa: N803
) -> None:
    """An event, and all deficits after it. O(clients)."""
    event = tl.load(tape.count)
    for start in range(0, ledger.clients, BLOCK):
        client = start + tl.arange(0, BLOCK).to(tl.int64)
        here = client < ledger.clients
        deficit = tl.load(ledger.deficits + client, mask=here, other=0)
        tl.store(tape.deficits + event * ledger.clients + client, deficit, mask=here)
    tl.store(tape.events + event, tl.full([], kind, tl.int64))
    tl.store(tape.events + tape.field_stride + event, slot)
    tl.store(tape.events + 2 * tape.field_stride + event, first)
    tl.store(tape.events + 3 * tape.field_stride + event, second)
    fence()
    tl.store(tape.count, event + 1)
    fence()
