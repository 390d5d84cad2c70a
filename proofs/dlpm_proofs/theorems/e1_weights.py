"""E1: clients of different quanta are served in proportion to them, but for a constant.

The idea of the proof is that of T3. A refill that fires pays every backlogged client once, each its own quantum; so
``Q_g * paid_f = Q_f * paid_g`` stays true. What is left is what the two had and have, each times the other's quantum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from dlpm import bounds, bounds_extensions
from dlpm.events import Admit
from dlpm.ledger import Ledger
from dlpm.request import ClientId
from dlpm_proofs import mutants
from dlpm_proofs.deepest import Limits
from dlpm_proofs.definitions import define
from dlpm_proofs.solve import Named, Obligation, claim, possible
from dlpm_proofs.terms import Formula, Poly, Products, absolute_at_most, all_of, at_least, at_most, between, equal
from dlpm_proofs.theorem import Mutant, Theorem, Verdict
from dlpm_proofs.theorems.t3_t4_gap import AT_T1, FLOOR, balanced
from dlpm_proofs.transitions import (
    BEFORE,
    CLIENTS,
    COUNTS,
    PARAMETERS,
    QUANTUM,
    REFERENCE,
    SAMPLE,
    WEIGHTED,
    Algorithm,
    F,
    G,
    Memory,
    State,
    queued,
    transitions,
)
from dlpm_proofs.widest import widest_run
from dlpm_proofs.witness import Demonstration, Replay, Setting, call, replay

GAP = Poly.unknown("weighted gap")

QUANTA = Products(
    (QUANTUM[F], QUANTUM[G]),
    frozenset({"floor", *(f"Q_{c}" for c in CLIENTS), *(f"q_{c}" for c in CLIENTS), *(f"q_{c}(t1)" for c in CLIENTS)}),
)
"""A quantum multiplies the counter and the quantum of the other client."""

PAID = Products((*WEIGHTED.factors, QUANTUM[F], QUANTUM[G]), COUNTS | {f"Q_{F}", f"Q_{G}"})
"""What transitions multiply: weights and counts, and one quantum with the other."""

WEIGHTED_SAMPLE = {**SAMPLE, f"Q_{G}": 10, "floor": -14}


def paid_in_proportion(state: State) -> Formula:
    """Balanced books, and what f and g were paid since t1 is as their quanta."""
    return all_of(balanced(state), equal(QUANTUM[G] * state[F].paid, QUANTUM[F] * state[G].paid))


def paid_no_less(state: State) -> Formula:
    """Balanced books, and f was paid no less than its share compared with g."""
    return all_of(balanced(state), at_least(QUANTUM[G] * state[F].paid, QUANTUM[F] * state[G].paid))


def _inductive(
    algorithm: Algorithm, invariant: Callable[[State], Formula], backlogged: Sequence[ClientId]
) -> Iterator[Obligation]:
    """``invariant`` survives every transition, the ``backlogged`` clients being queued at every check-refill."""
    always: tuple[Named, ...] = tuple((f"{client} is backlogged", queued(client)) for client in backlogged)
    for transition in transitions(algorithm, Memory.ANY):
        assumed = (*PARAMETERS, *always) if transition.visited is not None else PARAMETERS
        yield from transition.obligations(assumed, invariant, PAID)


def _ranges() -> tuple[Named, ...]:
    """What T1 and T2 give, at t1 and now: each counter lies between the floor and its client's quantum."""
    counters = [(client, q) for client in (F, G) for q in (AT_T1[client], BEFORE[client].deficit)]
    meaning = define(
        str(GAP),
        lambda symbol: bounds_extensions.weighted_gap(
            symbol(QUANTUM[F]), symbol(FLOOR), symbol(QUANTUM[G]), symbol(FLOOR)
        ),
    ).meaning
    in_range = all_of(*(between(FLOOR, q, QUANTUM[client]) for client, q in counters))
    return (("counters lie between the floor and their quantum [T1, T2]", in_range), meaning)


LEAD = QUANTUM[G] * BEFORE[F].served - QUANTUM[F] * BEFORE[G].served


def _books_times_quanta(*clients: ClientId) -> Named:
    """The books of each client times the other's quantum: equal numbers stay equal when both are multiplied."""
    other = {F: G, G: F}
    return (
        "books times a quantum",
        all_of(
            *(
                equal(
                    QUANTUM[other[client]] * (AT_T1[client] + BEFORE[client].paid - BEFORE[client].served),
                    QUANTUM[other[client]] * BEFORE[client].deficit,
                )
                for client in clients
            )
        ),
    )


def both_backlogged(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """Both clients backlogged: the normalized gap either way."""
    yield from _inductive(algorithm, paid_in_proportion, (F, G))
    given = (*PARAMETERS, *_ranges(), ("the invariant holds", paid_in_proportion(BEFORE)), _books_times_quanta(F, G))
    yield claim("the weighted gap keeps its bound", given, absolute_at_most(LEAD, GAP), QUANTA)
    yield possible("the whole weighted gap is not excluded", given, equal(LEAD, GAP), WEIGHTED_SAMPLE)


def one_backlogged(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """Only f is backlogged: g gets at most the gap more than its share."""
    yield from _inductive(algorithm, paid_no_less, (F,))
    given = (*PARAMETERS, *_ranges(), ("the invariant holds", paid_no_less(BEFORE)), _books_times_quanta(F, G))
    yield claim("g is ahead by at most the weighted gap", given, at_most(-LEAD, GAP), QUANTA)
    yield possible("the whole weighted gap is not excluded", given, equal(-LEAD, GAP), WEIGHTED_SAMPLE)


# -- the gap is reached ------------------------------------------------------------------------------------------------

REACHED = (
    (Limits(1, 2, quantum=5, max_input=4, max_output=7, kv_tokens=8, max_running=8), 10),
    (Limits(1, 2, quantum=2, max_input=4, max_output=7, kv_tokens=8, max_running=8), 14),
    (Limits(3, 2, quantum=8, max_input=3, max_output=5, kv_tokens=6, max_running=6), 1),
)


def widest_weighted_gap(run: Replay, quantum: int, other_quantum: int) -> int:
    """The largest ``Q_g W_f - Q_f W_g`` over every interval in which both are queued. O(events^2)."""
    leads: list[int] = []
    widest = 0
    for of_f, of_g, f_waits, g_waits in run.services(F, G):
        lead = other_quantum * of_f - quantum * of_g
        leads.append(lead)
        widest = max(widest, lead - min(leads))
        if not (f_waits and g_waits):
            leads = []
    return widest


def gap_reached() -> tuple[Demonstration, ...]:
    """Replay runs that reach the weighted gap."""
    shown = []
    for limits, other_quantum in REACHED:
        run = widest_run(limits, other_quantum)
        quantum = limits.quantum
        # A counter is a multiple of the weights' and its quantum's common divisor: here that is 1 for both.
        floor = bounds.deficit_floor(bounds.tight_unit(limits.cost(), limits.max_input, limits.kv_tokens))
        bound = bounds_extensions.weighted_gap(quantum, floor, other_quantum, floor)
        found = widest_weighted_gap(run, quantum, other_quantum) if run else None
        story = (
            f"Q_f = {quantum}, Q_g = {other_quantum}, both floors {floor}.",
            f"Q_g W_f - Q_f W_g grows by {found} while both are backlogged, and the bound is {bound}.",
        )
        shown.append(Demonstration(f"the weighted gap {bound} is reached", story, found == bound, run))
    return tuple(shown)


def light_client_waits() -> tuple[Demonstration, ...]:
    """Quanta 1 and 1000: how long the light client waits between two of its requests."""
    heavy_quantum, room = 1000, 64
    light = [call(f"light{k}", F, [k], 7, max_output=7) for k in range(2)]
    # Sixty-four tokens are all memory: heavy requests run one at a time, each for 1 + 2 * 63 weighted tokens.
    heavy = [call(f"heavy{k}", G, [100 + k], room - 1) for k in range(140)]
    setting = Setting(room, 1, quanta=((G, heavy_quantum),))
    run = replay(setting, [light[0], heavy[0], light[1], *heavy[1:]], "a light and a heavy client")
    at_admission = [
        of_g
        for event, (_, of_g, _, _) in zip(run.events, run.services(F, G), strict=True)
        if isinstance(event, Admit) and event.request.startswith("light")
    ]
    floor = bounds.deficit_floor(bounds.tight_unit(setting.cost(), 1, room))
    bound = bounds_extensions.service_of_a_heavier_client(heavy_quantum, floor, 1, floor)
    waited = at_admission[1] - at_admission[0]
    debt = -run.counters(F)[7]
    story = (
        "Quanta 1 and 1000. One request of the light client costs 15, and leaves it 14 in debt: it needs 15 refills.",
        f"Between its two admissions the heavy client receives {waited} weighted tokens: about 15 quanta.",
        f"The bound, for the dearest request that memory could hold, is {bound}: the wait grows with the ratio.",
    )
    confirmed = debt == 14 and 15 * heavy_quantum <= waited <= bound
    return (Demonstration("a light client waits as its quantum says", story, confirmed, run),)


def weights_shown() -> tuple[Demonstration, ...]:
    """The bound is reached, and what it means for a very light client."""
    return (*gap_reached(), *light_client_waits())


# -- controls ----------------------------------------------------------------------------------------------------------


class WeightsIgnored(Ledger):
    """Pays every client the default quantum, whatever its weight."""

    def check_refill(self, queued_clients: Iterable[ClientId]) -> dict[ClientId, int]:
        """Refill all alike."""
        refilled = super().check_refill(queued_clients)
        for client in refilled:
            self.deficits[client] += self.quanta.default - self.quanta.of(client)
        return {client: self.deficits[client] for client in refilled}


def _controls(obligations: Callable[[Algorithm], Iterable[Obligation]], *names: str) -> tuple[Mutant, ...]:
    """Mutants of the plain ledger, and one that ignores weights."""
    ignored = partial(obligations, Algorithm(WeightsIgnored))
    sentence = (WeightsIgnored.__doc__ or "").strip()
    given = {name: value for name, value in WEIGHTED_SAMPLE.items() if name != "floor"}
    return (
        *mutants.to_be_noticed(obligations, *names, given=given),
        Mutant("weights-ignored", sentence, ignored, given),
    )


E1 = Theorem(
    id="E1/backlogged",
    title="Service in proportion to weights",
    source="ours, for [DLPM Thm 4.1]",
    statement="If f and g are backlogged, |Q_g W_f - Q_f W_g| <= Q_g (Q_f - floor) + Q_f (Q_g - floor).",
    hypotheses=(
        "reserving memory, for the floor of T2*, which no quantum moves",
        "f and g have a request in the queue at every check-refill of the interval",
    ),
    expected=Verdict.PROVED,
    checked="Balanced books and pay in proportion to the quanta are an inductive invariant of every transition.",
    argued="Three clients stand for any number (N1).",
    obligations=both_backlogged,
    demonstrations=weights_shown,
    mutants=_controls(both_backlogged, "refill-ignores-queue", "refill-one", "double-refill", "free-extend"),
)

E1_ANY = Theorem(
    id="E1/any",
    title="A weighted backlogged client against any other",
    source="ours, for [DLPM Thm 4.2]",
    statement="If f is backlogged, Q_f W_g - Q_g W_f <= Q_g (Q_f - floor) + Q_f (Q_g - floor) for every g.",
    hypotheses=(
        "reserving memory, for the floor of T2*, which no quantum moves",
        "f has a request in the queue at every check-refill of the interval",
        "a client that comes back keeps its counter",
    ),
    expected=Verdict.PROVED,
    checked="Balanced books, and f paid no less than in proportion, are an inductive invariant of every transition.",
    argued="Three clients stand for any number (N1).",
    obligations=one_backlogged,
    demonstrations=gap_reached,
    mutants=_controls(one_backlogged, "refill-ignores-queue", "forgiven-debt", "free-outputs"),
)
