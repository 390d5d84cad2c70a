"""Bounds of many workers as plain functions of the parameters, beside `dlpm.bounds` for one.

Parameters carry the paper's meaning [DLPM Table 1]; ``workers`` is ``|W|``, ``worker_quantum`` is ``Q^w``. Results are
in weighted tokens. The proofs evaluate these functions on symbolic integers.
"""

from __future__ import annotations

from dlpm.bounds import deficit_floor
from dlpm.cost import CostModel

# -- the router's credit [DLPM Alg. 2] ---------------------------------------------------------------------------------


def router_credit_ceiling(worker_quantum: int) -> int:
    """``q_{i,w} <= Q^w``: the largest value of a router's counter."""
    return worker_quantum


def router_credit_floor(cost: CostModel, max_input: int, max_output: int, in_flight: int) -> int:
    """``1 - w_e L_input - c w_q L_output``: the lowest value of a router's counter, under a cap on requests in flight.

    At most ``in_flight`` = c requests of a client are dispatched to one worker and not finished there. Without such a
    cap there is no floor: outputs are charged when requests finish, and dispatching asks only what is charged so far.
    """
    return 1 - cost.extend(max_input) - in_flight * cost.output(max_output)


def router_spread(worker_quantum: int, floor: int) -> int:
    """``Q^w - floor``: how much more of a client's work one worker can be charged than another."""
    return router_credit_ceiling(worker_quantum) - floor


# -- service over all workers, as printed and for clients backlogged on every worker -----------------------------------


def cluster_gap_as_printed(unit: int, quantum: int, workers: int) -> int:
    """``2 |W| (U + Q^u)`` [DLPM Thm 5.1, 5.2], ``unit`` being the paper's ``U``."""
    return 2 * workers * (unit + quantum)


def service_while_waiting_as_printed(unit: int, quantum: int, workers: int, clients: int) -> int:
    """``(n - 1) |W| (2 U + 2 Q^u)``: what others receive while a request waits, as printed [DLPM Thm A.4].

    At one worker `dlpm.bounds.service_while_waiting` is less, also for a client that comes in debt.
    """
    return (clients - 1) * cluster_gap_as_printed(unit, quantum, workers)


def cluster_gap(worker_gap: int, workers: int) -> int:
    """``|W|`` times the gap of one worker, for clients that are backlogged on every worker."""
    return workers * worker_gap


def replenished_gap(quantum: int, floor: int, workers: int) -> int:
    """``|W| max(Q, -floor)``: how far service is from what refills paid for, from the beginning [DLPM Thm A.3]."""
    return workers * max(quantum, -floor)


# -- one ledger for all workers, updates arriving late -----------------------------------------------------------------


def shared_largest_update(cost: CostModel, max_input: int, max_running: int) -> int:
    """``C``: the most that one update charges one client: an admission's extend tokens, or one forward step's outputs.

    ``max_running`` is the largest batch in requests; memory alone keeps it below ``M``.
    """
    return max(cost.extend(max_input), cost.output(max_running))


def shared_elsewhere(cost: CostModel, kv_tokens: int, largest_update: int, late: int) -> int:
    """``X = w_q (M - 1) + d C``: what one other worker may still charge, or has charged unheard, when a gate is asked.

    Up to ``M - 1`` output tokens reserved there, and ``late`` = d updates of at most ``largest_update`` = C each.
    """
    return cost.output(kv_tokens - 1) + late * largest_update


def shared_floor(tight: int, elsewhere: int, workers: int) -> int:
    """``1 - U* - (|W| - 1) X``: the lowest true counter of a client under a shared ledger with late updates.

    The last worker to let the client in sees a positive counter, too high by what it has not heard of; it then spends
    up to ``tight`` = U*; and each other worker decodes what it reserved before. ``elsewhere`` is `shared_elsewhere`.
    """
    return deficit_floor(tight) - (workers - 1) * elsewhere
