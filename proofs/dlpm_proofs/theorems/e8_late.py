"""E8: how deep a counter falls when output tokens are charged up to d forward steps late.

The idea of the proof. Let ``p`` be what a client was served and not charged for yet. Its true counter is ``q - p``,
and the gate sees ``q``. ``q - p - w_q R`` falls at admissions only, as in T2*; there ``q`` is positive, and ``p`` is at
most what a full batch yields in d steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from dlpm import bounds, bounds_extensions
from dlpm.cost import CostModel
from dlpm.events import Extensions, Refill
from dlpm.extensions import late_accounting
from dlpm.extensions.late_accounting import LateLedger, Unaccounted
from dlpm.ledger import Quanta
from dlpm.policies.base import Policy
from dlpm.policies.dlpm import DLPM
from dlpm.request import ClientId, Request
from dlpm_proofs.deepest import CLIENT, Limits
from dlpm_proofs.definitions import cost, define, tight_unit
from dlpm_proofs.postcondition import postcondition
from dlpm_proofs.solve import Named, Obligation, claim, possible
from dlpm_proofs.symbolic import Exploration, SymInt
from dlpm_proofs.terms import Formula, Poly, Products, all_of, at_least, at_most, between, equal, poly
from dlpm_proofs.theorem import Mutant, Theorem, Verdict
from dlpm_proofs.theorems import t2_floor
from dlpm_proofs.theorems.t3_t4_gap import SAME_QUANTUM, paid_alike
from dlpm_proofs.transitions import (
    BEFORE,
    CLIENTS,
    COUNTS,
    PARAMETERS,
    SAMPLE,
    W_E,
    W_Q,
    WEIGHTED,
    Algorithm,
    B,
    F,
    G,
    Memory,
    State,
    arrival_of,
    departure_of,
    finish_of,
    queued,
    visit_of,
)
from dlpm_proofs.witness import Demonstration, Replay, Setting, call, replay

DELAY, PENDING, LAG = Poly.unknown("d"), Poly.unknown("p"), Poly.unknown("lag")
CHECKED_DELAYS = range(4)
"""The delays for which the ledger's own bookkeeping is run."""

PRODUCTS = Products((*t2_floor.LIMITED_PRODUCTS.factors, W_Q * B), COUNTS | {"d"}, t2_floor.LIMITED_PRODUCTS.cuts)


class LateByTwo(LateLedger):
    """The late ledger as transitions make it: with a lag of two."""

    def __init__(self, quanta: Quanta, cost: CostModel) -> None:
        """Two steps late."""
        super().__init__(quanta, cost, lambda _: 2)


def invariant(state: State) -> Formula:
    """The floor holds even when all that is pending is charged, and all that is reserved has been decoded."""
    return all_of(
        t2_floor.accounts(state),
        at_most(state[F].running, B),
        between(0, PENDING, W_Q * B * DELAY),
        at_least(state[F].deficit - PENDING - W_Q * state[F].reserved, t2_floor.FLOOR),
    )


def obligations(ledger: type[LateByTwo] = LateByTwo) -> Iterator[Obligation]:
    """The invariant holds at the start, everything but a forward step keeps it, and so do the late ledger's steps."""
    unit = tight_unit(limited=True)
    wide = define(
        "U* and what is late",
        lambda symbol: bounds_extensions.late_unit(cost(symbol), symbol(unit.symbol), symbol(DELAY), symbol(B)),
    )
    floor = define("floor", lambda symbol: bounds.deficit_floor(symbol(wide.symbol)))
    no_less = ("the delay is not negative", at_least(DELAY, 0))
    hypotheses = (*PARAMETERS, no_less, unit.meaning, wide.meaning, floor.meaning)
    yield claim("all counters start at 0, which is not below", hypotheses, at_most(t2_floor.FLOOR, 0), PRODUCTS)
    algorithm = Algorithm(ledger)
    for client in CLIENTS:
        for transition in (
            visit_of(client, algorithm, Memory.RESERVING),
            arrival_of(client, algorithm),
            departure_of(client, algorithm),
            finish_of(client, algorithm, Memory.RESERVING),
        ):
            proved, complete, _ = transition.obligations(hypotheses, invariant, PRODUCTS)
            yield from (proved, complete)
    sample = {**SAMPLE, "d": 2}
    yield possible(
        "the hypotheses can hold", (*hypotheses, ("invariant", invariant(BEFORE))), at_least(PENDING, 1), sample
    )
    given = (*hypotheses, ("the invariant holds", invariant(BEFORE)))
    true_counter = BEFORE[F].deficit - PENDING
    yield claim("no true counter is below the floor", given, at_least(true_counter, t2_floor.FLOOR), PRODUCTS)
    yield claim("nor is the counter that the gate sees", given, at_least(BEFORE[F].deficit, t2_floor.FLOOR), PRODUCTS)
    for delay in CHECKED_DELAYS:
        for unaccounted in range(delay + 1):
            yield from late_forward(ledger, delay, unaccounted)
    yield from paid_alike_though_late(algorithm)


def paid_alike_though_late(algorithm: Algorithm) -> Iterator[Obligation]:
    """The books of T3: backlogged clients are paid alike, so that their gap is that of T3 with this floor."""
    backlogged = tuple((f"{client} is backlogged", queued(client)) for client in (F, G))
    for client in CLIENTS:
        transition = visit_of(client, algorithm, Memory.ANY)
        yield from transition.obligations((*PARAMETERS, SAME_QUANTUM, *backlogged), paid_alike, WEIGHTED)


def late_forward(ledger_type: type[LateByTwo], delay: int, unaccounted: int) -> Iterator[Obligation]:
    """One forward step of the late ledger, some earlier steps being unaccounted for."""
    late = [Poly.unknown(f"late {k}") for k in range(unaccounted)]
    running = BEFORE[F].running
    assumed: tuple[Named, ...] = (
        *PARAMETERS,
        ("between 1 and B requests of f run", between(1, running, B)),
        ("no earlier step yielded more than B tokens", all_of(*(between(0, tokens, B) for tokens in late))),
        ("between 0 and d steps may stay unaccounted for", between(0, LAG, delay)),
    )
    exploration = Exploration([formula for _, formula in assumed])

    def symbol(value: Poly) -> SymInt:
        return SymInt(exploration, value)

    def body() -> Formula:
        ledger = ledger_type(Quanta(1), CostModel(symbol(W_E), symbol(W_Q)))
        ledger._lag = lambda _: symbol(LAG)
        ledger.deficits[F] = symbol(BEFORE[F].deficit)
        ledger.unaccounted.extend(Unaccounted(outputs={F: symbol(tokens)}) for tokens in late)
        before = poly(ledger.true_deficit(F))
        DLPM(ledger).charge_outputs({F: symbol(running)})
        pending = poly(ledger.pending(F))
        return all_of(
            equal(poly(ledger.true_deficit(F)), before - W_Q * running),
            equal(poly(ledger.deficits[F]), before + pending - W_Q * running),
            between(0, pending, W_Q * B * Poly.constant(delay)),
        )

    products = Products((W_E, W_Q), COUNTS | {str(tokens) for tokens in late})
    name = f"with {unaccounted} steps unaccounted for and d = {delay}, a forward step takes w_q n of the true counter"
    yield from postcondition(name, assumed, exploration, body, products)


# -- runs --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LateSetting(Setting):
    """An engine whose gate hears of outputs ``delay`` steps late."""

    delay: int = 0
    late_extends: bool = False

    def build_policy(self) -> Policy:
        """DLPM on a late ledger."""
        quanta = Quanta(self.quantum, dict(self.quanta))
        return DLPM(LateLedger(quanta, self.cost(), lambda _: self.delay, late_extends=self.late_extends))

    def extensions(self) -> Extensions:
        """Outputs are late. Late extend tokens are a breach of that."""
        return late_accounting.stated(self.delay)


def lowest_true_counter(run: Replay, client: ClientId) -> int:
    """The lowest of all the client was paid less all it was served, which is its true counter. O(events)."""
    paid = 0
    lowest = 0
    for event, (served, _, _, _) in zip(run.events, run.services(client, ""), strict=True):
        if isinstance(event, Refill) and client in event.deficits:
            paid += run.setting.quantum
        lowest = min(lowest, paid - served)
    return lowest


LATE = (
    (Limits(1, 2, quantum=20, max_input=6, max_output=3, kv_tokens=16, max_running=3), 1),
    (Limits(1, 2, quantum=20, max_input=6, max_output=3, kv_tokens=16, max_running=3), 3),
    (Limits(1, 3, quantum=30, max_input=3, max_output=2, kv_tokens=16, max_running=4), 2),
)


def floor_reached() -> tuple[Demonstration, ...]:
    """A full batch decodes d steps unheard, and then the costliest batch is let in with the last credit seen."""
    shown = []
    for limits, delay in LATE:
        tight = bounds.tight_unit(
            limits.cost(),
            limits.max_input,
            limits.kv_tokens,
            max_output=limits.max_output,
            max_running=limits.max_running,
        )
        wide = bounds_extensions.late_unit(limits.cost(), tight, delay, limits.max_running)
        lowest = bounds.deficit_floor(wide, limits.unit())
        runs = (_unheard_batch(limits, delay, first) for first in range(1, limits.quantum))
        run = next((run for run in runs if lowest_true_counter(run, CLIENT) == lowest), None)
        story = (
            f"d = {delay}, B = {limits.max_running}: a batch decodes for {delay} steps that the gate has not heard of.",
            f"The gate still sees credit and lets the costliest batch in: the true counter falls to {lowest}.",
        )
        shown.append(Demonstration(f"the floor {lowest} is reached with d = {delay}", story, run is not None, run))
    return tuple(shown)


def _unheard_batch(limits: Limits, delay: int, spent: int) -> Replay:
    """Some requests that cost ``spent`` extend tokens, a batch of ``delay`` steps, then the costliest batch."""
    requests: list[Request] = []
    fresh = 1000
    left = spent
    while left > 0:
        tokens = min(left, limits.max_input)
        after = (requests[-1].id,) if requests else ()
        requests.append(call(f"first{len(requests)}", CLIENT, range(fresh, fresh + tokens), 1, after=after))
        fresh += tokens
        left -= tokens
    after = (requests[-1].id,)
    unheard = [call(f"unheard{k}", CLIENT, [0], delay, after=after) for k in range(limits.max_running)]
    extend, outputs = limits.costliest_batch()
    ended = tuple(request.id for request in unheard)
    prompts = [[0]] * (len(outputs) - 1) + [list(range(fresh, fresh + extend))]
    last = [
        call(f"last{k}", CLIENT, prompt, output, after=ended)
        for k, (prompt, output) in enumerate(zip(prompts, outputs, strict=True))
    ]
    setting = LateSetting(
        limits.kv_tokens,
        limits.quantum,
        limits.extend_weight,
        limits.output_weight,
        max_running=limits.max_running,
        delay=delay,
    )
    return replay(setting, [*requests, *unheard, *last], "unheard outputs")


def late_extends_sink() -> tuple[Demonstration, ...]:
    """Extends charged with the forward step: the gate lets everything in that memory holds, on one token of credit."""
    calls = [call(f"r{k}", CLIENT, range(10 * k, 10 * k + 4), 1) for k in range(2)]
    setting = LateSetting(12, 1, 5, 1, delay=0, late_extends=True)
    run = replay(setting, calls, "late extends")
    tight = bounds.tight_unit(setting.cost(), 4, 12)
    floor = bounds.deficit_floor(bounds_extensions.late_unit(setting.cost(), tight, 0, 2))
    found = lowest_true_counter(run, CLIENT)
    story = (
        f"d = 0: no output is late, and the floor would be {floor}. Extends are charged with their forward step.",
        "With 1 of credit the gate lets two requests of 4 extend tokens in: the first one's charge is not there yet.",
        f"The true counter falls to {found}.",
    )
    return (Demonstration("late extends sink below the floor", story, found < floor, run),)


# -- controls ----------------------------------------------------------------------------------------------------------


class LateGateAtZero(LateByTwo):
    """Lets a client in at exactly 0."""

    def has_credit(self, client: ClientId) -> bool:
        """The gate, one too low."""
        return self.deficits[client] >= 0


class LaterThanSaid(LateByTwo):
    """Leaves one step more unaccounted for than it may."""

    def charge_outputs(self, tokens: Mapping[ClientId, int]) -> None:
        """Keep one more."""
        lag = self._lag
        self._lag = lambda step: lag(step) + 1
        super().charge_outputs(tokens)


class ForgottenStep(LateByTwo):
    """Drops the oldest step that is late instead of charging it."""

    def charge_outputs(self, tokens: Mapping[ClientId, int]) -> None:
        """Forget what is late before the new step comes."""
        if self.unaccounted:
            self.unaccounted.popleft()
        super().charge_outputs(tokens)


MUTANTS = tuple(
    Mutant(name, (ledger.__doc__ or "").strip(), partial(obligations, ledger), {**SAMPLE, "d": 2})
    for name, ledger in (
        ("late-gate-at-zero", LateGateAtZero),
        ("later-than-said", LaterThanSaid),
        ("forgotten-step", ForgottenStep),
    )
)

E8 = Theorem(
    id="E8/outputs",
    title="Output tokens charged d steps late",
    source="ours, for [DLPM App. A.1 eq. 2]",
    statement="If outputs are charged at most d forward steps late, q_i >= 1 - U* - w_q B d, truly and as seen.",
    hypotheses=(
        "reserving memory",
        "at most B requests run",
        "extend tokens are charged at admission",
        "steps are charged in order, each at most d forward steps late; the delay may vary",
    ),
    expected=Verdict.PROVED,
    checked="q - pending - w_q R keeps its floor at every transition; the ledger's own queue for every d up to 3.",
    argued="Longer delays are alike: one more step in the queue. Three clients stand for any number (N1, M1).",
    obligations=obligations,
    demonstrations=floor_reached,
    mutants=MUTANTS,
)

E8_EXTENDS = Theorem(
    id="E8/extends",
    title="The same floor if extend tokens are late too",
    source="ours",
    statement="If extend tokens are charged late as well, q_i >= 1 - U* - w_q B d.",
    hypotheses=("reserving memory", "extend tokens are charged with their forward step"),
    expected=Verdict.REFUTED,
    checked="The reference replays a run that sinks below, with d = 0.",
    argued="",
    obligations=tuple,
    demonstrations=late_extends_sink,
)
