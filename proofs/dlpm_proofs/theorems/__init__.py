"""Every theorem, in the order in which the table shows them."""

from __future__ import annotations

from dlpm_proofs.theorem import Theorem
from dlpm_proofs.theorems.m1_memory import M1
from dlpm_proofs.theorems.n1_many_clients import N1
from dlpm_proofs.theorems.t1_ceiling import T1
from dlpm_proofs.theorems.t2_floor import T2_LIMITED, T2_RESERVING, T2_TIGHT
from dlpm_proofs.theorems.t3_t4_gap import T3, T4

THEOREMS: tuple[Theorem, ...] = (M1, N1, T1, T2_RESERVING, T2_TIGHT, T2_LIMITED, T3, T4)
