"""The bounds of `dlpm.bounds` on symbolic arguments: the number that is proven is the number that is enforced.

A bound becomes a name, such as ``U*``, and an assumption that says what the name stands for: one case for each way
through the code of the bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from dlpm import bounds
from dlpm.cost import CostModel
from dlpm_proofs.solve import Named, Obligation, claim
from dlpm_proofs.symbolic import Exploration, SymInt, covering
from dlpm_proofs.terms import Poly, all_of, any_of, equal, poly
from dlpm_proofs.transitions import L_IN, L_OUT, PARAMETERS, W_E, W_Q, B, M

Symbol = Callable[[Poly], SymInt]
"""Makes an integer that code can compute with out of a polynomial."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A name for a bound, what it stands for, and the obligation that this is so in every case."""

    symbol: Poly
    meaning: Named
    total: Obligation


def define(name: str, function: Callable[[Symbol], int], hypotheses: Sequence[Named] = PARAMETERS) -> Definition:
    """Call ``function`` with a way to make symbolic arguments, and name its result ``name``."""
    exploration = Exploration([formula for _, formula in hypotheses])
    paths = exploration.paths(lambda: function(lambda value: SymInt(exploration, value)))
    symbol = Poly.unknown(name)
    cases = any_of(*(all_of(path.condition(), equal(symbol, poly(path.outcome()))) for path in paths))
    quotients = all_of(*exploration.definitions)
    meaning = (f"{name} is what dlpm.bounds says", all_of(cases, quotients))
    total = claim(f"{name} is defined in every case", (*hypotheses, ("quotients", quotients)), covering(paths))
    return Definition(symbol, meaning, total)


def cost(symbol: Symbol) -> CostModel:
    """The cost model with symbolic weights."""
    return CostModel(symbol(W_E), symbol(W_Q))


@cache
def tight_unit(*, limited: bool) -> Definition:
    """``U*``: with the limits on outputs and on the batch, or of a memory that only ``M`` limits."""

    def evaluate(symbol: Symbol) -> int:
        if not limited:
            return bounds.tight_unit(cost(symbol), symbol(L_IN), symbol(M))
        return bounds.tight_unit(cost(symbol), symbol(L_IN), symbol(M), max_output=symbol(L_OUT), max_running=symbol(B))

    return define("U*", evaluate)


@cache
def printed_unit() -> Definition:
    """``U`` as the paper prints it."""
    return define("U", lambda symbol: bounds.service_unit(cost(symbol), symbol(L_IN), symbol(M)))
