"""The theorems about extensions, in the order in which the table shows them."""

from __future__ import annotations

from dlpm_proofs.theorem import Theorem
from dlpm_proofs.theorems.e1_weights import E1, E1_ANY

EXTENSIONS: tuple[Theorem, ...] = (E1, E1_ANY)
