"""T5: how long a client waits for its next admission, and what the printed latency bound leaves out.

The idea of the proof. While f waits and runs nothing, it is backlogged, so by the books of T4 each other client is
served a bounded amount. Every forward step serves somebody (T6), and that is not f: so there are boundedly many steps.
Time comes in only through a rate: a is what the worker serves per second, in every whole step of the wait.

The printed proof says that the waiting request is the next one of f to be let in. That is so only while it is f's
only one: later requests of f with longer cached prefixes may overtake it, and their service is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator

from dlpm import bounds
from dlpm.events import Admit, Arrive
from dlpm_proofs import mutants
from dlpm_proofs.definitions import cost, define
from dlpm_proofs.solve import Named, Obligation, claim, possible
from dlpm_proofs.symbolic import Path
from dlpm_proofs.terms import (
    FALSE,
    TRUE,
    Formula,
    Poly,
    Products,
    all_of,
    at_least,
    at_most,
    between,
    equal,
    implies,
)
from dlpm_proofs.theorem import Theorem, Verdict
from dlpm_proofs.theorems.t3_t4_gap import AT_T1, FLOOR, SAME_QUANTUM, counters_in_range, over_backlogged, paid_at_least
from dlpm_proofs.transitions import (
    BEFORE,
    CLIENTS,
    PARAMETERS,
    QUANTUM,
    REFERENCE,
    SAMPLE,
    W_Q,
    Algorithm,
    F,
    G,
    Memory,
    State,
    registered,
    visit_of,
)
from dlpm_proofs.witness import STEP_US, Demonstration, Replay, Setting, call, replay

ONE = Poly.constant(1)
CLIENTS_IN_ALL, STEPS, RATE, TIME, STEP_TIME = (Poly.unknown(name) for name in ("n", "steps", "a", "t", "dt"))
TO_OTHERS, MORE, ALLOWED = (Poly.unknown(name) for name in ("X", "x", "allowed"))


def one_other(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """While f waits unserved, each other client is served at most `bounds.service_while_waiting` of two clients."""
    yield from over_backlogged(algorithm)
    allowed = define(
        "allowed",
        lambda symbol: bounds.service_while_waiting(symbol(QUANTUM[F]), symbol(FLOOR), symbol(AT_T1[F]), 2),
    )
    given = (
        *PARAMETERS,
        SAME_QUANTUM,
        *counters_in_range(),
        allowed.meaning,
        ("the books balance", paid_at_least(BEFORE)),
        ("f is not served while it waits", equal(BEFORE[F].served, 0)),
    )
    yield claim("another client is served no more than that", given, at_most(BEFORE[G].served, ALLOWED))
    numbers = {**SAMPLE, "floor": -14, "q_f(t1)": -14}
    yield possible("all of it is not excluded", given, equal(BEFORE[G].served, ALLOWED), numbers)
    everybody = define(
        "all others",
        lambda symbol: bounds.service_while_waiting(
            symbol(QUANTUM[F]), symbol(FLOOR), symbol(AT_T1[F]), symbol(CLIENTS_IN_ALL)
        ),
    )
    yield claim(
        "n - 1 others are served n - 1 times that",
        (*PARAMETERS, allowed.meaning, everybody.meaning),
        equal(everybody.symbol, (CLIENTS_IN_ALL - ONE) * _allowed_each()),
    )


def _allowed_each() -> Poly:
    """What `bounds.service_while_waiting` gives one other, written out."""
    return QUANTUM[F] - FLOOR + QUANTUM[F] - AT_T1[F]


def paid_while_away(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """A refill pays f if it is at or below 0, whether or not anything of f waits: debts are paid off meanwhile."""
    for client in CLIENTS:
        visit = visit_of(client, algorithm, Memory.ANY)
        kept = all_of(*(implies(path.condition(), _pays_debtors(path)) for path in visit.paths))
        known = ("f has come before", registered(F))
        yield claim(f"a refill at {visit.name} pays f what f is due", (*PARAMETERS, known, *visit.contract), kept)


def _pays_debtors(path: Path[State]) -> Formula:
    """Where somebody was paid, f was, if it had no credit."""
    if path.result is None:
        return FALSE
    after = path.result
    if all(after[client].paid == BEFORE[client].paid for client in CLIENTS):
        return TRUE
    paid = equal(after[F].paid, BEFORE[F].paid + QUANTUM[F])
    return implies(at_most(BEFORE[F].deficit, 0), paid)


def in_steps() -> Iterator[Obligation]:
    """Every forward step serves an output token to somebody else: so many steps, and no more."""
    served: Formula = at_least(TO_OTHERS, W_Q * STEPS)
    step = ("a step of the wait serves others at least one output token [T6]", at_least(MORE, W_Q))
    before = ("so far every step did", served)
    after = at_least(TO_OTHERS + MORE, W_Q * (STEPS + ONE))
    products = Products((W_Q,), frozenset({"steps"}))
    yield claim("a step more, an output token more", (*PARAMETERS, before, step), after, products)
    most = define("most steps", lambda symbol: bounds.steps_while_waiting(cost(symbol), symbol(ALLOWED)))
    bounded = ("others are served no more than allowed", between(0, TO_OTHERS, ALLOWED))
    quotient = Poly.unknown("(allowed) div (w_q)")
    counted = Products((W_Q,), frozenset({"steps", *quotient.names()}), (STEPS - quotient - ONE,))
    given = (*PARAMETERS, before, bounded, most.meaning)
    yield claim("so the wait is no longer than dlpm.bounds says", given, at_most(STEPS, most.symbol), counted)


def in_time() -> Iterator[Obligation]:
    """With a rate that every step of the wait keeps, ``a t <= allowed``."""
    keeps = Products((RATE,), frozenset({"t", "dt"}))
    known: tuple[Named, ...] = (
        ("the rate is positive", at_least(RATE, 1)),
        ("so far others were served at the rate a", at_least(TO_OTHERS, RATE * TIME)),
    )
    step = ("a step of the wait serves others at the rate a", at_least(MORE, RATE * STEP_TIME))
    yield claim(
        "a step more keeps the rate", (*known, step), at_least(TO_OTHERS + MORE, RATE * (TIME + STEP_TIME)), keeps
    )
    bounded = ("others are served no more than allowed", at_most(TO_OTHERS, ALLOWED))
    yield claim("so the wait is at most allowed / a", (*known, bounded), at_most(RATE * TIME, ALLOWED), keeps)


def obligations(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """The bound in service, in steps and in time."""
    yield from one_other(algorithm)
    yield from paid_while_away(algorithm)
    yield from in_steps()
    yield from in_time()


# -- as printed --------------------------------------------------------------------------------------------------------

SETTING = Setting(kv_tokens=8, quantum=5)
LATER_CALLS = 60


def overtaken_run() -> Replay:
    """Client f waits with a cold request that needs all memory, while its own later requests reuse a cached prefix.

    Before that, f's first request has cached the prefix and left; g has come and gone. Then the cold request arrives,
    and right after it, one at a time, requests with the cached prefix, each before the one before has ended.
    """
    warm = [1, 2]
    return replay(
        SETTING,
        [
            call("first", F, warm, 1),
            call("g", G, [3], 1),
            call("cold", F, range(10, 14), 1, max_output=4, at_step=3),
            *(call(f"later{k}", F, [*warm, 20 + k], 2, at_step=3 + k) for k in range(LATER_CALLS)),
        ],
        "overtaken",
    )


def waited(run: Replay, request: str) -> int:
    """Seconds (steps of a second each) from a request's arrival to its admission."""
    arrived = next(e.time_us or 0 for e in run.events if isinstance(e, Arrive) and e.request == request)
    admitted = next(e.time_us or 0 for e in run.events if isinstance(e, Admit) and e.request == request)
    return (admitted - arrived) // STEP_US


def printed_bound() -> int:
    """``2 (n - 1) (Q + U) / a`` for two clients, in seconds: every step of the run serves 2 weighted tokens or more."""
    unit = bounds.service_unit(SETTING.cost(), 4, SETTING.kv_tokens)
    return 2 * (SETTING.quantum + unit) // SETTING.cost().output(1)


def overtaken() -> tuple[Demonstration, ...]:
    """Replay it."""
    run = overtaken_run()
    found = waited(run, "cold")
    story = (
        "f has nothing queued and nothing running when its request cold arrives, which needs all memory.",
        "Later requests of f itself match a cached prefix, go first, and always overlap: cold never fits.",
        f"cold waits for {found} steps; as printed it would be at most {printed_bound()}.",
        "The service that delays it is f's own, which the printed proof does not count. f is served all the time.",
    )
    return (Demonstration("a request overtaken by its own client's", story, found > printed_bound(), run),)


def own_service_is_unbounded() -> Iterator[Obligation]:
    """The books bound what others receive. What f itself receives, as f's requests overtake, they do not bound."""
    given = (
        *PARAMETERS,
        SAME_QUANTUM,
        *counters_in_range(),
        ("the books balance", paid_at_least(BEFORE)),
        ("f is served a thousand times its quantum", equal(BEFORE[F].served, QUANTUM[F] * Poly.constant(1000))),
    )
    yield possible(
        "f may be served without limit while one of its requests waits", given, TRUE, {**SAMPLE, "floor": -14}
    )


T5_PRINTED = Theorem(
    id="T5/printed",
    title="Delay of a request, as printed",
    source="[DLPM Thm A.2]",
    statement="If f has nothing queued or running, its next request waits at most 2 (n-1) (Q + U) / a.",
    hypotheses=("reserving memory", "a is a lower bound of the server's capacity"),
    expected=Verdict.REFUTED,
    checked="The replayed run. A solver confirms that balanced books do not bound f's own service.",
    argued="Nothing.",
    obligations=own_service_is_unbounded,
    demonstrations=overtaken,
)

T5 = Theorem(
    id="T5/reserving",
    title="Delay of a client",
    source="[DLPM Thm A.2], repaired",
    statement="If f has nothing running, then from an arrival of f to its next admission all others together are"
    " served at most X = (n-1) (2 Q - floor - q_f): in X / w_q steps, or X / a seconds after the step in flight.",
    hypotheses=(
        "reserving memory, for the floor of T2* (or optimistic memory, with the floor of T2*/optimistic)",
        "n clients in all, with the same quantum; q_f is f's counter at the arrival: a client may come back in debt",
        "the wait ends with the admission of any request of f: of the one that waits, if f sends no other",
        "a is what the worker serves per second, at least, in every whole step of the wait",
    ),
    expected=Verdict.PROVED,
    checked="One other client's share by the books of T4; steps and time by induction over the steps of the wait. Each"
    " refill before it, while f was away, has paid f's debt.",
    argued="The shares of n - 1 others add up. Every step of the wait serves somebody (T6), and that is not f.",
    obligations=obligations,
    mutants=mutants.to_be_noticed(obligations, "refill-ignores-queue", "forgiven-debt", "refill-queued-only"),
)
