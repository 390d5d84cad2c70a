"""M2: what the floor of T2*/optimistic assumes of memory is what the reference's worker does.

As in M1, the worker's own functions run around a cache of which only the contract is known: now with up to three
requests running, any of which may be preempted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from dlpm import bounds
from dlpm.batch import AFTER_FORWARD, AT_ADMISSION, WorkerConfig
from dlpm.memory import Optimistic
from dlpm.policies.base import Policy
from dlpm.worker import Worker
from dlpm_proofs.definitions import define
from dlpm_proofs.opaque import (
    LOCKED,
    OpaqueWorker,
    Running,
    books,
    cache_contract,
    insertion_contract,
    leaving_contract,
    plain_worker,
    sum_of,
)
from dlpm_proofs.postcondition import postcondition
from dlpm_proofs.solve import Named, Obligation
from dlpm_proofs.terms import FALSE, TRUE, Formula, Poly, all_of, at_least, at_most, between, equal, poly
from dlpm_proofs.theorem import Mutant, Theorem, Verdict
from dlpm_proofs.transitions import L_IN, L_OUT, PARAMETERS, B, M

NEW = Running("the new request", "f")
BATCH = (Running("r1", "f"), Running("r2", "f"), Running("r3", "f"))
STEPS = Poly.unknown("s")
RECOMPUTED = Poly.unknown("longest recomputation")
ONE = Poly.constant(1)
WATERMARK = Poly.unknown("watermark")

Make = Callable[[WorkerConfig, Policy], Worker]
"""Makes the worker under proof."""


def hypotheses(running: Sequence[Running]) -> tuple[Named, ...]:
    """A sound worker with these requests running, each for ``s`` forward steps or more."""
    held = sum_of(one.private for one in running)
    each = (
        all_of(one.sound(), at_most(one.most, L_OUT), between(STEPS, one.generated, one.private)) for one in running
    )
    return (
        *PARAMETERS,
        ("running requests are sound, and each holds s output tokens", all_of(at_least(STEPS, 0), *each)),
        ("what is locked and held fits into M", all_of(at_least(LOCKED, 0), at_most(LOCKED + held, M))),
        ("without running requests nothing is locked", TRUE if running else equal(LOCKED, 0)),
        ("who leaves frees only what is its own", leaving_contract(running)),
    )


def admission(memory: Optimistic, visibility: str, running: Sequence[Running]) -> Iterator[Obligation]:
    """`try_admit` of a request that may have been preempted: what it computes, and what fits beside any watermark."""
    recomputed = define(
        "longest recomputation",
        lambda symbol: bounds.longest_recomputation(symbol(L_IN), symbol(M), symbol(L_OUT)),
    )
    resident = NEW.unknown("input") + NEW.generated
    assumed = (
        *hypotheses(running),
        recomputed.meaning,
        ("the request keeps the limits", all_of(between(1, NEW.unknown("input"), L_IN), at_most(NEW.most, L_OUT))),
        ("it has not generated all its output", between(0, NEW.generated, NEW.most - ONE)),
        ("input and output could fit into M [checked by submit]", at_most(NEW.unknown("input") + NEW.most, M)),
        ("the cache keeps its contract", cache_contract(NEW.unknown("input"))),
        ("the watermark is not negative", at_least(WATERMARK, 0)),
    )
    world = OpaqueWorker([formula for _, formula in assumed], memory, visibility)

    def body() -> Formula:
        worker = world.build(running, memory=replace(memory, watermark=world.symbol(WATERMARK)))
        queued = world.queued(NEW)
        worker._enqueue(queued)
        extend = worker.try_admit(queued)
        if extend is None:
            return all_of(at_least(len(running), 1))
        held = LOCKED + sum_of(one.private for one in running)
        return all_of(
            at_most(poly(extend) + WATERMARK + held, M) if running else TRUE,
            between(1, extend, RECOMPUTED),
            at_most(extend, resident),
            at_most(len(worker.running), B),
            books(worker),
        )

    name = f"an admission beside {len(running)} requests, visible {visibility}, computes at most a recomputation"
    yield from postcondition(name, assumed, world.exploration, body)


def forward(
    memory: Optimistic,
    visibility: str,
    running: Sequence[Running],
    *,
    new: bool = False,
    make: Make = plain_worker,
) -> Iterator[Obligation]:
    """Room for outputs, then a forward step: what still runs holds one token more each, and all of it fits.

    ``make`` makes the workers.
    """
    assumed = (
        *hypotheses(running),
        ("the cache keeps its contract", insertion_contract(running[0].path, running[0].unknown("input"))),
    )
    world = OpaqueWorker([formula for _, formula in assumed], memory, visibility, make)

    def body() -> Formula:
        worker = world.build(running, computed=not new)
        worker._make_room_for_outputs()
        kept = (*(run.queued.id for run in worker.running), *(queued.id for queued in worker.waiting()))
        if sorted(kept) != sorted(one.name for one in running):
            return FALSE
        worker._forward()
        count = len(worker.running)
        return all_of(
            books(worker),
            *(at_least(run.queued.generated, STEPS + ONE) for run in worker.running),
            *(at_least(run.private, run.queued.generated) for run in worker.running),
            *(at_most(STEPS + ONE, L_OUT) for _ in worker.running[:1]),
            at_most((STEPS + ONE) * Poly.constant(count) + ONE, M) if count else TRUE,
        )

    batch = f"{len(running)} {'new ' if new else ''}requests"
    name = f"after a forward step of {batch}, visible {visibility}, what still runs fits with s + 1 tokens each"
    yield from postcondition(name, assumed, world.exploration, body)


def obligations(memory: Optimistic) -> Iterator[Obligation]:
    """Admission and forward step, for both kinds of visibility and up to three requests running."""
    for visibility in (AT_ADMISSION, AFTER_FORWARD):
        for count in range(len(BATCH)):
            yield from admission(memory, visibility, BATCH[:count])
            yield from forward(memory, visibility, BATCH[: count + 1])
        yield from forward(memory, visibility, BATCH[:1], new=True)


@dataclass(frozen=True, slots=True)
class Overbooking(Optimistic):
    """Lets one token too many in."""

    def can_add(self, free: int, extend: int, output_left: int, running: int) -> bool:
        """One token more than is free."""
        return extend <= free + 1


@dataclass(frozen=True, slots=True)
class Phantom(Optimistic):
    """Claims a reservation of one token that it never took from memory."""

    def reserve(self, output_left: int) -> int:
        """Less than nothing is set aside."""
        return -1


def _mutants(*memories: Optimistic) -> tuple[Mutant, ...]:
    """Kinds of memory that must be noticed."""
    return tuple(
        Mutant(type(memory).__name__, (type(memory).__doc__ or "").strip(), partial(obligations, memory), {})
        for memory in memories
    )


M2 = Theorem(
    id="M2",
    title="Optimistic memory keeps its contract",
    source="ours",
    statement="n requests, s steps after the last admission of one, hold n s + 1 <= M tokens; none computes above E.",
    hypotheses=("the prefix cache keeps its contract: what is locked counts as locked",),
    expected=Verdict.PROVED,
    checked="The worker's try_admit, _make_room_for_outputs with its preemptions, and _forward, for up to three.",
    argued="More running requests change nothing: the functions go through them one by one and add up.",
    obligations=partial(obligations, Optimistic()),
    mutants=_mutants(Overbooking(), Phantom()),
)
