"""What the theorems about chunked prefill assume of its worker, proved of the worker's own functions.

They run on symbolic numbers around a cache of which only the contract is known (`opaque.py`), with up to two requests
running, decoding or half computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dlpm.batch import AFTER_FORWARD, AT_ADMISSION, WorkerConfig
from dlpm.extensions.chunked_prefill import ChunkedPrefill, ChunkedWorker, Gate, Prefill
from dlpm.memory import AdmissionControl, Reserving
from dlpm.policies.base import Policy
from dlpm.request import BlockKey, ClientId
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_proofs.opaque import LOCKED, REACH, Meter, OpaqueWorker, Running, books, insertion_contract, sum_of
from dlpm_proofs.postcondition import postcondition
from dlpm_proofs.solve import Named, Obligation
from dlpm_proofs.terms import FALSE, Formula, Poly, all_of, any_of, at_least, at_most, between, equal, implies, poly
from dlpm_proofs.theorems import m1_memory
from dlpm_proofs.theorems.m1_memory import BATCH, INPUT, NEW
from dlpm_proofs.transitions import L_IN, B, M

BUDGET, CAP = Poly.unknown("N"), Poly.unknown("cap")
ONE = Poly.constant(1)
FIRST, SECOND = BATCH
RESERVING = Reserving()


class ChunkMeter(Meter):
    """A policy that keeps what it is told to charge."""

    def __init__(self) -> None:
        """Nothing charged."""
        super().__init__()
        self.chunks: dict[ClientId, int] = {}

    def charge_chunk(self, client: ClientId, tokens: int) -> None:
        """Keep the extend tokens of a chunk."""
        self.chunks[client] = self.chunks.get(client, 0) + tokens

    def refill_the_poor(self) -> Mapping[ClientId, int]:
        """Nobody has a counter."""
        return {}


class OpenBlocks(ChunkedWorker):
    """The worker, with open how far the blocks reach that are computed: see `Scene.computed_only`.

    The prompt of the request admitted first, or now, grows in the cache; those between are alike.
    """

    def _computed_blocks(self, prefill: Prefill) -> Sequence[BlockKey]:
        """The one block of the opaque cache."""
        grows = prefill.run is self.running[0] or prefill.run.queued.id == NEW.name
        return prefill.run.queued.blocks if grows else ()


@dataclass(frozen=True, slots=True)
class Half:
    """A running request of which ``left`` extend tokens are not computed, ``now`` of them having been taken already."""

    one: Running

    @property
    def left(self) -> Poly:
        """Extend tokens that no step has taken."""
        return self.one.unknown("left")

    @property
    def now(self) -> Poly:
        """Extend tokens that this step has taken."""
        return self.one.unknown("chunk")


@dataclass(frozen=True, slots=True)
class Scene:
    """Who decodes and who is half computed, in the order of admission; under which gate, and who can match what.

    ``roomy``: the budget has a token for every running request.
    """

    decoding: Sequence[Running]
    half: Sequence[Half]
    gate: Gate = Gate.REQUEST
    visibility: str = AT_ADMISSION
    worker: type[ChunkedWorker] = OpenBlocks
    capped: bool = False
    memory: AdmissionControl = RESERVING
    roomy: bool = False

    def running(self) -> tuple[Running, ...]:
        """Everybody in the batch."""
        return (*self.decoding, *(half.one for half in self.half))

    def hypotheses(self, *, taken: bool) -> tuple[Named, ...]:
        """A sound worker; ``taken``: this step's chunks have been taken."""
        half = self.half
        return (
            *m1_memory.hypotheses(self.running()),
            ("who decodes took a token of the last step's budget", at_least(BUDGET, max(1, len(self.decoding)))),
            (
                "what is not computed is in nobody's cache",
                all_of(*(between(0 if taken else 1, each.left, each.one.private) for each in half)),
            ),
            *((("the cap has a token", at_least(CAP, 1)),) if self.capped else ()),
            ("a chunk has a token", all_of(*(between(ONE if taken else 0, each.now, BUDGET) for each in half))),
            *(() if taken else (("no chunk is taken yet", all_of(*(equal(each.now, 0) for each in half))),)),
            ("nothing has been generated", all_of(*(equal(each.one.generated, 0) for each in half))),
        )

    def world(self, assumed: Sequence[Named]) -> OpaqueWorker:
        """Workers in this scene."""
        formulas = [formula for _, formula in assumed]
        symbols: list[OpaqueWorker] = []

        def make(config: WorkerConfig, policy: Policy) -> Worker:
            most = symbols[0].symbol(CAP) if self.capped else None
            chunks = ChunkedPrefill(symbols[0].symbol(BUDGET), self.gate, most=most)
            return self.worker(config, ChunkMeter(), FixedStep(1), chunks)

        world = OpaqueWorker(formulas, self.memory, self.visibility, make)
        symbols.append(world)
        return world

    def build(self, world: OpaqueWorker) -> ChunkedWorker:
        """The worker of the running path."""
        worker = world.build(self.running())
        assert isinstance(worker, ChunkedWorker)
        for run, half in zip(worker.running[len(self.decoding) :], self.half, strict=True):
            run.computed = False
            left, now = world.symbol(half.left), world.symbol(half.now)
            worker._prefills[half.one.name] = Prefill(run, left, 0, now)
        return worker

    def computed_only(self, worker: ChunkedWorker) -> Formula:
        """What the first prompt has in the cache ends within its computed tokens [`ChunkedWorker._computed_blocks`]."""
        first = self.running()[0]
        prefill = worker._prefills.get(first.name)
        left = poly(prefill.left) if prefill is not None else Poly.constant(0)
        return at_most(REACH, first.unknown("input") - left)

    def name(self) -> str:
        """In a few words."""
        return f"{len(self.decoding)} decodes and {len(self.half)} half computed, visible {self.visibility}"


SCENES = (
    Scene((), ()),
    Scene((), (Half(FIRST),)),
    Scene((FIRST,), ()),
    Scene((FIRST, SECOND), ()),
    Scene((FIRST,), (Half(SECOND),)),
    Scene((), (Half(FIRST), Half(SECOND))),
)


def charges(worker: Worker) -> Mapping[ClientId, int]:
    """The extend tokens that the policy was told to charge without asking its gate."""
    assert isinstance(worker.policy, ChunkMeter)
    return worker.policy.chunks


def continuing(scene: Scene) -> Iterator[Obligation]:
    """Decodes, then chunks: within the budget, charged as taken; and some budget is left only if nothing is pending.

    With a cap: only if each has had as much as the cap, or all it needs.
    """
    half = scene.half
    contract = (("the cache keeps its contract", _insertion(half)),) if half else ()
    assumed = (*scene.hypotheses(taken=False), *contract)
    world = scene.world(assumed)

    def body() -> Formula:
        worker = scene.build(world)
        worker._start_budget()
        worker._continue_prefills()
        prefills = list(worker._prefills.values())
        taken = [each.left - poly(prefill.left) for each, prefill in zip(half, prefills, strict=True)]
        paid = sum_of(poly(tokens) for tokens in charges(worker).values())
        rest = poly(worker._budget)
        needs_no_more = all_of(
            *(
                any_of(equal(prefill.left, 0), equal(prefill.chunk, CAP)) if scene.capped else equal(prefill.left, 0)
                for prefill in prefills
            )
        )
        return all_of(
            at_least(rest, 0),
            equal(rest + sum_of(taken) + Poly.constant(len(scene.decoding)), BUDGET),
            equal(paid, sum_of(taken)),
            *(between(0, tokens, each.left) for tokens, each in zip(taken, half, strict=True)),
            *(equal(prefill.chunk, tokens) for prefill, tokens in zip(prefills, taken, strict=True)),
            *((at_least(taken[0], 1),) if half and (scene.roomy or not scene.decoding) else ()),
            implies(at_least(rest, 1), needs_no_more),
            implies(scene.computed_only(worker), _sound(worker)),
        )

    who = "nobody may have more" if scene.capped else "nothing is pending"
    name = f"{scene.name()}: chunks stay within the budget, and leave some only if {who}"
    yield from postcondition(name, assumed, world.exploration, body)


def admission(scene: Scene) -> Iterator[Obligation]:
    """An admission needs budget, shares ``M`` with what is reserved, and ends the budget if it does not end itself."""
    pending = any_of(*(at_least(half.left, 1) for half in scene.half))
    ends = implies(pending, at_most(REST, 0)) if scene.gate is Gate.REQUEST else all_of()
    contract = (
        *m1_memory.arrival(),
        ("some budget may be left", between(0, REST, BUDGET)),
        ("where chunks are not gated they have taken what they need of it", ends),
    )
    assumed = (*scene.hypotheses(taken=True), *contract)
    world = scene.world(assumed)
    running = scene.running()
    held = LOCKED + sum_of(one.private for one in running)
    reserved = sum_of(one.most - one.generated for one in running)

    def body() -> Formula:
        worker = scene.build(world)
        worker._budget = world.symbol(REST)
        queued = world.queued(NEW)
        worker._enqueue(queued)
        chunk = worker.try_admit(queued)
        if chunk is None:
            return equal(REST, 0) if not running else all_of()
        run = worker.running[-1]
        left = poly(worker._prefills[NEW.name].left)
        return all_of(
            at_least(REST, 1),
            between(1, chunk, REST),
            equal(poly(run.extend), poly(chunk) + left),
            equal(poly(worker._budget), REST - poly(chunk)),
            implies(at_least(left, 1), equal(worker._budget, 0)),
            between(1, run.extend, L_IN),
            at_most(poly(run.extend) + m1_memory.MOST + reserved + held, M),
            at_most(len(worker.running), B),
            *(equal(worker._prefills[each.one.name].left, 0) for each in scene.half if each.one.client == NEW.client),
            implies(at_most(REACH, INPUT - left), _sound(worker)),
        )

    name = f"{scene.name()}: an admission takes budget, and leaves none if its prompt is longer"
    yield from postcondition(name, assumed, world.exploration, body)


def forward(scene: Scene) -> Iterator[Obligation]:
    """Only those whose prompt is computed get a token, which was reserved; the others lose and get nothing."""
    half = scene.half
    contract = (("the cache keeps its contract", _insertion(half)),) if half else ()
    assumed = (*scene.hypotheses(taken=True), *contract)
    world = scene.world(assumed)

    def body() -> Formula:
        worker = scene.build(world)
        worker._make_room_for_outputs()
        if len(worker.running) != len(scene.running()):
            return FALSE
        yielding = {run.queued.id for run in worker._yielding()}
        before = tuple(worker.running)
        worker._forward()
        took = {
            one.name: one.most - one.generated - poly(run.reserved)
            for one, run in zip(scene.running(), before, strict=True)
        }
        ended = all_of(
            *(
                all_of(equal(each.left, 0), equal(took[each.one.name], 1))
                if each.one.name in yielding
                else all_of(at_least(each.left, 1), equal(took[each.one.name], 0))
                for each in half
            ),
            *(equal(took[one.name], 1) for one in scene.decoding),
        )
        paid = sum_of(poly(tokens) for tokens in m1_memory.charged(worker).values())
        left = set(worker._prefills)
        if left != {each.one.name for each in half} - yielding:
            return FALSE
        return all_of(ended, equal(paid, sum_of(took.values())), implies(scene.computed_only(worker), _sound(worker)))

    name = f"{scene.name()}: a forward step gives a token to those whose prompt is computed"
    yield from postcondition(name, assumed, world.exploration, body)


def stall(scene: Scene) -> Iterator[Obligation]:
    """Where nothing else can run the oldest half computed request gets a chunk: no step is empty, none is over."""
    half = scene.half
    assumed = (*scene.hypotheses(taken=False), ("the cache keeps its contract", _insertion(half)))
    world = scene.world(assumed)

    def body() -> Formula:
        worker = scene.build(world)
        worker._stalled()
        oldest, *others = worker._prefills.values()
        paid = sum_of(poly(tokens) for tokens in charges(worker).values())
        return all_of(
            between(1, oldest.chunk, BUDGET),
            equal(poly(oldest.left) + poly(oldest.chunk), half[0].left),
            *(equal(prefill.chunk, 0) for prefill in others),
            equal(paid, oldest.chunk),
            implies(scene.computed_only(worker), _sound(worker)),
        )

    yield from postcondition(f"{scene.name()}: a stall ends with a chunk on debt", assumed, world.exploration, body)


REST = Poly.unknown("rest of the budget")


def _insertion(half: Sequence[Half]) -> Formula:
    """The first half computed prompt can be matched up to somewhere among its computed tokens."""
    return insertion_contract(half[0].one.path, half[0].one.unknown("input"))


def _sound(worker: ChunkedWorker) -> Formula:
    """The books balance, and what is not computed is in nobody's cache."""
    prefills = worker._prefills.values()
    return all_of(books(worker), *(between(0, prefill.left, prefill.run.private) for prefill in prefills))


def obligations(worker: type[ChunkedWorker] = OpenBlocks) -> Iterator[Obligation]:
    """Everything; forward steps for both kinds of visibility, between which they differ."""
    for scene in SCENES:
        placed = replace(scene, worker=worker)
        yield from admission(placed)
        if scene.half:
            yield from continuing(placed)
            for visibility in (AT_ADMISSION, AFTER_FORWARD):
                yield from forward(replace(placed, visibility=visibility))


def gated_obligations(worker: type[ChunkedWorker] = OpenBlocks) -> Iterator[Obligation]:
    """The same where chunks are gated: one half computed prompt a client, and no empty step."""
    for scene in SCENES:
        placed = replace(scene, gate=Gate.CHUNK, worker=worker)
        yield from admission(placed)
        if scene.half:
            yield from forward(placed)
            if not scene.decoding:
                yield from stall(placed)


def capped_obligations(worker: type[ChunkedWorker] = OpenBlocks) -> Iterator[Obligation]:
    """Where a step computes at most so much of one request."""
    for scene in SCENES:
        if scene.half:
            yield from continuing(replace(scene, worker=worker, capped=True))
