"""The bounds of the extensions, as `dlpm.bounds` has those of the plain algorithm: here alone they are written.

Parameters mean what they mean there. Results are in weighted tokens unless said otherwise.
"""

from __future__ import annotations

from dlpm.bounds import deficit_ceiling, service_gap
from dlpm.cost import CostModel

# -- E1: quanta in proportion to weights -------------------------------------------------------------------------------


def weighted_gap(quantum: int, floor: int, other_quantum: int, other_floor: int) -> int:
    """``Q_g (Q_f - floor_f) + Q_f (Q_g - floor_g)``: what bounds ``|Q_g W_f - Q_f W_g|`` of two backlogged clients.

    Divided by ``Q_f Q_g`` this is the gap of service per unit of quantum, `dlpm.bounds.service_gap` where both have
    the same. The result is in weighted tokens squared.
    """
    own_range = deficit_ceiling(quantum) - floor
    other_range = deficit_ceiling(other_quantum) - other_floor
    return other_quantum * own_range + quantum * other_range


def service_of_a_heavier_client(quantum: int, floor: int, light_quantum: int, light_floor: int) -> int:
    """The most that a client is served while a backlogged one of ``light_quantum`` waits for its next service.

    What `weighted_gap` leaves if the light client is served nothing: it grows with the ratio of the quanta.
    """
    return weighted_gap(quantum, floor, light_quantum, light_floor) // light_quantum


# -- E5: several tokens a step -----------------------------------------------------------------------------------------


def speculative_unit(cost: CostModel, tight: int, most_accepted: int, max_running: int) -> int:
    """``U* + w_q (k - 1) B``: ``U*`` where clients pay for tokens accepted beyond the end of a request.

    Each running request accepts at most ``k - 1`` such tokens, in its last step. Where nobody pays for them ``U*``, as
    `dlpm.bounds.tight_unit` has it, does not change: what is accepted was reserved. ``max_running`` is ``B``.
    """
    return tight + cost.output((most_accepted - 1) * max_running)


# -- E8: late accounting -----------------------------------------------------------------------------------------------


def late_unit(cost: CostModel, tight: int, delay: int, max_running: int) -> int:
    """``U* + w_q B d``: ``U*`` where output tokens are charged up to ``delay`` = ``d`` forward steps late.

    When the gate last sees a positive counter, each of the last ``d`` steps may have yielded ``B`` tokens that it has
    not heard of. Extend tokens are charged at once. ``max_running`` is ``B``.
    """
    return tight + cost.output(max_running * delay)


# -- E6: churn ---------------------------------------------------------------------------------------------------------


def refills_until_forgotten(quantum: int, floor: int) -> int:
    """How many refills pay off the deepest debt of an idle client: it is forgotten after that many, at the latest."""
    return (quantum - 1 - floor) // quantum


def remembered_clients(active: int, quantum: int, floor: int) -> int:
    """The most clients that debt keeping remembers, if never more than ``active`` are queued, running or just finished.

    Who has debt was active at one of the latest `refills_until_forgotten` refills: without a refill nobody has credit
    to spend, and each later one pays a quantum.
    """
    return active * (1 + refills_until_forgotten(quantum, floor))


# -- E7: shared prefixes -----------------------------------------------------------------------------------------------


def split_ceiling(cost: CostModel, quantum: int, kv_tokens: int, clients: int) -> int:
    """``Q + w_e ((n - 1) (M - 1) / n)``, rounded down to whole tokens: the largest counter where ``n`` clients split.

    A client that has just been refilled may have paid for all that is cached, ``M - 1`` tokens beside the one that is
    about to be generated; and of what it has paid for, it gets back at most the parts of ``n - 1`` others. Under
    optimistic memory, where nothing is reserved, ``kv_tokens`` is ``M + 1``.
    """
    return deficit_ceiling(quantum) + cost.extend((clients - 1) * (kv_tokens - 1) // clients)


def split_gap(ceiling: int, floor: int) -> int:
    """``2 (ceiling - floor)``: the gap of what two backlogged clients are charged, less what they get back."""
    return 2 * (ceiling - floor)


# -- E10: a quantum that changes ---------------------------------------------------------------------------------------


def changing_gap(most: int, floor: int) -> int:
    """``2 (Q_max - floor)``: the gap where each refill pays any one quantum up to ``most``, the same to all it pays.

    The largest quantum alone matters. ``floor`` is `dlpm.bounds.deficit_floor` with unit 1, unless ``w_e``, ``w_q`` and
    every quantum that is ever paid have a common divisor.
    """
    return service_gap(most, floor)


def shrunk_gap(most: int, later: int, floor: int) -> int:
    """``(Q_max - floor) + (Q_late - floor)``: how far any client gets ahead of a backlogged one, once quanta shrank.

    No refill pays more than ``later`` any more, and one has paid the backlogged client. Another may still have credit
    from when refills paid ``most``. If it was paid since, too, this is `dlpm.bounds.service_gap` of ``later``.
    """
    return deficit_ceiling(most) - floor + deficit_ceiling(later) - floor


def individual_gap(least: int, most: int, floor: int, refills: int) -> int:
    """The gap of two backlogged clients after ``refills`` if a refill may pay them different quanta of the range.

    Each refill may widen it by ``most - least``: it has no bound of its own.
    """
    return changing_gap(most, floor) + refills * (most - least)


# -- E4: preemption by swap --------------------------------------------------------------------------------------------


def requests_that_come_back(
    kv_tokens: int, max_running: int | None = None, *, cpu_tokens: int = 0, resume_first: bool = True
) -> int:
    """How many requests can go on after their client's last admission, without asking the gate again.

    Where nobody is admitted while a request is swapped out, they are those of one batch: at most ``B``, and ``M - 1``,
    as each holds an output token after its first step, and all share one prompt token. Otherwise there may be as many
    more in CPU memory, ``cpu_tokens`` = ``C``, as can hold a token of their own there: ``C - 1``.
    """
    batch = kv_tokens - 1 if max_running is None else min(max_running, kv_tokens - 1)
    return batch if resume_first else batch + max(cpu_tokens - 1, 0)


def outputs_of_one(kv_tokens: int, max_output: int | None = None) -> int:
    """The most output tokens that one request can yield: up to its limit, and to what fits beside a prompt token."""
    return kv_tokens - 1 if max_output is None else min(max_output, kv_tokens - 1)


def outputs_with_swap(requests: int, each: int) -> int:
    """The most output tokens that one client's requests yield after its last admission, with preemption by swap.

    ``requests`` are `requests_that_come_back`, and ``each`` may yield all its output (`outputs_of_one`): swapped out,
    it waits for the others to end and keeps what it has. In place of `dlpm.bounds.outputs_after_admission`, which holds
    where there is no CPU memory.
    """
    return requests * each
