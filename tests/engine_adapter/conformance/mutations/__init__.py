"""Named mutations of a log: each turns a sound log into one with a single fault, and names the rule that it breaks.

A mutation yields, for every place of a log where it can be applied, the changed log and the line (from 1) at which the
checker must find the fault.
"""

from __future__ import annotations

from tests.engine_adapter.conformance.mutations import ledger, memory_and_time, order, requests, vtc

MUTATIONS = (*ledger.mutation, *order.mutation, *requests.mutation, *memory_and_time.mutation, *vtc.mutation)
