"""E5: how deep a counter falls when a forward step yields several tokens a request.

The idea of the proof is that of T2*. What a step delivers was reserved when the request was let in, however many steps
it takes: ``q - w_q R`` falls at admissions only, and the floor does not know k. Only where clients also pay for tokens
that were accepted beyond the end of a request there is more to charge: k - 1 tokens for each running request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

from dlpm import bounds, bounds_extensions
from dlpm.batch import AFTER_FORWARD, AT_ADMISSION, WorkerConfig
from dlpm.events import EventSink, Extensions
from dlpm.extensions import speculation
from dlpm.extensions.speculation import Acceptance, SpeculativeWorker
from dlpm.memory import Reserving
from dlpm.policies.base import Policy
from dlpm.policies.dlpm import DLPM
from dlpm.request import ClientId, Request
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_proofs import mutants
from dlpm_proofs.deepest import CLIENT, Limits
from dlpm_proofs.definitions import Definition, cost, define, tight_unit
from dlpm_proofs.opaque import OpaqueWorker, Running, books, insertion_contract, sum_of
from dlpm_proofs.postcondition import postcondition
from dlpm_proofs.solve import Named, Obligation, claim
from dlpm_proofs.terms import FALSE, Formula, Poly, Products, all_of, any_of, at_least, at_most, between, equal, poly
from dlpm_proofs.theorem import Mutant, Theorem, Verdict
from dlpm_proofs.theorems import m1_memory, t2_floor
from dlpm_proofs.theorems.t3_t4_gap import balanced
from dlpm_proofs.transitions import (
    BEFORE,
    CLIENTS,
    COUNTS,
    L_OUT,
    PARAMETERS,
    REFERENCE,
    SAMPLE,
    W_Q,
    Algorithm,
    B,
    F,
    Memory,
    Runner,
    State,
    Transition,
    transitions,
    with_deficits,
)
from dlpm_proofs.witness import STEP_US, Demonstration, Setting, replay

SURPLUS = Poly.unknown("k-1")
"""The most tokens that one request accepts beyond its end."""


def _unknown(name: str, client: ClientId) -> Poly:
    return Poly.unknown(f"{name}_{client}")


ACCEPTED = {client: _unknown("delivered", client) for client in CLIENTS}
BEYOND = {client: _unknown("beyond", client) for client in CLIENTS}
ENDED = {client: _unknown("ended", client) for client in CLIENTS}
RETURNED = {client: _unknown("returned", client) for client in CLIENTS}
QUANTITIES = (ACCEPTED, BEYOND, ENDED, RETURNED)


@cache
def speculative_step(algorithm: Algorithm, *, surplus: bool) -> Transition:
    """One forward step and what finishes with it [contract: `worker_obligations`].

    Delivered tokens are taken from reservations; only requests that end accept more than they need.
    """
    contract: list[Named] = []
    past = {client: BEYOND[client] if surplus else Poly.constant(0) for client in CLIENTS}
    for client in CLIENTS:
        mine = BEFORE[client]
        kept = mine.reserved - ACCEPTED[client] - RETURNED[client]
        contract.append(
            (
                f"requests of {client} get what was reserved for them, and end or go on",
                all_of(
                    between(0, ENDED[client], mine.running),
                    at_least(ACCEPTED[client], mine.running),
                    at_least(RETURNED[client], 0),
                    between(0, kept, (mine.running - ENDED[client]) * L_OUT),
                    between(0, past[client], SURPLUS * ENDED[client]),
                    any_of(at_least(mine.running, 1), equal(ACCEPTED[client] + past[client], 0)),
                ),
            )
        )
    runner = Runner(algorithm, (("k is at least 1", at_least(SURPLUS, 0)), *contract))

    def body() -> State:
        ledger = runner.ledger()
        batch = {}
        state = {}
        for client, values in BEFORE.items():
            count = runner.symbol(ACCEPTED[client] + past[client])
            if runner.symbol(values.running) > 0:
                batch[client] = count
            state[client] = replace(
                values,
                reserved=values.reserved - ACCEPTED[client] - RETURNED[client],
                running=values.running - ENDED[client],
                served=values.served + W_Q * (ACCEPTED[client] + past[client]),
            )
        DLPM(ledger).charge_outputs(batch)
        return with_deficits(ledger, state)

    return runner.transition("a speculative forward step", body)


def _transitions(algorithm: Algorithm, *, surplus: bool) -> Iterator[Transition]:
    """Everything that can happen on a speculative worker."""
    yield from (t for t in transitions(algorithm, Memory.RESERVING) if t.name not in ("a forward step", *FINISHES))
    yield speculative_step(algorithm, surplus=surplus)


FINISHES = tuple(f"a finish of {client}" for client in CLIENTS)
"""Part of the speculative step here."""

DELIVERED = Products(
    t2_floor.LIMITED_PRODUCTS.factors,
    COUNTS | {str(of[client]) for of in (ACCEPTED, ENDED, RETURNED) for client in CLIENTS},
    t2_floor.LIMITED_PRODUCTS.cuts,
)
PRODUCTS = Products(
    (*t2_floor.LIMITED_PRODUCTS.factors, W_Q * SURPLUS, SURPLUS),
    COUNTS | {"k-1"} | {str(of[client]) for of in QUANTITIES for client in CLIENTS},
    t2_floor.LIMITED_PRODUCTS.cuts,
)


def surplus_unit() -> Definition:
    """``U*`` with the surplus of a whole batch."""
    unit = tight_unit(limited=True).symbol
    return define(
        "U* with surplus",
        lambda symbol: bounds_extensions.speculative_unit(
            cost(symbol), symbol(unit), symbol(SURPLUS + Poly.constant(1)), symbol(B)
        ),
    )


def invariant(state: State) -> Formula:
    """Even when all reserved tokens have come, and each running request has its surplus, the floor holds."""
    to_come = W_Q * state[F].reserved + W_Q * SURPLUS * state[F].running
    return all_of(
        t2_floor.accounts(state),
        at_most(state[F].running, B),
        at_least(state[F].deficit - to_come, t2_floor.FLOOR),
    )


def delivered_floor(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """Clients pay for what they get: the floor of T2* with limits, and the books of T3."""
    yield from worker_obligations(charge_surplus=False)
    unit = tight_unit(limited=True)
    hypotheses = (*PARAMETERS, unit.meaning, t2_floor.floor(limited=True).meaning)
    for transition in _transitions(algorithm, surplus=False):
        yield from transition.obligations(hypotheses, t2_floor.invariant, DELIVERED)
    yield from speculative_step(algorithm, surplus=False).obligations(PARAMETERS, balanced, DELIVERED)
    given = (*hypotheses, ("the invariant holds", t2_floor.invariant(BEFORE)))
    yield claim("no counter is below the floor", given, at_least(BEFORE[F].deficit, t2_floor.FLOOR), DELIVERED)


def surplus_floor(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """Clients pay for everything accepted: the floor with the surplus of a whole batch."""
    yield from worker_obligations(charge_surplus=True)
    unit, wide = tight_unit(limited=True), surplus_unit()
    floor = define("floor", lambda symbol: bounds.deficit_floor(symbol(wide.symbol)))
    hypotheses = (
        *PARAMETERS,
        ("k is at least 1", at_least(SURPLUS, 0)),
        unit.meaning,
        wide.meaning,
        floor.meaning,
    )
    yield claim("all counters start at 0, which is not below", hypotheses, at_most(t2_floor.FLOOR, 0), PRODUCTS)
    for transition in _transitions(algorithm, surplus=True):
        yield from transition.obligations(hypotheses, invariant, PRODUCTS)
    given = (*hypotheses, ("the invariant holds", invariant(BEFORE)))
    yield claim("no counter is below the floor", given, at_least(BEFORE[F].deficit, t2_floor.FLOOR), PRODUCTS)


# -- what the worker does to reservations ------------------------------------------------------------------------------


def worker_obligations(
    *, charge_surplus: bool, worker_type: type[SpeculativeWorker] = SpeculativeWorker
) -> Iterator[Obligation]:
    """The worker's own forward step and finish: reserved tokens only, and no surplus but of requests that end."""
    for running in (m1_memory.BATCH[:1], m1_memory.SAME_CLIENT):
        for visibility in (AT_ADMISSION, AFTER_FORWARD):
            yield from _worker_step(running, visibility, worker_type, charge_surplus=charge_surplus)


def _worker_step(
    running: Sequence[Running], visibility: str, worker_type: type[SpeculativeWorker], *, charge_surplus: bool
) -> Iterator[Obligation]:
    """One step of the worker with these requests running."""
    accepted = {one.name: one.unknown("accepted") for one in running}
    assumed: tuple[Named, ...] = (
        *m1_memory.hypotheses(running),
        ("the cache keeps its contract", insertion_contract(running[0].path, running[0].unknown("input"))),
        ("1 to k tokens are accepted", all_of(*(between(1, a, SURPLUS + Poly.constant(1)) for a in accepted.values()))),
    )
    worlds: list[OpaqueWorker] = []

    def acceptance(request: Request, generated: int) -> int:
        return worlds[0].symbol(accepted[request.id])

    def make(config: WorkerConfig, policy: Policy) -> Worker:
        return worker_type(config, policy, FixedStep(1), acceptance, charge_surplus=charge_surplus)

    world = OpaqueWorker([formula for _, formula in assumed], Reserving(), visibility, make)
    worlds.append(world)

    def body() -> Formula:
        worker = world.build(running)
        worker._make_room_for_outputs()
        before = tuple(worker.running)
        worker._forward()
        reserved = [one.most - one.generated for one in running]
        taken = [r - poly(run.reserved) for r, run in zip(reserved, before, strict=True)]
        within = all_of(*(at_least(run.reserved, 0) for run in before), *(at_least(t, 1) for t in taken), books(worker))
        worker._finish()
        ended = len(running) - len(worker.running)
        paid = sum_of(poly(tokens) for tokens in m1_memory.charged(worker).values())
        beyond = paid - sum_of(taken)
        most = SURPLUS * Poly.constant(ended) if charge_surplus else Poly.constant(0)
        unfinished = all_of(*(at_least(run.reserved, 1) for run in worker.running))
        if set(m1_memory.charged(worker)) != {one.client for one in running}:
            return FALSE
        return all_of(within, books(worker), unfinished, between(0, beyond, most))

    who = f"{len(running)} requests, visible {visibility}, surplus {'charged' if charge_surplus else 'free'}"
    yield from postcondition(f"a speculative step of {who}, takes reserved tokens", assumed, world.exploration, body)


# -- the floors are reached --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpeculativeSetting(Setting):
    """An engine with several tokens a step."""

    most_accepted: int = 3
    charge_surplus: bool = False

    def extensions(self) -> Extensions:
        """Several tokens a step."""
        return speculation.stated(self.most_accepted, charge_surplus=self.charge_surplus)

    def acceptance(self) -> Acceptance:
        """All that can be accepted, in the requests of the last batch; one token a step in those before."""
        return self._accepted

    def _accepted(self, request: Request, generated: int) -> int:
        if not request.id.startswith("deep"):
            return 1
        # The last step of a request has one token left to give, and accepts all k.
        return self.most_accepted if generated == request.output_tokens - 1 or not self.charge_surplus else 1

    def build_worker(self, sink: EventSink) -> Worker:
        """The speculative worker."""
        return SpeculativeWorker(
            self.config(),
            self.build_policy(),
            FixedStep(STEP_US),
            self.acceptance(),
            sink,
            charge_surplus=self.charge_surplus,
            full_log=True,
        )


BATCH_LIMITS = (
    Limits(1, 2, quantum=5, max_input=6, max_output=2, kv_tokens=12, max_running=3),
    Limits(1, 3, quantum=5, max_input=3, max_output=2, kv_tokens=16, max_running=4),
)


def _deepest(limits: Limits, most_accepted: int, *, charge_surplus: bool, lowest: int) -> Demonstration:
    """Replay the deepest run of the plain worker on the speculative one."""
    plain = limits.deepest_run()
    name = f"the floor {lowest} is reached with k = {most_accepted}"
    if plain is None:
        return Demonstration(name, ("no run was found",), confirmed=False)
    setting = SpeculativeSetting(
        limits.kv_tokens,
        limits.quantum,
        limits.extend_weight,
        limits.output_weight,
        max_running=limits.max_running,
        most_accepted=most_accepted,
        charge_surplus=charge_surplus,
    )
    run = replay(setting, plain.workload.requests, name)
    found = min(run.counters(CLIENT))
    story = (
        f"M = {limits.kv_tokens}, L_in = {limits.max_input}, L_out = {limits.max_output}, B = {limits.max_running}.",
        f"With up to {most_accepted} tokens a step the counter falls to {found}; the plain floor is {limits.floor()}.",
    )
    return Demonstration(name, story, found == lowest, run)


def delivered_reached() -> tuple[Demonstration, ...]:
    """The plain floor is reached, in fewer steps."""
    return tuple(_deepest(limits, 3, charge_surplus=False, lowest=limits.floor()) for limits in t2_floor.LIMITED)


def surplus_reached() -> tuple[Demonstration, ...]:
    """Every request of a full batch accepts k tokens when it needs one."""
    shown = []
    for limits in BATCH_LIMITS:
        tight = bounds.tight_unit(
            limits.cost(),
            limits.max_input,
            limits.kv_tokens,
            max_output=limits.max_output,
            max_running=limits.max_running,
        )
        wide = bounds_extensions.speculative_unit(limits.cost(), tight, 4, limits.max_running)
        shown.append(_deepest(limits, 4, charge_surplus=True, lowest=bounds.deficit_floor(wide, limits.unit())))
    return tuple(shown)


# -- controls ----------------------------------------------------------------------------------------------------------


class PastTheEnd(SpeculativeWorker):
    """Delivers everything accepted, beyond the end of a request too."""

    def _forward(self) -> None:
        """Let requests run past their reservation."""
        for run in self.running:
            accepted = self._acceptance(run.queued.request, run.queued.generated)
            self._deliver(run, accepted)
            self.policy.charge_outputs({run.queued.client: accepted})


def _controls(
    obligations: Callable[[Algorithm], Iterator[Obligation]], *names: str, charge_surplus: bool
) -> tuple[Mutant, ...]:
    """Mutants of the ledger, and one of the worker."""
    worker = partial(worker_obligations, charge_surplus=charge_surplus, worker_type=PastTheEnd)
    given = {**SAMPLE, "k-1": 2}
    return (
        *mutants.to_be_noticed(obligations, *names, given=given),
        Mutant("past-the-end", (PastTheEnd.__doc__ or "").strip(), worker, {}),
    )


E5 = Theorem(
    id="E5/delivered",
    title="Several tokens a step, paid as delivered",
    source="ours, for [DLPM App. A.1 eq. 2]",
    statement="However many tokens a step yields, q_i >= 1 - U* with the U* of T2*: k does not matter.",
    hypotheses=("reserving memory", "a client pays for the tokens it gets", "a request gets no token past its end"),
    expected=Verdict.PROVED,
    checked="The worker takes reserved tokens only; q_i - w_q R_i >= 1 - U* survives every transition; books balance.",
    argued="Three clients stand for any number (N1); more running requests than two are alike (M1).",
    obligations=delivered_floor,
    demonstrations=delivered_reached,
    mutants=_controls(delivered_floor, "gate-at-zero", "double-outputs", charge_surplus=False),
)

E5_SURPLUS = Theorem(
    id="E5/surplus",
    title="Several tokens a step, paid as computed",
    source="ours, for [DLPM App. A.1 eq. 2]",
    statement="If clients pay for tokens accepted past the end of a request, q_i >= 1 - U* - w_q (k-1) B.",
    hypotheses=("reserving memory", "at most B requests run", "a step accepts at most k tokens a request"),
    expected=Verdict.PROVED,
    checked="Only ending requests have a surplus; q_i - w_q R_i - w_q (k-1) n_i keeps its floor at every transition.",
    argued="Three clients stand for any number (N1); more running requests than two are alike (M1).",
    obligations=surplus_floor,
    demonstrations=surplus_reached,
    mutants=_controls(surplus_floor, "gate-at-zero", "double-outputs", charge_surplus=True),
)
