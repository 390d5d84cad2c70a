"""E9: one ledger that all workers share, updates arriving late: a gap for clients that wait *anywhere*.

The idea of the proof. Nobody sees a client's true counter, but what everybody sees is too high by charges that are on
their way, and by nothing else. So a keeper that believes a client without credit is right, and pays as one ledger does:
clients queued anywhere are paid alike. And a worker that lets a client in although its true counter is negative errs by
at most d updates of each other worker; beside that, each other worker decodes what it had reserved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dlpm import bounds, bounds_cluster
from dlpm.extensions.shared_ledger import SharedLedger
from dlpm_proofs.cluster_witness import ClusterSetting, moments, replay_cluster, replay_shared, widest
from dlpm_proofs.definitions import cost, define, tight_unit
from dlpm_proofs.sharing import (
    BEFORE,
    ELSEWHERE,
    LARGEST,
    LATE,
    SHARED_PRODUCTS,
    SHARED_SAMPLE,
    WORKERS,
    Shared,
    Sharing,
    State,
    surroundings,
)
from dlpm_proofs.sharing_mutants import to_be_noticed
from dlpm_proofs.solve import Named, Obligation, claim, possible
from dlpm_proofs.terms import TRUE, Formula, Poly, absolute_at_most, all_of, at_least, at_most, between, equal
from dlpm_proofs.theorem import Theorem, Verdict
from dlpm_proofs.theorems.t9_t11_clusters import drained, unequal_speeds
from dlpm_proofs.transitions import CLIENTS, EXTEND, L_IN, PARAMETERS, QUANTUM, W_E, W_Q, F, G, M
from dlpm_proofs.transitions import B as BATCH
from dlpm_proofs.witness import STEP_US, Demonstration, call

FLOOR, GAP = Poly.unknown("floor"), Poly.unknown("gap")
AT_T1 = {client: Poly.unknown(f"q_{client}(t1)") for client in CLIENTS}
SAME_QUANTUM: Named = ("f and g have the same quantum", equal(QUANTUM[F], QUANTUM[G]))

UNIT = tight_unit(limited=False)
IN_OTHERS = define(
    "X",
    lambda symbol: bounds_cluster.shared_elsewhere(cost(symbol), symbol(M), symbol(LARGEST), symbol(LATE)),
)
LOWEST = define(
    "floor",
    lambda symbol: bounds_cluster.shared_floor(symbol(UNIT.symbol), symbol(ELSEWHERE), symbol(WORKERS)),
)
MEANINGS: tuple[Named, ...] = (UNIT.meaning, IN_OTHERS.meaning, LOWEST.meaning)


def views_are_late(state: Shared) -> Formula:
    """What everybody sees is the true counter and the charges that have not reached them; so it is never too low."""
    own, other, rest = state.on_the_way
    return all_of(
        *(at_least(part, 0) for part in state.on_the_way),
        equal(state.view_a, state.true + other + rest),
        equal(state.view_b, state.true + own + rest),
        equal(state.keeper, state.true + own + other + rest),
    )


def in_range(state: Shared, quantum: Poly) -> Formula:
    """``q <= Q``, and ``q`` less all that is reserved anywhere is at least the floor."""
    reserved = W_Q * state.reserved_a + W_Q * state.reserved_b + state.rest
    return all_of(at_most(state.true, quantum), at_least(state.true - reserved, FLOOR))


def sound(state: State) -> Formula:
    """Late views and the ceiling for every client, the floor for f, who is any of them."""
    return all_of(
        *(views_are_late(state[client]) for client in CLIENTS),
        in_range(state[F], QUANTUM[F]),
        *(at_most(state[client].true, QUANTUM[client]) for client in CLIENTS),
    )


def balanced(state: State) -> Formula:
    """The books of f and g balance: ``q(now) = q(t1) + paid - served``, q being the true counter."""
    return all_of(*(equal(state[c].true, AT_T1[c] + state[c].paid - state[c].served) for c in (F, G)))


def paid_alike(state: State) -> Formula:
    """Balanced books, and both were paid the same since t1."""
    return all_of(balanced(state), equal(state[F].paid, state[G].paid))


def paid_at_least(state: State) -> Formula:
    """Balanced books, and f was paid at least as much as g since t1."""
    return all_of(balanced(state), at_least(state[F].paid, state[G].paid))


def counters(ledger: type[SharedLedger] = SharedLedger) -> Iterator[Obligation]:
    """Views, ceiling and floor, from the start on."""
    yield UNIT.total
    yield IN_OTHERS.total
    yield LOWEST.total
    start = at_most(FLOOR, 0)
    assumed = (*surroundings(), *MEANINGS)
    yield claim("counters start at 0, which is not below the floor", assumed, start, SHARED_PRODUCTS)
    yield from Sharing(ledger, MEANINGS, sound).obligations()
    yield from _largest_update()
    given = (*assumed, ("the invariant holds", sound(BEFORE)))
    yield claim("no true counter is below the floor", given, at_least(BEFORE[F].true, FLOOR), SHARED_PRODUCTS)
    yield possible("all this can hold", given, TRUE, SHARED_SAMPLE)


def _largest_update() -> Iterator[Obligation]:
    """No update charges a client more than C."""
    largest = define(
        "C", lambda symbol: bounds_cluster.shared_largest_update(cost(symbol), symbol(L_IN), symbol(BATCH))
    )
    given = (
        *PARAMETERS,
        largest.meaning,
        ("an extend has between 1 and L_in tokens", between(1, EXTEND, L_IN)),
        ("a client runs at most B requests", between(0, BEFORE[F].running, BATCH)),
    )
    yield largest.total
    within = all_of(at_most(W_E * EXTEND, LARGEST), at_most(W_Q * BEFORE[F].running, LARGEST))
    yield claim("an admission or a forward step charges at most C", given, within, SHARED_PRODUCTS)


def _gap(
    ledger: type[SharedLedger],
    invariant: Callable[[State], Formula],
    backlogged: tuple[str, ...],
    form: Callable[[Poly, Poly], Formula],
) -> Iterator[Obligation]:
    """``invariant`` survives everything, and implies the gap."""
    yield from Sharing(ledger, (*MEANINGS, SAME_QUANTUM), invariant, backlogged).obligations()
    gap = define("gap", lambda symbol: bounds.service_gap(symbol(QUANTUM[F]), symbol(FLOOR)))
    values = (AT_T1[F], AT_T1[G], BEFORE[F].true, BEFORE[G].true)
    given = (
        *PARAMETERS,
        SAME_QUANTUM,
        gap.meaning,
        (
            "counters lie between floor and quantum [E9/counters]",
            all_of(*(between(FLOOR, q, QUANTUM[F]) for q in values)),
        ),
        ("the invariant holds", invariant(BEFORE)),
    )
    yield claim("the gap is at most 2 (Q - floor)", given, form(BEFORE[G].served - BEFORE[F].served, GAP))


def between_backlogged(ledger: type[SharedLedger] = SharedLedger) -> Iterator[Obligation]:
    """Both clients queued somewhere at every refill."""
    yield from _gap(ledger, paid_alike, (F, G), absolute_at_most)


def over_backlogged(ledger: type[SharedLedger] = SharedLedger) -> Iterator[Obligation]:
    """Only f queued somewhere at every refill."""
    yield from _gap(ledger, paid_at_least, (F,), at_most)


# -- replays -----------------------------------------------------------------------------------------------------------


def lowest_counter(setting: ClusterSetting, late: int, max_input: int) -> int:
    """The floor of this setting, with batches as large as memory allows."""
    tight = bounds.tight_unit(setting.cost(), max_input, setting.kv_tokens)
    largest = bounds_cluster.shared_largest_update(setting.cost(), max_input, setting.kv_tokens)
    elsewhere = bounds_cluster.shared_elsewhere(setting.cost(), setting.kv_tokens, largest, late)
    return bounds_cluster.shared_floor(tight, elsewhere, setting.workers)


def floor_reached() -> tuple[Demonstration, ...]:
    """With nothing late, every worker lets one request in, the last of them at a counter of exactly 1."""
    shown = []
    for workers in (2, 3, 4):
        setting = ClusterSetting(kv_tokens=8, quantum=workers, step_us=(1,) * workers)
        requests = [call(f"r{k}", F, [k], 7) for k in range(workers)]
        run, _ = replay_shared(setting, requests, f"floor-{workers}", late=0)
        floor, lowest = lowest_counter(setting, 0, 1), min(run.counters(F))
        story = (
            f"{workers} workers, Q = {workers}, M = 8, weights 1 and 2: each lets in one request with 1 input and 7"
            " reserved output tokens; the last one at a counter of 1.",
            f"When all have decoded, the counter is {lowest}; the floor is {floor}.",
        )
        shown.append(Demonstration(f"the floor {floor} is reached by {workers} workers", story, lowest == floor, run))
    return tuple(shown)


def bounded_runs() -> tuple[Demonstration, ...]:
    """The runs that drain a worker under plain D2LPM: the gap stays below its bound at every length."""
    shown = []
    for late in (0, 4):
        for length in (3, 6, 12):
            setting, requests = unequal_speeds(length, "d2lpm")
            run, cluster = replay_shared(setting, requests, f"shared-{length}", late=late)
            found = moments(run)
            gap = max(widest(found, G, F), widest(found, F, G))
            limit = bounds.service_gap(setting.quantum, lowest_counter(setting, late, 1))
            plain, _ = replay_cluster(setting, requests, f"plain-{length}")
            drifted = widest(moments(plain), G, F)
            story = (
                f"The run that drains worker 0 for f, {length} calls a chain, updates {late} late.",
                f"{cluster.moves} requests move. The largest gap while both wait somewhere is {gap}, at most {limit};"
                f" under plain D2LPM it is {drifted}.",
            )
            shown.append(Demonstration(f"{late} late, length {length}: gap {gap}", story, gap <= limit < drifted, run))
    return tuple(shown)


def early_binding() -> tuple[Demonstration, ...]:
    """Workers that serve their own queues without idling let the gap grow; a shared ledger alone makes them idle."""
    setting, requests = unequal_speeds(12, "d2lpm")
    shown = [found for found in drained() if found.name.startswith("unequal speeds")]
    still, _ = replay_shared(setting, requests, "early-binding", late=0, moving=False)
    moved, cluster = replay_shared(setting, requests, "late-binding", late=0)
    gap = max(widest(moments(still), G, F), widest(moments(still), F, G))
    limit = bounds.service_gap(setting.quantum, lowest_counter(setting, 0, 1))
    ends = [(run.events[-1].time_us or 0) // STEP_US for run in (still, moved)]
    idle = ends[0] > 2 * ends[1]
    story = (
        "The same requests, under one shared ledger, each staying where it was sent: worker 0 stands idle with g's"
        " requests in its queue while f has credit and waits at worker 1.",
        f"The gap is {gap}, at most {limit}; but the run takes {ends[0]} seconds. With {cluster.moves} requests moved"
        f" it takes {ends[1]}.",
    )
    shown.append(Demonstration("a shared ledger without moves idles", story, gap <= limit and idle, still))
    return tuple(shown)


MEDIUM = (
    "reserving memory at every worker",
    "at most d updates of each worker are unheard of by the others and the keeper, each charging a client at most C",
    "the keeper knows of every queued request (the router sent it)",
)
SYMMETRY = (
    "Worker a, any other worker b and the rest taken together stand for any number; f and g are alike. All but a"
    " worker's last d updates are delivered by `SharedLedger.send` (tested). A move changes no counter."
)

E9_COUNTERS = Theorem(
    id="E9/counters",
    title="Shared ledger: ceiling and floor of the true counters",
    source="ours",
    statement="q <= Q and q >= 1 - U* - (|W| - 1) (w_q (M - 1) + d C), for a client's true counter over all workers.",
    hypotheses=MEDIUM,
    expected=Verdict.PROVED,
    checked="Views exceed the true counter by what is on its way, and no more: an inductive invariant of visits,"
    " forwards, finishes, refills, deliveries and arrivals; with it the floor. For d = 0 runs reach it.",
    argued=SYMMETRY,
    obligations=counters,
    demonstrations=floor_reached,
    mutants=to_be_noticed(
        counters,
        "hear-nothing",
        "forget-own-charges",
        "secret-outputs",
        "local-refill",
        "shared-gate-at-zero",
        "keeper-pays-twice",
        "updates-arrive-twice",
    ),
)

E9_GAP = Theorem(
    id="E9/gap",
    title="Shared ledger: service of two clients that wait anywhere",
    source="ours, for [DLPM Thm 5.1 with Def. 3.1]",
    statement="If f and g each wait at some worker, |W_f - W_g| <= 2 (Q - floor), over all workers, at any time.",
    hypotheses=(*MEDIUM, "f and g each have a request queued at some worker at every refill", "equal quanta"),
    expected=Verdict.PROVED,
    checked="Balanced books and equal pay are an inductive invariant; the gap follows with E9/counters.",
    argued=SYMMETRY,
    obligations=between_backlogged,
    demonstrations=bounded_runs,
    mutants=to_be_noticed(between_backlogged, "keeper-ignores-queues", "local-refill"),
)

E9_ANY = Theorem(
    id="E9/gap-to-any",
    title="Shared ledger: a client that waits anywhere against any other",
    source="ours, for [DLPM Thm 5.2 with Def. 3.1]",
    statement="If f waits at some worker, W_g - W_f <= 2 (Q - floor) for every g, which may come and go.",
    hypotheses=(*MEDIUM, "f has a request queued at some worker at every refill", "equal quanta"),
    expected=Verdict.PROVED,
    checked="Balanced books, and f paid at least as much as g, are an inductive invariant; with E9/counters the gap.",
    argued=SYMMETRY,
    obligations=over_backlogged,
    mutants=to_be_noticed(over_backlogged, "keeper-ignores-queues"),
)

E9_EARLY = Theorem(
    id="E9/early-binding",
    title="A bound without moving requests",
    source="ours",
    statement="Requests bound to workers on arrival can be scheduled so that no worker idles while a request waits,"
    " and yet the gap between clients that wait somewhere stays bounded.",
    hypotheses=("the router does not know output lengths", "requests stay where they were sent", "three equal workers"),
    expected=Verdict.REFUTED,
    checked="Replayed for D2LPM: the gap grows. Under a shared ledger without moves it is bounded, and a worker idles.",
    argued="For any router and ledger: outputs can be such that f waits at one worker; the others idle or serve g.",
    obligations=tuple,
    demonstrations=early_binding,
)
