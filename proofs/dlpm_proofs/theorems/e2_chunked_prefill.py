"""E2: the theorems about chunked prefill, the runs that reach their bounds or refute them, and their controls.

The proofs are in `e2_chunks.py` (the ledger) and `chunk_worker.py` (the worker and its memory).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

from dlpm import bounds, bounds_chunked
from dlpm.batch import QueuedRequest, RunningRequest
from dlpm.events import Chunk
from dlpm.extensions.chunked_prefill import Charge, ChunkedPrefill, Gate, OnStall, Prefill
from dlpm.worker import Worker
from dlpm_proofs import mutants
from dlpm_proofs.chunk_runs import (
    OTHER,
    SEVERAL,
    SEVERAL_CHUNKS,
    STALL,
    deadlock,
    deepest,
    on_debt,
    paid_to_go_on,
    several,
)
from dlpm_proofs.chunk_transitions import SAMPLE_CHUNKS
from dlpm_proofs.chunk_worker import OpenBlocks, capped_obligations, gated_obligations
from dlpm_proofs.chunk_worker import obligations as worker_obligations
from dlpm_proofs.deepest import CLIENT, Limits
from dlpm_proofs.solve import Obligation
from dlpm_proofs.theorem import Mutant, Theorem, Verdict
from dlpm_proofs.theorems import t2_floor
from dlpm_proofs.theorems.e2_chunks import (
    early_obligations,
    obligations,
    several_obligations,
    strict_obligations,
)
from dlpm_proofs.witness import Demonstration

LARGEST = 3
"""The chunk of the runs that reach the floor of the chunk."""

# -- runs --------------------------------------------------------------------------------------------------------------


def _floors(chunks: Callable[[Limits], ChunkedPrefill]) -> tuple[Demonstration, ...]:
    """The floor of T2* with limits is reached with chunks, in the runs in which the plain worker reaches it."""
    shown = []
    for limits in t2_floor.LIMITED:
        cut = chunks(limits)
        run = deepest(limits, cut)
        lowest = min(run.counters(CLIENT)) if run is not None else None
        pieces = sum(1 for event in run.events if isinstance(event, Chunk)) if run is not None else 0
        story = (
            f"{cut.budget} tokens a step: {pieces} later chunks; the counter falls to {lowest}, as without chunks.",
        )
        name = f"the floor is reached with L_in = {limits.max_input}, L_out = {limits.max_output}, {cut.budget} a step"
        shown.append(Demonstration(name, story, lowest == limits.floor(), run))
    return tuple(shown)


def request_floor_reached() -> tuple[Demonstration, ...]:
    """A budget with room for one token of each request in the costliest batch: the last one's prompt comes later."""
    return _floors(lambda limits: ChunkedPrefill(len(limits.costliest_batch()[1])))


def admission_floor_reached() -> tuple[Demonstration, ...]:
    """The same, all charged at admission."""
    return _floors(lambda limits: ChunkedPrefill(len(limits.costliest_batch()[1]), charge=Charge.ADMISSION))


def chunk_floor_reached() -> tuple[Demonstration, ...]:
    """The costliest batch of prompts that are one chunk long."""
    shown = []
    for limits in t2_floor.LIMITED:
        short = replace(limits, max_input=min(LARGEST, limits.max_input))
        _, outputs = short.costliest_batch()
        run = deepest(short, ChunkedPrefill(LARGEST + len(outputs), Gate.CHUNK, most=LARGEST))
        lowest = min(run.counters(CLIENT)) if run is not None else None
        unit = bounds_chunked.chunk_gated_unit(
            limits.cost(),
            limits.max_input,
            LARGEST,
            limits.kv_tokens,
            max_output=limits.max_output,
            max_running=limits.max_running,
        )
        floor = bounds.deficit_floor(unit, limits.unit())
        story = (f"L_in = {limits.max_input}, C = {LARGEST}: the counter falls to {lowest}; T2* has {limits.floor()}.",)
        shown.append(Demonstration(f"the floor {floor} of the chunk is reached", story, lowest == floor, run))
    return tuple(shown)


def debt_floor_reached() -> tuple[Demonstration, ...]:
    """A whole prompt on debt: the floor of T2* is reached although every chunk is gated."""
    floor = STALL.floor()
    run = next((run for run in on_debt(STALL, 1) if min(run.counters(CLIENT)) == floor), None)
    chunk = bounds_chunked.chunk_gated_unit(
        STALL.cost(), STALL.max_input, 1, STALL.kv_tokens, max_output=STALL.max_output, max_running=STALL.max_running
    )
    story = (
        "f has 1 of credit when a prompt of 8 tokens is let in, one token a step; with its output it fills the memory.",
        "g waits with credit and does not fit, so nobody is refilled and nothing runs: f goes on, on debt.",
        f"Its counter falls to {floor}, where the floor of the chunk would be {bounds.deficit_floor(chunk)}.",
    )
    return (Demonstration(f"the floor {floor} is reached on debt", story, run is not None, run),)


def stalls_for_ever() -> tuple[Demonstration, ...]:
    """Half a prompt in memory, its client without credit; the other has credit and no room."""
    run, stalled = deadlock(OnStall.NOTHING)
    mended, still = deadlock(OnStall.OVERDRAFT)
    chunk_ends = run.counters(CLIENT)[-1]
    story = (
        "M = 12, quantum 4, 4 tokens a step. f is let in with a prompt of 9 tokens; after 4 it has no credit left.",
        "g has 4 of credit and a prompt of 8, which does not fit beside f's; and because g has credit nobody is paid.",
        "Nothing runs, nothing leaves the memory, no counter moves: for ever.",
        f"If f may go on with debt, both finish; f's counter falls to {min(mended.counters(CLIENT))}.",
    )
    return (Demonstration("gated chunks stall for ever", story, stalled and not still and chunk_ends == 0, run),)


def drifts_apart() -> tuple[Demonstration, ...]:
    """A refill in a stall pays the one who holds the memory, again and again."""
    rounds = (10, 20, 40)
    runs = [paid_to_go_on(count, OnStall.REFILL) for count in rounds]
    gaps = [run.widest_gap(CLIENT, OTHER, both_backlogged=False) for run in runs]
    debts = [
        paid_to_go_on(count, OnStall.OVERDRAFT).widest_gap(CLIENT, OTHER, both_backlogged=False) for count in rounds
    ]
    grows = gaps[1] - gaps[0] == 10 * (rounds[1] - rounds[0]) and gaps[2] - gaps[1] == 10 * (rounds[2] - rounds[1])
    story = (
        "M = 12, quantum 10, 4 tokens a step. f sends prompts of 8 tokens; g waits with 10 of credit, and never fits.",
        "Each prompt of f stalls half computed, is refilled, finishes, and leaves credit for the next to go first.",
        f"After {rounds} requests of f it is {gaps} ahead of g, who is backlogged and was served nothing.",
        f"If f goes on with debt instead, g is next: f is {debts} ahead.",
    )
    return (
        Demonstration("a refill in a stall lets service drift apart", story, grows and len(set(debts)) == 1, runs[-1]),
    )


def _several_shown(wanted: Callable[[int, int, int], bool], name: str) -> tuple[Demonstration, ...]:
    """Three prompts, a token a step of each: ``wanted`` of the lowest counter, its floor, and that of T2*."""
    run = several()
    lowest = min(run.counters(CLIENT))
    assert SEVERAL_CHUNKS.most is not None
    unpaid = bounds_chunked.extends_of_several(SEVERAL.max_input, SEVERAL_CHUNKS.budget, SEVERAL_CHUNKS.most)
    floor = replace(SEVERAL, max_input=unpaid).floor()
    story = (
        "3 tokens a step, at most 1 of each request. f has 3 of credit and sends three prompts of 8 tokens at once.",
        "Each is let in with one token charged: the gate sees 3, 2 and 1. Then 21 more tokens are charged.",
        f"The counter falls to {lowest}; T2* has {SEVERAL.floor()}, and with X = {unpaid} unpaid tokens it is {floor}.",
    )
    return (Demonstration(name, story, wanted(lowest, floor, SEVERAL.floor()), run),)


def several_floor_reached() -> tuple[Demonstration, ...]:
    """The floor of several half computed prompts."""
    return _several_shown(lambda lowest, floor, _: lowest == floor, "the floor of several prompts is reached")


def several_sink() -> tuple[Demonstration, ...]:
    """It lies below that of T2*."""
    return _several_shown(lambda lowest, _, plain: lowest < plain, "several prompts sink below the floor of one")


# -- controls ----------------------------------------------------------------------------------------------------------


class Sparing(OpenBlocks):
    """Computes one token of a prompt a step, whatever is left of the budget."""

    def _next_chunk(self, prefill: Prefill) -> int | None:
        """The least chunk."""
        if self._budget < 1:
            return None
        self._budget -= 1
        prefill.left -= 1
        prefill.chunk = 1
        return 1


class OverBudget(OpenBlocks):
    """Takes chunks without counting them."""

    def _next_chunk(self, prefill: Prefill) -> int | None:
        """A chunk that is not taken from the budget."""
        budget = self._budget
        tokens = super()._next_chunk(prefill)
        self._budget = budget
        return tokens


class EarlyOutput(OpenBlocks):
    """Gives every running request a token, half computed or not."""

    def _yielding(self) -> list[RunningRequest]:
        """Everybody."""
        return self.running


class SecondPrompt(OpenBlocks):
    """Lets in a second prompt of a client whose first is half computed."""

    def _can_add(self, queued: QueuedRequest, free: int, extend: int) -> bool:
        """Ask for budget and memory only."""
        return self._budget >= 1 and Worker._can_add(self, queued, free, extend)


class Motionless(OpenBlocks):
    """Does nothing where nothing can run."""

    def _stalled(self) -> None:
        """Wait."""


def _workers(
    check: Callable[[type[OpenBlocks]], Iterator[Obligation]], *workers: tuple[str, type[OpenBlocks]]
) -> tuple[Mutant, ...]:
    """Changed workers that ``check`` must notice."""
    return tuple(Mutant(name, (worker.__doc__ or "").strip(), partial(check, worker), {}) for name, worker in workers)


def _each(parts: Sequence[Callable[[], Iterator[Obligation]]]) -> Iterator[Obligation]:
    """One theorem of several parts."""
    return chain.from_iterable(part() for part in parts)


gated_debt_obligations = partial(obligations, gated=True)

E2 = Theorem(
    id="E2/request",
    title="Prompts in chunks, gate once a request",
    source="ours, for [DLPM App. A.1 eq. 2]",
    statement="If chunks are charged as computed, the gate is asked at admission and a step gives a prompt all it can, "
    "then q_i >= 1 - U* with the U* of T2*, and the gap of T3 holds.",
    hypotheses=("reserving memory", "decodes first, then half computed prompts, then admissions", "no cap a request"),
    expected=Verdict.PROVED,
    checked="A step has budget left only when nothing is pending, so q - w_e p - w_q R falls at admissions only.",
    argued="Three clients stand for any number (N1); more running requests than two are alike (M1).",
    obligations=partial(_each, (worker_obligations, obligations)),
    demonstrations=request_floor_reached,
    mutants=(
        *mutants.to_be_noticed(obligations, "gate-at-zero", "double-outputs", given=SAMPLE_CHUNKS),
        *_workers(worker_obligations, ("sparing", Sparing), ("over-budget", OverBudget), ("early-output", EarlyOutput)),
    ),
)

E2_ADMISSION = Theorem(
    id="E2/admission",
    title="Prompts in chunks, charged at admission",
    source="ours, for [DLPM App. A.1 eq. 2]",
    statement="If all extend tokens are charged at admission and computed in chunks, q_i >= 1 - U* with the U* of T2*.",
    hypotheses=("reserving memory", "decodes first, then half computed prompts, then admissions"),
    expected=Verdict.PROVED,
    checked="The invariant of T2*, with forward steps that give a token to some of the running requests only.",
    argued="Three clients stand for any number (N1); more running requests than two are alike (M1).",
    obligations=partial(_each, (worker_obligations, early_obligations)),
    demonstrations=admission_floor_reached,
    mutants=mutants.to_be_noticed(early_obligations, "gate-at-zero", "double-outputs", given=SAMPLE_CHUNKS),
)

E2_SEVERAL = Theorem(
    id="E2/capped",
    title="Several prompts half computed at a time",
    source="ours, for [DLPM App. A.1 eq. 2]",
    statement="If a step computes at most c tokens of one request, q_i >= 1 - U* with "
    "X = L_in + ((N-1) // c)(L_in - c) in place of L_in, and the gap of T3 holds.",
    hypotheses=("reserving memory", "chunks charged as computed", "gate asked once a request", "c <= L_in"),
    expected=Verdict.PROVED,
    checked="The invariant of E2/request with at most X unpaid tokens; budget is left only if each prompt got its c.",
    argued="So at most (N-1) // c others are half computed, each with L_in - c unpaid. Else as for E2/request.",
    obligations=partial(_each, (capped_obligations, several_obligations)),
    demonstrations=several_floor_reached,
    mutants=(
        *mutants.to_be_noticed(several_obligations, "gate-at-zero", "double-outputs", given=SAMPLE_CHUNKS),
        *_workers(capped_obligations, ("sparing", Sparing)),
    ),
)

E2_SEVERAL_SINK = Theorem(
    id="E2/capped-as-one",
    title="The same floor with a cap a request",
    source="ours",
    statement="If a step computes at most c tokens of one request, the floor is still that of T2*.",
    hypotheses=("reserving memory", "chunks charged as computed", "gate asked once a request"),
    expected=Verdict.REFUTED,
    checked="The reference replays a run that sinks below.",
    argued="",
    obligations=tuple,
    demonstrations=several_sink,
)

E2_CHUNK = Theorem(
    id="E2/chunk",
    title="Prompts in chunks, gate for every chunk",
    source="ours, for [DLPM App. A.1 eq. 2]",
    statement="If no chunk is computed without credit, q_i >= 1 - U* with the largest chunk in place of L_in.",
    hypotheses=("reserving memory", "every chunk is gated"),
    expected=Verdict.PROVED,
    checked="q - w_q R keeps its floor at every transition, a half computed request being visited like a queued one.",
    argued="Three clients stand for any number (N1); more running requests than two are alike (M1).",
    obligations=partial(_each, (gated_obligations, strict_obligations)),
    demonstrations=chunk_floor_reached,
    mutants=mutants.to_be_noticed(
        strict_obligations, "gate-at-zero", "charge-before-gate", "double-outputs", given=SAMPLE_CHUNKS
    ),
)

E2_STALL = Theorem(
    id="E2/chunk-live",
    title="Gated chunks never stall",
    source="ours",
    statement="If no chunk is computed for a client without credit, every request still finishes.",
    hypotheses=("reserving memory", "every chunk is gated"),
    expected=Verdict.REFUTED,
    checked="The reference replays a run that stalls for ever.",
    argued="",
    obligations=tuple,
    demonstrations=stalls_for_ever,
)

E2_REFILL = Theorem(
    id="E2/chunk-refill",
    title="A refill in a stall keeps the gap",
    source="ours",
    statement="If a stall refills those without credit, although others who wait have some, the gap stays bounded.",
    hypotheses=("reserving memory", "every chunk is gated"),
    expected=Verdict.REFUTED,
    checked="The reference replays runs in which the gap grows with every request.",
    argued="The same again for ever: each round leaves the counters as they were.",
    obligations=tuple,
    demonstrations=drifts_apart,
)

E2_DEBT = Theorem(
    id="E2/debt",
    title="Gated chunks, on debt where nothing else can run",
    source="ours, for [DLPM App. A.1 eq. 2]",
    statement="If the oldest half computed prompt goes on with debt whenever nothing else can run, "
    "then no step is empty, q_i >= 1 - U* with the U* of T2*, and the gap of T3 holds.",
    hypotheses=("reserving memory", "one half computed prompt a client", "every other chunk is gated"),
    expected=Verdict.PROVED,
    checked="The invariant of E2/request, gated chunks included; a stalled step computes a chunk of at least a token.",
    argued="Each such chunk brings a prompt nearer its end, so none stalls for ever. Else as for E2/request.",
    obligations=partial(_each, (gated_obligations, gated_debt_obligations)),
    demonstrations=debt_floor_reached,
    mutants=(
        *mutants.to_be_noticed(gated_debt_obligations, "gate-at-zero", given=SAMPLE_CHUNKS),
        *_workers(gated_obligations, ("second-prompt", SecondPrompt), ("motionless", Motionless)),
    ),
)

CHUNKED_PREFILL = (E2, E2_ADMISSION, E2_SEVERAL_SINK, E2_SEVERAL, E2_CHUNK, E2_STALL, E2_REFILL, E2_DEBT)
"""In the order in which the table shows them."""
