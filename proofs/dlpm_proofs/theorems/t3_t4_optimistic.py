"""T3 and T4 under optimistic memory: the printed gap is broken, and restated with the true floor it holds.

Nothing in the proof of T3 and T4 asks about memory but the floor. So the gap is ``2 (Q - floor)`` again, with the
harmonic floor of T2*/optimistic in place of the tight one.
"""

from __future__ import annotations

from collections.abc import Iterator

from dlpm import bounds
from dlpm_proofs import mutants
from dlpm_proofs.solve import Obligation, claim, possible
from dlpm_proofs.terms import Poly, at_least, at_most
from dlpm_proofs.theorem import Theorem, Verdict
from dlpm_proofs.theorems.t2_optimistic import ALL, FLOOR, PRODUCTS, sums
from dlpm_proofs.theorems.t3_t4_gap import (
    SAME_QUANTUM,
    between_backlogged,
    counters_in_range,
    over_backlogged,
    paid_alike,
)
from dlpm_proofs.transitions import BEFORE, PARAMETERS, QUANTUM, REFERENCE, Algorithm, F, G
from dlpm_proofs.witness import Demonstration, Replay, Setting, call, replay

SETTING = Setting(kv_tokens=64, quantum=64, memory="optimistic")
LONGEST = SETTING.kv_tokens - 1
AHEAD, BEHIND = "a", "f"


def harmonic_floor() -> int:
    """The floor of `SETTING`, with inputs up to `LONGEST` and no limit on outputs and batch."""
    outputs = bounds.outputs_after_admission(SETTING.kv_tokens)
    recomputation = bounds.longest_recomputation(LONGEST, SETTING.kv_tokens)
    return bounds.deficit_floor(bounds.optimistic_unit(SETTING.cost(), recomputation, outputs))


def printed_gap() -> int:
    """The gap of `SETTING` as printed."""
    return bounds.service_gap_as_printed(SETTING.cost(), LONGEST, SETTING.kv_tokens, SETTING.quantum)


def lopsided_run() -> Replay:
    """``a`` uses all memory again and again, while ``f`` waits with a full quantum for all of it to be free.

    Both always have a request queued. The first long one of ``a`` goes in last, and is preempted at once.
    """
    fitting = [bounds.requests_that_fit(SETTING.kv_tokens, r) for r in range(1, SETTING.kv_tokens)]
    return replay(
        SETTING,
        [
            *(call(f"a{k}", AHEAD, [1], output) for k, output in enumerate(fitting, start=1)),
            call("long", AHEAD, range(100, 100 + LONGEST), 1),
            call("next", AHEAD, range(200, 200 + LONGEST), 1),
            call("f1", BEHIND, range(300, 300 + LONGEST), 1),
        ],
        "gap without reservations",
    )


def refutation() -> Iterator[Obligation]:
    """With the harmonic floor the balanced books allow more than the printed gap."""
    lead = BEFORE[G].served - BEFORE[F].served
    given = (*PARAMETERS, SAME_QUANTUM, *counters_in_range(), ("the books balance", paid_alike(BEFORE)))
    numbers = {"w_e": 1, "w_q": 2, "L_in": LONGEST, "M": SETTING.kv_tokens, "floor": harmonic_floor()}
    quanta = {name: SETTING.quantum for quantum in QUANTUM.values() for name in quantum.names()}
    ahead = at_least(lead, printed_gap() + 1)
    yield possible("the books allow a gap above 2 (U + Q)", given, ahead, {**numbers, **quanta})


def printed_gap_broken() -> tuple[Demonstration, ...]:
    """Replay the lopsided run."""
    run = lopsided_run()
    found = run.widest_gap(AHEAD, BEHIND)
    story = (
        f"Two clients, M = {SETTING.kv_tokens}, Q = {SETTING.quantum}, weights 1 and 2, no limit on outputs and batch.",
        f"a lets in {LONGEST} requests of one shared prompt token; f has a full quantum, but its prompt does not fit.",
        "Whenever a request of a ends, the others use its memory, so f goes on waiting.",
        f"a receives {found} more than f, both always backlogged; as printed it would be at most {printed_gap()}.",
    )
    return (Demonstration("a gap above 2 (U + Q)", story, found > printed_gap(), run),)


def t3(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """T3 with the harmonic floor."""
    yield from between_backlogged(algorithm)
    yield from _floor_is_a_floor()


def t4(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """T4 with the harmonic floor."""
    yield from over_backlogged(algorithm)
    yield from _floor_is_a_floor()


def _floor_is_a_floor() -> Iterator[Obligation]:
    """A client that is not registered yet counts as 0, which must not lie below the floor."""
    given = (*PARAMETERS, *sums(), ("S is not negative", at_least(ALL, 0)))
    yield claim("the harmonic floor is not above 0", given, at_most(FLOOR, Poly.constant(0)), PRODUCTS)


def _refuted(case: str, theorem: str) -> Theorem:
    """The printed gap of one theorem, under optimistic memory."""
    return Theorem(
        id=f"{case}/optimistic",
        title="Service gap as printed, without reservations",
        source=f"[DLPM Thm {theorem}]",
        statement="Under optimistic memory, too, no client is served more than 2 (U + Q) beyond a backlogged one.",
        hypotheses=("optimistic memory: only the extend tokens must fit at admission",),
        expected=Verdict.REFUTED,
        checked="The replayed run. A solver confirms that balanced books do not forbid it.",
        argued="Nothing.",
        obligations=refutation,
        demonstrations=printed_gap_broken,
    )


T3_OPTIMISTIC = _refuted("T3", "4.1")
T4_OPTIMISTIC = _refuted("T4", "4.2")

T3_HARMONIC = Theorem(
    id="T3*/optimistic",
    title="Service of two backlogged clients, without reservations",
    source="[DLPM Thm 4.1], restated",
    statement="Under optimistic memory |W_f - W_g| <= 2 (Q - floor) for backlogged f, g and T2*'s optimistic floor.",
    hypotheses=("those of T2*/optimistic", "f and g are backlogged", "f and g have the same quantum"),
    expected=Verdict.PROVED,
    checked="As for T3: balanced books and equal pay, whatever memory does.",
    argued="Three clients stand for any number (N1).",
    obligations=t3,
    mutants=mutants.to_be_noticed(t3, "refill-ignores-queue", "free-extend"),
)

T4_HARMONIC = Theorem(
    id="T4*/optimistic",
    title="A backlogged client against any other, without reservations",
    source="[DLPM Thm 4.2], restated",
    statement="Under optimistic memory W_g - W_f <= 2 (Q - floor) for backlogged f, any g and T2*'s optimistic floor.",
    hypotheses=("those of T2*/optimistic", "f is backlogged", "f and g have the same quantum"),
    expected=Verdict.PROVED,
    checked="As for T4: balanced books, and f paid at least as much as g, whatever memory does.",
    argued="Three clients stand for any number (N1).",
    obligations=t4,
    mutants=mutants.to_be_noticed(t4, "refill-ignores-queue", "forgiven-debt"),
)
