"""T10/A.4: how long a client of a cluster waits for its next admission, and whose capacity that is counted in.

The idea of the proof. A request is dispatched once and waits at one worker, and there everything is as in T5: while f
waits and runs nothing at that worker, all others are served a bounded amount *there*. The other workers do not come in,
so neither does the printed factor |W|, if the rate is that worker's own. The factor comes back with the capacity of the
whole cluster in place of the worker's, and then the worker must have its share of that.
"""

from __future__ import annotations

from collections.abc import Iterator

from dlpm import bounds, bounds_cluster
from dlpm.events import Admit, Dispatch, Output
from dlpm_proofs import mutants
from dlpm_proofs.cluster_witness import ClusterSetting, flood, replay_cluster
from dlpm_proofs.definitions import define, printed_unit, tight_unit
from dlpm_proofs.solve import Named, Obligation, claim, possible
from dlpm_proofs.terms import Poly, Products, at_least, at_most, between, equal
from dlpm_proofs.theorem import Theorem, Verdict
from dlpm_proofs.theorems import t5_latency
from dlpm_proofs.theorems.t3_t4_gap import AT_T1, FLOOR
from dlpm_proofs.transitions import COMPARED_WEIGHTS, PARAMETERS, QUANTUM, REFERENCE, SAMPLE, Algorithm, F, G
from dlpm_proofs.witness import STEP_US, Demonstration, Replay, call

ONE = Poly.constant(1)
CLIENTS, WORKERS = (Poly.unknown(name) for name in ("n", "k"))
OWN_RATE, CLUSTER_RATE, TIME, SERVED = (Poly.unknown(name) for name in ("a_w", "a", "t", "X"))


# -- what is true ------------------------------------------------------------------------------------------------------


def within_the_printed_number() -> Iterator[Obligation]:
    """One worker's share of the printed number is enough, whatever f owes when it comes."""
    unit, tight = printed_unit(), tight_unit(limited=False)
    floor = define("floor", lambda symbol: bounds.deficit_floor(symbol(tight.symbol)))
    allowed = define(
        "allowed",
        lambda symbol: bounds.service_while_waiting(symbol(QUANTUM[F]), symbol(FLOOR), symbol(AT_T1[F]), 2),
    )
    printed = define(
        "printed",
        lambda symbol: bounds_cluster.service_while_waiting_as_printed(symbol(unit.symbol), symbol(QUANTUM[F]), 1, 2),
    )
    given = (
        *PARAMETERS,
        *(definition.meaning for definition in (unit, tight, floor, allowed, printed)),
        ("f's counter lies between floor and quantum [T1, T2]", between(FLOOR, AT_T1[F], QUANTUM[F])),
    )
    yield printed.total
    yield claim(
        "one other is served less than 2 (U + Q) at that worker",
        given,
        at_most(allowed.symbol, printed.symbol - ONE),
        COMPARED_WEIGHTS,
    )
    yield possible(
        "a client that comes as deep in debt as can be is not excluded", given, equal(AT_T1[F], FLOOR), SAMPLE
    )
    everybody = define(
        "printed for n clients and k workers",
        lambda symbol: bounds_cluster.service_while_waiting_as_printed(
            symbol(unit.symbol), symbol(QUANTUM[F]), symbol(WORKERS), symbol(CLIENTS)
        ),
        (),
    )
    each = Poly.constant(2) * (unit.symbol + QUANTUM[F])
    yield claim(
        "the printed number is |W| (n - 1) times that",
        (*PARAMETERS, everybody.meaning),
        equal(everybody.symbol, WORKERS * (CLIENTS - ONE) * each),
    )


def at_the_clusters_rate() -> Iterator[Obligation]:
    """``a_w t <= X`` gives ``a t <= |W| X`` if the worker has at least its share of the cluster's capacity."""
    surplus = WORKERS * OWN_RATE - CLUSTER_RATE
    left = SERVED - OWN_RATE * TIME
    products = Products((WORKERS, surplus), frozenset({"X", "a_w", "t"}), (left,))
    given: tuple[Named, ...] = (
        ("there is a worker", at_least(WORKERS, 1)),
        ("time does not run backwards", at_least(TIME, 0)),
        ("at the rate of the worker the wait is at most X / a_w [T5]", at_most(OWN_RATE * TIME, SERVED)),
        ("the worker serves at least a |W|-th of what the cluster does", at_least(surplus, 0)),
    )
    yield claim("the wait is at most |W| X / a", given, at_most(CLUSTER_RATE * TIME, WORKERS * SERVED), products)
    sample = {"k": 3, "a_w": 2, "a": 6, "X": 10, "t": 5}
    yield possible("the whole of it is not excluded", given, equal(CLUSTER_RATE * TIME, WORKERS * SERVED), sample)


def obligations(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """T5 at the worker, what of the printed number it needs, and the rate of the cluster."""
    yield from t5_latency.obligations(algorithm)
    yield from within_the_printed_number()
    yield from at_the_clusters_rate()


# -- as printed --------------------------------------------------------------------------------------------------------

RATE = 2
"""What every second of the runs below serves at the least, in weighted tokens: one output token."""


def waited_us(run: Replay, request: str) -> tuple[int, int]:
    """When a request was dispatched and when it was admitted."""
    sent = next(e.time_us for e in run.events if isinstance(e, Dispatch) and e.request == request)
    admitted = next(e.time_us for e in run.events if isinstance(e, Admit) and e.request == request)
    assert sent is not None
    assert admitted is not None
    return sent, admitted


def least_served_per_second(run: Replay, start_us: int, end_us: int) -> int:
    """The least that all workers together served as outputs in a second (`STEP_US`) of an interval.

    Extend tokens come on top: what is found is a lower bound of the capacity. O(events).
    """
    served = dict.fromkeys(range(start_us // STEP_US + 1, end_us // STEP_US + 1), 0)
    for event in run.events:
        if isinstance(event, Output) and event.time_us is not None and event.time_us // STEP_US in served:
            served[event.time_us // STEP_US] += run.setting.cost().output(sum(event.tokens.values()))
    return min(served.values())


def printed_seconds(setting: ClusterSetting, longest: int) -> int:
    """``(n - 1) |W| 2 (U + Q) / a`` for two clients."""
    unit = bounds.service_unit(setting.cost(), longest, setting.kv_tokens)
    return bounds_cluster.service_while_waiting_as_printed(unit, setting.quantum, setting.workers, 2) // RATE


OVERTAKEN = ClusterSetting(kv_tokens=8, quantum=5, worker_quantum=1_000)
LATER_CALLS = 60

SLOW = ClusterSetting(kv_tokens=8, quantum=5, worker_quantum=1_000, step_us=(20, 1))


def overtaken_run() -> Replay:
    """T5's run in front of two workers: f's cold request waits at worker 0, where f's later ones find their prefix."""
    warm = [1, 2]
    calls = [
        call("first", F, warm, 1),
        call("g", G, [3], 1),
        call("cold", F, range(10, 14), 1, max_output=4, at_step=3),
        *(call(f"later{k}", F, [*warm, 20 + k], 2, at_step=3 + k) for k in range(LATER_CALLS)),
    ]
    return replay_cluster(OVERTAKEN, calls, "overtaken-in-a-cluster")[0]


def slow_worker_run() -> Replay:
    """Worker 0 is twenty times slower. g's requests fill both; then f's only request comes, to worker 0."""
    outputs = SLOW.kv_tokens - 1
    calls = [*flood(G, 60, outputs), call("only", F, [1], 1, at_step=1)]
    return replay_cluster(SLOW, calls, "slow-worker")[0]


def refutations() -> tuple[Demonstration, ...]:
    """Both runs: f's own service is not counted, and a request waits for one worker, not for the cluster."""
    overtaken = _shown(
        "a request overtaken by its own client's, in a cluster",
        overtaken_run(),
        "cold",
        printed_seconds(OVERTAKEN, 4),
        "f's request cold waits at worker 0 for all of its memory. Worker 1 is idle all the time.",
        "f's own later requests go to worker 0, where their prefix is, match more, and always overlap.",
    )
    slow = _shown(
        "a request at a slow worker",
        slow_worker_run(),
        "only",
        printed_seconds(SLOW, 1),
        "Worker 0 is twenty times slower than worker 1, and both are busy with requests of g.",
        "f, a new client, sends its only request. Both queues are as long, so it goes to worker 0.",
    )
    return (overtaken, slow)


def _shown(name: str, run: Replay, request: str, printed: int, *story: str) -> Demonstration:
    """A run in which ``request`` waits longer than printed, at a capacity that every second of the wait had."""
    start_us, end_us = waited_us(run, request)
    seconds = (end_us - start_us) // STEP_US
    rate = least_served_per_second(run, start_us, end_us)
    words = (
        f"It waits {seconds} seconds. Each of them serves {rate} weighted tokens or more, so as printed it would be at"
        f" most {printed}."
    )
    return Demonstration(name, (*story, words), seconds > printed and rate >= RATE, run)


T10_LATENCY_PRINTED = Theorem(
    id="T10/A.4-printed",
    title="Delay of a request in a cluster, as printed",
    source="[DLPM Thm A.4]",
    statement="If f has nothing queued or running, its next request waits at most (n-1) |W| (2 U + 2 Q) / a.",
    hypotheses=("reserving memory", "a is a lower bound of what the cluster serves per second"),
    expected=Verdict.REFUTED,
    checked="Two replayed runs, with the capacity measured in every second of the wait.",
    argued="Nothing.",
    obligations=tuple,
    demonstrations=refutations,
)

T10_LATENCY = Theorem(
    id="T10/A.4",
    title="Delay of a client at a worker",
    source="[DLPM Thm A.4], repaired",
    statement="If f runs nothing at a worker, from an arrival of f there to its next admission there all others are"
    " served at most X = (n-1) (2 Q - floor - q_f) < 2 (n-1) (U + Q) there: in X / a_w seconds, hence in |W| X / a.",
    hypotheses=(
        "reserving memory, for the floor of T2*",
        "n clients in all, with the same quantum; q_f is f's counter at that worker at the arrival",
        "the wait ends with the admission of any request of f at that worker",
        "a_w is what that worker serves per second, at least, in every whole step of the wait",
        "for the form with a, the cluster's capacity: the worker has at least a |W|-th of it",
    ),
    expected=Verdict.PROVED,
    checked="T5 at one worker; that the printed constant is large enough for it; the cluster's rate for the worker's.",
    argued="A request stays at its worker, whose ledger, queue and memory no other worker touches. Else as in T5.",
    obligations=obligations,
    mutants=mutants.to_be_noticed(obligations, "refill-ignores-queue", "forgiven-debt"),
)
