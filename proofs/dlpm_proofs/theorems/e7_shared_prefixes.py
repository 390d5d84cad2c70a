"""E7: who pays for a prefix that several clients use: what each rule keeps, and what none can keep.

There are three measures of what an admission serves: what was computed, what would have been computed alone, and the
client's part of what was computed. Each rule charges one of them, and bounds its gap; the gap in another one grows
without limit. How the proofs go is said in `e7_obligations.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from dlpm.extensions.shared_prefixes import ALONE, FIRST, SPLIT
from dlpm_proofs import prefix_mutants as changed
from dlpm_proofs.solve import Obligation
from dlpm_proofs.theorem import Mutant, Theorem, Verdict
from dlpm_proofs.theorems import e7_runs
from dlpm_proofs.theorems.e7_obligations import (
    E7_SAMPLE,
    bills,
    floors,
    memory,
    split_ceiling,
    split_gap,
)
from dlpm_proofs.transitions import SAMPLE, Algorithm


def shared_floor() -> Iterator[Obligation]:
    """What either rule charges shares memory with what is reserved, and with that the floor holds."""
    yield from memory(ALONE)
    yield from memory(SPLIT)
    yield from floors()


def split() -> Iterator[Obligation]:
    """The bill, and what that does to ceiling and gap."""
    yield from bills(SPLIT)
    yield from split_ceiling()
    yield from split_gap()


def _mutant(cause: type[object], obligations: Callable[[], Iterable[Obligation]], **given: int) -> Mutant:
    """One changed class that must be noticed."""
    name = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in cause.__name__).lstrip("-")
    return Mutant(name, (cause.__doc__ or name).strip(), obligations, given)


PARAMETERS = {**SAMPLE, "n": E7_SAMPLE["n"]}
BACKLOGGED = "for the gap f, or f and g, have a request in the queue at every check-refill of the interval"
ARGUED = (
    "Longer matches and more holders are alike: the code goes through them one by one. Who runs on a block holds it (a"
    " property test watches that). Three clients stand for any number (N1)."
)

E7_FIRST = Theorem(
    id="E7/first",
    title="The first pays for a shared prefix",
    source="ours, for [DLPM §9]",
    statement="If who computes a block pays for it, floor, ceiling and gap are the plain ones, in what is computed.",
    hypotheses=(BACKLOGGED,),
    expected=Verdict.PROVED,
    checked="What the worker charges is what it computes, and nobody gets anything back.",
    argued="So it is the plain algorithm: T1 to T4 hold as they are. Its log is the same byte for byte (a test).",
    obligations=partial(bills, FIRST),
    mutants=(
        _mutant(changed.ChargesTheMatch, partial(bills, FIRST, changed.ChargesTheMatch)),
        _mutant(changed.LetsATokenOff, partial(bills, FIRST, changed.LetsATokenOff)),
    ),
)

E7_RIDER = Theorem(
    id="E7/free-rider",
    title="Nobody rides for free if the first pays",
    source="ours, for [DLPM §9]",
    statement="If the first pays, the gap of two backlogged clients is bounded in what each would compute alone.",
    hypotheses=("f and g are backlogged",),
    expected=Verdict.REFUTED,
    checked="Replayed runs of three lengths: g always comes second, and each round it gains.",
    argued="That it goes on: the runs repeat one round.",
    obligations=tuple,
    demonstrations=e7_runs.rides_for_free,
)

E7_ALONE = Theorem(
    id="E7/alone",
    title="Each pays for a shared prefix as if alone",
    source="ours, for [DLPM §9]",
    statement="If each pays for what it did not hold, floor, ceiling and gap are the plain ones, in what is charged.",
    hypotheses=("reserving memory, for the floor", BACKLOGGED),
    expected=Verdict.PROVED,
    checked="What the worker charges: all that the client does not hold, whoever does, and at least a token.",
    argued=f"T1, T3 and T4 speak of any charge of at least a token; the floor is E7/floor. {ARGUED}",
    obligations=partial(bills, ALONE),
    demonstrations=e7_runs.alone_reaches,
    mutants=(
        _mutant(changed.ForgetsHoldings, partial(bills, ALONE, changed.ForgetsHoldings)),
        _mutant(changed.SeesCompany, partial(bills, ALONE, changed.SeesCompany)),
    ),
)

E7_FLOOR = Theorem(
    id="E7/floor",
    title="The floor where tokens are charged that were not computed",
    source="ours, for [DLPM App. A.1 eq. 2]",
    statement="If each pays as if alone, or costs are split, q_i >= 1 - U* with the U* of T2*/limits.",
    hypotheses=("reserving memory", "who has paid for a block holds it at once"),
    expected=Verdict.PROVED,
    checked="The worker's try_admit beside none, one or two others: what is charged shares M with all that is reserved,"
    " as computed tokens do; and a visit keeps the invariant of T2*/limits.",
    argued=f"Between visits the code is that of T2*/limits. {ARGUED}",
    obligations=shared_floor,
    mutants=(
        _mutant(changed.OpensAtZero, partial(floors, Algorithm(changed.OpensAtZero)), **PARAMETERS),
        _mutant(changed.ChargesTwice, partial(floors, Algorithm(changed.ChargesTwice)), **PARAMETERS),
    ),
)

E7_WORK = Theorem(
    id="E7/alone-computed",
    title="The same gap in what was computed",
    source="ours, for [DLPM §9]",
    statement="If each pays as if alone, the gap of two backlogged clients is bounded in what was computed for each.",
    hypotheses=("f and g are backlogged",),
    expected=Verdict.REFUTED,
    checked="Replayed runs of three lengths: f computes what g uses, and both pay the same.",
    argued="That it goes on: the runs repeat one round.",
    obligations=tuple,
    demonstrations=e7_runs.works_for_others,
)

E7_SPLIT = Theorem(
    id="E7/split",
    title="Those who hold a prefix split its cost",
    source="ours, for [DLPM §9]",
    statement="If n clients split, no token is lost or made, q_i <= C = Q + w_e floor((n-1)(M-1)/n), and the gap is"
    " 2 (C - floor) in what is charged less what is given back.",
    hypotheses=("reserving memory", BACKLOGGED, "prompts take at most M - 1 tokens of the cache"),
    expected=Verdict.PROVED,
    checked="The real shares of matches held by up to three clients: what they lose is what the newcomer pays, and its"
    " part but for less than a token a holder; what is still to come back falls with what has; books and counters.",
    argued=ARGUED,
    obligations=split,
    demonstrations=e7_runs.split_reaches,
    mutants=(
        _mutant(changed.RoundsUp, partial(bills, SPLIT, changed.RoundsUp)),
        _mutant(changed.KeepsTheChange, partial(bills, SPLIT, changed.KeepsTheChange)),
        _mutant(changed.RefundsTwice, partial(split_ceiling, policy=changed.RefundsTwice), **PARAMETERS),
        _mutant(changed.RefillsTheRich, partial(split_ceiling, Algorithm(changed.RefillsTheRich)), **PARAMETERS),
        _mutant(changed.RefundsNothing, partial(split_gap, policy=changed.RefundsNothing), **PARAMETERS),
        _mutant(changed.RefundsAsOutput, partial(split_gap, Algorithm(changed.RefundsAsOutput)), **PARAMETERS),
    ),
)

E7_PLAIN = Theorem(
    id="E7/split-ceiling",
    title="The plain ceiling and gap where costs are split",
    source="ours",
    statement="If costs are split, q_i <= Q, and the gap in what is charged is 2 (Q - floor).",
    hypotheses=("reserving memory",),
    expected=Verdict.REFUTED,
    checked="Replayed runs: what a client gets back after a refill lifts it above its quantum, and it may spend that.",
    argued="Nothing.",
    obligations=tuple,
    demonstrations=e7_runs.split_reaches,
)

E7_MEASURES = Theorem(
    id="E7/split-measures",
    title="The same gap in what was computed, or as if alone",
    source="ours, for [DLPM §9]",
    statement="If costs are split, the gap of two backlogged clients is bounded in what was computed, or as if alone.",
    hypotheses=("f and g are backlogged",),
    expected=Verdict.REFUTED,
    checked="Replayed runs of three lengths for each of the two measures.",
    argued="That it goes on: the runs repeat one round.",
    obligations=tuple,
    demonstrations=e7_runs.shares_and_gains,
)

SHARED_PREFIXES = (E7_FLOOR, E7_FIRST, E7_RIDER, E7_ALONE, E7_WORK, E7_SPLIT, E7_PLAIN, E7_MEASURES)
