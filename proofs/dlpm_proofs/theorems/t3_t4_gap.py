"""T3 and T4: how far the service of two clients can drift apart, and why no time is too long for that.

The idea of the proof. A client's books always balance: what it was served since t1 is what it had then, plus what it
was paid since, less what it has now. A refill that fires pays every backlogged client, because none of them has credit
then. So two backlogged clients are paid the same, and only what they had and have can differ; a client that is not
backlogged is paid at most as often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from dlpm import bounds
from dlpm_proofs import mutants
from dlpm_proofs.deepest import Limits
from dlpm_proofs.definitions import cost, define, tight_unit
from dlpm_proofs.solve import Named, Obligation, claim, possible
from dlpm_proofs.terms import Formula, Poly, absolute_at_most, all_of, at_least, at_most, between, equal
from dlpm_proofs.theorem import Theorem, Verdict
from dlpm_proofs.transitions import (
    BEFORE,
    COMPARED_WEIGHTS,
    L_IN,
    PARAMETERS,
    QUANTUM,
    REFERENCE,
    SAMPLE,
    WEIGHTED,
    Algorithm,
    F,
    G,
    M,
    Memory,
    State,
    queued,
    transitions,
)
from dlpm_proofs.widest import gap, widest_run
from dlpm_proofs.witness import Demonstration

AT_T1 = {client: Poly.unknown(f"q_{client}(t1)") for client in (F, G)}
FLOOR, GAP = Poly.unknown("floor"), Poly.unknown("gap")
SAME_QUANTUM: Named = ("f and g have the same quantum", equal(QUANTUM[F], QUANTUM[G]))


def balanced(state: State) -> Formula:
    """The books of f and g balance: ``q(now) = q(t1) + paid - served``."""
    return all_of(
        *(equal(state[client].deficit, AT_T1[client] + state[client].paid - state[client].served) for client in (F, G))
    )


def paid_alike(state: State) -> Formula:
    """T3's invariant: balanced books, and f and g were paid the same since t1."""
    return all_of(balanced(state), equal(state[F].paid, state[G].paid))


def paid_at_least(state: State) -> Formula:
    """T4's invariant: balanced books, and f was paid at least as much as g since t1."""
    return all_of(balanced(state), at_least(state[F].paid, state[G].paid))


def counters_in_range() -> tuple[Named, ...]:
    """What T1 and T2 give, at t1 and now: the counters of f and g lie between the floor and the quantum."""
    values = (*AT_T1.values(), *(BEFORE[client].deficit for client in (F, G)))
    return (
        ("counters lie between floor and quantum [T1, T2]", all_of(*(between(FLOOR, q, QUANTUM[F]) for q in values))),
        (
            "the gap is what dlpm.bounds says",
            define("gap", lambda symbol: bounds.service_gap(symbol(QUANTUM[F]), symbol(FLOOR))).meaning[1],
        ),
    )


def _inductive(
    algorithm: Algorithm, invariant: Callable[[State], Formula], backlogged: Sequence[str]
) -> Iterator[Obligation]:
    """``invariant`` survives every transition, the ``backlogged`` clients being queued at every check-refill."""
    hypotheses = (*PARAMETERS, SAME_QUANTUM)
    always: tuple[Named, ...] = tuple((f"{client} is backlogged", queued(client)) for client in backlogged)
    for transition in transitions(algorithm, Memory.ANY):
        assumed = (*hypotheses, *always) if transition.visited is not None else hypotheses
        yield from transition.obligations(assumed, invariant, WEIGHTED)


def between_backlogged(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """Both clients backlogged: the gap either way."""
    yield from _inductive(algorithm, paid_alike, (F, G))
    lead = BEFORE[F].served - BEFORE[G].served
    given = (*PARAMETERS, SAME_QUANTUM, *counters_in_range(), ("the invariant holds", paid_alike(BEFORE)))
    yield claim("the gap is at most 2 (Q - floor)", given, absolute_at_most(lead, GAP))
    yield possible("the whole gap is not excluded", given, equal(lead, GAP), {**SAMPLE, "floor": -14})


def over_backlogged(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """Only f is backlogged: g gets at most the gap more."""
    yield from _inductive(algorithm, paid_at_least, (F,))
    lead = BEFORE[G].served - BEFORE[F].served
    given = (*PARAMETERS, SAME_QUANTUM, *counters_in_range(), ("the invariant holds", paid_at_least(BEFORE)))
    yield claim("g is ahead by at most 2 (Q - floor)", given, at_most(lead, GAP))
    yield possible("the whole gap is not excluded", given, equal(lead, GAP), {**SAMPLE, "floor": -14})


def printed_gap() -> Iterator[Obligation]:
    """Under reserving memory the gap is below the printed one: by at least 2 + 2 w_q, and more as L_in grows."""
    unit = tight_unit(limited=False)
    floor = define("floor", lambda symbol: bounds.deficit_floor(symbol(unit.symbol)))
    printed = define(
        "printed gap",
        lambda symbol: bounds.service_gap_as_printed(cost(symbol), symbol(L_IN), symbol(M), symbol(QUANTUM[F])),
    )
    hypotheses = (*PARAMETERS, unit.meaning, floor.meaning, *counters_in_range()[1:], printed.meaning)
    yield claim(
        "2 (Q - floor) < 2 (U + Q)", hypotheses, at_most(GAP, printed.symbol - Poly.constant(1)), COMPARED_WEIGHTS
    )


REACHED = (
    Limits(1, 2, quantum=7, max_input=4, max_output=7, kv_tokens=8, max_running=8),
    Limits(1, 2, quantum=5, max_input=4, max_output=7, kv_tokens=8, max_running=8),
    Limits(3, 2, quantum=8, max_input=3, max_output=5, kv_tokens=6, max_running=6),
    Limits(2, 4, quantum=6, max_input=2, max_output=4, kv_tokens=5, max_running=5),
)


def gap_reached() -> tuple[Demonstration, ...]:
    """Replay runs that reach the gap, both clients backlogged."""
    shown = []
    for limits in REACHED:
        run = widest_run(limits)
        found = run.widest_gap(F, G) if run else None
        story = (
            f"M = {limits.kv_tokens}, L_in = {limits.max_input}, weights {limits.extend_weight} and"
            f" {limits.output_weight}: the counters lie between {limits.floor()} and Q = {limits.quantum}.",
            "g reserves all memory while f waits with a full quantum, and sinks to the floor; later f does so to g.",
            f"In between f receives {found} more than g, and 2 (Q - floor) = {gap(limits)}.",
        )
        shown.append(Demonstration(f"the gap {gap(limits)} is reached", story, found == gap(limits), run))
    return tuple(shown)


def t3(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """All of T3."""
    yield from between_backlogged(algorithm)
    yield from printed_gap()


def t4(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """All of T4."""
    yield from over_backlogged(algorithm)
    yield from printed_gap()


T3 = Theorem(
    id="T3/reserving",
    title="Service of two backlogged clients",
    source="[DLPM Thm 4.1]",
    statement="If f and g are backlogged from t1 to t2, |W_f - W_g| <= 2 (Q - floor) = 2 (U* + Q) - 2 < 2 (U + Q).",
    hypotheses=(
        "reserving memory, for the floor of T2*",
        "f and g have a request in the queue at every check-refill of the interval",
        "f and g have the same quantum",
    ),
    expected=Verdict.PROVED,
    checked="Balanced books and equal pay are an inductive invariant of every transition, whatever memory does.",
    argued="Three clients stand for any number (N1).",
    obligations=t3,
    demonstrations=gap_reached,
    mutants=mutants.to_be_noticed(t3, "refill-ignores-queue", "refill-one", "free-extend", "forgiven-debt"),
)

T4 = Theorem(
    id="T4/reserving",
    title="Service of a backlogged client against any other",
    source="[DLPM Thm 4.2]",
    statement="If f is backlogged from t1 to t2, W_g - W_f <= 2 (Q - floor) for every g, which may come and go.",
    hypotheses=(
        "reserving memory, for the floor of T2*",
        "f has a request in the queue at every check-refill of the interval",
        "f and g have the same quantum",
        "a client that comes back keeps its counter",
    ),
    expected=Verdict.PROVED,
    checked="Balanced books, and f paid at least as much as g, are an inductive invariant of every transition.",
    argued="Three clients stand for any number (N1).",
    obligations=t4,
    demonstrations=gap_reached,
    mutants=mutants.to_be_noticed(t4, "refill-ignores-queue", "forgiven-debt", "free-outputs", "welcome-gift"),
)
