"""E4: swapping out and coming back change no counter, on the swapping worker's own functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

from dlpm.batch import AFTER_FORWARD, AT_ADMISSION, RunningRequest
from dlpm.extensions.swap.cpu_copies import Copy
from dlpm.extensions.swap.states import State
from dlpm.extensions.swap.worker import Away, SwapWorker
from dlpm_proofs.opaque import LOCKED, Running, cache_contract, leaving_contract, sum_of
from dlpm_proofs.postcondition import postcondition
from dlpm_proofs.solve import Named, Obligation
from dlpm_proofs.swap_world import SwapWorld, swap_books
from dlpm_proofs.terms import (
    FALSE,
    TRUE,
    Formula,
    Poly,
    all_of,
    at_least,
    at_most,
    between,
    equal,
    poly,
)
from dlpm_proofs.theorem import Mutant, Theorem, Verdict
from dlpm_proofs.theorems.m1_memory import charged
from dlpm_proofs.transitions import (
    L_OUT,
    PARAMETERS,
    B,
    M,
)

ONE = Poly.constant(1)
CPU = Poly.unknown("C")

# -- what the worker does ----------------------------------------------------------------------------------------------

BATCH = (Running("r1", "f"), Running("r2", "f"), Running("r3", "g"))
AWAY = Running("the one away", "f")


def _known(running: Sequence[Running], *, new: int = 0, away: Running | None = None) -> tuple[Named, ...]:
    """A sound worker with these requests running; who has had a forward step holds an output token."""
    held = sum_of(one.private for one in running)
    computed = running[: len(running) - new]
    everybody = (*running, *((away,) if away is not None else ()))
    limits = (all_of(at_most(one.most, L_OUT), at_most(one.unknown("input") + one.most, M)) for one in everybody)
    return (
        *PARAMETERS,
        ("running requests are sound", all_of(*(one.sound() for one in running))),
        ("requests keep their limits, and could fit [checked by submit]", all_of(*limits)),
        (
            "who has had a forward step holds an output token of its own",
            all_of(*(all_of(at_least(one.generated, 1), at_least(one.private, one.generated)) for one in computed)),
        ),
        (
            "who has had none holds its prompt",
            all_of(*(at_least(one.private, one.generated) for one in running[len(running) - new :])),
        ),
        ("what is locked and held fits into M", all_of(at_least(LOCKED, 0), at_most(LOCKED + held, M))),
        ("without running requests nothing is locked", TRUE if running else equal(LOCKED, 0)),
        ("the batch is no larger than B", at_most(len(running), B)),
        ("who leaves frees only what is its own", leaving_contract(running)),
    )


def room(
    visibility: str, count: int, *, new: int, asynchronous: bool, worker_type: type[SwapWorker] = SwapWorker
) -> Iterator[Obligation]:
    """Room for outputs, then a forward step: who is left, running or away, could be counted by its own tokens."""
    running = BATCH[:count]
    assumed = _known(running, new=new)
    world = SwapWorld(
        [formula for _, formula in assumed], visibility, asynchronous=asynchronous, worker_type=worker_type
    )

    def body() -> Formula:
        worker = world.build(running, new=new)
        residents = {run.queued.id: run.queued.resident for run in worker.running}
        worker._preempt_until_outputs_fit()
        batch = tuple(worker.running)
        worker._forward()
        left = len(worker.running) + len(worker.away)
        if charged(worker) != Counter(run.queued.client for run in batch):
            return FALSE
        return all_of(
            swap_books(worker),
            at_most(left + 1, M) if left else TRUE,
            at_most(left, B),
            *(equal(away.queued.resident, residents[name]) for name, away in worker.away.items()),
            *(equal(run.queued.resident, residents[run.queued.id] + 1) for run in batch),
        )

    kind = "asynchronous" if asynchronous else "synchronous"
    name = f"{kind} room for {count} requests, {new} of them new, visible {visibility}: who is left fits, and pays once"
    yield from postcondition(name, assumed, world.exploration, body)


def copy_out(*, worker_type: type[SwapWorker] = SwapWorker) -> Iterator[Obligation]:
    """A swap-out gives memory back when its copy is done and not before, and charges nobody."""
    running = BATCH[:2]
    assumed = _known(running)
    world = SwapWorld([formula for _, formula in assumed], AT_ADMISSION, asynchronous=True, worker_type=worker_type)

    def body() -> Formula:
        worker = world.build(running)
        leaving = worker.running[-1]
        free = worker.free_tokens()
        if not worker._try_swap_out(leaving):
            return all_of(swap_books(worker), equal(len(worker.running), 2))
        during = worker.free_tokens()
        away = worker.away[leaving.queued.id]
        if worker.states.of(leaving.queued.id) is not State.SWAPPING_OUT or leaving in worker.running:
            return FALSE
        held = all_of(swap_books(worker), equal(poly(during), poly(free)))
        worker._wait_for(away.done_us)
        done = worker.states.of(leaving.queued.id) is State.SWAPPED
        after = at_least(poly(worker.free_tokens()), poly(during) + poly(leaving.private))
        if charged(worker) or not done:
            return FALSE
        return all_of(held, swap_books(worker), after)

    name = "a swap-out keeps its memory until the copy is done, and costs nothing"
    yield from postcondition(name, assumed, world.exploration, body)


def copy_in(visibility: str, count: int, *, worker_type: type[SwapWorker] = SwapWorker) -> Iterator[Obligation]:
    """A swap-in comes back with what it left with, joins when its copy is done, fits, and charges nobody."""
    running = BATCH[:count]
    unfinished = between(1, AWAY.generated, AWAY.unknown("output") - ONE)
    assumed = (
        *_known(running, away=AWAY),
        ("who is away has a prompt and some of its output", all_of(at_least(AWAY.unknown("input"), 1), unfinished)),
        ("it keeps its own limit", at_most(AWAY.unknown("output"), AWAY.most)),
        ("the cache keeps its contract", cache_contract(AWAY.unknown("input"))),
    )
    world = SwapWorld([formula for _, formula in assumed], visibility, asynchronous=True, worker_type=worker_type)
    resident = AWAY.unknown("input") + AWAY.generated

    def body() -> Formula:
        worker = world.build(running, AWAY)
        worker._begin_copies_in()
        away: Away = worker.away[AWAY.name]
        if worker.states.of(AWAY.name) is State.SWAPPED:
            return all_of(swap_books(worker), at_least(count, 1))
        if len(worker.running) != count:
            return FALSE
        during = swap_books(worker)
        worker._wait_for(away.done_us)
        back = [run for run in worker.running if run.queued.id == AWAY.name]
        if len(back) != 1 or AWAY.name in worker.away or charged(worker):
            return FALSE
        return all_of(
            during,
            swap_books(worker),
            equal(poly(back[0].queued.resident), resident),
            at_least(poly(back[0].private), 1),
            at_most(len(worker.running), B),
            at_least(poly(worker.free_tokens()), len(worker.running)),
        )

    name = f"a swap-in beside {count} requests, visible {visibility}, joins with its tokens when its copy is done"
    yield from postcondition(name, assumed, world.exploration, body)


def worker_obligations(worker_type: type[SwapWorker] = SwapWorker) -> Iterator[Obligation]:
    """Everything that the worker does with requests that are swapped."""
    yield from copy_out(worker_type=worker_type)
    for visibility in (AT_ADMISSION, AFTER_FORWARD):
        for count in (0, 1, 2):
            yield from copy_in(visibility, count, worker_type=worker_type)
    for asynchronous in (False, True):
        for count, new in ((1, 0), (2, 0), (2, 1), (3, 1)):
            yield from room(AT_ADMISSION, count, new=new, asynchronous=asynchronous, worker_type=worker_type)


# -- controls ----------------------------------------------------------------------------------------------------------


class GivesBackAtOnce(SwapWorker):
    """Gives GPU memory back when the copy-out begins."""

    def _swap_out(self, run: RunningRequest, copy: Copy) -> None:
        """The blocks may be used again although they are still being read."""
        super()._swap_out(run, copy)
        away = self.away[run.queued.id]
        if self.states.of(run.queued.id) is State.SWAPPING_OUT:
            self._copied_out(away)


class JoinsAtOnce(SwapWorker):
    """Decodes a request whose copy-in has only begun."""

    def _swap_in(self, away: Away, private: int) -> None:
        """It joins before its tokens are there."""
        super()._swap_in(away, private)
        if self.states.of(away.queued.id) is State.SWAPPING_IN:
            self._copied_in(away)


class PaysForComingBack(SwapWorker):
    """Charges what comes back as if it had been computed again."""

    def _copied_in(self, away: Away) -> None:
        """A token for a token."""
        super()._copied_in(away)
        self.policy.charge_outputs({away.queued.client: 1})


class TakesNoMemory(SwapWorker):
    """Counts nothing for a request that comes back."""

    def _swap_in(self, away: Away, private: int) -> None:
        """Memory is used and not counted."""
        super()._swap_in(away, private)
        self._set_aside -= private


class MakesNoRoom(SwapWorker):
    """Runs everybody, whether or not the output tokens fit."""

    def _preempt_until_outputs_fit(self) -> None:
        """Nobody is preempted."""


def _worker_mutants(*worker_types: type[SwapWorker]) -> tuple[Mutant, ...]:
    """Workers that must be noticed."""
    return tuple(
        Mutant(kind.__name__, (kind.__doc__ or "").strip(), partial(worker_obligations, kind), {})
        for kind in worker_types
    )


E4_ONCE = Theorem(
    id="E4/once",
    title="Service is charged once across swap and resume",
    source="ours, for FastSwitch [arXiv:2411.18424]",
    statement="Swapping out, being away and coming back change no counter and no token of a request; GPU memory is"
    " given back when the copy-out is done, and a request decodes when its copy-in is.",
    hypotheses=("the prefix cache keeps its contract: what is locked counts as locked",),
    expected=Verdict.PROVED,
    checked="The worker's own functions, for up to three running requests and one away, both kinds of visibility,"
    " synchronous and asynchronous, whatever CPU memory can hold.",
    argued="More requests change nothing: the functions go through them one by one and add up.",
    obligations=worker_obligations,
    mutants=_worker_mutants(GivesBackAtOnce, JoinsAtOnce, PaysForComingBack, TakesNoMemory, MakesNoRoom),
)
