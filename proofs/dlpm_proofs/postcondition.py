"""What must hold where code ends, whichever way it went."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from dlpm_proofs.solve import Named, Obligation, claim
from dlpm_proofs.symbolic import Exploration, covering
from dlpm_proofs.terms import FALSE, NO_PRODUCTS, Formula, Products, all_of, implies


def postcondition(
    name: str,
    hypotheses: Sequence[Named],
    exploration: Exploration,
    body: Callable[[], Formula],
    products: Products = NO_PRODUCTS,
) -> Iterator[Obligation]:
    """``body`` runs the code and returns what must hold then: it does, on every path, and no path was left out.

    A path that ends in an exception fails. ``exploration`` must assume no more than ``hypotheses``. What the code's
    divisions mean is added to these.
    """
    paths = exploration.paths(body)
    if exploration.definitions:
        hypotheses = (*hypotheses, ("quotients", all_of(*exploration.definitions)))
    held = (implies(path.condition(), FALSE if path.result is None else path.result) for path in paths)
    yield claim(name, hypotheses, all_of(*held), products)
    yield claim(f"{name}: no path is left out", hypotheses, covering(paths))
