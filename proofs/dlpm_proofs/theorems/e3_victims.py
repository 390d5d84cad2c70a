"""E3: who is preempted and who is charged, proved of the worker's and the policy's own functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dlpm.batch import AT_ADMISSION, RunningRequest, WorkerConfig
from dlpm.extensions.recompute import Payer, Recompute, RecomputeWorker, Victim
from dlpm.memory import Optimistic
from dlpm.policies.base import Policy
from dlpm.request import ClientId
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_proofs.opaque import LOCKED, Meter, OpaqueWorker, Running, cache_contract, freed_by, sum_of
from dlpm_proofs.postcondition import postcondition
from dlpm_proofs.solve import Named, Obligation, claim
from dlpm_proofs.symbolic import Path
from dlpm_proofs.terms import (
    FALSE,
    Formula,
    Poly,
    all_of,
    any_of,
    at_least,
    at_most,
    between,
    equal,
    implies,
    poly,
)
from dlpm_proofs.theorems import m2_optimistic_memory as m2
from dlpm_proofs.theorems import t2_optimistic
from dlpm_proofs.theorems.t2_optimistic import ONE, SO_FAR
from dlpm_proofs.theorems.t3_t4_gap import SAME_QUANTUM, paid_alike
from dlpm_proofs.transitions import (
    BEFORE,
    CLIENTS,
    L_IN,
    L_OUT,
    PARAMETERS,
    REFERENCE,
    WEIGHTED,
    Algorithm,
    F,
    G,
    M,
    Memory,
    State,
    queued,
    visit_adding,
    visit_of,
)

NEW = m2.NEW
CAUSED, CHARGED, ROOM = Poly.unknown("K"), Poly.unknown("e again"), Poly.unknown("watermark")


class RecomputeMeter(Meter):
    """A policy that keeps what it is told to charge, and to whom."""

    def __init__(self) -> None:
        """Nothing charged."""
        super().__init__()
        self.again: dict[ClientId, int] = {}

    def charge_recomputation(self, client: ClientId, tokens: int) -> None:
        """Keep it."""
        self.again[client] = tokens


def _maker(rules: Recompute, worker: type[RecomputeWorker] = RecomputeWorker) -> m2.Make:
    """Makes workers with these rules."""

    def make(config: WorkerConfig, policy: Policy) -> Worker:
        return worker(config, RecomputeMeter(), FixedStep(1), rules)

    return make


# -- who is preempted --------------------------------------------------------------------------------------------------


def any_victim(worker: type[RecomputeWorker] = RecomputeWorker) -> Iterator[Obligation]:
    """M2's forward step for every rule of victims, and who of the batch is never preempted."""
    for victim in Victim:
        make = _maker(Recompute(victim), worker)
        for count in range(1, len(m2.BATCH) + 1):
            yield from m2.forward(Optimistic(), AT_ADMISSION, m2.BATCH[:count], make=make)
            yield from somebody_stays(victim, m2.BATCH[:count], make)


def somebody_stays(victim: Victim, running: Sequence[Running], make: m2.Make) -> Iterator[Obligation]:
    """Who is furthest by the rule keeps its place: by `last` who has run longest, else who has most or least to do."""
    alone = (
        ("what the last one to run has locked is its own path", all_of(*(_own_path(one, running) for one in running))),
        (
            "each could run alone [checked by submit]",
            all_of(*(at_most(one.unknown("input") + one.most, M) for one in running)),
        ),
        (
            "each holds its path and what is private, and no more than it needs",
            all_of(*(equal(one.path + one.private, one.unknown("input") + one.generated) for one in running)),
        ),
    )
    assumed = (*m2.hypotheses(running), *alone)
    world = OpaqueWorker([formula for _, formula in assumed], Optimistic(), AT_ADMISSION, make)

    def body() -> Formula:
        worker = world.build(running)
        before = tuple(worker.running)
        worker._make_room_for_outputs()
        if not worker.running:
            return FALSE
        return any_of(*(_is_furthest(victim, run, before) for run in worker.running))

    name = f"of {len(running)} requests, victim {victim.value}, the furthest is not preempted"
    yield from postcondition(name, assumed, world.exploration, body)


def _own_path(one: Running, running: Sequence[Running]) -> Formula:
    """When all others have left, what ``one`` locks is all that is locked."""
    return equal(one.path, LOCKED - sum_of(freed_by(other.name) for other in running if other is not one))


def _is_furthest(victim: Victim, run: RunningRequest, before: Sequence[RunningRequest]) -> Formula:
    """Whether ``run`` is at the front by the rule."""
    if victim is Victim.LAST:
        return all_of() if run is before[0] else FALSE
    if victim is Victim.FEWEST_OUTPUTS:
        return all_of(*(at_least(poly(run.queued.generated), poly(other.queued.generated)) for other in before))
    return all_of(*(at_most(poly(run.queued.output_left), poly(other.queued.output_left)) for other in before))


class FirstVictim(RecomputeWorker):
    """Preempts who has run longest."""

    def _victim(self) -> RunningRequest:
        """The oldest."""
        return self.running[0]


class ReverseVictim(RecomputeWorker):
    """Preempts who has generated most."""

    def _victim(self) -> RunningRequest:
        """The furthest."""
        return max(self.running, key=lambda run: run.queued.generated)


# -- who pays ----------------------------------------------------------------------------------------------------------


def charges(payer: Payer, worker: type[RecomputeWorker] = RecomputeWorker) -> Iterator[Obligation]:
    """`try_admit` of a new and of a preempted request: what its client, and what the causer, is to be charged."""
    for preempted in (False, True):
        resident = NEW.unknown("input") + NEW.generated
        assumed: tuple[Named, ...] = (
            *m2.hypotheses(m2.BATCH[:1]),
            (
                "the request keeps the limits",
                all_of(between(1, NEW.unknown("input"), L_IN), at_most(NEW.most, L_OUT)),
            ),
            (
                "it has generated something before" if preempted else "it has generated nothing",
                between(0, NEW.generated, NEW.most - ONE) if preempted else equal(NEW.generated, 0),
            ),
            ("input and output could fit into M [checked by submit]", at_most(NEW.unknown("input") + NEW.most, M)),
            ("the cache keeps its contract", cache_contract(NEW.unknown("input"))),
        )
        world = OpaqueWorker(
            [formula for _, formula in assumed], Optimistic(), AT_ADMISSION, _maker(Recompute(payer=payer), worker)
        )

        def body(preempted: bool = preempted, world: OpaqueWorker = world, resident: Poly = resident) -> Formula:
            worker = world.build(m2.BATCH[:1])
            assert isinstance(worker, RecomputeWorker)
            queued_request = world.queued(NEW)
            worker._enqueue(queued_request)
            if preempted:
                worker._causers[NEW.name] = G
            charged = worker.try_admit(queued_request)
            if charged is None:
                return all_of()
            assert isinstance(worker.policy, RecomputeMeter)
            extend = poly(worker.running[-1].extend)
            of_causer = worker.policy.again.get(G, 0)
            if not preempted:
                own: Poly = poly(charged)
                within = all_of(between(1, own, L_IN), at_most(own, M - ONE), equal(of_causer, 0))
                return all_of(within, equal(own, extend))
            expected = {
                Payer.CLIENT: (extend, Poly.constant(0)),
                Payer.SYSTEM: (Poly.constant(0), Poly.constant(0)),
                Payer.CAUSER: (Poly.constant(0), extend),
            }[payer]
            return all_of(
                equal(poly(charged), expected[0]), equal(of_causer, expected[1]), between(1, extend, resident)
            )

        who = "preempted" if preempted else "new"
        name = f"payer {payer.value}: what an admission of a {who} request costs, and whom"
        yield from postcondition(name, assumed, world.exploration, body)


def client_pays(worker: type[RecomputeWorker] = RecomputeWorker) -> Iterator[Obligation]:
    """The floor of T2*/optimistic for every rule of victims."""
    yield from charges(Payer.CLIENT, worker)
    yield from any_victim(worker)
    yield from t2_optimistic.obligations()


def system_pays(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """The floor with an input in place of a recomputation; readmissions that cost nothing; and equal pay."""
    yield from charges(Payer.SYSTEM)
    yield from t2_optimistic.obligations(algorithm, paid_again=False)
    free = visit_adding("a visit of f that is let in again", F, algorithm, (), Poly.constant(0), lambda state: state)
    hypotheses = (*PARAMETERS, *t2_optimistic.sums(paid_again=False), ("S starts at 0", at_least(SO_FAR, 0)))
    assumed = (*hypotheses, *free.contract, ("the invariant holds", t2_optimistic.depth(BEFORE[F].deficit, SO_FAR)))
    kept = all_of(*(_after_free(path) for path in free.paths))
    yield claim("a readmission that nobody pays for keeps the depth", assumed, kept, t2_optimistic.PRODUCTS)
    yield from equal_pay(algorithm)


def _after_free(path: Path[State]) -> Formula:
    """A readmission starts no count anew: what was so deep is no deeper."""
    if path.result is None:
        return FALSE
    return implies(path.condition(), t2_optimistic.depth(path.result[F].deficit, SO_FAR))


def equal_pay(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """The books of T3 in what is *charged*: two backlogged clients are paid alike, so their gap is 2 (Q - floor)."""
    backlogged = tuple((f"{client} is backlogged", queued(client)) for client in (F, G))
    for client in CLIENTS:
        transition = visit_of(client, algorithm, Memory.ANY)
        yield from transition.obligations((*PARAMETERS, SAME_QUANTUM, *backlogged), paid_alike, WEIGHTED)
