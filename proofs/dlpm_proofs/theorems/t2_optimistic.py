"""T2 under optimistic memory: the printed floor is broken, and what holds in its place.

The idea of the proof. Count the forward steps ``s`` since the client's last admission. Whatever of it still runs
holds ``s`` output tokens or more, so at most ``(M - 1) / s`` of its requests do: for so many it is charged then. The
floor is the sum of that: about ``M`` times the logarithm of ``M``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from dlpm import bounds, bounds_recompute
from dlpm_proofs import mutants
from dlpm_proofs.deepest import CLIENT
from dlpm_proofs.definitions import cost, define
from dlpm_proofs.scenario import AllTogether
from dlpm_proofs.solve import Named, Obligation, claim
from dlpm_proofs.symbolic import Path, covering
from dlpm_proofs.terms import Formula, Not, Poly, Products, all_of, any_of, at_least, at_most, equal, implies
from dlpm_proofs.theorem import Theorem, Verdict
from dlpm_proofs.transitions import (
    BEFORE,
    COUNTS,
    EXTEND,
    L_IN,
    L_OUT,
    PARAMETERS,
    REFERENCE,
    SAMPLE,
    W_E,
    W_Q,
    Algorithm,
    B,
    F,
    M,
    Memory,
    State,
    Transition,
    transitions,
)
from dlpm_proofs.witness import Demonstration, Replay, Setting, call, replay

ONE = Poly.constant(1)
STEPS = Poly.unknown("s")
SO_FAR, NEXT, ALL = (Poly.unknown(name) for name in ("S(s)", "S(s+1)", "S(last)"))
MOST_NEXT = Poly.unknown("most requests in step s+1")
RECOMPUTED = Poly.unknown("longest recomputation")
FLOOR = Poly.unknown("floor")

FITTING = Poly.unknown("(M - 1) div (s + 1)")

PRODUCTS = Products(
    (W_E, W_Q, STEPS + ONE),
    COUNTS | {name for value in (STEPS, SO_FAR, NEXT, ALL, MOST_NEXT, RECOMPUTED, FITTING) for name in value.names()},
    (FITTING + ONE, BEFORE[F].running - FITTING - ONE, BEFORE[F].running - MOST_NEXT),
)


def sums(*, paid_again: bool = True) -> tuple[Named, ...]:
    """The sum of `bounds.outputs_after_admission`, one step at a time; and the floor made of it.

    Without ``paid_again`` nobody pays for recomputations [E3]: then an admission costs an input at most.
    """
    positive = (*PARAMETERS, ("a step is counted", at_least(STEPS, 0)))
    most = define(
        "most requests in step s+1",
        lambda symbol: min(symbol(B), bounds.requests_that_fit(symbol(M), symbol(STEPS + ONE))),
        positive,
    )
    recomputed = define(
        "longest recomputation",
        lambda symbol: (
            bounds.longest_recomputation(symbol(L_IN), symbol(M), symbol(L_OUT))
            if paid_again
            else min(symbol(L_IN), symbol(M - ONE))
        ),
    )
    floor = define(
        "floor",
        lambda symbol: bounds.deficit_floor(
            bounds.optimistic_unit(cost(symbol), symbol(RECOMPUTED), symbol(ALL))
            if paid_again
            else bounds_recompute.system_paid_unit(cost(symbol), symbol(L_IN), symbol(M), symbol(ALL))
        ),
    )
    return (
        positive[-1],
        most.meaning,
        recomputed.meaning,
        floor.meaning,
        ("S grows by what one more step can yield", equal(NEXT, SO_FAR + MOST_NEXT)),
    )


def depth(deficit: Poly, outputs: Poly) -> Formula:
    """The counter has fallen by no more than a recomputation and ``outputs`` since it was last positive."""
    return at_least(deficit, ONE - W_E * RECOMPUTED - W_Q * outputs)


def _contract(transition: Transition) -> tuple[Named, ...]:
    """What theorem M2 says of optimistic memory."""
    running = BEFORE[F].running
    if transition.visited is not None:
        return (("an extend is no longer than the longest recomputation [M2]", at_most(EXTEND, RECOMPUTED)),)
    fits = all_of(
        at_most(STEPS + ONE, L_OUT),
        at_most(running * (STEPS + ONE) + ONE, M),
        at_most(running, B),
    )
    return (("what runs holds a token for each step, and fits into M [M2]", implies(at_least(running, 1), fits)),)


def _after(transition: Transition, path: Path[State]) -> Formula:
    """The invariant where ``path`` ends: an admission starts the count anew, a forward step of f counts one."""
    if path.result is None:
        return any_of()
    state = path.result[F]
    if transition.visited is not None and state.running != BEFORE[F].running:
        return depth(state.deficit, Poly.constant(0))
    if transition.name == "a forward step":
        runs = at_least(BEFORE[F].running, 1)
        return all_of(implies(runs, depth(state.deficit, NEXT)), implies(Not(runs), depth(state.deficit, SO_FAR)))
    return depth(state.deficit, SO_FAR)


def obligations(algorithm: Algorithm = REFERENCE, *, paid_again: bool = True) -> Iterator[Obligation]:
    """The depth since the last admission is an inductive invariant, and the sums are largest at their end."""
    hypotheses = (*PARAMETERS, *sums(paid_again=paid_again))
    started = ("S starts at 0 and never shrinks", all_of(at_least(SO_FAR, 0), at_least(ALL, SO_FAR)))
    for transition in transitions(algorithm, Memory.ANY):
        assumed = (
            *hypotheses,
            started,
            *transition.contract,
            *_contract(transition),
            ("the invariant holds before", depth(BEFORE[F].deficit, SO_FAR)),
        )
        broken = any_of(*(all_of(path.condition(), Not(_after(transition, path))) for path in transition.paths))
        yield claim(f"{transition.name} keeps the invariant", assumed, Not(broken), PRODUCTS)
        plain = (*PARAMETERS, *transition.contract)
        yield claim(f"{transition.name}: no path is left out", plain, covering(transition.paths))
    start = (*hypotheses, started)
    yield claim("all counters start at 0, which is deep enough", start, depth(Poly.constant(0), SO_FAR), PRODUCTS)
    yield claim("a step adds nothing negative, so S never shrinks", hypotheses, at_least(NEXT, SO_FAR), PRODUCTS)
    holds = (*start, ("the invariant holds", depth(BEFORE[F].deficit, SO_FAR)))
    yield claim("no counter is below the floor", holds, at_least(BEFORE[F].deficit, FLOOR), PRODUCTS)


# -- the printed floor is broken ---------------------------------------------------------------------------------------

EIGHT = AllTogether(Setting(kv_tokens=64, quantum=8, memory="optimistic"), requests=8)
PRINTED = bounds.deficit_floor_as_printed(EIGHT.setting.cost(), 1, 64)
DEEPEST = -328
"""The lowest that eight such requests get: found by asking the solver for less and less."""


def refutation() -> Iterator[Obligation]:
    """Eight one-token requests in 64 tokens of memory sink far below -U."""
    yield EIGHT.can_sink_to(PRINTED)
    yield EIGHT.can_sink_to(DEEPEST)
    yield EIGHT.cannot_sink_to(DEEPEST - 1)


def printed_floor_broken() -> tuple[Demonstration, ...]:
    """Replay the run that the solver finds."""
    run = EIGHT.solved(DEEPEST)
    lowest = min(run.counters(CLIENT)) if run else 0
    outputs = ", ".join(str(request.output_tokens) for request in run.workload.requests) if run else "none"
    story = (
        "Eight requests of one client, of one prompt token each, are let into 64 tokens of memory at once.",
        f"They yield {outputs} tokens: whenever one ends, the others use the memory that it frees.",
        f"So {-lowest} weighted tokens are charged after the gate closed. The counter ends at {lowest};",
        f"as printed it should stay above -U = {PRINTED}. What is missing is memory that is reserved at admission.",
    )
    return (Demonstration("memory is used more than once", story, lowest <= PRINTED, run),)


def harmonic_run(kv_tokens: int, quantum: int) -> Replay:
    """A run that reaches the floor without limits on outputs and batch; the quantum must divide ``M`` and exceed 3.

    ``f`` leaves with credit. ``a`` fills memory with requests of one shared prompt token, the r-th of which yields
    ``(M - 1) // r`` tokens, and a last one with the longest prompt: preempted at once, it has been paid for. Then ``f``
    comes back with a request that does not fit before all of ``a`` is done: it has credit, so no refill fires.
    """
    setting = Setting(kv_tokens, quantum, memory="optimistic")
    shared, fresh = [1], range(10, 10 + kv_tokens - 1)
    fitting = [bounds.requests_that_fit(kv_tokens, r) for r in range(1, kv_tokens)]
    return replay(
        setting,
        [
            call("f1", "f", [0], 1),
            *(call(f"a{k}", "a", shared, output, after=["f1"]) for k, output in enumerate(fitting, start=1)),
            call("long", "a", fresh, 1, after=["f1"]),
            call("f2", "f", [token + kv_tokens for token in fresh], 1, at_step=2),
        ],
        "harmonic floor",
    )


def harmonic_floor_reached() -> tuple[Demonstration, ...]:
    """Replay the construction for two sizes of memory."""
    shown = []
    for kv_tokens, quantum in ((12, 4), (64, 8)):
        run = harmonic_run(kv_tokens, quantum)
        outputs = bounds.outputs_after_admission(kv_tokens)
        recomputation = bounds.longest_recomputation(kv_tokens - 1, kv_tokens)
        floor = bounds.deficit_floor(bounds.optimistic_unit(run.setting.cost(), recomputation, outputs))
        lowest = min(run.counters("a"))
        printed = bounds.deficit_floor_as_printed(run.setting.cost(), kv_tokens - 1, kv_tokens)
        story = (
            f"M = {kv_tokens}, no limit on outputs and batch: after the last admission {outputs} tokens are decoded.",
            f"The counter sinks to {lowest}; the floor is {floor}, the printed one would be above {printed}.",
        )
        shown.append(Demonstration(f"the floor is reached with M = {kv_tokens}", story, lowest == floor, run))
    return (*shown, _summed_in_blocks())


LARGEST = 16
"""Up to so much memory every sum is taken step by step."""


def _summed_in_blocks() -> Demonstration:
    """`bounds.outputs_after_admission` sums blocks of equal terms; here it is held to the sum step by step."""
    limits = (None, *range(1, LARGEST + 1))
    wrong = [
        (kv_tokens, max_output, max_running)
        for kv_tokens, max_output, max_running in product(range(2, LARGEST + 1), limits, limits)
        if bounds.outputs_after_admission(kv_tokens, max_output, max_running)
        != sum(
            min(bounds.requests_that_fit(kv_tokens, step), max_running or kv_tokens)
            for step in range(1, min(max_output or kv_tokens, kv_tokens - 1) + 1)
        )
    ]
    story = (f"For all M, L_out and B up to {LARGEST}, the sum in blocks is the sum step by step.",)
    return Demonstration("the sum in blocks is the sum", story, not wrong)


T2_OPTIMISTIC = Theorem(
    id="T2/optimistic",
    title="Deficit floor as printed, without reservations",
    source="[DLPM App. A.1 eq. 2]",
    statement="Under optimistic memory a client's deficit counter stays above -U, where U = w_e L_in + w_q M.",
    hypotheses=("optimistic memory: only the extend tokens must fit at admission",),
    expected=Verdict.REFUTED,
    checked="A solver finds the sizes, on the ledger's own functions; the worker replays them.",
    argued="Nothing.",
    obligations=refutation,
    demonstrations=printed_floor_broken,
)

T2_HARMONIC = Theorem(
    id="T2*/optimistic",
    title="Deficit floor without reservations",
    source="ours",
    statement="Under optimistic memory q_i >= 1 - w_e E - w_q S, with S = sum over s <= min(L_out, M-1) of"
    " min(B, (M-1) div s), and E = min(L_in + L_out - 1, M - 1), the longest recomputation.",
    hypotheses=(
        "optimistic memory with recomputation: the youngest request is preempted when memory runs out",
        "what is recomputed is charged again",
    ),
    expected=Verdict.PROVED,
    checked="q >= 1 - w_e E - w_q S(s), s forward steps after the last admission, is an inductive invariant.",
    argued="Three clients stand for any number (N1); dlpm.bounds takes S(last) in blocks: tried for all M up to 16.",
    obligations=obligations,
    demonstrations=harmonic_floor_reached,
    mutants=mutants.to_be_noticed(obligations, "gate-at-zero", "double-outputs", given={**SAMPLE, "s": 1}),
)
