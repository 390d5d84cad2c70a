"""M3: what ENGINE/optimistic assumes of a worker with chunks and optimistic memory is what the reference's worker does.

As in M2, the worker's own functions run around a cache of which only the contract is known. Of one client up to two
requests decode, each for ``s`` forward steps or more since the client's last admission, and one more is the last that
was let in: half computed, or decoding by now. Any of them may be preempted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from dlpm import bounds
from dlpm.batch import AFTER_FORWARD, AT_ADMISSION, RunningRequest
from dlpm.extensions.chunked_prefill import ChunkedWorker, Prefill
from dlpm.memory import AdmissionControl, Optimistic
from dlpm.request import BlockKey
from dlpm_proofs.chunk_worker import BUDGET, REST, Half, OpenBlocks, Scene, continuing
from dlpm_proofs.definitions import define
from dlpm_proofs.opaque import (
    LOCKED,
    REACH,
    Running,
    books,
    cache_contract,
    insertion_contract,
    leaving_contract,
    sum_of,
)
from dlpm_proofs.postcondition import postcondition
from dlpm_proofs.solve import Named, Obligation, possible
from dlpm_proofs.terms import TRUE, Formula, Poly, all_of, any_of, at_least, at_most, between, equal, implies, poly
from dlpm_proofs.theorem import Mutant, Theorem, Verdict
from dlpm_proofs.theorems.e2_chunked_prefill import EarlyOutput, OverBudget
from dlpm_proofs.theorems.m2_optimistic_memory import NEW, RECOMPUTED, STEPS, Overbooking, Phantom
from dlpm_proofs.transitions import L_IN, L_OUT, PARAMETERS, B, M

ONE = Poly.constant(1)
OTHERS = (Running("r1", "f"), Running("r2", "f"))
LAST = Running("the last", "f")
OPTIMISTIC = Optimistic()
WHOLE, YIELDED = LAST.unknown("extend"), LAST.unknown("yielded since admission")


class LastGrows(OpenBlocks):
    """The worker, with open how far the blocks reach that are computed of the request let in last."""

    def _computed_blocks(self, prefill: Prefill) -> Sequence[BlockKey]:
        """The one block of the opaque cache."""
        return prefill.run.queued.blocks


@dataclass(frozen=True, slots=True)
class Late(Scene):
    """Requests of one client, ``s`` steps after its last admission; the last one is half computed, or decodes."""

    last: Running | None = None
    worker: type[ChunkedWorker] = LastGrows
    memory: AdmissionControl = OPTIMISTIC
    roomy: bool = True

    def hypotheses(self, *, taken: bool) -> tuple[Named, ...]:
        """A sound worker; ``taken``: this step's chunk has been taken."""
        running = self.running()
        held = sum_of(one.private for one in running)
        others = (one for one in self.decoding if one is not self.last)
        each = (all_of(one.sound(), at_most(one.most, L_OUT), at_least(one.private, one.generated)) for one in running)
        return (
            *PARAMETERS,
            ("running requests are sound", all_of(at_least(STEPS, 0), *each, leaving_contract(running))),
            (
                "those let in earlier have yielded a token a step",
                all_of(*(at_least(o.generated, STEPS) for o in others)),
            ),
            ("the last one computed or yielded some in each", self._lasting(taken)),
            ("what is locked and held fits into M", all_of(at_least(LOCKED, 0), at_most(LOCKED + held, M))),
            ("without running requests nothing is locked", TRUE if running else equal(LOCKED, 0)),
            (
                "the budget has a token for each that runs, and the batch is within its limit",
                all_of(at_least(BUDGET, max(1, len(running))), at_most(len(running), B)),
            ),
        )

    def _lasting(self, taken: bool) -> Formula:
        """What is known of the last one: all it computed of its extend tokens, and yielded, is in memory."""
        resident = LAST.unknown("input") + LAST.generated
        if self.half:
            (half,) = self.half
            return all_of(
                between(ONE, WHOLE, resident),
                between(0 if taken else 1, half.left, LAST.private),
                between(ONE if taken else 0, half.now, BUDGET if taken else Poly.constant(0)),
                at_least(WHOLE - half.left - half.now, STEPS),
            )
        if self.last is None:
            return TRUE
        return all_of(
            between(ONE, YIELDED, LAST.generated),
            between(ONE, WHOLE, resident - YIELDED),
            at_least(WHOLE + YIELDED - ONE, STEPS),
        )

    def computed_only(self, worker: ChunkedWorker) -> Formula:
        """What the last prompt has in the cache ends within its computed tokens [`ChunkedWorker._computed_blocks`]."""
        prefill = worker._prefills.get(LAST.name)
        left = poly(prefill.left) if prefill is not None else Poly.constant(0)
        return at_most(REACH, LAST.unknown("input") + LAST.generated - left) if self.half else TRUE

    def name(self) -> str:
        """In a few words."""
        last = (
            "none let in last" if self.last is None else f"the last one {'half computed' if self.half else 'decoding'}"
        )
        return f"{len(self.decoding)} decode, {last}, visible {self.visibility}"


SCENES = (
    *(Late(OTHERS[:count], ()) for count in (1, 2)),
    *(Late((*OTHERS[:count], LAST), (), last=LAST) for count in (0, 1, 2)),
    *(Late(OTHERS[:count], (Half(LAST),), last=LAST) for count in (0, 1, 2)),
)


def admission(scene: Late) -> Iterator[Obligation]:
    """`try_admit`: nobody is half computed then; the longest recomputation is the most to compute, some of it now."""
    recomputed = define(
        "longest recomputation",
        lambda symbol: bounds.longest_recomputation(symbol(L_IN), symbol(M), symbol(L_OUT)),
    )
    resident = NEW.unknown("input") + NEW.generated
    pending = any_of(*(at_least(half.left, 1) for half in scene.half))
    assumed = (
        *scene.hypotheses(taken=True),
        recomputed.meaning,
        ("the request keeps the limits", all_of(between(1, NEW.unknown("input"), L_IN), at_most(NEW.most, L_OUT))),
        ("it has not generated all its output", between(0, NEW.generated, NEW.most - ONE)),
        ("input and output could fit into M [checked by submit]", at_most(NEW.unknown("input") + NEW.most, M)),
        ("the cache keeps its contract", cache_contract(NEW.unknown("input"))),
        ("some budget may be left", between(0, REST, BUDGET)),
        ("but none where somebody is half computed", implies(pending, at_most(REST, 0))),
    )
    world = scene.world(assumed)

    def body() -> Formula:
        worker = scene.build(world)
        worker._budget = world.symbol(REST)
        queued = world.queued(NEW)
        worker._enqueue(queued)
        chunk = worker.try_admit(queued)
        if chunk is None:
            return any_of(equal(REST, 0), TRUE if scene.running() else equal(BUDGET, 0))
        left = poly(worker._prefills[NEW.name].left)
        extend = poly(worker.running[-1].extend)
        return all_of(
            at_least(REST, 1),
            equal(extend, poly(chunk) + left),
            between(1, chunk, REST),
            between(1, extend, RECOMPUTED),
            at_most(extend, resident),
            implies(at_least(left, 1), equal(worker._budget, 0)),
            *(equal(worker._prefills[half.one.name].left, 0) for half in scene.half),
            at_most(len(worker.running), B),
            implies(
                at_most(REACH, resident - left), all_of(books(worker), between(0, left, worker.running[-1].private))
            ),
        )

    name = f"{scene.name()}: an admission computes at most a recomputation, beside nobody half computed"
    yield from postcondition(name, assumed, world.exploration, body)


def forward(scene: Late) -> Iterator[Obligation]:
    """Room for outputs, then a forward step: what still runs holds one token more each, and all of it fits."""
    grows = scene.half[0].one if scene.half else scene.running()[0]
    contract = insertion_contract(grows.path, grows.unknown("input"))
    assumed = (*scene.hypotheses(taken=True), ("the cache keeps its contract", contract))
    world = scene.world(assumed)

    def body() -> Formula:
        worker = scene.build(world)
        worker._make_room_for_outputs()
        worker._forward()
        count = len(worker.running)
        within = all_of(
            books(worker),
            *(_lasts(scene, worker, run) for run in worker.running),
            *(at_least(run.private, run.queued.generated) for run in worker.running),
            at_most((STEPS + ONE) * Poly.constant(count) + ONE, M) if count else TRUE,
            *(at_most(STEPS + ONE, L_OUT) for run in worker.running if run.queued.id != LAST.name),
        )
        return implies(scene.computed_only(worker), within)

    name = f"{scene.name()}: after a forward step what still runs fits with s + 1 tokens each"
    yield from postcondition(name, assumed, world.exploration, body)


def _lasts(scene: Late, worker: ChunkedWorker, run: RunningRequest) -> Formula:
    """One more step has gone by, and the request computed or yielded something in it."""
    if run.queued.id != LAST.name:
        return at_least(run.queued.generated, STEPS + ONE)
    prefill = worker._prefills.get(LAST.name)
    resident = LAST.unknown("input") + LAST.generated
    if prefill is None:
        yielded = ONE if scene.half else YIELDED + ONE
        return all_of(equal(run.queued.resident, resident + ONE), at_least(WHOLE + yielded - ONE, STEPS + ONE))
    return all_of(
        equal(run.queued.resident, resident),
        equal(prefill.chunk, 0),
        between(1, prefill.left, run.private),
        at_least(WHOLE - poly(prefill.left), STEPS + ONE),
    )


def obligations(memory: AdmissionControl = OPTIMISTIC, worker: type[ChunkedWorker] = LastGrows) -> Iterator[Obligation]:
    """Admissions, chunks and forward steps; the latter for both kinds of visibility, between which they differ."""
    empty = Late((), (), memory=memory, worker=worker)
    for scene in (empty, *SCENES):
        placed = replace(scene, memory=memory, worker=worker)
        yield possible(f"{placed.name()}: can be", placed.hypotheses(taken=True), at_least(STEPS, 2), {})
        yield from admission(placed)
        if placed.half:
            yield from continuing(placed)
        if placed.running():
            for visibility in (AT_ADMISSION, AFTER_FORWARD):
                yield from forward(replace(placed, visibility=visibility))


class DecodesOnly(LastGrows):
    """Computes chunks only where nothing decodes, so that a decode delays a prompt."""

    def _continue_prefills(self) -> None:
        """Nothing beside decodes."""
        if not any(run.computed for run in self.running):
            super()._continue_prefills()


class Early(LastGrows, EarlyOutput):
    """Gives every running request a token, half computed or not."""


class Uncounted(LastGrows, OverBudget):
    """Takes chunks without counting them."""


def _mutants() -> tuple[Mutant, ...]:
    """Kinds of memory and workers that must be noticed."""
    changed: tuple[tuple[AdmissionControl, type[ChunkedWorker]], ...] = (
        (Overbooking(), LastGrows),
        (Phantom(), LastGrows),
        (OPTIMISTIC, DecodesOnly),
        (OPTIMISTIC, Early),
        (OPTIMISTIC, Uncounted),
    )
    found = []
    for memory, worker in changed:
        kind = type(memory) if worker is LastGrows else worker
        found.append(Mutant(kind.__name__, (kind.__doc__ or "").strip(), partial(obligations, memory, worker), {}))
    return tuple(found)


M3 = Theorem(
    id="M3",
    title="Optimistic memory keeps its contract with chunks",
    source="ours",
    statement="n requests, s steps after the last admission of one, hold n s + 1 <= M tokens, though it may be half"
    " computed; an admission computes at most E in all, and some at once.",
    hypotheses=(
        "the prefix cache keeps its contract: what is locked counts as locked",
        "the budget has a token for each running request; no cap on a request's chunk",
    ),
    expected=Verdict.PROVED,
    checked="The chunked worker's try_admit, _continue_prefills, _make_room_for_outputs and _forward, for up to three.",
    argued="More running requests change nothing, as in M2; those of other clients only take memory.",
    obligations=obligations,
    mutants=_mutants(),
)
