"""Every theorem, in the order in which the table shows them."""

from __future__ import annotations

from dlpm_proofs.theorem import Theorem
from dlpm_proofs.theorems.engine_together import OPTIMISTIC_ENGINE, RESERVING_ENGINE
from dlpm_proofs.theorems.extensions import EXTENSIONS
from dlpm_proofs.theorems.m1_memory import M1
from dlpm_proofs.theorems.m2_optimistic_memory import M2
from dlpm_proofs.theorems.m3_chunked_memory import M3
from dlpm_proofs.theorems.many_workers import MANY_WORKERS
from dlpm_proofs.theorems.n1_many_clients import N1
from dlpm_proofs.theorems.t1_ceiling import T1
from dlpm_proofs.theorems.t2_floor import T2_LIMITED, T2_RESERVING, T2_TIGHT
from dlpm_proofs.theorems.t2_optimistic import T2_HARMONIC, T2_OPTIMISTIC
from dlpm_proofs.theorems.t2_unit import T2_UNIT
from dlpm_proofs.theorems.t3_t4_gap import T3, T4
from dlpm_proofs.theorems.t3_t4_optimistic import T3_HARMONIC, T3_OPTIMISTIC, T4_HARMONIC, T4_OPTIMISTIC
from dlpm_proofs.theorems.t5_latency import T5, T5_PRINTED
from dlpm_proofs.theorems.t6_admission import T6, T6_PRINTED, T6_REJECTS
from dlpm_proofs.theorems.t7_starvation import T7, T7_LPM, T7_REQUEST
from dlpm_proofs.theorems.t8_vtc import T8, T8_OPTIMISTIC, T8_WEIGHTS

THEOREMS: tuple[Theorem, ...] = (
    *(M1, M2, M3, N1),
    *(T1, T2_RESERVING, T2_TIGHT, T2_LIMITED, T2_UNIT, T2_OPTIMISTIC, T2_HARMONIC),
    *(T3, T3_OPTIMISTIC, T3_HARMONIC, T4, T4_OPTIMISTIC, T4_HARMONIC),
    *(T5_PRINTED, T5),
    *(T6_PRINTED, T6_REJECTS, T6),
    *(T7, T7_LPM, T7_REQUEST),
    *(T8, T8_WEIGHTS, T8_OPTIMISTIC),
    *MANY_WORKERS,
    *EXTENSIONS,
    *(RESERVING_ENGINE, OPTIMISTIC_ENGINE),
)
