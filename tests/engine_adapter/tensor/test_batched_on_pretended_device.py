"""The batched scheduler on a pretended CUDA device: its decisions, and exactly when the host waits for the device."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")

from dlpm.batch import AFTER_FORWARD, AT_ADMISSION
from dlpm_engine.adapter import EngineConfig
from dlpm_engine.differential.corpus import corpus
from dlpm_engine.differential.generate import generate
from dlpm_engine.differential.kinds import KINDS
from dlpm_engine.differential.report import report
from dlpm_engine.tensor.batched.scheduler import BatchedScheduler
from dlpm_engine.tensor.batched.view import View
from tests.engine_adapter.tensor.device_runs import (
    CUDA,
    LONELY,
    PLAIN,
    Together,
    check_waits,
    costs,
    lonely,
    reads,
    request,
    run_together,
)
from tests.engine_adapter.tensor.pretended_device import (
    Wait,
    pretended_device,
)


@pytest.fixture(scope="module")
def together() -> Together:
    """Small cases, without those that leave int64: such an instance goes on, and its reference does not."""
    cases = [case for name, case in corpus().items() if len(case.requests) < 100 and "out of range" not in name]
    cases += [case for case in (generate(9, number, 10) for number in range(40)) if "huge weights" not in case.name]
    return run_together(cases)


def test_decisions_on_the_device_are_those_of_the_reference(together: Together) -> None:
    for case, outcome in zip(together.cases, together.outcomes, strict=True):
        assert outcome.divergence is None, report(case, outcome.divergence, "tensor-batched")
        assert not outcome.unfinished
        assert not outcome.out_of_range
    assert sum(outcome.tally.decisions() for outcome in together.outcomes) > 2000
    reached = set().union(*(watch.reached for watch in together.watches))
    assert KINDS.keys() - reached <= {
        "batch full",
        "left int64",
        "match shrank in the step",
        "several preemptions in a step",
    }


def test_a_step_waits_where_a_loop_of_its_slowest_instance_goes_on_and_nowhere_else(together: Together) -> None:
    check_waits(together)


@pytest.mark.parametrize(
    "name",
    [
        "a refill in the middle of a pass goes on from where it fired",
        "preempted in the step of its admission, its blocks discarded",
        "families that share a prefix, visible after the forward",
    ],
)
def test_a_step_of_one_instance_waits_where_its_loops_go_on_and_nowhere_else(name: str) -> None:
    check_waits(run_together([corpus()[name]]))


def test_many_instances_cost_the_device_no_more_operations_than_one() -> None:
    case = corpus()["credit of exactly zero is no credit"]
    alone, among = run_together([case]), run_together([case] * 5)
    assert sum(operations.total() for operations in alone.operations) > 0
    assert among.operations == alone.operations
    assert among.waits == alone.waits


def _operations_of_cuda() -> set[str]:
    """Those that a CUDA build of torch has a kernel for, or composes of others, by the table it is generated from."""
    pytest.importorskip("yaml")
    import torchgen  # type: ignore[import-untyped]
    from torchgen.gen import parse_native_yaml  # type: ignore[import-untyped]
    from torchgen.model import DispatchKey  # type: ignore[import-untyped]

    folder = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native"
    table = parse_native_yaml(str(folder / "native_functions.yaml"), str(folder / "tags.yaml"))
    keys = (
        DispatchKey.CUDA,
        DispatchKey.CompositeExplicitAutograd,
        DispatchKey.CompositeExplicitAutogradNonFunctional,
    )
    kernels = {name for key in keys for name in table.backend_indices[key].index}
    functions = (function.func.name for function in table.native_functions)
    delegates = {each.func.name: each.structured_delegate for each in table.native_functions}
    there = (name for name in functions if name in kernels or delegates[name] in kernels)
    return {f"{name.name}.{name.overload_name or 'default'}" for name in there}


def test_torch_has_a_cuda_kernel_for_every_operation(together: Together) -> None:
    known = _operations_of_cuda()
    assert {"add.Tensor", "sort.stable", "index.Tensor"} <= known
    assert not {"to_mkldnn.default", "mkldnn_linear.default"} & known
    launched = sum(together.operations, Counter())
    assert len(launched) > 40
    assert launched.keys() <= known


@pytest.mark.parametrize("visibility", [AT_ADMISSION, AFTER_FORWARD])
def test_the_steps_of_a_lonely_request_cost_what_they_do(visibility: str) -> None:
    with pretended_device() as account:
        assert lonely(account, EngineConfig(quantum=10, kv_tokens=100, visibility=visibility)) == LONELY


def test_a_step_in_which_nothing_can_happen_costs_the_same_whatever_waits() -> None:
    """The one that runs fills the memory; the others have credit and do not fit: one pass, which only ends."""
    for waiting in (1, 12):
        with pretended_device() as account:
            scheduler = BatchedScheduler([EngineConfig(quantum=1000, kv_tokens=60)], CUDA)
            scheduler.submit([request("large", "A", [0] * 10, 50)])
            scheduler.step()
            scheduler.submit([request(str(number), "AB"[number % 2], [number] * 3) for number in range(waiting)])
            scheduler.step()
            since = len(account.waits)
            scheduler.step()
            assert costs(account, since) == reads(_admission_phase=1)


def test_a_submit_copies_to_the_device_and_reads_nothing() -> None:
    with pretended_device() as account:
        scheduler = BatchedScheduler([PLAIN] * 2, CUDA)
        assert account.kinds() == Counter({Wait.COPY_IN: 8})  # The parameters.
        since = len(account.waits)
        scheduler.submit([request("first", "A", [1, 2, 3]), request("second", "B", [1, 4])])
        # Owners, slots, facts, paths, sequences, new prefixes; and what the scheduler itself keeps.
        assert account.kinds(since) == Counter({Wait.COPY_IN: 7})
        since = len(account.waits)
        scheduler.submit([request("again", "C", [1, 2])])
        assert account.kinds(since) == Counter({Wait.COPY_IN: 6})  # No prefix is new.


def test_a_view_copies_each_tensor_once_and_then_asks_no_more() -> None:
    with pretended_device() as account:
        scheduler = BatchedScheduler([PLAIN], CUDA)
        scheduler.submit([request("only", "A", [1, 1, 1])])
        scheduler.step()
        since = len(account.waits)
        view = View(scheduler)
        assert view.state(0).running == ("only",)
        assert len(view.events(0, 1)) == 3
        # Of the tape how many, their fields, deficits, whom they concern; and seven tensors of the state.
        assert costs(account, since) == Counter({(Wait.COPY_BACK, "read"): 4, (Wait.COPY_BACK, "__init__"): 7})
