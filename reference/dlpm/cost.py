"""What service costs: the prefix-aware cost function of [DLPM §3], in integers."""

from __future__ import annotations

from dataclasses import dataclass

from dlpm.errors import InputError


@dataclass(frozen=True, slots=True)
class CostModel:
    """``W = w_e * n_e + w_q * n_q`` [DLPM §3, Table 1]: service in weighted tokens.

    ``extend_weight`` is the paper's ``w_e`` (per processed extend token) and ``output_weight`` its ``w_q``
    (per generated output token); the paper's evaluation uses 1 and 2. Both are integers > 0.

    Raises:
        InputError: if a weight is not a positive integer.
    """

    extend_weight: int = 1
    output_weight: int = 2

    def __post_init__(self) -> None:
        """Refuse weights that no theorem of the paper covers."""
        for name, value in (("extend", self.extend_weight), ("output", self.output_weight)):
            if value <= 0:
                raise InputError(f"expected an integer > 0, found {value!r}", field=f"weights.{name}")

    def extend(self, tokens: int) -> int:
        """Service of computing ``tokens`` extend tokens: ``w_e * tokens`` [DLPM Alg. 1 l. 23]."""
        return self.extend_weight * tokens

    def output(self, tokens: int) -> int:
        """Service of generating ``tokens`` output tokens: ``w_q * tokens`` [DLPM Alg. 1 l. 26]."""
        return self.output_weight * tokens

    def service(self, extend_tokens: int, output_tokens: int) -> int:
        """Service of both together [DLPM §3, Measurement of Service]."""
        return self.extend(extend_tokens) + self.output(output_tokens)
