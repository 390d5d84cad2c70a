"""Faults planted in the tensor path on purpose: the tester must find every one of them.

Each is a mistake that a scheduler could really contain, in as few lines as it takes to make it.
"""

from __future__ import annotations

from collections.abc import Mapping

from dlpm_engine.differential.fault import Fault
from dlpm_engine.differential.faults_cache import CACHE_FAULTS
from dlpm_engine.differential.faults_ledger import LEDGER_FAULTS
from dlpm_engine.differential.faults_queue import QUEUE_FAULTS

FAULTS: Mapping[str, Fault] = {fault.name: fault for fault in (*LEDGER_FAULTS, *QUEUE_FAULTS, *CACHE_FAULTS)}
"""All planted faults, by name."""
