"""The bounds of preemption by recomputation (E3), for each rule of who pays. Parameters mean what they mean in
`dlpm.bounds`; results are in weighted tokens.

Where the client pays, the bound is `dlpm.bounds.optimistic_unit`, whoever is preempted.
"""

from __future__ import annotations

from dlpm.bounds import optimistic_unit
from dlpm.cost import CostModel


def system_paid_unit(cost: CostModel, max_input: int, kv_tokens: int, outputs: int) -> int:
    """``U*`` where nobody pays for recomputations: an admission costs at most the longest input.

    ``outputs`` is `dlpm.bounds.outputs_after_admission`.
    """
    return optimistic_unit(cost, min(max_input, kv_tokens - 1), outputs)


def causer_paid_unit(cost: CostModel, recomputation: int, outputs: int, caused: int) -> int:
    """``U*`` where the causer pays: it may be charged for ``caused`` recomputations since its own last admission.

    Its gate is not asked for those, and they may come when it runs nothing any more: nothing limits ``caused`` but the
    number of requests that wait. ``recomputation`` is `dlpm.bounds.longest_recomputation`.
    """
    return optimistic_unit(cost, recomputation * (1 + caused), outputs)
