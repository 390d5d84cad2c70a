"""Faults to plant in the real worker, each of which the lockstep comparison must find."""

from __future__ import annotations

from tests.reference.planted_faults import cache, ledger, memory_and_batch, policies

FAULTS = (*ledger.FAULTS, *policies.FAULTS, *cache.FAULTS, *memory_and_batch.FAULTS)
