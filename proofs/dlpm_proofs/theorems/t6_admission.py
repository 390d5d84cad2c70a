"""T6: the admission loop ends, leaves no memory idle that a request could use, and what goes wrong as printed.

The idea of the proof. A pass over the queue does what visiting every request would do (the shortcut loses nothing).
Each visit that does anything either lets a request in, so that fewer are left, or refills, which lifts every queued
client and happens only while none has credit. So passes come to an end; and then somebody has credit, and memory has
refused every request of those who have. An empty worker refuses nothing (M1): so it never stays empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from dlpm.events import Admit, Event, Order
from dlpm.ledger import Ledger, Quanta
from dlpm.policies.base import AdmissionStep, Waiting, longest_prefix_first
from dlpm.policies.dlpm import DLPM
from dlpm.policies.dlpm_literal import DLPMLiteral, EndlessLoopError
from dlpm.request import ClientId, Request
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_proofs import mutants
from dlpm_proofs.passes import OWNERS, OpenPasses, TwoPasses, goes_on_until_rest
from dlpm_proofs.postcondition import postcondition
from dlpm_proofs.solve import Obligation, claim, possible
from dlpm_proofs.symbolic import Path
from dlpm_proofs.terms import TRUE, Flag, Formula, Not, all_of, any_of, at_least, at_most, equal, implies
from dlpm_proofs.theorem import Mutant, Theorem, Verdict
from dlpm_proofs.timeline import timeline
from dlpm_proofs.transitions import (
    BEFORE,
    CLIENTS,
    FITS,
    OTHER,
    PARAMETERS,
    REFERENCE,
    SAMPLE,
    WEIGHTED,
    Algorithm,
    F,
    G,
    Memory,
    State,
    Transition,
    queued,
    visit_of,
)
from dlpm_proofs.witness import STEP_US, Demonstration, Replay, Setting, call, replay

PATIENCE = 50
"""Steps after which a run counts as not stuck."""


def passes(policy: type[DLPM] = DLPM) -> Iterator[Obligation]:
    """What one pass does, for three requests of any clients."""
    for owners in OWNERS:
        whose = ", ".join(owners)
        for name, body in (
            (
                "does what visiting everybody does, and rests only when none can go in",
                TwoPasses.same_as_visiting_everybody,
            ),
            ("would do nothing where it is skipped", TwoPasses.skipping_is_idle),
        ):
            pair = TwoPasses(owners, policy)
            yield from postcondition(
                f"a pass over requests of {whose} {name}", pair.hypotheses, pair.exploration, partial(body, pair)
            )
        pair = TwoPasses(owners, policy, memory_refuses_nothing=True)
        name = f"a pass over requests of {whose} that all fit admits or refills"
        yield from postcondition(name, pair.hypotheses, pair.exploration, pair.something_happens)


def skipped_steps(policy: type[DLPM] = DLPM) -> Iterator[Obligation]:
    """A step in which nobody has come or finished, and no phase is due, is none in which a phase would do anything."""
    for owners in OWNERS:
        pair = TwoPasses(owners, policy)
        assumed = (*pair.hypotheses, pair.rested())
        name = f"where no phase is due for {', '.join(owners)}, a pass would do nothing"
        yield from postcondition(name, assumed, pair.exploration, pair.not_due_is_idle)


def loop(policy: type[OpenPasses] = OpenPasses) -> Iterator[Obligation]:
    """`DLPM.admit` makes passes until one does nothing."""
    pair = TwoPasses(OWNERS[0])
    name = "the loop makes passes, each over what the last has left, until one does nothing"
    yield from postcondition(name, pair.hypotheses, pair.exploration, partial(goes_on_until_rest, pair, policy))


def variant(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """Each visit lets a request in, or lifts all queued clients from 0 or below, or changes nothing."""
    for client in CLIENTS:
        visit = visit_of(client, algorithm, Memory.ANY)
        progress = all_of(*(implies(path.condition(), _progress(path)) for path in visit.paths))
        assumed = (*PARAMETERS, *visit.contract)
        yield claim(
            f"{visit.name} admits, or lifts all that are queued, or changes nothing", assumed, progress, WEIGHTED
        )


def _progress(path: Path[State]) -> Formula:
    """What one path of a visit did for the end of the loop."""
    if path.result is None:
        return any_of()
    after = path.result
    if any(after[client].running != BEFORE[client].running for client in CLIENTS):
        return TRUE
    lifted = all_of(
        *(
            implies(
                queued(client),
                all_of(
                    at_most(BEFORE[client].deficit, 0),
                    at_least(after[client].deficit - BEFORE[client].deficit, 1),
                ),
            )
            for client in CLIENTS
        )
    )
    if any(after[client].paid != BEFORE[client].paid for client in CLIENTS):
        return lifted
    return all_of(*(equal(after[client].deficit, BEFORE[client].deficit) for client in CLIENTS))


def obligations(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """Termination and work conservation of the fixpoint."""
    yield from variant(algorithm)
    yield from passes()
    yield from skipped_steps()
    yield from loop()


class OnePass(OpenPasses):
    """Makes one pass, as lines 17-24 may be read."""

    def admit(self, step: AdmissionStep) -> None:
        """Rest, whatever the pass did."""
        if not self._nothing_can_happen(step):
            self.visit_each(step, longest_prefix_first(step))


class NeverDue(DLPM):
    """Waits for an arrival or a finish, although all who wait have spent their credit since."""

    def admission_due(self, queued_clients: Iterable[ClientId]) -> bool:
        """Never."""
        return False


class NeverAsksAgain(DLPM):
    """Once check-refill has refused, it is not asked again in the same pass, whatever happened since."""

    def visit_each(self, step: AdmissionStep, order: Sequence[Waiting]) -> tuple[list[Waiting], bool]:
        """Skip every gated request after the first refusal."""
        refused = False
        left: list[Waiting] = []
        happened = False
        for request in order:
            gated = not self.ledger.has_credit(request.client)
            outcome = None if gated and refused else self._visit(step, request)
            if outcome is None or outcome.extend is None:
                left.append(request)
            happened = happened or (outcome is not None and (outcome.refilled or outcome.extend is not None))
            refused = refused or (gated and outcome is not None and not outcome.refilled)
        return left, happened


class StopsAtTheFirst(DLPM):
    """Stops at the first request that does not go in, as first-come-first-served does."""

    def visit_each(self, step: AdmissionStep, order: Sequence[Waiting]) -> tuple[list[Waiting], bool]:
        """Visit until one is passed over."""
        happened = False
        for place, request in enumerate(order):
            outcome = self._visit(step, request)
            happened = happened or outcome.refilled or outcome.extend is not None
            if outcome.extend is None:
                return list(order[place:]), happened
        return [], happened


class ForgetsRefills(DLPM):
    """Calls a pass idle that only refilled."""

    def visit_each(self, step: AdmissionStep, order: Sequence[Waiting]) -> tuple[list[Waiting], bool]:
        """Report admissions only."""
        left, _ = super().visit_each(step, order)
        return left, len(left) < len(order)


def _policies(*policies: type[DLPM]) -> tuple[Mutant, ...]:
    """Policies whose pass must be noticed."""
    return tuple(
        Mutant(policy.__name__, (policy.__doc__ or "").splitlines()[0], partial(passes, policy), SAMPLE)
        for policy in policies
    )


# -- as printed --------------------------------------------------------------------------------------------------------


def _events_until_stuck(one_pass: bool, setting: Setting, requests: Sequence[Request]) -> tuple[list[Event], str]:
    """Run Algorithm 1 as printed, at most `PATIENCE` steps; returns the events and how it got stuck, if it did."""
    events: list[Event] = []
    policy = DLPMLiteral(Ledger(Quanta(setting.quantum), setting.cost()), one_pass=one_pass)
    worker = Worker(setting.config(), policy, FixedStep(STEP_US), events.append, full_log=True)
    for request in requests:
        worker.submit(request, 0)
    for _ in range(PATIENCE):
        try:
            result = worker.step()
        except EndlessLoopError as error:
            return events, f"endless loop: {error}"
        if not result.ran and not worker.idle():
            return events, "a forward step on an empty batch, beside a request that fits"
    return events, ""


def stuck_as_printed() -> tuple[Demonstration, ...]:
    """Both readings of the printed loop, on workloads of one and two requests."""
    debtor = [call("r1", "f", [1, 2, 3, 4], 4, max_output=4), call("r2", "f", [5], 1)]
    shown = []
    for one_pass, setting, requests, expected, story in (
        (
            False,
            Setting(kv_tokens=8, quantum=30),
            [call("r1", "f", [1, 2, 3, 4], 4), call("r2", "f", [5], 1)],
            "endless loop",
            "Line 17 read as printed: r1 fills the memory, r2 has credit but does not fit, and the loop asks for ever.",
        ),
        (
            True,
            Setting(kv_tokens=8, quantum=1),
            debtor,
            "empty batch",
            "Lines 17-24 read as one pass: r1 leaves f far below 0, a refill of 1 does not lift it, and nothing runs.",
        ),
    ):
        events, stuck = _events_until_stuck(one_pass, setting, requests)
        name = "read as one pass" if one_pass else "read as printed"
        lines = (story, *timeline(events), f"then: {stuck}")
        shown.append(Demonstration(name, lines, expected in stuck))
    return tuple(shown)


def one_refill_may_lift_nobody() -> Iterator[Obligation]:
    """One visit in an empty worker may neither admit nor leave anybody with credit: one pass of it is not enough."""
    visit = visit_of(F, REFERENCE, Memory.ANY)
    alone = all_of(Not(queued(G)), Not(queued(OTHER)), Flag(FITS))
    gated = any_of(
        *(
            all_of(path.condition(), at_most(after[F].deficit, 0))
            for path, after in _where_f_is_passed_over(visit)
            if after[F].paid != BEFORE[F].paid
        )
    )
    assumed = (*PARAMETERS, *visit.contract)
    yield possible("a refill lifts nobody above 0, beside a request that fits", assumed, all_of(alone, gated), SAMPLE)


def a_fitting_request_may_be_passed_over() -> Iterator[Obligation]:
    """A visit may pass over a request that fits, because its client is gated while another has credit."""
    visit = visit_of(F, REFERENCE, Memory.ANY)
    gated = any_of(*(path.condition() for path, _ in _where_f_is_passed_over(visit)))
    credit = all_of(Flag(FITS), queued(G), at_least(BEFORE[G].deficit, 1))
    assumed = (*PARAMETERS, *visit.contract)
    yield possible("a request that fits is passed over", assumed, all_of(credit, gated), SAMPLE)


def _where_f_is_passed_over(visit: Transition) -> Iterator[tuple[Path[State], State]]:
    """The paths of a visit of f that admit nothing, and where they end."""
    for path in visit.paths:
        if path.result is not None and path.result[F].running == BEFORE[F].running:
            yield path, path.result


def rejected_though_it_fits() -> tuple[Demonstration, ...]:
    """A small request of a gated client waits beside free memory, while an eligible large one does not fit."""
    setting = Setting(kv_tokens=16, quantum=6)
    run = replay(
        setting,
        [
            call("small1", "f", [1], 8),
            call("busy", "g", [2], 1),
            call("large", "g", range(10, 22), 1, max_output=4, at_step=4),
            call("small2", "f", [3], 1, at_step=4),
        ],
        "a request that fits waits",
    )
    free = free_beside(run, "small2")
    story = (
        f"M = 16, quantum 6. f has spent its quantum; its request small2 needs 2 tokens, and {free} are free.",
        "g has credit, and its request large needs all memory. As long as it waits, nobody is refilled.",
        "So small2 is passed over although it fits: fairness costs this much memory.",
    )
    return (Demonstration("a gated request that fits waits", story, free >= 2, run),)


def free_beside(run: Replay, request: str) -> int:
    """The most tokens that are free in a step that considers ``request`` and admits nobody."""
    admitting = {event.step for event in run.events if isinstance(event, Admit)}
    return max(
        event.free or 0
        for event in run.events
        if isinstance(event, Order) and request in event.requests and event.step not in admitting
    )


T6_PRINTED = Theorem(
    id="T6/printed",
    title="The admission loop as printed",
    source="[DLPM Alg. 1 ll. 15-27]",
    statement="The loop of lines 17-24 ends, and no forward step runs on an empty batch while a request fits.",
    hypotheses=("line 17 is read as printed, or lines 17-24 as one pass over the queue",),
    expected=Verdict.REFUTED,
    checked="Both readings run on the reference's worker and get stuck. A solver finds the refill that lifts nobody.",
    argued="Nothing.",
    obligations=one_refill_may_lift_nobody,
    demonstrations=stuck_as_printed,
)

T6_REJECTS = Theorem(
    id="T6/rejects",
    title="No request that fits is rejected",
    source="[DLPM §4.2]",
    statement="The algorithm does not reject a request if it fits into the running batch.",
    hypotheses=(),
    expected=Verdict.REFUTED,
    checked="A gated request waits beside free memory, in a replayed run.",
    argued="Nothing.",
    obligations=a_fitting_request_may_be_passed_over,
    demonstrations=rejected_though_it_fits,
)

T6 = Theorem(
    id="T6/fixpoint",
    title="The admission loop ends and conserves work",
    source="[DLPM §4.2], repaired",
    statement="Passes end; then no request of a client with credit fits, and no forward step runs on an empty batch"
    " while a request waits.",
    hypotheses=("input + max_output of every request is at most M [checked at submission]",),
    expected=Verdict.PROVED,
    checked="Every visit admits, or lifts all queued clients from 0 or below, or changes nothing. Passes go on until"
    " one does nothing. A pass does, with its shortcut, what visiting everybody does; at rest memory refuses all that"
    " have credit; a pass over what fits does something; where no phase is due it"
    " would do nothing. M1 and M2: an empty worker refuses nothing.",
    argued="Lexicographic descent: (requests queued, debt of the queued clients). Three requests stand for more.",
    obligations=obligations,
    mutants=(
        *mutants.to_be_noticed(variant, "refill-one", "refill-ignores-queue"),
        *_policies(NeverAsksAgain, StopsAtTheFirst, ForgetsRefills),
        Mutant("NeverDue", (NeverDue.__doc__ or "").strip(), partial(skipped_steps, NeverDue), SAMPLE),
        Mutant("OnePass", (OnePass.__doc__ or "").strip(), partial(loop, OnePass), SAMPLE),
    ),
)
