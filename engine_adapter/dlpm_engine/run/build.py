"""From a choice of policy to the policy, and to the header of its event log."""

from __future__ import annotations

from dlpm.batch import WorkerConfig
from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.events import Header, Limits
from dlpm.ledger import Ledger, Quanta
from dlpm.memory import Optimistic
from dlpm.policies.base import Policy
from dlpm.policies.dlpm import DLPM
from dlpm.policies.dlpm_literal import DLPMLiteral
from dlpm.policies.fcfs import FCFS
from dlpm.policies.lpm import LPM
from dlpm.policies.preble import PrebleLevels
from dlpm.policies.vtc import VTC
from dlpm.request import Workload
from dlpm_engine.run.options import PolicyChoice

ENGINE = "dlpm-reference 1"
"""Who wrote a log. The number goes up when the reference schedules the same workload differently."""


def make_policy(choice: PolicyChoice, cost: CostModel) -> Policy:
    """A fresh policy, with counters at their start.

    Raises:
        InputError: there is no policy of that name.
    """
    if choice.name == FCFS.name:
        return FCFS()
    if choice.name == LPM.name:
        return LPM()
    if choice.name == VTC.name:
        return VTC(cost)
    if choice.name == PrebleLevels.name:
        return PrebleLevels()
    if choice.quantum is not None and choice.name in (DLPM.name, DLPMLiteral.name):
        ledger = Ledger(Quanta(choice.quantum), cost)
        return DLPM(ledger) if choice.name == DLPM.name else DLPMLiteral(ledger)
    raise InputError(f"found no policy {choice.label!r}", field="--policy")


def log_header(choice: PolicyChoice, config: WorkerConfig, cost: CostModel, workload: Workload, full: bool) -> Header:
    """The first line of a run's event log. O(requests).

    The limits on input and output are the largest of the workload: what an operator would have declared.
    """
    return Header(
        engine=ENGINE,
        policy=choice.name,
        extend_weight=cost.extend_weight,
        output_weight=cost.output_weight,
        default_quantum=choice.quantum,
        limits=Limits(
            max_input=max(request.input_tokens for request in workload.requests),
            max_output=max(request.max_output for request in workload.requests),
            kv_tokens=config.kv_tokens,
            max_running=config.max_running,
        ),
        memory=config.memory.kind,
        visibility=config.visibility,
        block_size=config.block_size,
        watermark=config.memory.watermark if isinstance(config.memory, Optimistic) else None,
        level="full" if full else "decisions",
    )
