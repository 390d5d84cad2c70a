"""The theorems about extensions, in the order in which the table shows them."""

from __future__ import annotations

from dlpm_proofs.theorem import Theorem
from dlpm_proofs.theorems.e1_weights import E1, E1_ANY
from dlpm_proofs.theorems.e2_chunked_prefill import CHUNKED_PREFILL
from dlpm_proofs.theorems.e3_recompute import RECOMPUTATION
from dlpm_proofs.theorems.e4_once import E4_ONCE
from dlpm_proofs.theorems.e4_safety import E4_BLOCKS, E4_SAFE
from dlpm_proofs.theorems.e4_swap import E4, E4_BESIDE, E4_HARMONIC
from dlpm_proofs.theorems.e5_speculation import E5, E5_SURPLUS
from dlpm_proofs.theorems.e6_churn import E6, E6_NAIVE
from dlpm_proofs.theorems.e7_shared_prefixes import SHARED_PREFIXES
from dlpm_proofs.theorems.e8_late import E8, E8_EXTENDS
from dlpm_proofs.theorems.e10_changing import CHANGING_QUANTUM

EXTENSIONS: tuple[Theorem, ...] = (
    *(E1, E1_ANY),
    *CHUNKED_PREFILL,
    *RECOMPUTATION,
    *(E4_SAFE, E4_BLOCKS, E4_ONCE),
    *(E4, E4_BESIDE, E4_HARMONIC),
    *(E5, E5_SURPLUS),
    *(E6_NAIVE, E6),
    *SHARED_PREFIXES,
    *(E8, E8_EXTENDS),
    *CHANGING_QUANTUM,
)
