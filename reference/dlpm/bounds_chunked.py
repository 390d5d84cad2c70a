"""The bounds of chunked prefill (extension E2). Parameters mean what they mean in `dlpm.bounds`; results likewise."""

from __future__ import annotations

from dlpm.bounds import tight_unit
from dlpm.cost import CostModel


def chunk_gated_unit(
    cost: CostModel,
    max_input: int,
    chunk: int,
    kv_tokens: int,
    *,
    max_output: int | None = None,
    max_running: int | None = None,
) -> int:
    """``U*`` with the chunk in place of ``L_input``: where no chunk is computed for a client without credit.

    ``chunk`` is the largest chunk in tokens. What the last chunk may cost is all that changes: outputs are decoded
    whatever the counter, as ever. Where the gate is asked once a request `dlpm.bounds.tight_unit` itself holds.
    """
    return tight_unit(cost, min(max_input, chunk), kv_tokens, max_output=max_output, max_running=max_running)


def extends_of_several(max_input: int, budget: int, most: int) -> int:
    """The most extend tokens that one client has yet to pay for when its request is let in, that request's included.

    That is where a step computes at most ``most`` tokens of one request: then up to ``(N - 1) // most`` others are
    half computed, each of which got its ``most`` tokens in this step already. ``budget`` is ``N``, tokens a step.
    """
    others = (budget - 1) // most
    return max_input + others * max(0, max_input - most)
