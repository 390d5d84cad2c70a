"""E1, weighted tenants: quanta in proportion to weights. The plain ledger does the rest.

A refill pays each client its own quantum, so backlogged clients are served in proportion to their quanta, but for a
constant: `dlpm.bounds_extensions.weighted_gap`.
"""

from __future__ import annotations

from collections.abc import Mapping

from dlpm.errors import InputError
from dlpm.events import Extensions
from dlpm.ledger import Quanta
from dlpm.request import ClientId

NAME = "weights"


def stated() -> Extensions:
    """What the header of a log says of this extension: the quanta in it are weights."""
    return {NAME: {}}


def weighted_quanta(base: int, weights: Mapping[ClientId, int]) -> Quanta:
    """A quantum of ``base`` weighted tokens for each unit of weight; clients without a weight count 1. O(clients).

    Raises:
        InputError: if ``base`` or a weight is not an integer > 0.
    """
    for client, weight in weights.items():
        if weight <= 0:
            raise InputError(f"expected an integer > 0, found {weight!r}", field=f"weight.{client}")
    return Quanta(base, {client: base * weight for client, weight in weights.items()})
