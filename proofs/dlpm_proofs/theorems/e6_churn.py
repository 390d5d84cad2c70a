"""E6: forgetting idle clients, without forgiving debt.

The idea of the proof. A client that rests loses credit or keeps its debt: its counter never rises by that. So it was
served at most what it had, was paid and has not, and T1, T2* and T4 hold as they do for clients that are never
forgotten. Each refill pays a resting debtor its quantum, so that debts end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial

from dlpm import bounds, bounds_extensions
from dlpm.cost import CostModel
from dlpm.events import Extensions
from dlpm.extensions import churn
from dlpm.extensions.churn import ChurnDLPM, DebtKeepingLedger, NaiveForgettingLedger
from dlpm.ledger import Ledger, Quanta
from dlpm.policies.base import Policy
from dlpm.policies.dlpm import Visit, visit
from dlpm.request import ClientId
from dlpm_proofs.definitions import tight_unit
from dlpm_proofs.postcondition import postcondition
from dlpm_proofs.solve import Named, Obligation, claim, possible
from dlpm_proofs.symbolic import Exploration, SymInt
from dlpm_proofs.terms import Formula, Not, Poly, Products, all_of, at_least, at_most, between, equal, poly
from dlpm_proofs.theorem import Mutant, Theorem, Verdict
from dlpm_proofs.theorems import t2_floor
from dlpm_proofs.theorems.t3_t4_gap import AT_T1, GAP, SAME_QUANTUM, counters_in_range
from dlpm_proofs.transitions import (
    BEFORE,
    CLIENTS,
    COMPARED_WEIGHTS,
    PARAMETERS,
    QUANTUM,
    SAMPLE,
    W_E,
    W_Q,
    WEIGHTED,
    Algorithm,
    F,
    G,
    Memory,
    RecordRefill,
    Runner,
    State,
    Transition,
    TryAdd,
    arrival_of,
    departure_of,
    finish_of,
    forward,
    queued,
    registered,
    visit_of,
    with_deficits,
)
from dlpm_proofs.witness import Demonstration, Replay, Setting, call, replay

REFILLS = Poly.unknown("m")


def visit_beside_a_debtor(
    ledger: Ledger, client: ClientId, queued_clients: Iterable[ClientId], try_add: TryAdd, record_refill: RecordRefill
) -> Visit:
    """The reference's visit, g being at rest with debt unless it is queued."""
    assert isinstance(ledger, DebtKeepingLedger)
    if G in ledger.deficits and G not in queued_clients:
        ledger.debtors.add(G)
    return visit(ledger, client, queued_clients, try_add, record_refill)


@cache
def rest_of_g(algorithm: Algorithm) -> Transition:
    """Client g has nothing queued and nothing running, and rests."""
    idle = all_of(registered(G), Not(queued(G)), equal(BEFORE[G].running, 0), equal(BEFORE[G].reserved, 0))
    runner = Runner(algorithm, (("g is idle", idle),))

    def body() -> State:
        counters = runner.ledger()
        assert isinstance(counters, DebtKeepingLedger)
        counters.rest_if_idle(G, [client for client in runner.queued_clients() if client != G])
        return with_deficits(counters, BEFORE)

    return runner.transition("g coming to rest", body)


def _transitions(ledger: type[DebtKeepingLedger], memory: Memory) -> Iterator[Transition]:
    """Everything that can happen to f, who is never idle, and g, who may be."""
    algorithm = Algorithm(ledger)
    beside = Algorithm(ledger, visit_beside_a_debtor)
    for client in CLIENTS:
        yield visit_of(client, algorithm, memory)
        if client != G:
            yield visit_of(client, beside, memory)
        yield arrival_of(client, algorithm)
        yield departure_of(client, algorithm)
        yield finish_of(client, algorithm, memory)
    yield forward(algorithm, memory)
    yield rest_of_g(algorithm)


def books(state: State) -> Formula:
    """The books of f balance, g was served at most what its books say, and f was paid at least as much as g."""
    of_f, of_g = state[F], state[G]
    return all_of(
        equal(of_f.deficit, AT_T1[F] + of_f.paid - of_f.served),
        at_most(of_g.deficit, AT_T1[G] + of_g.paid - of_g.served),
        at_least(of_f.paid, of_g.paid),
    )


def in_range(state: State) -> Formula:
    """T1 and T2* for g: at most its quantum; at least the floor, when all that is reserved has been decoded."""
    of_g = state[G]
    return all_of(
        t2_floor.accounts(state),
        at_most(of_g.deficit, QUANTUM[G]),
        at_least(of_g.deficit - W_Q * of_g.reserved, t2_floor.FLOOR),
    )


def obligations(ledger: type[DebtKeepingLedger] = DebtKeepingLedger) -> Iterator[Obligation]:
    """Ceiling, floor and gap survive every transition, coming to rest among them; and debts end."""
    unit = tight_unit(limited=False)
    hypotheses = (*PARAMETERS, unit.meaning, t2_floor.floor(limited=False).meaning)
    for transition in _transitions(ledger, Memory.RESERVING):
        yield from transition.obligations(hypotheses, in_range, COMPARED_WEIGHTS)
    always: tuple[Named, ...] = (SAME_QUANTUM, ("f is backlogged", queued(F)))
    for transition in _transitions(ledger, Memory.ANY):
        assumed = (*PARAMETERS, *(always if transition.visited is not None else always[:1]))
        yield from transition.obligations(assumed, books, WEIGHTED)
    lead = BEFORE[G].served - BEFORE[F].served
    given = (*PARAMETERS, SAME_QUANTUM, *counters_in_range(), ("the invariant holds", books(BEFORE)))
    yield claim("g is ahead by at most 2 (Q - floor)", given, at_most(lead, GAP))
    yield possible("the whole gap is not excluded", given, equal(lead, GAP), {**SAMPLE, "floor": -14})
    yield from debts_end(ledger)


def debts_end(ledger: type[DebtKeepingLedger]) -> Iterator[Obligation]:
    """A debtor is forgotten after at most K refills: each pays a quantum, and who has no debt left is forgotten."""
    floor_at_most_0: Named = ("the floor is not above 0", at_most(t2_floor.FLOOR, 0))
    arithmetic = Exploration([formula for _, formula in (*PARAMETERS, floor_at_most_0)])
    refills = bounds_extensions.refills_until_forgotten(
        SymInt(arithmetic, QUANTUM[G]), SymInt(arithmetic, t2_floor.FLOOR)
    )
    before = BEFORE[G].deficit
    assumed: tuple[Named, ...] = (
        *PARAMETERS,
        floor_at_most_0,
        ("K is what dlpm.bounds_extensions says", all_of(*arithmetic.definitions)),
        ("m refills have paid a debtor that was not below the floor", at_least(REFILLS, 0)),
        ("and it still has debt", between(t2_floor.FLOOR + REFILLS * QUANTUM[G], before, -1)),
    )
    exploration = Exploration([formula for _, formula in assumed])

    def symbol(value: Poly) -> SymInt:
        return SymInt(exploration, value)

    def body() -> Formula:
        counters = ledger(Quanta(symbol(QUANTUM[G])), CostModel(symbol(W_E), symbol(W_Q)))
        counters.deficits[G] = symbol(before)
        counters.rest(G)
        counters.check_refill(())
        if G not in counters.deficits:
            return at_least(before + QUANTUM[G], 0)
        after = poly(counters.deficits[G])
        return all_of(at_most(after, -1), at_least(after, t2_floor.FLOOR + (REFILLS + Poly.constant(1)) * QUANTUM[G]))

    yield from postcondition("a refill pays a debtor, and forgets it without debt", assumed, exploration, body)
    most = poly(refills)
    products = Products((QUANTUM[G],), frozenset({"m"} | most.names()), (REFILLS - most,))
    fewer = at_most(REFILLS + Poly.constant(1), most)
    yield claim("a debtor has seen fewer than K refills", assumed, fewer, products)
    yield possible("there can be debtors", assumed, at_least(REFILLS, 1), {**SAMPLE, "floor": -14})


# -- runs --------------------------------------------------------------------------------------------------------------

QUANTUM_OF_ALL, ROOM = 1, 8
RETURNS = (10, 20, 40)


@dataclass(frozen=True, slots=True)
class ChurnSetting(Setting):
    """An engine that forgets idle clients by one of the two rules."""

    keeps_debt: bool = True

    def build_policy(self) -> Policy:
        """DLPM that forgets."""
        rule = DebtKeepingLedger if self.keeps_debt else NaiveForgettingLedger
        return ChurnDLPM(rule(Quanta(self.quantum, dict(self.quanta)), self.cost()))

    def extensions(self) -> Extensions:
        """Idle clients are forgotten."""
        return churn.stated(churn.KEEP_DEBT if self.keeps_debt else churn.FORGET)


def visits(returns: int, *, keeps_debt: bool, names: int = 1) -> Replay:
    """Client f always waits, with requests of 3 weighted tokens; every ten steps one of g comes that costs 15."""
    honest = [call(f"f{k}", F, [1000 + k], 1, max_output=ROOM - 1) for k in range(11 * returns)]
    attack = [call(f"g{k}", f"g{k % names}" if names > 1 else G, [k], ROOM - 1, at_step=10 * k) for k in range(returns)]
    setting = ChurnSetting(ROOM, QUANTUM_OF_ALL, keeps_debt=keeps_debt)
    return replay(setting, sorted([*attack, *honest], key=lambda request: request.arrival_us), "leaving and returning")


def bound() -> int:
    """The gap of T4 for these runs."""
    tight = bounds.tight_unit(CostModel(1, 2), 1, ROOM)
    return bounds.service_gap(QUANTUM_OF_ALL, bounds.deficit_floor(tight))


def attack_succeeds() -> tuple[Demonstration, ...]:
    """Replay the attack, longer and longer: the gap grows with the number of returns."""
    runs = [visits(returns, keeps_debt=False) for returns in RETURNS]
    gaps = [run.widest_gap(G, F, both_backlogged=False) for run in runs]
    first, second, third = gaps
    story = (
        "f always waits, with requests of 3; g comes every ten steps with one of 15 and is forgotten in between.",
        f"After {RETURNS[0]}, {RETURNS[1]} and {RETURNS[2]} returns g is {first}, {second} and {third} ahead of f.",
        f"Each return gains the same; the bound for clients that are remembered is {bound()}.",
    )
    grows = first > bound() and third - second == 2 * (second - first) > 0
    return (Demonstration("leaving and returning gains without limit", story, grows, runs[0]),)


def attack_fails() -> tuple[Demonstration, ...]:
    """The same requests, with debts kept; and what many names gain all the same."""
    runs = [visits(returns, keeps_debt=True) for returns in RETURNS]
    gaps = [run.widest_gap(G, F, both_backlogged=False) for run in runs]
    kept = Demonstration(
        "the same returns gain nothing once debts are kept",
        (f"After {RETURNS} returns g was never more than {gaps} ahead of f; the bound is {bound()}.",),
        max(gaps) <= bound(),
        runs[0],
    )
    many = visits(RETURNS[0], keeps_debt=True, names=RETURNS[0])
    names = [f"g{k}" for k in range(RETURNS[0])]
    each = [many.widest_gap(name, F, both_backlogged=False) for name in names]
    together = sum(many.services(name, F)[-1][0] for name in names)
    sold = Demonstration(
        "a new name for every request buys a new start for every request",
        (f"{len(names)} names receive {together} together, 15 each, and no name is more than {max(each)} ahead.",),
        together == 15 * len(names) and max(each) <= bound(),
        many,
    )
    return (kept, sold)


# -- controls ----------------------------------------------------------------------------------------------------------


class KeepsCreditOfDebtors(DebtKeepingLedger):
    """Goes on paying resting clients that have no debt any more, without looking at who rests."""

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """Pay a debtor another quantum instead of forgetting it."""
        refilled = Ledger.check_refill(self, queued_clients)
        for client in refilled:
            if client in self.debtors and self.deficits[client] >= 0:
                self.deficits[client] += self.quanta.of(client)
        return refilled


class GiftOnReturn(DebtKeepingLedger):
    """Starts everybody who comes back at 0."""

    def register(self, client: ClientId) -> None:
        """Forget debt on return."""
        self.debtors.discard(client)
        self.deficits[client] = 0


MUTANTS = tuple(
    Mutant(name, (rule.__doc__ or "").splitlines()[0], partial(obligations, rule), SAMPLE)
    for name, rule in (
        ("naive-forgetting", NaiveForgettingLedger),
        ("keeps-credit", KeepsCreditOfDebtors),
        ("gift-on-return", GiftOnReturn),
    )
)

E6_NAIVE = Theorem(
    id="E6/naive",
    title="Forgetting idle clients at once",
    source="ours, for [DLPM Thm 4.2]",
    statement="If idle clients are forgotten at once, W_g - W_f <= 2 (Q - floor) for a backlogged f and every g.",
    hypotheses=("reserving memory", "a client with nothing queued or running is forgotten, and starts at 0 again"),
    expected=Verdict.REFUTED,
    checked="The reference replays an attack whose gain grows with each return.",
    argued="",
    obligations=tuple,
    demonstrations=attack_succeeds,
)

E6 = Theorem(
    id="E6/debts-kept",
    title="Forgetting idle clients without debt",
    source="ours, for [DLPM Thm 4.2]",
    statement="If idle clients lose credit at once and are forgotten once refills have paid their debt, T1, T2* and T4"
    " hold; a debtor is forgotten after K = ceil(-floor / Q) refills.",
    hypotheses=(
        "reserving memory",
        "f has a request in the queue at every check-refill of the interval",
        "f and g have the same quantum",
        "clients cannot change their names",
    ),
    expected=Verdict.PROVED,
    checked="Ceiling, floor and books of a client that rests and returns survive every transition; refills end debts.",
    argued="At most A clients active means at most A (1 + K) remembered: who has debt was active at one of the last K"
    " refills. Three clients stand for any number (N1).",
    obligations=obligations,
    demonstrations=attack_fails,
    mutants=MUTANTS,
)
