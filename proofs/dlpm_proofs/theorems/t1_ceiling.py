"""T1: a deficit counter never exceeds the client's quantum."""

from __future__ import annotations

from collections.abc import Iterator

from dlpm import bounds
from dlpm.request import ClientId
from dlpm_proofs import mutants
from dlpm_proofs.definitions import Definition, define
from dlpm_proofs.solve import Obligation, claim
from dlpm_proofs.terms import Formula, all_of, at_least, at_most
from dlpm_proofs.theorem import Theorem, Verdict
from dlpm_proofs.transitions import (
    CLIENTS,
    PARAMETERS,
    QUANTUM,
    REFERENCE,
    WEIGHTED,
    Algorithm,
    F,
    Memory,
    State,
    transitions,
)


def ceiling(client: ClientId) -> Definition:
    """The ceiling that `dlpm.bounds` gives for the quantum of ``client``."""
    return define(f"ceiling of {client}", lambda symbol: bounds.deficit_ceiling(symbol(QUANTUM[client])))


CEILING = {client: ceiling(client) for client in CLIENTS}


def invariant(state: State) -> Formula:
    """``q_i <= Q_i`` for every client."""
    return all_of(*(at_most(state[client].deficit, CEILING[client].symbol) for client in CLIENTS))


def obligations(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """The counters start below their ceilings, and every transition keeps them there."""
    hypotheses = (*PARAMETERS, *(definition.meaning for definition in CEILING.values()))
    start = all_of(*(at_least(definition.symbol, 0) for definition in CEILING.values()))
    yield claim("all counters start at 0, which is not above", hypotheses, start)
    for transition in transitions(algorithm, Memory.ANY):
        yield from transition.obligations(hypotheses, invariant, WEIGHTED)
    yield CEILING[F].total


T1 = Theorem(
    id="T1",
    title="Deficit ceiling",
    source="[DLPM App. A.1 eq. 1]",
    statement="A client's deficit counter never exceeds its quantum.",
    hypotheses=("weights and quanta are positive", "memory of any kind"),
    expected=Verdict.PROVED,
    checked="The ceiling is an inductive invariant of every transition, for three clients with quanta of their own.",
    argued="Three clients stand for any number: see theorem N1.",
    obligations=obligations,
    mutants=mutants.to_be_noticed(obligations, "refill-everybody", "double-refill", "welcome-gift"),
)
