"""E10: what holds when every refill may pay another quantum of a range, the same to all whom it pays.

The idea of the proof. T3's argument never asks how much a refill pays, only that it pays backlogged clients alike: so
their gap is what their counters can differ by, and these lie between the floor, which no quantum moves, and the largest
quantum. One transition contains at most one refill; so here the quantum is an unknown of the *transition*, as the
sizes of its request are, and invariants do not mention it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from dlpm import bounds, bounds_extensions
from dlpm.ledger import Ledger
from dlpm.request import ClientId
from dlpm_proofs.changing_ledgers import (
    LEAST,
    MOST,
    ForgivesTheLast,
    GateAtZero,
    Handed,
    HandedToEach,
    IgnoresQueue,
    NeverShrinks,
    OneTooMany,
    PaysTwice,
    StaleQuantum,
    TopsUp,
)
from dlpm_proofs.definitions import define, tight_unit
from dlpm_proofs.solve import Named, Obligation, claim, possible
from dlpm_proofs.symbolic import Path
from dlpm_proofs.terms import Formula, Poly, absolute_at_most, all_of, at_least, at_most, between, equal, implies
from dlpm_proofs.theorem import Mutant, Theorem, Verdict
from dlpm_proofs.theorems import e10_runs, t2_floor
from dlpm_proofs.theorems.t3_t4_gap import AT_T1, FLOOR, GAP, balanced, paid_alike, paid_at_least
from dlpm_proofs.transitions import (
    BEFORE,
    CLIENTS,
    COMPARED_WEIGHTS,
    OTHER,
    PARAMETERS,
    QUANTUM,
    SAMPLE,
    WEIGHTED,
    Algorithm,
    F,
    G,
    Memory,
    State,
    Transition,
    queued,
    transitions,
    visit_of,
)

LATER, DRIFT, REFILLS = (Poly.unknown(name) for name in ("Q_late", "drift", "n"))
HANDED = QUANTUM[OTHER]
"""What the refill of the transition pays, if it has one."""

RANGE: tuple[Named, ...] = (
    ("the range is one", all_of(at_least(LEAST, 1), at_most(LEAST, MOST))),
    ("quanta lie in the range", all_of(*(between(LEAST, quantum, MOST) for quantum in QUANTUM.values()))),
)
ALIKE: Named = ("one refill pays one quantum", all_of(*(equal(QUANTUM[client], HANDED) for client in (F, G))))
SHRUNK: Named = ("no refill pays more than Q_late any more", all_of(at_most(HANDED, LATER), at_most(LATER, MOST)))
RANGE_SAMPLE = {**SAMPLE, "Q_min": 3, "Q_max": 7, "Q_late": 6, "floor": -14, "n": 2, "drift": 8}


CHANGING, INDIVIDUAL = Algorithm(Handed), Algorithm(HandedToEach)


# -- ceiling and floor -------------------------------------------------------------------------------------------------


def in_range(state: State) -> Formula:
    """T1 with the largest quantum, and T2* as it is."""
    return all_of(at_most(state[F].deficit, MOST), t2_floor.invariant(state))


def range_obligations(algorithm: Algorithm = CHANGING) -> Iterator[Obligation]:
    """Ceiling and floor hold at the start, every transition keeps them, and the largest quantum is the ceiling."""
    unit = tight_unit(limited=False)
    floor = t2_floor.floor(limited=False)
    given = (*PARAMETERS, *RANGE, unit.meaning, floor.meaning)
    yield claim("all counters start at 0, which is in range", given, between(FLOOR, 0, MOST), COMPARED_WEIGHTS)
    sample = {name: value for name, value in RANGE_SAMPLE.items() if name != "floor"}
    for transition in transitions(algorithm, Memory.RESERVING):
        yield from transition.obligations(given, in_range, COMPARED_WEIGHTS, sample)
    ceiling = define("ceiling", lambda symbol: bounds.deficit_ceiling(symbol(MOST)))
    held = (*given, ceiling.meaning, ("the invariant holds", in_range(BEFORE)))
    inside = between(FLOOR, BEFORE[F].deficit, ceiling.symbol)
    yield claim("counters lie between floor and ceiling", held, inside, COMPARED_WEIGHTS)
    yield possible("the ceiling is not excluded", held, equal(BEFORE[F].deficit, MOST), sample)


# -- the gap -----------------------------------------------------------------------------------------------------------


def _inductive(
    algorithm: Algorithm,
    invariant: Callable[[State], Formula],
    backlogged: Sequence[ClientId],
    hypotheses: Sequence[Named] = (*RANGE, ALIKE),
) -> Iterator[Obligation]:
    """``invariant`` survives every transition, the ``backlogged`` clients being queued at every check-refill."""
    always: tuple[Named, ...] = tuple((f"{client} is backlogged", queued(client)) for client in backlogged)
    for transition in transitions(algorithm, Memory.ANY):
        given = (*PARAMETERS, *hypotheses, *(always if transition.visited is not None else ()))
        yield from transition.obligations(given, invariant, WEIGHTED, RANGE_SAMPLE)


def _gap(name: str, bound: Callable[[int, int, int], int]) -> Named:
    """What a bound of ``Q_max``, ``Q_late`` and the floor stands for."""
    return define(name, lambda symbol: bound(symbol(MOST), symbol(LATER), symbol(FLOOR))).meaning


def _ranges(*, of_f: Poly = MOST, of_g: Poly = MOST) -> Named:
    """What E10/range gives at t1 and now, the counters' ceilings being these."""
    counters = (
        between(FLOOR, q, ceiling)
        for client, ceiling in ((F, of_f), (G, of_g))
        for q in (AT_T1[client], BEFORE[client].deficit)
    )
    return ("counters lie between floor and ceiling [E10/range]", all_of(*counters))


GAP_IN_RANGE = _gap("gap", lambda most, _, floor: bounds_extensions.changing_gap(most, floor))
LEAD = BEFORE[F].served - BEFORE[G].served


def both_backlogged(algorithm: Algorithm = CHANGING) -> Iterator[Obligation]:
    """Both clients backlogged: the gap either way."""
    yield from _inductive(algorithm, paid_alike, (F, G))
    given = (*PARAMETERS, *RANGE, _ranges(), GAP_IN_RANGE, ("the invariant holds", paid_alike(BEFORE)))
    yield claim("the gap is at most 2 (Q_max - floor)", given, absolute_at_most(LEAD, GAP))
    yield possible("the whole gap is not excluded", given, equal(LEAD, GAP), RANGE_SAMPLE)


def one_backlogged(algorithm: Algorithm = CHANGING) -> Iterator[Obligation]:
    """Only f is backlogged: g gets at most the gap more."""
    yield from _inductive(algorithm, paid_at_least, (F,))
    given = (*PARAMETERS, *RANGE, _ranges(), GAP_IN_RANGE, ("the invariant holds", paid_at_least(BEFORE)))
    yield claim("g is ahead by at most 2 (Q_max - floor)", given, at_most(-LEAD, GAP))
    yield possible("the whole gap is not excluded", given, equal(-LEAD, GAP), RANGE_SAMPLE)


# -- after the quantum shrank ------------------------------------------------------------------------------------------


def _refilled(path: Path[State]) -> bool:
    """A refill fired on this path."""
    assert path.result is not None
    return any(path.result[client].paid != BEFORE[client].paid for client in CLIENTS)


def shrunk_obligations(algorithm: Algorithm = CHANGING) -> Iterator[Obligation]:
    """The first refill puts backlogged clients below the smaller ceiling, they stay there, and the gaps follow."""
    hypotheses = (*RANGE, ALIKE, SHRUNK)
    for client in CLIENTS:
        transition = visit_of(client, algorithm, Memory.ANY)
        given = (*PARAMETERS, *hypotheses, *transition.contract, ("f is backlogged", queued(F)))
        lifted = (
            implies(path.condition(), at_most(path.result[F].deficit, LATER))
            for path in transition.paths
            if path.result is not None and _refilled(path)
        )
        yield claim(f"a refill at {transition.name} leaves f at most Q_late", given, all_of(*lifted), WEIGHTED)
    yield from _inductive(algorithm, lambda state: at_most(state[F].deficit, LATER), (), hypotheses)
    # Pay and books are those of E10/backlogged and E10/any: their hypotheses are met.
    pair = _gap("gap", lambda _, later, floor: bounds.service_gap(later, floor))
    alike = (*PARAMETERS, *hypotheses, _ranges(of_f=LATER, of_g=LATER), pair, ("paid alike", paid_alike(BEFORE)))
    yield claim("two backlogged clients: at most 2 (Q_late - floor)", alike, absolute_at_most(LEAD, GAP))
    yield possible("that is not excluded", alike, equal(LEAD, GAP), RANGE_SAMPLE)
    anybody = _gap("gap", bounds_extensions.shrunk_gap)
    no_less = (*PARAMETERS, *hypotheses, _ranges(of_f=LATER), anybody, ("paid no less", paid_at_least(BEFORE)))
    yield claim("any client: at most Q_max + Q_late - 2 floor", no_less, at_most(-LEAD, GAP))
    yield possible("that is not excluded either", no_less, equal(-LEAD, GAP), RANGE_SAMPLE)


# -- a quantum for each client -----------------------------------------------------------------------------------------


def growth_obligations(algorithm: Algorithm = INDIVIDUAL) -> Iterator[Obligation]:
    """Each refill widens what f was paid more than g by at most ``Q_max - Q_min``, and nothing else does."""
    backlogged = tuple((f"{client} is backlogged", queued(client)) for client in (F, G))
    for client in CLIENTS:
        transition = visit_of(client, algorithm, Memory.ANY)
        given = (
            *(*PARAMETERS, *RANGE, *transition.contract, *backlogged),
            ("the books balance", balanced(BEFORE)),
            ("f and g were paid at most the drift apart", absolute_at_most(BEFORE[F].paid - BEFORE[G].paid, DRIFT)),
        )
        yield claim(f"{transition.name} keeps the books", given, _drifts(transition), WEIGHTED)
    names = ("the drift is that of n refills", equal(DRIFT, REFILLS * MOST - REFILLS * LEAST))
    bound = define(
        "gap",
        lambda symbol: bounds_extensions.individual_gap(symbol(LEAST), symbol(MOST), symbol(FLOOR), symbol(REFILLS)),
    ).meaning
    apart = all_of(balanced(BEFORE), absolute_at_most(BEFORE[F].paid - BEFORE[G].paid, DRIFT))
    given = (*PARAMETERS, *RANGE, _ranges(), names, bound, ("the invariant holds", apart))
    yield claim("after n refills: at most 2 (Q_max - floor) + n (Q_max - Q_min)", given, absolute_at_most(LEAD, GAP))
    yield possible("that is not excluded", given, equal(LEAD, GAP), RANGE_SAMPLE)


def _drifts(transition: Transition) -> Formula:
    """On every path of the code the books balance, and only a refill lets pay drift, by one width of the range."""
    held = []
    for path in transition.paths:
        if path.result is None:
            held.append(implies(path.condition(), all_of(at_least(0, 1))))
            continue
        after = path.result
        allowed = DRIFT + MOST - LEAST if _refilled(path) else DRIFT
        drift = absolute_at_most(after[F].paid - after[G].paid, allowed)
        held.append(implies(path.condition(), all_of(balanced(after), drift)))
    return all_of(*held)


# -- controls ----------------------------------------------------------------------------------------------------------


def _controls(
    obligations: Callable[[Algorithm], Iterable[Obligation]], *ledgers: type[Ledger], **given: int
) -> tuple[Mutant, ...]:
    """Mutants of the changing ledgers, looked for with some parameters changed from the sample."""
    return tuple(
        Mutant(
            _hyphened(ledger.__name__),
            (ledger.__doc__ or "").strip(),
            partial(obligations, Algorithm(ledger)),
            {**RANGE_SAMPLE, **given},
        )
        for ledger in ledgers
    )


def _hyphened(name: str) -> str:
    """``TopsUp`` as ``tops-up``."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")


COMMON = (
    "each refill pays one quantum of the range to all whom it pays; which one may depend on anything",
    "reserving memory, for the floor of T2*, which no quantum moves",
)
ARGUED = "One transition refills at most once, so that its quantum may be an unknown. Three clients stand for any (N1)."

E10_RANGE = Theorem(
    id="E10/range",
    title="Ceiling and floor under a changing quantum",
    source="ours, for [DLPM App. A.1]",
    statement="If every refill pays a quantum from Q_min to Q_max, 1 - U* <= q_i <= Q_max.",
    hypotheses=COMMON,
    expected=Verdict.PROVED,
    checked="Ceiling and floor are an inductive invariant of every transition of the ledger that asks for its quantum.",
    argued=ARGUED,
    obligations=range_obligations,
    demonstrations=e10_runs.odd_quantum,
    mutants=_controls(range_obligations, OneTooMany, GateAtZero, Q_max=5, L_out=7),
)

E10 = Theorem(
    id="E10/backlogged",
    title="Service of two backlogged clients under a changing quantum",
    source="ours, for [DLPM Thm 4.1]",
    statement="If f and g are backlogged, |W_f - W_g| <= 2 (Q_max - floor), however the quantum changes.",
    hypotheses=(*COMMON, "f and g have a request in the queue at every check-refill of the interval"),
    expected=Verdict.PROVED,
    checked="Balanced books and equal pay are an inductive invariant, whatever each refill pays.",
    argued=ARGUED,
    obligations=both_backlogged,
    demonstrations=e10_runs.gap_reached,
    mutants=_controls(both_backlogged, StaleQuantum, TopsUp, IgnoresQueue),
)

E10_ANY = Theorem(
    id="E10/any",
    title="A backlogged client against any other under a changing quantum",
    source="ours, for [DLPM Thm 4.2]",
    statement="If f is backlogged, W_g - W_f <= 2 (Q_max - floor) for every g, however the quantum changes.",
    hypotheses=(*COMMON, "f has a request in the queue at every check-refill of the interval"),
    expected=Verdict.PROVED,
    checked="Balanced books, and f paid no less than g: whatever a refill pays that g misses, f gets it.",
    argued=ARGUED,
    obligations=one_backlogged,
    demonstrations=e10_runs.gap_reached,
    mutants=_controls(one_backlogged, TopsUp, IgnoresQueue),
)

E10_SHRUNK = Theorem(
    id="E10/shrunk",
    title="The gap after the quantum has shrunk",
    source="ours",
    statement="Once refills pay at most Q_late and one has paid f: |W_f - W_g| <= 2 (Q_late - floor) if it paid g, too;"
    " W_g - W_f <= Q_max + Q_late - 2 floor for every g.",
    hypotheses=(*COMMON, "f, and for the first part g, is queued at every check-refill from the shrinking on"),
    expected=Verdict.PROVED,
    checked="The first smaller refill leaves backlogged clients at most Q_late, and they stay there.",
    argued="Books and pay are those of E10/backlogged and E10/any. g stands for f in the first part: they are alike.",
    obligations=shrunk_obligations,
    demonstrations=e10_runs.hoard_reached,
    mutants=_controls(shrunk_obligations, NeverShrinks, OneTooMany, Q_late=5),
)

E10_HOARD = Theorem(
    id="E10/hoard",
    title="The small gap at once, for every client",
    source="ours",
    statement="Once refills pay at most Q_late and one has paid f, W_g - W_f <= 2 (Q_late - floor) for every g.",
    hypotheses=COMMON,
    expected=Verdict.REFUTED,
    checked="The reference replays a client that keeps credit from a large refill while it has nothing to send.",
    argued="",
    obligations=tuple,
    demonstrations=e10_runs.hoard_reached,
)

E10_INDIVIDUAL = Theorem(
    id="E10/individual",
    title="A quantum for each client, within one range",
    source="ours",
    statement="If a refill may pay clients different quanta of the range, |W_f - W_g| <= 2 (Q_max - floor).",
    hypotheses=("f and g are backlogged", "reserving memory"),
    expected=Verdict.REFUTED,
    checked="The reference replays runs in which the gap grows by Q_max - Q_min with every refill.",
    argued="",
    obligations=tuple,
    demonstrations=e10_runs.favoured_for_ever,
)

E10_GROWTH = Theorem(
    id="E10/individual-growth",
    title="How fast the gap grows with a quantum for each client",
    source="ours",
    statement="If refills may pay clients different quanta of the range, then after n of them"
    " |W_f - W_g| <= 2 (Q_max - floor) + n (Q_max - Q_min).",
    hypotheses=("f and g have a request in the queue at every check-refill of the interval", "reserving memory"),
    expected=Verdict.PROVED,
    checked="Books balance, and what f and g were paid drifts by at most the width of the range at each refill.",
    argued="n refills drift n widths apart; between visits the code is that of T3. Three clients stand for any (N1).",
    obligations=growth_obligations,
    demonstrations=e10_runs.favoured_for_ever,
    mutants=_controls(growth_obligations, PaysTwice, ForgivesTheLast),
)

CHANGING_QUANTUM = (E10_RANGE, E10, E10_ANY, E10_SHRUNK, E10_HOARD, E10_INDIVIDUAL, E10_GROWTH)
