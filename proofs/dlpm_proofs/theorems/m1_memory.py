"""M1: what the other theorems assume of memory is what the reference's worker does.

The worker's own functions run on symbolic numbers, around a cache of which only the contract is known (`opaque.py`),
with up to two requests running.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from dlpm.batch import AFTER_FORWARD, AT_ADMISSION
from dlpm.errors import InputError
from dlpm.memory import AdmissionControl, Reserving
from dlpm.request import ClientId
from dlpm.worker import Worker
from dlpm_proofs.opaque import (
    LOCKED,
    Meter,
    OpaqueWorker,
    Running,
    books,
    cache_contract,
    insertion_contract,
    leaving_contract,
    sum_of,
)
from dlpm_proofs.postcondition import postcondition
from dlpm_proofs.solve import Named, Obligation
from dlpm_proofs.terms import FALSE, TRUE, Formula, Poly, all_of, at_least, at_most, between, equal, poly
from dlpm_proofs.theorem import Mutant, Theorem, Verdict
from dlpm_proofs.transitions import L_IN, L_OUT, B, M

NEW = Running("the new request", "f")
BATCH = (Running("r1", "f"), Running("r2", "g"))
INPUT, MOST = NEW.unknown("input"), NEW.most
ONE = Poly.constant(1)
SAME_CLIENT = (Running("r1", "f"), Running("r2", "f"))


def hypotheses(running: Sequence[Running]) -> tuple[Named, ...]:
    """A sound worker with these requests running."""
    held = sum_of(one.private + one.most - one.generated for one in running)
    return (
        ("the batch may hold a request", at_least(B, 1)),
        ("running requests are sound", all_of(*(one.sound() for one in running), leaving_contract(running))),
        ("what is locked and set aside fits into M", all_of(at_least(LOCKED, 0), at_most(LOCKED + held, M))),
        ("without running requests nothing is locked", TRUE if running else equal(LOCKED, 0)),
    )


def arrival() -> tuple[Named, ...]:
    """A request that `submit` lets into the queue, and what the cache knows of it."""
    return (
        ("the request has a prompt within L_in", between(1, INPUT, L_IN)),
        ("it declares an output within L_out", between(1, MOST, L_OUT)),
        ("input and output could fit into M [checked by submit]", at_most(INPUT + MOST, M)),
        ("it has generated nothing", equal(NEW.generated, 0)),
        ("the cache keeps its contract", cache_contract(INPUT)),
    )


def charged(worker: Worker) -> Mapping[ClientId, int]:
    """The output tokens that the policy was told to charge."""
    assert isinstance(worker.policy, Meter)
    return worker.policy.charged


def admission(memory: AdmissionControl, visibility: str, running: Sequence[Running]) -> Iterator[Obligation]:
    """`try_admit`: what is let in fits beside everything reserved, the books balance; an empty worker lets it in."""
    assumed = (*hypotheses(running), *arrival())
    world = OpaqueWorker([formula for _, formula in assumed], memory, visibility)
    held = LOCKED + sum_of(one.private for one in running)
    reserved = sum_of(one.most - one.generated for one in running)

    def body() -> Formula:
        worker = world.build(running)
        queued = world.queued(NEW)
        worker._enqueue(queued)
        extend = worker.try_admit(queued)
        if extend is None:
            untouched = all_of(equal(poly(worker._set_aside), held - LOCKED + reserved))
            return untouched if running and len(worker.running) == len(running) else FALSE
        return all_of(
            between(1, extend, L_IN),
            at_most(poly(extend) + MOST + reserved + held, M),
            at_most(INPUT + MOST + reserved, M),
            at_least(held, ONE if running else 0),
            at_most(len(worker.running), B),
            equal(worker.running[-1].reserved, MOST),
            books(worker),
        )

    name = f"an admission beside {len(running)} requests, visible {visibility}, shares M with all that is reserved"
    yield from postcondition(name, assumed, world.exploration, body)


def submission(memory: AdmissionControl, waiting: Sequence[Running]) -> Iterator[Obligation]:
    """`submit` and `try_admit` beside requests that wait: what could never fit is refused, and the policy hears of all.

    It hears of an arrival before it joins the queue, and that a client has left once its last queued request has.
    """
    assumed = (
        *hypotheses(()),
        ("memory, prompt and output have a token", all_of(*(at_least(value, 1) for value in (M, INPUT, MOST)))),
        ("the cache keeps its contract", cache_contract(INPUT)),
    )
    world = OpaqueWorker([formula for _, formula in assumed], memory, AT_ADMISSION)
    clients = tuple(dict.fromkeys(one.client for one in waiting))

    def body() -> Formula:
        worker = world.build(())
        meter = worker.policy
        assert isinstance(meter, Meter)
        for one in waiting:
            worker._enqueue(world.queued(one))
        try:
            worker.submit(world.queued(NEW).request, 0)
        except InputError:
            return FALSE if meter.came or len(worker.waiting()) > len(waiting) else at_least(INPUT + MOST, M + ONE)
        (new,) = (queued for queued in worker.waiting() if queued.id == NEW.name)
        if meter.came != [(NEW.client, clients)] or len(worker.waiting()) != len(waiting) + 1 or meter.left:
            return FALSE
        if worker.try_admit(new) is None:
            return FALSE
        gone = [] if NEW.client in clients else [NEW.client]
        return (
            at_most(INPUT + MOST, M) if meter.left == gone and set(worker.queued_clients()) == set(clients) else FALSE
        )

    name = f"a submission beside {', '.join(clients) or 'nobody'} is told to the policy, and could fit into M"
    yield from postcondition(name, assumed, world.exploration, body)


def forward(
    memory: AdmissionControl, visibility: str, running: Sequence[Running], *, new: bool = False
) -> Iterator[Obligation]:
    """Room for outputs, forward, finish: nobody is preempted, each pays one token a request, and books balance.

    With ``new`` the batch has had no forward step yet, so that its prompt may become visible now.
    """
    contract = insertion_contract(running[0].path, running[0].unknown("input"))
    assumed = (*hypotheses(running), ("the cache keeps its contract", contract))
    world = OpaqueWorker([formula for _, formula in assumed], memory, visibility)

    def body() -> Formula:
        worker = world.build(running, computed=not new)
        worker._make_room_for_outputs()
        if len(worker.running) != len(running):
            return FALSE
        before = tuple(worker.running)
        worker._forward()
        after_forward = all_of(
            *(equal(run.reserved, one.most - one.generated - ONE) for run, one in zip(before, running, strict=True)),
            books(worker),
        )
        worker._finish()
        unfinished = all_of(*(at_least(run.reserved, 1) for run in worker.running))
        if charged(worker) != Counter(one.client for one in running):
            return FALSE
        return all_of(after_forward, books(worker), unfinished)

    batch = f"{len(running)} {'new ' if new else ''}requests of {len({one.client for one in running})} clients"
    name = f"a forward step of {batch}, visible {visibility}, takes a reserved token for each"
    yield from postcondition(name, assumed, world.exploration, body)


def obligations(memory: AdmissionControl) -> Iterator[Obligation]:
    """Admission and forward step, for both kinds of visibility and up to two requests running."""
    for waiting in ((), BATCH[:1], BATCH[1:]):
        yield from submission(memory, waiting)
    for visibility in (AT_ADMISSION, AFTER_FORWARD):
        for count in range(len(BATCH) + 1):
            yield from admission(memory, visibility, BATCH[:count])
        for running in (BATCH[:1], BATCH, SAME_CLIENT):
            yield from forward(memory, visibility, running)
        yield from forward(memory, visibility, BATCH[:1], new=True)


@dataclass(frozen=True, slots=True)
class BlindToOutputs(Reserving):
    """Asks only whether the extend tokens fit, and still reserves the outputs."""

    def can_add(self, free: int, extend: int, output_left: int, running: int) -> bool:
        """Outputs are not looked at."""
        return extend <= free


@dataclass(frozen=True, slots=True)
class OneShort(Reserving):
    """Reserves one token less than may come."""

    def reserve(self, output_left: int) -> int:
        """All but one."""
        return output_left - 1


@dataclass(frozen=True, slots=True)
class Stingy(Reserving):
    """Never lets a request fill the memory to the last token."""

    def can_add(self, free: int, extend: int, output_left: int, running: int) -> bool:
        """One token must stay free."""
        return extend + output_left < free


def _mutants(*memories: AdmissionControl) -> tuple[Mutant, ...]:
    """Kinds of memory that must be noticed."""
    return tuple(
        Mutant(type(memory).__name__, (type(memory).__doc__ or "").strip(), partial(obligations, memory), {})
        for memory in memories
    )


M1 = Theorem(
    id="M1",
    title="Reserving memory keeps its contract",
    source="ours, for [DLPM App. A.1]",
    statement="A request goes in only if e + o + all that is reserved <= M; a forward step takes reserved tokens only.",
    hypotheses=("the prefix cache keeps its contract: what is locked counts as locked",),
    expected=Verdict.PROVED,
    checked="The worker's submit refuses what could never fit, and the policy hears who comes and leaves; try_admit,"
    " _make_room_for_outputs, _forward and _finish, beside none, one or two others.",
    argued="More running requests change nothing: the functions go through them one by one and add up.",
    obligations=partial(obligations, Reserving()),
    mutants=_mutants(BlindToOutputs(), OneShort(), Stingy()),
)
