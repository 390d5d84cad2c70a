"""Every fairness bound as a plain function of the parameters: the one place where a bound is written.

The proofs evaluate these functions on symbolic integers, conformance enforces them, reports draw them. Parameters
carry the paper's meaning [DLPM Table 1]: ``max_input`` is ``L_input``, ``max_output`` is ``L_output``, ``kv_tokens``
is ``M`` (all in tokens), ``quantum`` is ``Q^u`` (weighted tokens).
"""

from __future__ import annotations

from dlpm.cost import CostModel


def service_unit(cost: CostModel, max_input: int, kv_tokens: int) -> int:
    """``U = w_e * L_input + w_q * M``: what one request can consume, as printed [DLPM Table 1]."""
    return cost.extend(max_input) + cost.output(kv_tokens)


def deficit_ceiling(quantum: int) -> int:
    """``q_i <= Q^u``: the largest value of a deficit counter [DLPM App. A.1 eq. 1]."""
    return quantum


def deficit_floor_as_printed(cost: CostModel, max_input: int, kv_tokens: int) -> int:
    """``q_i > -U``: no counter of DLPM reaches this value [DLPM App. A.1 eq. 2], under reserving memory."""
    return -service_unit(cost, max_input, kv_tokens)


def service_gap_as_printed(cost: CostModel, max_input: int, kv_tokens: int, quantum: int) -> int:
    """``2 (U + Q^u)``: service gap of two backlogged clients, or of a backlogged and any client [DLPM Thm 4.1, 4.2]."""
    return 2 * (service_unit(cost, max_input, kv_tokens) + quantum)
