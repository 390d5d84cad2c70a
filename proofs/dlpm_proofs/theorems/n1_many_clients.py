"""N1: why three clients stand for any number of them.

A theorem about f and g looks at their counters only. The others act on these through one thing: whether one of the
others that are queued still has credit, because then no refill fires. So two others act on f and g as one other does
that is queued when one of the two is, with the larger of their counters. That is checked here on the reference's own
visit: both systems run side by side. Merged two at a time, any number of others becomes one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dlpm.cost import CostModel
from dlpm.ledger import Quanta
from dlpm.request import ClientId
from dlpm_proofs import mutants
from dlpm_proofs.postcondition import postcondition
from dlpm_proofs.solve import Named, Obligation
from dlpm_proofs.symbolic import Exploration, SymInt
from dlpm_proofs.terms import FALSE, Formula, Poly, all_of, at_least, equal, poly
from dlpm_proofs.theorem import Theorem, Verdict
from dlpm_proofs.transitions import EXTEND, FITS, PARAMETERS, QUANTUM, REFERENCE, W_E, W_Q, Algorithm, F, G, queued

MERGED = "merged"

Effect = tuple[dict[ClientId, Poly], frozenset[ClientId], bool]
"""The counters of f and g after a visit, which of them were paid, and whether the visited request went in."""


class _SideBySide:
    """Runs one visit with many others, and with two of them merged into one."""

    def __init__(self, algorithm: Algorithm, others: Sequence[ClientId], visited: ClientId) -> None:
        """``others`` are all clients but f and g; the last two get merged."""
        self._algorithm = algorithm
        self._others = tuple(others)
        self._visited = visited
        self.hypotheses: tuple[Named, ...] = (
            *PARAMETERS,
            ("an extend has at least 1 token", at_least(EXTEND, 1)),
            ("the visited client is queued", queued(visited)),
        )
        self._exploration = Exploration([formula for _, formula in self.hypotheses])

    def obligations(self) -> Iterator[Obligation]:
        """Both runs end alike for f and g, on every path."""
        name = f"a visit of {self._visited} with {len(self._others)} others does to f and g what one other less does"
        yield from postcondition(name, self.hypotheses, self._exploration, self._both)

    def _both(self) -> Formula:
        """Run the visit with all others, and with the last two merged: f and g cannot tell the difference."""
        counters: dict[ClientId, int] = {
            client: self._symbol(Poly.unknown(f"q_{client}")) for client in (F, G, *self._others)
        }
        waiting = [client for client in counters if self._exploration.flag(queued(client).name)]
        first, second = self._others[-2:]
        merged = {client: value for client, value in counters.items() if client not in (first, second)}
        merged[MERGED] = self._larger(counters, [client for client in (first, second) if client in waiting], first)
        merged_waiting = list(dict.fromkeys(_renamed(client, first, second) for client in waiting))
        return _alike(
            self._visit(counters, self._visited, waiting),
            self._visit(merged, _renamed(self._visited, first, second), merged_waiting),
        )

    def _visit(self, counters: Mapping[ClientId, int], visited: ClientId, waiting: Sequence[ClientId]) -> Effect:
        """One visit, seen from f and g."""
        quanta = Quanta(self._symbol(QUANTUM["other"]), {client: self._symbol(QUANTUM[client]) for client in (F, G)})
        ledger = self._algorithm.ledger(quanta, CostModel(self._symbol(W_E), self._symbol(W_Q)))
        ledger.deficits.update(counters)
        paid: set[ClientId] = set()
        admitted = []

        def try_add() -> int | None:
            if not self._exploration.flag(FITS):
                return None
            admitted.append(visited)
            return self._symbol(EXTEND)

        self._algorithm.visit(ledger, visited, waiting, try_add, paid.update)
        after = {client: poly(ledger.deficits[client]) for client in (F, G)}
        return after, frozenset(paid & {F, G}), visited in (F, G) and bool(admitted)

    def _larger(self, counters: Mapping[ClientId, int], waiting: Sequence[ClientId], fallback: ClientId) -> int:
        """The larger counter of those queued; if none is, anybody's."""
        if len(waiting) == 2:
            first, second = waiting
            return max(counters[first], counters[second])
        return counters[waiting[0] if waiting else fallback]

    def _symbol(self, value: Poly) -> SymInt:
        return SymInt(self._exploration, value)


def _renamed(client: ClientId, first: ClientId, second: ClientId) -> ClientId:
    """The client's name once ``first`` and ``second`` are one."""
    return MERGED if client in (first, second) else client


def _alike(many: Effect, merged: Effect) -> Formula:
    """Both visits did the same to f and g."""
    if many[1:] != merged[1:]:
        return FALSE
    return all_of(*(equal(many[0][client], merged[0][client]) for client in (F, G)))


def obligations(algorithm: Algorithm = REFERENCE) -> Iterator[Obligation]:
    """Two others are like one, and three like two, whoever is visited."""
    for others in (("o1", "o2"), ("o1", "o2", "o3")):
        for visited in (F, others[-1]):
            yield from _SideBySide(algorithm, others, visited).obligations()


N1 = Theorem(
    id="N1",
    title="Three clients stand for any number",
    source="ours",
    statement="What a visit does to f and g depends on the others only through whether a queued one has credit.",
    hypotheses=("check-refill asks each queued client for the sign of its counter",),
    expected=Verdict.PROVED,
    checked="Two others act on f and g as one does, and three as two, with the visited client among them or not.",
    argued="The same merging for more others: check-refill asks them one by one, and each the same question.",
    obligations=obligations,
    mutants=mutants.to_be_noticed(obligations, "refill-by-majority", "refill-from-the-sum"),
)
