"""E4: how deep a counter falls when preempted requests keep what they have and come back without asking the gate.

Under recomputation a preempted request returns to the queue, and the gate stops it: after a client's last admission its
requests race through memory once, which is the harmonic sum of T2*/optimistic. Under swap nothing stops them. A request
that was swapped out waits in CPU memory until the others have ended, comes back with all its tokens, and goes on to its
own end. So what is still to come after the last admission is all that every one of its requests may still yield: as
under reserving memory, ``q - w_q R`` falls at admissions only, ``R`` being what the client's requests, running or away,
may still yield. What bounds ``R`` is not ``M`` any more but the number of requests times the length of one.

A forward step may follow the last admission before memory has thrown anybody out; so the count begins with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from dlpm import bounds, bounds_extensions
from dlpm_proofs import mutants
from dlpm_proofs.definitions import cost, define
from dlpm_proofs.solve import Named, Obligation, claim, possible
from dlpm_proofs.symbolic import Path, covering
from dlpm_proofs.terms import (
    FALSE,
    Flag,
    Formula,
    Not,
    Poly,
    Products,
    all_of,
    any_of,
    at_least,
    at_most,
    between,
    equal,
    implies,
)
from dlpm_proofs.theorem import Theorem, Verdict
from dlpm_proofs.theorems.e4_runs import HARMONIC_SIZES, floor_reached, harmonic_broken
from dlpm_proofs.transitions import (
    BEFORE,
    COUNTS,
    EXTEND,
    L_IN,
    L_OUT,
    LEFT_OVER,
    OUTPUT,
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
    Transition,
    transitions,
)
from dlpm_proofs.transitions import State as Clients

ONE = Poly.constant(1)
CPU = Poly.unknown("C")
RECOMPUTED, REQUESTS, EACH, ALL, FLOOR = (
    Poly.unknown(name) for name in ("longest recomputation", "requests that come back", "outputs of one", "S", "floor")
)
LIVE = Poly.unknown("requests of f, running or away")
FRESH = Flag("f has had no forward step since its last admission")
TO_COME = BEFORE[F].reserved
"""What requests of ``f``, running or away, may still yield."""

PRODUCTS = Products(
    (W_E, W_Q),
    COUNTS | {name for value in (RECOMPUTED, REQUESTS, EACH, ALL, LIVE, CPU) for name in value.names()},
)
LIMITS = Products((LIVE, REQUESTS - LIVE), PRODUCTS.counts | {"most of one"}, (EACH,))


def quantities(*, resume_first: bool) -> tuple[Named, ...]:
    """What `dlpm.bounds_extensions` says of these limits, and the floor made of it."""
    memory = ("there is CPU memory", at_least(CPU, 1))
    positive = (*PARAMETERS, memory)
    parts = (
        define(
            "longest recomputation",
            lambda symbol: bounds.longest_recomputation(symbol(L_IN), symbol(M), symbol(L_OUT)),
        ),
        define(
            "requests that come back",
            lambda symbol: bounds_extensions.requests_that_come_back(
                symbol(M), symbol(B), cpu_tokens=symbol(CPU), resume_first=resume_first
            ),
            positive,
        ),
        define("outputs of one", lambda symbol: bounds_extensions.outputs_of_one(symbol(M), symbol(L_OUT))),
        define("S", lambda symbol: bounds_extensions.outputs_with_swap(symbol(REQUESTS), symbol(EACH))),
        define(
            "floor",
            lambda symbol: bounds.deficit_floor(bounds.optimistic_unit(cost(symbol), symbol(RECOMPUTED), symbol(ALL))),
        ),
    )
    return (memory, *(part.meaning for part in parts))


def _sample(resume_first: bool) -> dict[str, int]:
    """Parameters small enough to look at."""
    memory, batch, output, cpu = (SAMPLE[name] for name in ("M", "B", "L_out", "M"))
    requests = bounds_extensions.requests_that_come_back(memory, batch, cpu_tokens=cpu, resume_first=resume_first)
    each = bounds_extensions.outputs_of_one(memory, output)
    return {**SAMPLE, "C": cpu, str(REQUESTS): requests, str(EACH): each}


def fallen(deficit: Poly, to_come: Poly) -> Formula:
    """With all that may still come, the counter has fallen by no more than a recomputation and ``S`` outputs."""
    return at_least(deficit - W_Q * to_come, ONE - W_E * RECOMPUTED - W_Q * ALL)


def invariant() -> Formula:
    """After its last admission a client owes an extend at most; from its next forward step on, also what may come."""
    fresh = at_least(BEFORE[F].deficit, ONE - W_E * RECOMPUTED)
    return all_of(implies(FRESH, fresh), implies(Not(FRESH), fallen(BEFORE[F].deficit, TO_COME)))


def _contract(transition: Transition) -> tuple[Named, ...]:
    """What a transition finds of the client's requests [E4/once; E4/room]."""
    known: list[Named] = [("requests yield no negative number of tokens", at_least(TO_COME, 0))]
    if transition.visited is not None:
        known.append(("an extend is no longer than the longest recomputation [M2]", at_most(EXTEND, RECOMPUTED)))
        known.append(("an output has a token", at_least(OUTPUT, 1)))
    elif transition.name == "a forward step":
        known.append(("who runs has a token to come", at_most(BEFORE[F].running, TO_COME)))
        known.append(("all that may come is S at most, once memory has made room", at_most(TO_COME, ALL)))
    else:
        known.append(("who leaves takes what it had to come", between(0, LEFT_OVER, TO_COME)))
    return tuple(known)


def _after(transition: Transition, path: Path[Clients]) -> Formula:
    """The invariant where ``path`` ends: an admission of f begins anew, a forward step ends the beginning."""
    if path.result is None:
        return FALSE
    state = path.result[F]
    fresh = at_least(state.deficit, ONE - W_E * RECOMPUTED)
    old = fallen(state.deficit, state.reserved)
    if transition.visited is not None and state.running != BEFORE[F].running:
        return fresh
    if transition.name == "a forward step":
        return old
    return all_of(implies(FRESH, fresh), implies(Not(FRESH), old))


def floor_obligations(algorithm: Algorithm = REFERENCE, *, resume_first: bool = True) -> Iterator[Obligation]:
    """The invariant survives every transition, what is to come is at most ``S``, and the floor follows."""
    hypotheses = (*PARAMETERS, *quantities(resume_first=resume_first))
    some = ("S is not negative", at_least(ALL, 0))
    yield claim("S is not negative", hypotheses, at_least(ALL, 0), Products((REQUESTS,), PRODUCTS.counts, (EACH,)))
    one = Poly.unknown("most of one")
    limits = (
        ("as many requests are left as can come back", between(0, LIVE, REQUESTS)),
        ("each keeps its limit, and fits beside a prompt token", all_of(at_most(one, L_OUT), at_most(one + ONE, M))),
    )
    most = at_most(LIVE * one, ALL)
    yield claim("so many requests, each with so much to come, yield S at most", (*hypotheses, *limits), most, LIMITS)
    start = fallen(Poly.constant(0), Poly.constant(0))
    yield claim("all counters start at 0, which is deep enough", (*hypotheses, some), start, PRODUCTS)
    for transition in transitions(algorithm, Memory.ANY):
        held = ("the invariant holds before", invariant())
        assumed = (*hypotheses, some, *transition.contract, *_contract(transition), held)
        broken = any_of(*(all_of(path.condition(), Not(_after(transition, path))) for path in transition.paths))
        yield claim(f"{transition.name} keeps the invariant", assumed, Not(broken), PRODUCTS)
        plain = (*PARAMETERS, *transition.contract)
        yield claim(f"{transition.name}: no path is left out", plain, covering(transition.paths))
    nothing_negative = ("requests yield no negative number of tokens", at_least(TO_COME, 0))
    given = (*hypotheses, some, nothing_negative, ("the invariant holds", invariant()))
    yield claim("no counter is below the floor", given, at_least(BEFORE[F].deficit, FLOOR), PRODUCTS)
    yield possible(
        "the hypotheses can hold, with something to come", given, at_least(TO_COME, 2), _sample(resume_first)
    )


def harmonic_refutation() -> Iterator[Obligation]:
    """There are limits at which what may come back exceeds the harmonic sum of both memories."""
    memory, cpu = HARMONIC_SIZES
    requests = bounds_extensions.requests_that_come_back(memory)
    outputs = bounds_extensions.outputs_with_swap(requests, bounds_extensions.outputs_of_one(memory))
    harmonic = bounds.outputs_after_admission(memory + cpu)
    sizes = (("these are the sizes", all_of(equal(ALL, outputs), equal(EACH, harmonic))),)
    yield possible("S is more than the sum", sizes, at_least(ALL, EACH + ONE))


E4 = Theorem(
    id="E4/floor",
    title="Deficit floor with preemption by swap",
    source="ours, for [DLPM App. A.1 eq. 2]",
    statement="If nobody is admitted while a request is swapped out, q_i >= 1 - w_e E - w_q S with"
    " S = min(B, M-1) min(L_out, M-1) and E = min(L_in + L_out - 1, M - 1).",
    hypotheses=(
        "optimistic memory; who is preempted is swapped out, or recomputed where CPU memory is full",
        "who comes back asks no gate and pays nothing",
        "nobody is admitted while a request is swapped out, on its way there or back",
    ),
    expected=Verdict.PROVED,
    checked="q - w_q R >= 1 - w_e E - w_q S, R being what is still to come, from the first forward step after an"
    " admission on; that S is the largest R; the worker's own copy_out, copy_in and room for outputs (E4/once).",
    argued="Three clients stand for any number (N1); more running requests than three are alike (M2).",
    obligations=floor_obligations,
    demonstrations=floor_reached,
    mutants=mutants.to_be_noticed(floor_obligations, "gate-at-zero", "double-outputs", given=_sample(True)),
)

E4_BESIDE = Theorem(
    id="E4/beside",
    title="Deficit floor where others are admitted while a request is away",
    source="ours, for [DLPM App. A.1 eq. 2]",
    statement="If requests are admitted although others are swapped out, the floor of E4/floor holds with"
    " min(B, M-1) + C - 1 requests in place of min(B, M-1).",
    hypotheses=(
        "as E4/floor, without its last",
        "no two requests in CPU memory have generated the same tokens after the same prompt",
    ),
    expected=Verdict.PROVED,
    checked="As E4/floor, with this many requests.",
    argued="At most C - 1 requests are away: each has a token of its own in CPU memory beside a prompt token.",
    obligations=partial(floor_obligations, resume_first=False),
    mutants=mutants.to_be_noticed(
        partial(floor_obligations, resume_first=False), "gate-at-zero", "double-outputs", given=_sample(False)
    ),
)

E4_HARMONIC = Theorem(
    id="E4/harmonic",
    title="The floor of optimistic memory, for GPU and CPU memory together",
    source="ours",
    statement="With preemption by swap the floor is that of T2*/optimistic for a memory of M + C tokens.",
    hypotheses=(),
    expected=Verdict.REFUTED,
    checked="A run of the reference's worker, which falls far below.",
    argued="Nothing.",
    obligations=harmonic_refutation,
    demonstrations=harmonic_broken,
)
