"""T9, T10 and T11: service over all workers, for clients that are backlogged everywhere, or only somewhere.

The idea of the proof. Every worker runs DLPM with counters of its own, so T3 and T4 bound the gap at each; the gap over
all workers is the sum. That needs both clients backlogged *at every worker*: where a client has nothing queued it is
not paid, and no other worker's ledger knows. The refutations let one worker run dry for a client, in four ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache

from dlpm import bounds, bounds_cluster
from dlpm.request import Request
from dlpm_proofs import mutants
from dlpm_proofs.cluster_witness import ClusterSetting, Drift, drift, flood, moments, replay_cluster
from dlpm_proofs.definitions import cost, define, printed_unit
from dlpm_proofs.solve import Named, Obligation, claim, possible
from dlpm_proofs.terms import Formula, Poly, absolute_at_most, all_of, at_most, between, equal
from dlpm_proofs.theorem import Theorem, Verdict
from dlpm_proofs.theorems.t3_t4_gap import t3, t4
from dlpm_proofs.transitions import L_IN, PARAMETERS, QUANTUM, REFERENCE, Algorithm, F, M
from dlpm_proofs.witness import STEP_US, Demonstration, call

# -- the sum over workers ----------------------------------------------------------------------------------------------

WORKERS, WORKER_GAP, SUM, NEXT = (Poly.unknown(name) for name in ("k", "gap of a worker", "sum of k", "next"))
PAID, COUNTER, FLOOR = (Poly.unknown(name) for name in ("paid", "q", "floor"))
TOTAL = define("gap of k", lambda symbol: bounds_cluster.cluster_gap(symbol(WORKER_GAP), symbol(WORKERS)), ())
ONE_MORE = define(
    "gap of k + 1",
    lambda symbol: bounds_cluster.cluster_gap(symbol(WORKER_GAP), symbol(WORKERS + Poly.constant(1))),
    (),
)
NONE = define("gap of none", lambda symbol: bounds_cluster.cluster_gap(symbol(WORKER_GAP), 0), ())


def two_sided(value: Poly, bound: Poly) -> Formula:
    """T3's form: ``|value| <= bound``."""
    return absolute_at_most(value, bound)


def one_sided(value: Poly, bound: Poly) -> Formula:
    """T4's form: ``value <= bound``."""
    return at_most(value, bound)


def summed(form: Callable[[Poly, Poly], Formula]) -> Iterator[Obligation]:
    """Gaps of single workers add up, by induction on the number of workers."""
    yield claim("no workers, no gap", (NONE.meaning,), form(Poly.constant(0), NONE.symbol))
    step: Sequence[Named] = (
        TOTAL.meaning,
        ONE_MORE.meaning,
        ("the gap over k workers is bounded", form(SUM, TOTAL.symbol)),
        ("so is that of one more worker", form(NEXT, WORKER_GAP)),
    )
    yield claim("one worker more adds one worker's gap", step, form(SUM + NEXT, ONE_MORE.symbol))
    reached = all_of(equal(SUM, TOTAL.symbol), equal(NEXT, WORKER_GAP), equal(SUM + NEXT, ONE_MORE.symbol))
    yield possible("the whole sum is not excluded", step, reached, {"k": 3, "gap of a worker": 5})


def printed() -> Iterator[Obligation]:
    """The sum of the printed gaps of single workers is the printed gap of the cluster."""
    gap = define(
        "printed gap of a worker",
        lambda symbol: bounds.service_gap_as_printed(cost(symbol), symbol(L_IN), symbol(M), symbol(QUANTUM[F])),
    )
    total = define("printed sum", lambda symbol: bounds_cluster.cluster_gap(symbol(gap.symbol), symbol(WORKERS)))
    unit = printed_unit()
    as_printed = define(
        "printed gap of the cluster",
        lambda symbol: bounds_cluster.cluster_gap_as_printed(symbol(unit.symbol), symbol(QUANTUM[F]), symbol(WORKERS)),
    )
    yield from (gap.total, total.total, as_printed.total)
    for workers in range(1, 9):
        given = (*PARAMETERS, gap.meaning, unit.meaning, total.meaning, as_printed.meaning)
        yield claim(
            f"2 |W| (U + Q) is the sum for {workers} workers", given, equal(total.symbol, as_printed.symbol)
        ).given({"k": workers})


def replenished() -> Iterator[Obligation]:
    """At one worker, from the beginning: what a client was paid and what it was served differ by its counter."""
    bound = define("bound", lambda symbol: bounds_cluster.replenished_gap(symbol(QUANTUM[F]), symbol(FLOOR), 1))
    given = (
        *PARAMETERS,
        bound.meaning,
        ("the counter lies between floor and quantum [T1, T2]", between(FLOOR, COUNTER, QUANTUM[F])),
    )
    served = PAID - COUNTER
    yield bound.total
    yield claim(
        "paid and served differ by at most max(Q, -floor)", given, absolute_at_most(PAID - served, bound.symbol)
    )


def t9(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """T3 at every worker, its sum, and the printed form."""
    yield from t3(algorithm)
    yield from summed(two_sided)
    yield from printed()


def a3(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """Balanced books at every worker (T4's invariant), and the sum of what they leave open."""
    yield from t4(algorithm)
    yield from replenished()
    yield from summed(two_sided)


def t10(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """T4 at every worker, and its sum."""
    yield from t4(algorithm)
    yield from summed(one_sided)
    yield from printed()


# -- one worker runs dry -----------------------------------------------------------------------------------------------


def chain(number: int, length: int) -> list[Request]:
    """One call of f after the other, each with a prompt of its own."""
    requests: list[Request] = []
    for k in range(length):
        after = [requests[-1].id] if requests else []
        requests.append(call(f"f{number}.{k}", "f", [1_000 * number + k], 3, after=after))
    return requests


def unequal_speeds(length: int, router: str) -> tuple[ClusterSetting, list[Request]]:
    """Worker 1 is four times slower; f always has six calls under way, and they gather at worker 1."""
    setting = ClusterSetting(kv_tokens=8, quantum=8, router=router, worker_quantum=8, step_us=(1, 4))
    chains = [request for number in range(6) for request in chain(number, length)]
    return setting, [*flood("g", 50 * length, 3), *chains]


SHARED, UNSHARED = range(1, 40), 5_000


def unequal_hits(steps: int, worker_quantum: int) -> tuple[ClusterSetting, list[Request]]:
    """Equal workers: every step f sends one prompt that worker 0 has cached but for a token, and one that nobody has.

    The router sends each kind to the worker that has seen its beginning, and charges both alike: 40 input tokens.
    """
    setting = ClusterSetting(kv_tokens=200, quantum=40, router="d2lpm", worker_quantum=worker_quantum)
    calls = []
    for k in range(steps):
        calls.append(call(f"hit{k}", "f", [*SHARED, UNSHARED + k], 2, at_step=k))
        fresh = range(100_000 + 100 * k, 100_000 + 100 * k + 39)
        calls.append(call(f"miss{k}", "f", [UNSHARED - 1, *fresh], 2, at_step=k))
    return setting, [*calls[:2], *flood("g", 5 * steps, 8), *calls[2:]]


def big_and_small(steps: int) -> tuple[ClusterSetting, list[Request]]:
    """Equal workers, per-client round robin: f sends a large and a small request in turn."""
    setting = ClusterSetting(kv_tokens=100, quantum=40, router="per-client-round-robin")
    calls = []
    for k in range(steps):
        fresh = range(100_000 + 100 * k, 100_000 + 100 * k + 39)
        calls.append(call(f"large{k}", "f", fresh, 4, at_step=k))
        calls.append(call(f"small{k}", "f", [UNSHARED + k], 1, at_step=k))
    return setting, [*calls[:2], *flood("g", 5 * steps, 8), *calls[2:]]


def sticky(length: int) -> tuple[ClusterSetting, list[Request]]:
    """Q^w without end: all prompts of f begin alike and go where that is cached; g's are spread over three."""
    setting = ClusterSetting(kv_tokens=16, quantum=4, router="d2lpm", worker_quantum=10**9, step_us=(1, 1, 1))
    calls: list[Request] = []
    for number in range(8):
        for k in range(length):
            after = [calls[-1].id] if k else []
            calls.append(call(f"f{number}.{k}", "f", [7, 1_000 * number + k], 3, after=after))
    return setting, [calls[0], *flood("g", 60 * length, 3), *calls[1:]]


def growing(
    name: str,
    build: Callable[[int], tuple[ClusterSetting, list[Request]]],
    lengths: Sequence[int],
    story: Sequence[str],
) -> tuple[Demonstration, ...]:
    """Runs of these lengths, each twice the one before: the gap must pass the printed bound and go on growing."""
    shown: list[Demonstration] = []
    last = 0
    for length in lengths:
        setting, requests = build(length)
        run, _ = replay_cluster(setting, requests, f"{name}-{length}")
        found = drift(moments(run), "g", "f", setting.workers)
        gap = found.gap if found else 0
        limit = printed_limit(setting, requests)
        # Twice the time must bring at least half as much again; the last run must be past the printed bound.
        confirmed = 2 * gap > 3 * last and (length != lengths[-1] or gap > limit)
        shown.append(
            Demonstration(f"{name}, length {length}: gap {gap}", (*story, _words(found, limit)), confirmed, run)
        )
        last = gap
    return tuple(shown)


def printed_limit(setting: ClusterSetting, requests: Sequence[Request]) -> int:
    """What Theorem 5.1 and 5.2 print for this run."""
    longest = max(request.input_tokens for request in requests)
    unit = bounds.service_unit(setting.cost(), longest, setting.kv_tokens)
    return bounds_cluster.cluster_gap_as_printed(unit, setting.quantum, setting.workers)


def _words(found: Drift | None, limit: int) -> str:
    """The numbers of one run."""
    if found is None:
        return "No interval was found."
    seconds = (found.end.time_us - found.start.time_us) // STEP_US
    return (
        f"In {seconds} seconds in which g waits at every worker and f always somewhere, g gets {found.ahead} and f"
        f" {found.behind}: a gap of {found.gap}, where {limit} is printed."
    )


@cache
def drained() -> tuple[Demonstration, ...]:
    """Unequal speeds, then equal workers with unequal hit rates."""
    speeds = (
        "Worker 1 is four times slower than worker 0. g has requests waiting at both. f keeps six calls under way.",
        "The router's credit sends f's calls to both workers alike; those at worker 0 are soon done, so the six gather"
        " at worker 1, where f waits all the time, while g has worker 0 nearly to itself.",
    )
    hits = (
        "Two equal workers. Of f's prompts every other one is cached at worker 0 but for one token.",
        "The router charges both kinds alike, by input; worker 0 serves its kind at once, and f waits at worker 1.",
    )
    return (
        *growing("unequal speeds", lambda n: unequal_speeds(n, "d2lpm"), (3, 6, 12), speeds),
        *growing("unequal hit rates", lambda n: unequal_hits(n, 40), (40, 80, 160), hits),
    )


def infinite_quantum() -> tuple[Demonstration, ...]:
    """A.5's own counterexample, replayed."""
    story = (
        "Three equal workers, Q^w = 10^9. f keeps eight calls under way that begin alike and go where that is cached.",
        "g's prompts match nothing and go to the shortest queue: g waits at all three, and shares about one with f.",
    )
    return growing("infinite worker quantum", sticky, (3, 6, 12), story)


def round_robin_drained() -> tuple[Demonstration, ...]:
    """Round robin by number of requests is not round robin by work, nor by speed."""
    sizes = (
        "Two equal workers. f sends one large and one small request every second: the large ones all go to worker 0,"
        " the small ones all to worker 1, where they are done at once.",
        "f always waits at worker 0. g waits at both workers, and has worker 1 nearly to itself.",
    )
    speeds = ("The same with equal requests, where worker 1 is four times slower: f's six calls gather there.",)
    return (
        *growing("round robin, unequal sizes", big_and_small, (20, 40, 80), sizes),
        *growing(
            "round robin, unequal speeds", lambda n: unequal_speeds(n, "per-client-round-robin"), (3, 6, 12), speeds
        ),
    )


EVERYWHERE = "f and g have a request in the queue of every worker at every check-refill there"
PER_WORKER = "Each worker's ledger is its own object: nothing that happens at one touches another's."

A3 = Theorem(
    id="T9/A.3",
    title="Service against refills, all workers",
    source="[DLPM Thm A.3]",
    statement="From the beginning, what a client was refilled over all workers and what it was served differ by at most"
    " |W| max(Q, -floor) = |W| max(Q, U* - 1).",
    hypotheses=("reserving memory at every worker, for the floor of T2*",),
    expected=Verdict.PROVED,
    checked="Balanced books at a worker are an inductive invariant (T4's); the sum over workers by induction.",
    argued=PER_WORKER,
    obligations=a3,
    mutants=mutants.to_be_noticed(a3, "free-extend", "double-outputs"),
)

T9 = Theorem(
    id="T9/every-worker",
    title="Service of two clients backlogged on every worker",
    source="[DLPM Thm 5.1]",
    statement="If f and g are backlogged on every worker, |W_f - W_g| <= |W| times the gap of T3, < 2 |W| (U + Q).",
    hypotheses=(EVERYWHERE, "reserving memory", "f and g have the same quantum, at every worker the same limits"),
    expected=Verdict.PROVED,
    checked="T3 at one worker; gaps of workers add up, by induction; 2 |W| (U + Q) is the sum, for 1 to 8.",
    argued=PER_WORKER,
    obligations=t9,
    mutants=mutants.to_be_noticed(t9, "refill-ignores-queue", "free-extend"),
)

T9_SOMEWHERE = Theorem(
    id="T9/some-worker",
    title="Service of two clients backlogged on some worker",
    source="[DLPM Thm 5.1 with Def. 3.1]",
    statement="If f and g are backlogged, each on certain workers, |W_f - W_g| <= 2 |W| (U + Q).",
    hypotheses=("f and g each have a request in the queue of some worker all the time [DLPM Def. 3.1]",),
    expected=Verdict.REFUTED,
    checked="Replayed runs of three lengths each: the gap passes the printed bound and grows with time.",
    argued="That it goes on growing: the runs are periodic.",
    obligations=tuple,
    demonstrations=drained,
)

T10 = Theorem(
    id="T10/every-worker",
    title="Service of a client backlogged on every worker against any other",
    source="[DLPM Thm 5.2]",
    statement="If f is backlogged on every worker, W_g - W_f <= |W| times the gap of T4 for every g.",
    hypotheses=(
        "f has a request in the queue of every worker at every check-refill there",
        "reserving memory",
        "f and g have the same quantum",
    ),
    expected=Verdict.PROVED,
    checked="T4 at one worker; gaps of workers add up, by induction.",
    argued=PER_WORKER,
    obligations=t10,
    mutants=mutants.to_be_noticed(t10, "refill-ignores-queue", "forgiven-debt"),
)

T10_SOMEWHERE = Theorem(
    id="T10/some-worker",
    title="Service of a client backlogged on some worker against any other",
    source="[DLPM Thm 5.2 with Def. 3.1]",
    statement="If f is backlogged on certain workers, W_g - W_f <= 2 |W| (U + Q) for every g.",
    hypotheses=("f has a request in the queue of some worker all the time [DLPM Def. 3.1]",),
    expected=Verdict.REFUTED,
    checked="The runs that refute T9.",
    argued="As there.",
    obligations=tuple,
    demonstrations=drained,
)

T11_INFINITE = Theorem(
    id="T11/A.5",
    title="Infinite worker quantum is fair",
    source="[DLPM Thm A.5]",
    statement="With a Q^w that never runs out, the service gap of clients that always wait somewhere has a bound.",
    hypotheses=("Q^w exceeds all that a client is ever charged",),
    expected=Verdict.REFUTED,
    checked="The paper's own counterexample, replayed at three lengths.",
    argued="That it goes on growing: the run is periodic.",
    obligations=tuple,
    demonstrations=infinite_quantum,
)

T11_ROUND_ROBIN = Theorem(
    id="T11/A.6",
    title="Per-client round robin is fair",
    source="[DLPM Thm A.6]",
    statement="Under per-client round robin the service gap of backlogged clients has a bound that no time exceeds.",
    hypotheses=("a client that is backlogged is so somewhere",),
    expected=Verdict.REFUTED,
    checked="Replayed runs: round robin does not make a client backlogged everywhere.",
    argued="That it goes on growing: the runs are periodic. Where f and g are backlogged on every worker, T9 holds.",
    obligations=tuple,
    demonstrations=round_robin_drained,
)
