"""The kernel: one step of Algorithm 1 for every instance, a program each [DLPM Alg. 1 ll. 16-27].

What the step does is in `dlpm_engine.tensor.batched.scheduler`, in the same order; here it is said for one instance, so
that loops end when that instance is done, and no answer has to come back to the host. Scalars are 0-d tensors.
"""

from __future__ import annotations

from dlpm_engine.tensor.batched.kernel.cache_ops import depth_in, discard, end_of, evict, insert, lock, unlock, use
from dlpm_engine.tensor.batched.kernel.dialect import fence, jit, tl
from dlpm_engine.tensor.batched.kernel.ledger_ops import charge_extend, charge_outputs, refill, write
from dlpm_engine.tensor.batched.kernel.queue_ops import (
    earliest_admitted,
    free_tokens,
    freeze_order,
    in_phase,
    latest_admitted,
    measure,
    next_request,
    room,
)
from dlpm_engine.tensor.batched.kernel.rows import (
    ADMIT,
    DONE,
    EVICT,
    FINISH,
    LAST,
    OUTPUT,
    PREEMPT,
    REFILL,
    RUNNING,
    WAITING,
    Cache,
    Ledger,
    Requests,
    Tape,
    Worker,
)


@jit
def set_aside(worker: Worker, tokens: tl.tensor) -> None:
    """Change the tokens that running requests hold outside the cache or have reserved. O(1)."""
    before = tl.load(worker.set_aside)
    fence()
    tl.store(worker.set_aside, before + tokens)
    fence()


@jit
def evict_for(
    worker: Worker,
    cache: Cache,
    ledger: Ledger,
    tape: Tape,
    tokens: tl.tensor,
    BLOCK: tl.constexpr,  # noqa: N803
) -> None:
    """Evict until ``tokens`` more fit beside all that is cached or set aside. O(prefixes * blocks evicted)."""
    excess = tl.load(cache.total) + tl.load(worker.set_aside) + tokens - worker.kv_tokens
    if excess > 0:
        freed = evict(cache, excess, BLOCK)
        if freed > 0:
            nothing = tl.zeros([], tl.int64)
            write(tape, ledger, EVICT, nothing, freed, nothing, BLOCK)


@jit
def keep_prompt(worker: Worker, cache: Cache, requests: Requests, slot: tl.tensor, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """Move the prompt of a running request into the cache, where others can match it. O(blocks)."""
    path = requests.paths + slot * requests.path_width
    depth = depth_in(cache.cached, path, requests.path_width, BLOCK)
    blocks = tl.load(requests.blocks + slot)
    prompt = tl.load(requests.input + slot)
    insert(cache, path, requests.path_width, blocks, prompt, BLOCK)
    lock(cache, path, blocks, BLOCK)
    unlock(cache, path, tl.load(requests.locked_depth + slot), BLOCK)
    resident = prompt + tl.load(requests.generated + slot)
    private = tl.maximum(resident - end_of(cache, path, blocks), 0)
    change = private - tl.load(requests.private + slot)
    fence()
    tl.store(requests.kept_depth + slot, depth)
    tl.store(requests.locked_depth + slot, blocks)
    tl.store(requests.private + slot, private)
    set_aside(worker, change)


@jit
def admit(
    worker: Worker,
    cache: Cache,
    ledger: Ledger,
    requests: Requests,
    tape: Tape,
    slot: tl.tensor,
    BLOCK: tl.constexpr,  # noqa: N803
) -> None:
    """``B <- B + r``, ``Queue <- Queue - r``, and the charge [DLPM Alg. 1 ll. 22-24]. O(blocks), beside evictions."""
    path = requests.paths + slot * requests.path_width
    generated = tl.load(requests.generated + slot)
    resident = tl.load(requests.input + slot) + generated
    depth = depth_in(cache.cached, path, requests.path_width, BLOCK)
    matched = tl.minimum(end_of(cache, path, depth), resident - 1)
    shorter = (depth > 0) & (end_of(cache, path, tl.maximum(depth - 1, 0)) >= matched)
    locked_depth = depth - shorter.to(tl.int64)
    lock(cache, path, locked_depth, BLOCK)
    private = resident - end_of(cache, path, locked_depth)
    reserved = tl.where(worker.reserving, tl.load(requests.limit + slot) - generated, 0)
    admissions = tl.load(worker.admissions) + 1
    fence()
    tl.store(worker.admissions, admissions)
    tl.store(requests.phase + slot, tl.full([], RUNNING, tl.int64))
    tl.store(requests.admitted + slot, admissions)
    tl.store(requests.private + slot, private)
    tl.store(requests.reserved + slot, reserved)
    tl.store(requests.locked_depth + slot, locked_depth)
    tl.store(requests.kept_depth + slot, locked_depth)
    tl.store(requests.computed + slot, tl.zeros([], tl.uint8))
    set_aside(worker, private + reserved)
    evict_for(worker, cache, ledger, tape, tl.zeros([], tl.int64), BLOCK)
    if worker.at_admission:
        keep_prompt(worker, cache, requests, slot, BLOCK)
    extend = resident - matched
    charge_extend(ledger, tl.load(requests.client + slot), extend, BLOCK)
    write(tape, ledger, ADMIT, slot, matched, extend, BLOCK)


@jit
def release(worker: Worker, cache: Cache, requests: Requests, slot: tl.tensor, BLOCK: tl.constexpr) -> None:  # noqa: N803
    """Unlock and give back what a request that leaves the batch held. O(blocks)."""
    path = requests.paths + slot * requests.path_width
    unlock(cache, path, tl.load(requests.locked_depth + slot), BLOCK)
    set_aside(worker, -(tl.load(requests.private + slot) + tl.load(requests.reserved + slot)))


@jit
def preempt(
    worker: Worker,
    cache: Cache,
    ledger: Ledger,
    requests: Requests,
    tape: Tape,
    slot: tl.tensor,
    BLOCK: tl.constexpr,  # noqa: N803
) -> None:
    """A running request goes back to the queue; what it computed of its prompt stays cached. O(prefixes * blocks)."""
    release(worker, cache, requests, slot, BLOCK)
    if tl.load(requests.computed + slot) == 0:
        path = requests.paths + slot * requests.path_width
        first = tl.load(requests.kept_depth + slot)
        discard(cache, path, first, tl.load(requests.locked_depth + slot), BLOCK)
    fence()
    tl.store(requests.phase + slot, tl.full([], WAITING, tl.int64))
    fence()
    nothing = tl.zeros([], tl.int64)
    write(tape, ledger, PREEMPT, slot, nothing, nothing, BLOCK)


@jit
def admission_phase(
    worker: Worker,
    cache: Cache,
    ledger: Ledger,
    requests: Requests,
    tape: Tape,
    resume: tl.tensor,
    resumed: tl.tensor,
    most_events: tl.tensor,
    BLOCK: tl.constexpr,  # noqa: N803
) -> tl.tensor:
    """Passes over the queue until none admits or refills [DLPM Alg. 1 ll. 16-24]; whether it came to its end.

    It stops before, with its place noted in ``resume``, once there are more than ``most_events`` events.
    """
    order = tl.where(resumed, tl.load(resume + 1), LAST)
    rank = tl.where(resumed, tl.load(resume + 2), -1)
    happened = resumed & (tl.load(resume + 3) > 0)
    active = in_phase(requests, WAITING, BLOCK) > 0
    if active:
        if resumed == 0:
            freeze_order(cache, requests, BLOCK)
        measure(worker, cache, requests, BLOCK)
    paused = active & (tl.load(tape.count) > most_events)
    while active & (paused == 0):
        tokens = room(worker, cache, requests, BLOCK)
        slot, somebody = next_request(ledger, requests, order, rank, tokens, BLOCK)
        if slot >= 0:
            client = tl.load(requests.client + slot)
            if somebody == 0:
                refill(ledger, tape, BLOCK)
                nothing = tl.zeros([], tl.int64)
                write(tape, ledger, REFILL, nothing, nothing, nothing, BLOCK)
            order = tl.load(requests.order + slot)
            rank = tl.load(requests.rank + slot)
            if (tl.load(ledger.deficits + client) > 0) & (tl.load(requests.need + slot) <= tokens):
                admit(worker, cache, ledger, requests, tape, slot, BLOCK)
                measure(worker, cache, requests, BLOCK)
            happened = slot >= 0
        else:
            # A pass that comes to its end begins again if anything happened in it, and is the last one otherwise.
            active = active & happened
            happened = slot >= 0
            order = tl.full([], LAST, tl.int64)
            rank = tl.full([], -1, tl.int64)
        paused = active & (tl.load(tape.count) > most_events)
    fence()
    tl.store(resume + 1, order)
    tl.store(resume + 2, rank)
    tl.store(resume + 3, happened.to(tl.int64))
    fence()
    return paused == 0


@jit
def make_room_for_outputs(
    worker: Worker,
    cache: Cache,
    ledger: Ledger,
    requests: Requests,
    tape: Tape,
    BLOCK: tl.constexpr,  # noqa: N803
) -> None:
    """Preempt the youngest until the next output tokens fit, then evict for them. O(preemptions * slots)."""
    unreserved = unreserved_outputs(requests, BLOCK)
    while unreserved > free_tokens(worker, cache):
        preempt(worker, cache, ledger, requests, tape, latest_admitted(requests, BLOCK), BLOCK)
        unreserved = unreserved_outputs(requests, BLOCK)
    evict_for(worker, cache, ledger, tape, unreserved, BLOCK)


@jit
def unreserved_outputs(requests: Requests, BLOCK: tl.constexpr) -> tl.tensor:  # noqa: N803
    """Running requests whose next output token has no memory set aside. O(slots)."""
    count = tl.zeros([], tl.int64)
    for first in range(0, requests.slots, BLOCK):
        slot = first + tl.arange(0, BLOCK)
        here = slot < requests.slots
        running = tl.load(requests.phase + slot, mask=here, other=0) == RUNNING
        reserved = tl.load(requests.reserved + slot, mask=here, other=1)
        count += tl.sum((running & (reserved == 0)).to(tl.int64))
    return count


@jit
def forward(
    worker: Worker,
    cache: Cache,
    ledger: Ledger,
    requests: Requests,
    tape: Tape,
    BLOCK: tl.constexpr,  # noqa: N803
) -> None:
    """Every running request yields one token, and its client pays [DLPM Alg. 1 ll. 25-26]. O(slots + clients)."""
    set_aside(worker, unreserved_outputs(requests, BLOCK))
    for first in range(0, requests.slots, BLOCK):
        slot = first + tl.arange(0, BLOCK)
        here = slot < requests.slots
        running = here & (tl.load(requests.phase + slot, mask=here, other=0) == RUNNING)
        generated = tl.load(requests.generated + slot, mask=running, other=0)
        private = tl.load(requests.private + slot, mask=running, other=0)
        reserved = tl.load(requests.reserved + slot, mask=running, other=0)
        fence()
        tl.store(requests.generated + slot, generated + 1, mask=running)
        tl.store(requests.private + slot, private + 1, mask=running)
        tl.store(requests.reserved + slot, tl.maximum(reserved - 1, 0), mask=running)
    fence()
    fresh = earliest_admitted(requests, True, False, BLOCK)
    while fresh >= 0:
        if worker.at_admission == 0:
            keep_prompt(worker, cache, requests, fresh, BLOCK)
        fence()
        tl.store(requests.computed + fresh, tl.full([], 1, tl.uint8))
        fence()
        fresh = earliest_admitted(requests, True, False, BLOCK)
    if in_phase(requests, RUNNING, BLOCK) > 0:
        charge_outputs(ledger, requests, tape, BLOCK)
        nothing = tl.zeros([], tl.int64)
        write(tape, ledger, OUTPUT, nothing, nothing, nothing, BLOCK)


@jit
def finish(
    worker: Worker,
    cache: Cache,
    ledger: Ledger,
    requests: Requests,
    tape: Tape,
    BLOCK: tl.constexpr,  # noqa: N803
) -> None:
    """Requests with all their output leave, in order of admission [DLPM Alg. 1 l. 27]. O(finished * slots)."""
    slot = earliest_admitted(requests, False, True, BLOCK)
    while slot >= 0:
        release(worker, cache, requests, slot, BLOCK)
        blocks = tl.load(requests.sequence_blocks + slot)
        if blocks > 0:
            tokens = tl.load(requests.input + slot) + tl.load(requests.output + slot)
            sequence = requests.sequences + slot * requests.sequence_width
            insert(cache, sequence, requests.sequence_width, blocks, tokens, BLOCK)
            use(cache, sequence, blocks, BLOCK)
            evict_for(worker, cache, ledger, tape, tl.zeros([], tl.int64), BLOCK)
        else:
            path = requests.paths + slot * requests.path_width
            use(cache, path, depth_in(cache.cached, path, requests.path_width, BLOCK), BLOCK)
        fence()
        tl.store(requests.phase + slot, tl.full([], DONE, tl.int64))
        fence()
        nothing = tl.zeros([], tl.int64)
        write(tape, ledger, FINISH, slot, nothing, nothing, BLOCK)
        slot = earliest_admitted(requests, False, True, BLOCK)
