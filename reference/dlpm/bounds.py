"""Every fairness bound as a plain function of the parameters: the one place where a bound is written.

The proofs evaluate these functions on symbolic integers, conformance enforces them, reports draw them. Parameters
carry the paper's meaning [DLPM Table 1]: ``max_input`` is ``L_input``, ``max_output`` is ``L_output``, ``kv_tokens``
is ``M`` (all in tokens), ``max_running`` is the largest running batch ``B`` in requests, ``quantum`` is ``Q^u``
(weighted tokens). ``None`` stands for a limit that is not set. Results are in weighted tokens unless said otherwise.
"""

from __future__ import annotations

from dlpm.cost import CostModel

# -- as printed --------------------------------------------------------------------------------------------------------


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


# -- as they are, under reserving memory -------------------------------------------------------------------------------


def tight_unit(
    cost: CostModel,
    max_input: int,
    kv_tokens: int,
    *,
    max_output: int | None = None,
    max_running: int | None = None,
) -> int:
    """``U*``: the most that one client can be charged after its counter was last seen positive.

    That is ``w_e * e`` for the last request let in, and ``w_q`` for each output token then reserved. Extend tokens
    and reserved outputs share ``M``: ``w_e * e + w_q * (M - e)`` is largest at an end of ``1 <= e <= L_input``. A limit
    on outputs caps what is reserved: at ``L_output`` for a request alone, at ``B * L_output`` for a batch of ``B``,
    whose other requests hold at least one prompt token (they may share it).
    """
    longest = min(max_input, kv_tokens - 1)
    alone = _costliest(cost, longest, kv_tokens, max_output)
    if max_running == 1:
        return alone
    batch_outputs = None if max_output is None or max_running is None else max_running * max_output
    return max(alone, _costliest(cost, longest, kv_tokens - 1, batch_outputs))


def _costliest(cost: CostModel, longest: int, room: int, most_reserved: int | None) -> int:
    """The largest ``w_e * e + w_q * min(most_reserved, room - e)`` over ``1 <= e <= longest``.

    As ``e`` grows, it rises until ``room`` squeezes the reservation; from that bend on its slope is ``w_e - w_q``. So
    it is largest at the bend or at an end.
    """
    if most_reserved is None:
        most_reserved = room - 1
    bend = min(max(room - most_reserved, 1), longest)
    at_bend = cost.extend(bend) + cost.output(min(most_reserved, room - bend))
    at_end = cost.extend(longest) + cost.output(min(most_reserved, room - longest))
    return max(at_bend, at_end)


def deficit_floor(tight: int, unit: int = 1) -> int:
    """``q_i >= unit - U*``: the lowest value of a deficit counter, ``tight`` being its ``U*``.

    A client is let in with a counter of at least ``unit``, which is 1 or any common divisor of ``w_e``, ``w_q`` and the
    client's quantum: all its counters are multiples of that.
    """
    return unit - tight


def service_gap(quantum: int, floor: int) -> int:
    """``2 (Q^u - floor)``: what [DLPM Thm 4.1, 4.2] bound, for counters that stay between ``floor`` and ``quantum``."""
    return 2 * (deficit_ceiling(quantum) - floor)


# -- as they are, under optimistic memory ------------------------------------------------------------------------------


def requests_that_fit(kv_tokens: int, outputs_each: int) -> int:
    """How many running requests can hold ``outputs_each`` >= 1 output tokens each, sharing one prompt token."""
    return (kv_tokens - 1) // outputs_each


def outputs_after_admission(kv_tokens: int, max_output: int | None = None, max_running: int | None = None) -> int:
    """The most output tokens that one client's requests yield after its last admission, without reservations.

    After ``s`` more forward steps each of its requests still running holds ``s`` output tokens or more: at most
    ``(M - 1) // s`` of them fit, and at most ``B`` run. Summed over ``s`` up to ``L_output``; without limits about
    ``M ln M``, because memory that a finished request frees is used again. O(sqrt(M)).
    """
    room = kv_tokens - 1
    last = room if max_output is None else min(max_output, room)
    total = 0
    step = 1
    while step <= last:
        running = requests_that_fit(kv_tokens, step)
        until = min(room // running, last)
        total += (until - step + 1) * (running if max_running is None else min(running, max_running))
        step = until + 1
    return total


def longest_recomputation(max_input: int, kv_tokens: int, max_output: int | None = None) -> int:
    """The most extend tokens of one admission: a preempted request recomputes its input and what it had generated."""
    return kv_tokens - 1 if max_output is None else min(max_input + max_output - 1, kv_tokens - 1)


def optimistic_unit(cost: CostModel, recomputation: int, outputs: int) -> int:
    """``U*`` under optimistic memory, in place of `tight_unit`.

    ``recomputation`` is `longest_recomputation` and ``outputs`` is `outputs_after_admission` of the limits. The last
    request let in may be preempted at once: then what it computed is charged, and takes no memory from the outputs.
    """
    return cost.extend(recomputation) + cost.output(outputs)


# -- how long a client waits -------------------------------------------------------------------------------------------


def service_while_waiting(quantum: int, floor: int, deficit: int, clients: int) -> int:
    """The most service that all others receive while a client without running requests waits [DLPM Thm A.2].

    ``deficit`` is the client's counter when its request arrives (0 for a new client), ``clients`` how many there are.
    Each other spends at most ``Q^u - floor``, and is paid at most what lifts the waiting client to its quantum.
    """
    return (clients - 1) * (deficit_ceiling(quantum) - floor + deficit_ceiling(quantum) - deficit)


def steps_while_waiting(cost: CostModel, service: int) -> int:
    """Forward steps in which others can receive ``service``: each step yields at least one output token."""
    return service // cost.output(1)


# -- the virtual token counter -----------------------------------------------------------------------------------------


def vtc_unit_as_printed(cost: CostModel, max_input: int, kv_tokens: int) -> int:
    """``max(w_p L_input, w_q M)``: how far apart queued counters can be, as printed [VTC Thm 4.4, its lemma].

    ``cost.extend_weight`` is the weight ``w_p`` of an input token. It holds where ``w_p <= w_q``; `tight_unit` holds
    always: VTC charges whole inputs, and a whole prompt occupies memory beside all that is reserved.
    """
    return max(cost.extend(max_input), cost.output(kv_tokens))


def vtc_gap_as_printed(cost: CostModel, max_input: int, kv_tokens: int) -> int:
    """``2 max(w_p L_input, w_q M)``: service gap of two backlogged clients under VTC [VTC Thm 4.4]."""
    return 2 * vtc_unit_as_printed(cost, max_input, kv_tokens)


def vtc_gap(tight: int) -> int:
    """``2 U*``: the same gap, ``tight`` being the `tight_unit` of a memory that ``M`` alone limits."""
    return 2 * tight
