"""The kernel's entry: rows of one instance out of the tensors of all."""

from __future__ import annotations

from dlpm_engine.tensor.batched import layout
from dlpm_engine.tensor.batched.kernel.dialect import fence, kernel, tl
from dlpm_engine.tensor.batched.kernel.rows import Cache, Ledger, Requests, Tape, Worker
from dlpm_engine.tensor.batched.kernel.step import admission_phase, finish, forward, make_room_for_outputs

CLIENT, INPUT, OUTPUT = tl.constexpr(layout.CLIENT), tl.constexpr(layout.INPUT), tl.constexpr(layout.OUTPUT)
LIMIT, BLOCKS = tl.constexpr(layout.LIMIT), tl.constexpr(layout.BLOCKS)
SEQUENCE_BLOCKS = tl.constexpr(layout.SEQUENCE_BLOCKS)
FRESH, PAUSED, OVER = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
RESUME_FIELDS = tl.constexpr(4)


@kernel("instances", "slots", "path_width", "sequence_width", "prefixes", "clients", "event_room")
def step(
    # parameters, by instance
    extend_weight: tl.tensor,
    output_weight: tl.tensor,
    kv_tokens: tl.tensor,
    block_size: tl.tensor,
    max_running: tl.tensor,
    watermark: tl.tensor,
    reserving: tl.tensor,
    at_admission: tl.tensor,
    # what is known of requests, by slot, and prefixes
    facts: tl.tensor,
    paths: tl.tensor,
    sequences: tl.tensor,
    parents: tl.tensor,
    depths: tl.tensor,
    # caches, by prefix, and their totals
    cached: tl.tensor,
    ends: tl.tensor,
    locks: tl.tensor,
    last_use: tl.tensor,
    total: tl.tensor,
    locked: tl.tensor,
    clock: tl.tensor,
    # how far requests are, by slot
    phase: tl.tensor,
    rank: tl.tensor,
    admitted: tl.tensor,
    generated: tl.tensor,
    private: tl.tensor,
    reserved: tl.tensor,
    locked_depth: tl.tensor,
    kept_depth: tl.tensor,
    computed: tl.tensor,
    # ledgers, by client, and what is counted by instance
    deficits: tl.tensor,
    quanta: tl.tensor,
    registered: tl.tensor,
    set_aside: tl.tensor,
    admissions: tl.tensor,
    out_of_range: tl.tensor,
    # the tape
    events: tl.tensor,
    deficits_after: tl.tensor,
    concerned: tl.tensor,
    count: tl.tensor,
    # working space: two rows by slot, one by client, the place to go on from, and how many instances are not over
    order: tl.tensor,
    need: tl.tensor,
    counts: tl.tensor,
    resume: tl.tensor,
    unfinished: tl.tensor,
    # sizes
    instances: tl.tensor,
    slots: tl.tensor,
    path_width: tl.tensor,
    sequence_width: tl.tensor,
    prefixes: tl.tensor,
    clients: tl.tensor,
    event_room: tl.tensor,
    BLOCK: tl.constexpr,  # noqa: N803
) -> None:
    """One step of one instance; or the rest of it, where the tape had no room for all."""
    instance = tl.program_id(0).to(tl.int64)
    by_slot = instance * slots
    by_prefix = instance * prefixes
    by_client = instance * clients
    by_field = instances.to(tl.int64) * slots
    cache = Cache(
        cached + by_prefix,
        ends + by_prefix,
        locks + by_prefix,
        last_use + by_prefix,
        parents + by_prefix,
        depths + by_prefix,
        total + instance,
        locked + instance,
        clock + instance,
        tl.load(block_size + instance),
        prefixes,
    )
    requests = Requests(
        facts + CLIENT * by_field + by_slot,
        facts + INPUT * by_field + by_slot,
        facts + OUTPUT * by_field + by_slot,
        facts + LIMIT * by_field + by_slot,
        facts + BLOCKS * by_field + by_slot,
        facts + SEQUENCE_BLOCKS * by_field + by_slot,
        paths + by_slot * path_width,
        path_width,
        sequences + by_slot * sequence_width,
        sequence_width,
        phase + by_slot,
        rank + by_slot,
        admitted + by_slot,
        generated + by_slot,
        private + by_slot,
        reserved + by_slot,
        locked_depth + by_slot,
        kept_depth + by_slot,
        computed + by_slot,
        order + by_slot,
        need + by_slot,
        slots,
    )
    ledger = Ledger(
        deficits + by_client,
        quanta + by_client,
        registered + by_client,
        counts + by_client,
        out_of_range + instance,
        tl.load(extend_weight + instance),
        tl.load(output_weight + instance),
        clients,
    )
    worker = Worker(
        tl.load(kv_tokens + instance),
        tl.load(max_running + instance),
        tl.load(watermark + instance),
        tl.load(reserving + instance) > 0,
        tl.load(at_admission + instance) > 0,
        set_aside + instance,
        admissions + instance,
    )
    tape = Tape(
        events + instance * event_room,
        instances.to(tl.int64) * event_room,
        deficits_after + instance * event_room * clients,
        concerned + instance * event_room * clients,
        count + instance,
    )
    stage = tl.load(resume + instance * RESUME_FIELDS)
    if stage != OVER:
        # Admissions come to their end with so many events at most. With more they pause, and there is room for what one
        # turn writes: a refill, an eviction, an admission. After admissions come the outputs, and for each slot a
        # preemption, or an eviction and a finish. There may be an eviction for the outputs, too, but not if two events
        # follow for each slot: while every request runs, all that is cached is locked. So 2 * slots + 1 events follow
        # at most, and the last place of the tape stays free.
        most_events = event_room - 2 * slots - 2
        place = resume + instance * RESUME_FIELDS
        if admission_phase(worker, cache, ledger, requests, tape, place, stage == PAUSED, most_events, BLOCK):
            make_room_for_outputs(worker, cache, ledger, requests, tape, BLOCK)
            forward(worker, cache, ledger, requests, tape, BLOCK)
            finish(worker, cache, ledger, requests, tape, BLOCK)
            fence()
            tl.store(place, tl.full([], OVER, tl.int64))
        else:
            fence()
            tl.store(place, tl.full([], PAUSED, tl.int64))
            tl.atomic_add(unfinished, tl.full([], 1, tl.int64))
