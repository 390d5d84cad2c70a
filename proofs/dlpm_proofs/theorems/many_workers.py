"""The theorems about many workers, in the order in which the table shows them."""

from __future__ import annotations

from dlpm_proofs.theorem import Theorem
from dlpm_proofs.theorems.e9_shared_ledger import E9_ANY, E9_COUNTERS, E9_EARLY, E9_GAP
from dlpm_proofs.theorems.t9_t11_clusters import (
    A3,
    T9,
    T9_SOMEWHERE,
    T10,
    T10_SOMEWHERE,
    T11_INFINITE,
    T11_ROUND_ROBIN,
)
from dlpm_proofs.theorems.t10_latency import T10_LATENCY, T10_LATENCY_PRINTED
from dlpm_proofs.theorems.t12_router_credit import T12_CEILING, T12_FLOOR, T12_PRINTED

MANY_WORKERS: tuple[Theorem, ...] = (
    A3,
    T9,
    T9_SOMEWHERE,
    T10,
    T10_SOMEWHERE,
    T10_LATENCY_PRINTED,
    T10_LATENCY,
    T11_INFINITE,
    T11_ROUND_ROBIN,
    T12_CEILING,
    T12_PRINTED,
    T12_FLOOR,
    E9_COUNTERS,
    E9_GAP,
    E9_ANY,
    E9_EARLY,
)
