"""E7: what the theorems about shared prefixes come down to.

The idea of the proofs. The floor asks only that what an admission charges shares the memory with all that is reserved:
whether it was computed does not matter, so long as it is resident. The gap asks that books balance and that refills pay
backlogged clients alike; give a client something back, and it was served that much less. Only the ceiling is another
where costs are split: what f has paid for and still holds, it may get back, but for its own part; the more it has got
back since its last refill, the less there is left to get.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from dlpm import bounds_extensions
from dlpm.batch import AFTER_FORWARD, AT_ADMISSION
from dlpm.extensions.shared_prefixes import ALONE, FIRST, SPLIT, RefundingLedger, SharedPrefixDLPM
from dlpm.extensions.shared_prefixes_worker import SharingWorker
from dlpm.request import ClientId
from dlpm_proofs.definitions import cost, define, tight_unit
from dlpm_proofs.prefix_sharing import (
    BACK,
    CHARGED,
    ONE,
    PATHS,
    RESIDENT,
    N,
    Refunder,
    Settled,
    Worlds,
    joining_visits,
    lets_in,
    settling,
    sharing_transitions,
)
from dlpm_proofs.solve import Named, Obligation, claim, possible
from dlpm_proofs.symbolic import Path
from dlpm_proofs.terms import (
    FALSE,
    Flag,
    Formula,
    Poly,
    Products,
    absolute_at_most,
    all_of,
    any_of,
    at_least,
    at_most,
    between,
    equal,
    implies,
)
from dlpm_proofs.theorems import t2_floor
from dlpm_proofs.theorems.m1_memory import BATCH
from dlpm_proofs.theorems.t3_t4_gap import AT_T1, FLOOR, GAP, SAME_QUANTUM, paid_alike, paid_at_least
from dlpm_proofs.transitions import (
    BEFORE,
    COUNTS,
    FITS,
    PARAMETERS,
    QUANTUM,
    SAMPLE,
    W_E,
    W_Q,
    Algorithm,
    F,
    G,
    M,
    Memory,
    State,
    queued,
)

REFUNDING = Algorithm(RefundingLedger)
BACK_SO_FAR, TO_COME, LEFT, CEILING = (
    Poly.unknown(name) for name in ("got back", "to come", "to come then", "ceiling")
)
E7_SAMPLE = {**SAMPLE, "n": 2, "c": 2, "b": 1, "got back": 1, "to come": 2, "to come then": 0}
E7_COUNTS = COUNTS | {"c", "b", "n", "got back", "to come", "to come then"}

# -- the bill ----------------------------------------------------------------------------------------------------------


def first_bill(settled: Settled) -> Formula:
    """Who computes pays."""
    return all_of(equal(settled.charged, RESIDENT - settled.matched), equal(settled.back(), 0))


def alone_bill(settled: Settled) -> Formula:
    """All that f did not hold is charged, at least one token; nobody gets anything back."""
    beyond = RESIDENT - settled.held
    return all_of(
        at_least(settled.charged, RESIDENT - settled.matched),
        between(1, settled.charged, RESIDENT),
        any_of(equal(settled.charged, beyond), all_of(equal(settled.charged, 1), at_most(beyond, 0))),
        equal(settled.back(), 0),
    )


def split_bill(settled: Settled) -> Formula:
    """No token is lost or made, no share is negative, and f pays its part but for fractions of a token.

    And what others may still get back falls by n tokens' n-ths for each token that they get.
    """
    return all_of(
        equal(settled.charged - settled.back(), RESIDENT - settled.matched),
        between(1, settled.charged, RESIDENT),
        equal(settled.given(F), 0),
        *(_conserved(settled, place) for place in range(len(settled.before))),
        *(_fair_part(settled, client, stretch) for client in _others(settled) for stretch in settled.stretches()),
        *(_gets_back(settled, client) for client in _others(settled)),
    )


def _others(settled: Settled) -> list[ClientId]:
    return sorted({client for shares in settled.before for client in shares} - {F})


def _total(shares: Iterable[Poly]) -> Poly:
    total = Poly.constant(0)
    for share in shares:
        total += share
    return total


def _conserved(settled: Settled, place: int) -> Formula:
    """A block's shares add up to what they did."""
    before, after = settled.before[place], settled.after[place]
    return all_of(
        equal(_total(before.values()), _total(after.values())), *(at_least(share, 0) for share in after.values())
    )


def _gets_back(settled: Settled, client: ClientId) -> Formula:
    """``client`` gets back what its shares lose; for each token that is n n-ths less to come."""
    zero = Poly.constant(0)
    lost = _total(shares.get(client, zero) for shares in settled.before) - _total(
        shares.get(client, zero) for shares in settled.after
    )
    less_to_come = _to_come(settled.before, client) - _to_come(settled.after, client)
    return all_of(equal(settled.given(client), lost), at_most(N * lost, less_to_come))


def _fair_part(settled: Settled, client: ClientId, stretch: list[int]) -> Formula:
    """Of its shares in a stretch that k hold, ``client`` gives the (k + 1)-th part, rounded down to whole tokens."""
    holders = len(settled.before[stretch[0]])
    had = _total(settled.before[place].get(client, Poly.constant(0)) for place in stretch)
    has = _total(settled.after[place].get(client, Poly.constant(0)) for place in stretch)
    return between(had - Poly.constant(holders), (had - has) * Poly.constant(holders + 1), had)


def _to_come(blocks: tuple[Mapping[ClientId, Poly], ...], client: ClientId) -> Poly:
    """What ``client`` may still get back, in n-ths of a token: of a share that k hold, n - k of n parts."""
    return _total(shares.get(client, Poly.constant(0)) * (N - Poly.constant(len(shares))) for shares in blocks)


BILLS = {FIRST: first_bill, ALONE: alone_bill, SPLIT: split_bill}


def bills(payer: str, worker: Worlds = SharingWorker) -> Iterator[Obligation]:
    """What the worker charges and gives back, for every kind of match."""
    for holders in PATHS:
        yield from settling(payer, holders, BILLS[payer], worker)


# -- the floor ---------------------------------------------------------------------------------------------------------


def memory(payer: str) -> Iterator[Obligation]:
    """What is charged shares the memory with all that is reserved, beside none, one or two running requests."""
    for running in ((), BATCH[:1], BATCH[1:], BATCH):
        yield from lets_in(payer, AT_ADMISSION, running, (G,))
    yield from lets_in(payer, AT_ADMISSION, BATCH, (F, G))
    yield from lets_in(payer, AFTER_FORWARD, BATCH[:1], (G,))


def floors(algorithm: Algorithm = REFUNDING, policy: Refunder = SharedPrefixDLPM) -> Iterator[Obligation]:
    """A visit keeps the invariant of T2*/limits, with what is charged in place of what is computed.

    Between visits the code is that of T2*/limits.
    """
    unit, floor = tight_unit(limited=True), t2_floor.floor(limited=True)
    given = (*PARAMETERS, unit.meaning, floor.meaning)
    products = Products(
        t2_floor.LIMITED_PRODUCTS.factors,
        E7_COUNTS,
        tuple(cut.replaced({"e": CHARGED}) for cut in t2_floor.LIMITED_PRODUCTS.cuts),
    )
    for visit in joining_visits(algorithm, Memory.RESERVING, policy):
        yield from visit.obligations(given, t2_floor.invariant, products, E7_SAMPLE)


# -- the gap -----------------------------------------------------------------------------------------------------------

CHARGES = Products((W_E, W_Q), E7_COUNTS)


def _books(
    invariant: Callable[[State], Formula],
    backlogged: tuple[ClientId, ...],
    algorithm: Algorithm,
    policy: Refunder,
) -> Iterator[Obligation]:
    """A visit keeps ``invariant``, in what is charged less what is given back. Between visits the code is T3's."""
    always: tuple[Named, ...] = tuple((f"{client} is backlogged", queued(client)) for client in backlogged)
    for visit in joining_visits(algorithm, Memory.ANY, policy):
        yield from visit.obligations((*PARAMETERS, SAME_QUANTUM, *always), invariant, CHARGES, E7_SAMPLE)


LEAD = BEFORE[F].served - BEFORE[G].served


# -- the ceiling where costs are split ---------------------------------------------------------------------------------


def credit(deficit: Poly, got_back: Poly, to_come: Poly) -> Formula:
    """``q <= Q + w_e * r``: r tokens given back since the last refill; and what is to come shrinks as r grows."""
    room = (N - ONE) * (M - ONE)
    return all_of(
        at_most(deficit, QUANTUM[F] + W_E * got_back),
        at_least(got_back, 0),
        at_least(to_come, 0),
        at_most(N * got_back + to_come, room),
    )


def split_ceiling(algorithm: Algorithm = REFUNDING, policy: Refunder = SharedPrefixDLPM) -> Iterator[Obligation]:
    """The invariant `credit` holds at the start, survives everything, and gives the ceiling of `bounds_extensions`."""
    clients: Named = ("at least two clients", at_least(N, 2))
    given = (*PARAMETERS, clients)
    held: Named = ("the invariant holds", credit(BEFORE[F].deficit, BACK_SO_FAR, TO_COME))
    zero = Poly.constant(0)
    yield claim("it holds at the start", given, credit(zero, zero, zero), _weighing())
    for transition in sharing_transitions(algorithm, Memory.ANY, policy):
        assumed = (*given, *transition.contract, *_what_is_to_come(transition.visited), held)
        kept = all_of(*(_credit_after(path, transition.visited) for path in transition.paths))
        yield claim(f"{transition.name} keeps the credit", assumed, kept, _weighing())
        if transition.visited is not None:
            sample = {name: value for name, value in E7_SAMPLE.items() if name != "got back"}
            yield possible(f"{transition.name} can happen", assumed, Flag(FITS), sample)
    less = (*given, held, ("a block of f is evicted", between(0, LEFT, TO_COME)))
    yield claim("so does an eviction", less, credit(BEFORE[F].deficit, BACK_SO_FAR, LEFT), _weighing())
    ceiling = define(
        "ceiling",
        lambda symbol: bounds_extensions.split_ceiling(cost(symbol), symbol(QUANTUM[F]), symbol(M), symbol(N)),
        given,
    )
    yield ceiling.total
    share = Poly.unknown(f"({(N - ONE) * (M - ONE)}) div ({N})")
    cuts = (share + ONE - BACK_SO_FAR, share - BACK_SO_FAR)
    weighing = Products((W_E, N), E7_COUNTS | share.names(), cuts)
    bounded = (*given, held, ceiling.meaning)
    yield claim("no counter is above the ceiling", bounded, at_most(BEFORE[F].deficit, CEILING), weighing)
    example = {"w_e": 1, "w_q": 2, "M": 8, "n": 2, "Q_f": 5, "got back": 3, "to come": 0}
    yield possible("the ceiling is not excluded", bounded, equal(BEFORE[F].deficit, CEILING), example)


def _weighing() -> Products:
    """Weights times counts, whether more is charged than was given back, and that there is room at all."""
    return Products((W_E, W_Q, N - ONE), E7_COUNTS, (BACK_SO_FAR - CHARGED, M - ONE))


def _what_is_to_come(visited: ClientId | None) -> tuple[Named, ...]:
    """How a visit changes what f may still get back, in n-ths of a token [the bills above]."""
    if visited is None:
        return ()
    sound = all_of(at_least(LEFT, 0), at_most(LEFT, (N - ONE) * (M - ONE)))
    if visited == F:
        new = at_most(LEFT, TO_COME + (N - ONE) * CHARGED)
        return (("of what f pays, n - 1 of n parts may come back; it holds at most M - 1 tokens", all_of(sound, new)),)
    return (("what f gets back is no more to come", all_of(sound, at_most(LEFT, TO_COME - N * BACK))),)


def _credit_after(path: Path[State], visited: ClientId | None) -> Formula:
    """The invariant where a path ends, for some count of what f got back since its last refill."""
    if path.result is None:
        return FALSE
    after = path.result
    deficit = after[F].deficit
    zero = Poly.constant(0)
    since = zero if after[F].paid != BEFORE[F].paid else BACK_SO_FAR
    if visited is None or all(after[client].running == BEFORE[client].running for client in after):
        return implies(path.condition(), credit(deficit, since, TO_COME))
    if visited == F:
        either = any_of(credit(deficit, since - CHARGED, LEFT), credit(deficit, zero, LEFT))
        return implies(path.condition(), either)
    return implies(path.condition(), credit(deficit, since + BACK, LEFT))


def split_gap(algorithm: Algorithm = REFUNDING, policy: Refunder = SharedPrefixDLPM) -> Iterator[Obligation]:
    """The gap in what is charged less what is given back, for counters between floor and ceiling."""
    for invariant, backlogged in ((paid_alike, (F, G)), (paid_at_least, (F,))):
        yield from _books(invariant, backlogged, algorithm, policy)
    counters = (q for client in (F, G) for q in (AT_T1[client], BEFORE[client].deficit))
    gap = define("gap", lambda symbol: bounds_extensions.split_gap(symbol(CEILING), symbol(FLOOR)))
    given = (
        *PARAMETERS,
        SAME_QUANTUM,
        ("counters lie between floor and ceiling", all_of(*(between(FLOOR, q, CEILING) for q in counters))),
        gap.meaning,
    )
    alike, no_less = (("the invariant holds", held(BEFORE)) for held in (paid_alike, paid_at_least))
    yield claim("the gap is at most 2 (ceiling - floor)", (*given, alike), absolute_at_most(LEAD, GAP))
    yield claim("nobody is further ahead", (*given, no_less), at_most(-LEAD, GAP))
    example = {**E7_SAMPLE, "floor": -14, "ceiling": 8}
    yield possible("the whole gap is not excluded", (*given, alike), equal(LEAD, GAP), example)
