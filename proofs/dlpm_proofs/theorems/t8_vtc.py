"""T8: the virtual token counter keeps two backlogged clients together, if memory reserves and outputs weigh no less.

The idea of the proof. Let m be the least counter in the queue. It never falls: counters only grow, and who comes back
is lifted to it. A client is let in only when its own counter is the least; from then on it is charged the input of
that request and what is reserved for it, and these share the memory. So no counter, with all that is reserved, is more
than U* above m, and no queued one is below m.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import dlpm.policies.vtc as vtc_policy
from dlpm import bounds
from dlpm.policies.vtc import VirtualCounters
from dlpm.request import ClientId
from dlpm_proofs.definitions import cost, define, tight_unit
from dlpm_proofs.scenario import AllTogether
from dlpm_proofs.solve import Obligation, claim, possible
from dlpm_proofs.symbolic import Exploration, Path, SymInt, covering
from dlpm_proofs.terms import (
    Formula,
    Poly,
    absolute_at_most,
    all_of,
    any_of,
    at_least,
    at_most,
    between,
    equal,
    implies,
)
from dlpm_proofs.theorem import Mutant, Theorem, Verdict
from dlpm_proofs.transitions import L_IN, PARAMETERS, SAMPLE, W_E, W_Q, F, G, M
from dlpm_proofs.vtc_phase import phases
from dlpm_proofs.vtc_transitions import LEVEL, PRODUCTS, UNIT, Counting, World, counter, invariant, transitions
from dlpm_proofs.witness import Demonstration, Setting, call, replay

AT_T1 = {client: Poly.unknown(f"c_{client}(t1)") for client in (F, G)}
GAP = Poly.unknown("gap")


def _keeps(path: Path[tuple[World, World]]) -> Formula:
    """The invariant goes on; neither the level nor a counter falls; a queued client's books balance: none is lifted."""
    if path.result is None:
        return any_of()
    before, after = path.result
    booked = all_of(
        *(
            equal(
                after.accounts[c].counter - before.accounts[c].counter,
                after.accounts[c].served - before.accounts[c].served,
            )
            for c in (F, G)
            if before.accounts[c].waits
        )
    )
    grown = all_of(*(at_least(after.accounts[c].counter, before.accounts[c].counter) for c in before.accounts))
    return all_of(invariant(after), at_least(after.level, before.level), grown, booked)


def inductive(counting: Counting) -> Iterator[Obligation]:
    """The invariant is inductive."""
    hypotheses = (*PARAMETERS, tight_unit(limited=False).meaning)
    for name, contract, paths in transitions(counting):
        kept = all_of(
            *(
                implies(all_of(path.condition(), invariant(path.result[0]) if path.result else all_of()), _keeps(path))
                for path in paths
            )
        )
        yield claim(f"{name} keeps the invariant", (*hypotheses, *contract), kept, PRODUCTS)
        yield claim(f"{name}: no path is left out", (*PARAMETERS, *contract), covering(paths))
        happens = any_of(*(all_of(path.condition(), invariant(path.result[0])) for path in paths if path.result))
        yield possible(f"{name} can happen", (*hypotheses, *contract), happens, SAMPLE)


REFERENCE = Counting()


def obligations(counting: Counting = REFERENCE) -> Iterator[Obligation]:
    """The invariant, and the gap that follows from it."""
    yield from inductive(counting)
    yield from phases(counting.counters)
    lead = (counter(F) - AT_T1[F]) - (counter(G) - AT_T1[G])
    gap = define("gap", lambda symbol: bounds.vtc_gap(symbol(UNIT)))
    level_at_t1 = Poly.unknown("m(t1)")
    named = (*PARAMETERS, tight_unit(limited=False).meaning, gap.meaning)
    apart = (
        *named,
        ("f and g are queued at t1", all_of(*(between(level_at_t1, c, level_at_t1 + UNIT) for c in AT_T1.values()))),
        ("f and g are queued at t2", all_of(*(between(LEVEL, counter(c), LEVEL + UNIT) for c in (F, G)))),
    )
    yield claim("the gap is at most 2 U*", apart, absolute_at_most(lead, GAP))
    yield possible("all of it is not excluded", apart, equal(lead, GAP), SAMPLE)
    printed = define("printed gap", lambda symbol: bounds.vtc_gap_as_printed(cost(symbol), symbol(L_IN), symbol(M)))
    yield claim(
        "2 U* <= 2 max(w_p L_in, w_q M) if outputs weigh no less than inputs",
        (*named, printed.meaning, ("w_p <= w_q", at_most(W_E, W_Q))),
        at_most(GAP, printed.symbol),
        PRODUCTS,
    )


class NoLift(VirtualCounters):
    """A client that comes back keeps its old counter, and with it the credit of its absence."""

    def lift(self, client: ClientId, queued_clients: Iterable[ClientId]) -> None:
        """Register only."""
        self.counters.setdefault(client, 0)


class LiftToTheLevel(VirtualCounters):
    """Sets whoever comes back to the least counter in the queue, also if that lowers its own."""

    def lift(self, client: ClientId, queued_clients: Iterable[ClientId]) -> None:
        """Set it."""
        waiting = [self.counters[other] for other in queued_clients if other != client]
        super().lift(client, queued_clients)
        if waiting and client not in queued_clients:
            self.counters[client] = min(waiting)


class MostServed(VirtualCounters):
    """Serves whom it has served most."""

    def least_served(self, clients: Iterable[ClientId]) -> ClientId | None:
        """The largest counter."""
        return max(clients, key=lambda client: self.counters[client], default=None)


class FreeInputs(VirtualCounters):
    """Charges nothing for inputs."""

    def charge_input(self, client: ClientId, tokens: int) -> None:
        """Charge nothing."""


def _mutants(*changed: type[VirtualCounters]) -> tuple[Mutant, ...]:
    """Counters that must be noticed."""
    return tuple(
        Mutant(one.__name__, (one.__doc__ or "").splitlines()[0], partial(obligations, Counting(one)), SAMPLE)
        for one in changed
    )


# -- the gap is reached; and what breaks it ----------------------------------------------------------------------------


def catching_up(setting: Setting, prompt: int) -> Demonstration:
    """F is served first, then g twice: from when f ends until g does, g receives 2 U*."""
    output = setting.kv_tokens - prompt
    names = (("f1", F), ("g1", G), ("g2", G), ("f2", F), ("g3", G))
    calls = [call(name, client, range(k * prompt, (k + 1) * prompt), output) for k, (name, client) in enumerate(names)]
    run = replay(setting, calls, "VTC catching up")
    found = run.widest_gap(G, F)
    tight = bounds.vtc_gap(bounds.tight_unit(setting.cost(), prompt, setting.kv_tokens))
    printed = bounds.vtc_gap_as_printed(setting.cost(), prompt, setting.kv_tokens)
    story = (
        f"M = {setting.kv_tokens}, weights {setting.extend_weight} and {setting.output_weight}.",
        "Every request takes all memory, so one runs at a time.",
        "f is served first. Then g, whose counter is least; and g again, whose counter has just drawn level.",
        f"From f's end to g's, g receives {found} more: 2 U* = {tight}, and as printed at most {printed}.",
    )
    return Demonstration(f"a gap of {tight}", story, found == tight, run)


def gap_reached() -> tuple[Demonstration, ...]:
    """The tight gap, for weights as in the paper."""
    return (catching_up(Setting(8, 1, 1, 2, policy="vtc"), prompt=1),)


def heavy_inputs() -> tuple[Demonstration, ...]:
    """The printed gap is broken where an input token weighs more than an output token."""
    return (catching_up(Setting(8, 1, 3, 1, policy="vtc"), prompt=4),)


def heavy_inputs_allowed() -> Iterator[Obligation]:
    """With w_p = 3 and w_q = 1 the tight gap exceeds the printed one."""
    gap = define("gap", lambda symbol: bounds.vtc_gap(symbol(UNIT)))
    printed = define("printed gap", lambda symbol: bounds.vtc_gap_as_printed(cost(symbol), symbol(L_IN), symbol(M)))
    given = (*PARAMETERS, tight_unit(limited=False).meaning, gap.meaning, printed.meaning)
    numbers = {**SAMPLE, "w_e": 3, "w_q": 1}
    yield possible("2 U* > 2 max(w_p L_in, w_q M)", given, at_least(GAP, printed.symbol + Poly.constant(1)), numbers)


KV_TOKENS = 64
OUTPUTS = (7, 8, 9, 11, 15, 20, 31, 63)


def without_reservations() -> tuple[Demonstration, ...]:
    """Without reservations VTC's counters part as DLPM's do: memory that a request frees is used again."""
    setting = Setting(KV_TOKENS, 1, memory="optimistic", policy="vtc")
    longest = range(100, 100 + KV_TOKENS - 1)
    run = replay(
        setting,
        [
            call("g1", G, range(50, 58), 1),
            *(call(f"f{k}", F, [k], output) for k, output in enumerate(OUTPUTS, start=1)),
            call("g2", G, longest, 1),
            call("f9", F, [9], 1),
        ],
        "VTC without reservations",
    )
    found = run.widest_gap(F, G)
    printed = bounds.vtc_gap_as_printed(setting.cost(), len(longest), KV_TOKENS)
    story = (
        "g is served 10; until f has drawn level, eight requests of one token each of f are let in.",
        "Then g's turn comes, with a prompt that does not fit; VTC lets nobody pass, and waits.",
        "But each time one of f's requests ends, the others use its memory, so that g waits on.",
        f"f receives {found} more than g, both always backlogged; as printed it would be at most {printed}.",
    )
    return (Demonstration("a gap above 2 max(w_p L_in, w_q M)", story, found > printed, run),)


def without_reservations_allowed() -> Iterator[Obligation]:
    """Eight one-token requests, let in while g's counter is not below f's, can be served more than the printed gap."""
    setting = Setting(KV_TOKENS, 1, memory="optimistic", policy="vtc")
    together = AllTogether(setting, len(OUTPUTS))
    exploration = Exploration([formula for _, formula in together.sizes()])

    def run() -> int:
        counters = VirtualCounters(setting.cost())
        counters.counters.update({F: 0, G: len(OUTPUTS)})
        for _ in OUTPUTS:
            vtc_policy.visit(counters, (F, G), lambda client: 1 if client == F else None)
        for steps in together.phases():
            counters.charge_outputs({F: SymInt(exploration, steps)})
        return counters.counters[F]

    printed = bounds.vtc_gap_as_printed(setting.cost(), KV_TOKENS - 1, KV_TOKENS)
    served = any_of(
        *(all_of(path.condition(), at_least(path.outcome(), printed + 1)) for path in exploration.paths(run))
    )
    yield possible("f is served more than the printed gap while g waits", together.sizes(), served)


T8 = Theorem(
    id="T8/reserving",
    title="Service of two backlogged clients under VTC",
    source="[VTC Thm 4.4]",
    statement="Under VTC |W_f - W_g| <= 2 U* <= 2 max(w_p L_in, w_q M) for backlogged f, g, W counting whole inputs.",
    hypotheses=(
        "reserving memory",
        "for the printed bound w_p <= w_q (2 U* holds for all weights)",
        "a client that comes back is lifted",
    ),
    expected=Verdict.PROVED,
    checked="No counter with its reservations is above m + U*, no queued one below m, none falls: inductive, lift"
    " included. An admission phase serves the least counter each time, and charges it whole inputs.",
    argued="Of all others only the least served in the queue, or the last to leave it, acts on f and g.",
    obligations=obligations,
    demonstrations=gap_reached,
    mutants=_mutants(NoLift, LiftToTheLevel, MostServed, FreeInputs),
)

T8_WEIGHTS = Theorem(
    id="T8/heavy-inputs",
    title="The same where inputs weigh more than outputs",
    source="[VTC Thm 4.4]",
    statement="Under VTC |W_f - W_g| <= 2 max(w_p L_in, w_q M) for all weights.",
    hypotheses=("reserving memory", "w_p > w_q"),
    expected=Verdict.REFUTED,
    checked="The replayed run, and the bound's own formula.",
    argued="Nothing.",
    obligations=heavy_inputs_allowed,
    demonstrations=heavy_inputs,
)

T8_OPTIMISTIC = Theorem(
    id="T8/optimistic",
    title="The same without reservations",
    source="[VTC Thm 4.4]",
    statement="Under VTC and optimistic memory |W_f - W_g| <= 2 max(w_p L_in, w_q M).",
    hypotheses=("optimistic memory: only the extend tokens must fit at admission",),
    expected=Verdict.REFUTED,
    checked="A solver finds the sizes, on the counters' own functions; the worker replays such a run.",
    argued="Nothing.",
    obligations=without_reservations_allowed,
    demonstrations=without_reservations,
)
