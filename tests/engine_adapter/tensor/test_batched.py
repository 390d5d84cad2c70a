"""The batched scheduler decides in every instance what the reference decides in it alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

torch = pytest.importorskip("torch")

from dlpm.errors import InputError  # noqa: E402
from dlpm.request import Request  # noqa: E402
from dlpm_engine.adapter import EngineConfig  # noqa: E402
from dlpm_engine.differential.case import Case  # noqa: E402
from dlpm_engine.differential.corpus import corpus  # noqa: E402
from dlpm_engine.differential.coverage import Coverage  # noqa: E402
from dlpm_engine.differential.engines import Batched  # noqa: E402
from dlpm_engine.differential.generate import generate  # noqa: E402
from dlpm_engine.differential.hunt import Settings, run_case  # noqa: E402
from dlpm_engine.differential.kinds import KINDS  # noqa: E402
from dlpm_engine.differential.report import report  # noqa: E402
from dlpm_engine.differential.together import compare_together  # noqa: E402
from dlpm_engine.tensor.batched.engine import BatchedEngine, torch_device  # noqa: E402
from dlpm_engine.tensor.batched.scheduler import BatchedScheduler  # noqa: E402
from dlpm_engine.tensor.batched.view import View  # noqa: E402
from tests.engine_adapter.cases import cases  # noqa: E402

BATCHED = Settings("tensor-batched", case_seconds=60)
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
    ),
]


def request(name: str, client: str, prompt: tuple[int, ...], output: int = 1) -> Request:
    """A request with a token prompt."""
    return Request(name, client, 0, len(prompt), output, output, prompt=prompt)


@settings(max_examples=25)
@given(case=cases())
def test_one_instance_decides_what_the_reference_decides(case: Case) -> None:
    outcome = run_case(case, BATCHED)
    assert outcome.divergence is None, report(case, outcome.divergence, "tensor-batched")


@pytest.mark.parametrize("device", DEVICES)
def test_many_instances_decide_what_as_many_references_decide(device: str) -> None:
    together = [case for case in corpus().values() if len(case.requests) < 100]
    together += [generate(9, number, 10) for number in range(120)]
    coverages = [Coverage(case.config, case.requests) for case in together]
    outcomes = compare_together(together, Batched(device, is_kernel=False), BATCHED, coverages)
    for case, outcome in zip(together, outcomes, strict=True):
        assert outcome.divergence is None, report(case, outcome.divergence, "tensor-batched")
        assert not outcome.unfinished
    assert sum(outcome.tally.decisions() for outcome in outcomes) > 2000
    reached = set().union(*(coverage.reached for coverage in coverages))
    assert KINDS.keys() - reached <= {"batch full", "match shrank in the step", "several preemptions in a step"}


def test_an_instance_is_not_disturbed_by_its_neighbours() -> None:
    """The same case beside others, and alone, gives the same events."""
    case = corpus()["preemption of the youngest, again and again"]
    others = [corpus()[name] for name in ("debt of many quanta takes many refills", "replies fill the cache")]
    alone = BatchedScheduler([case.config], torch.device("cpu"))
    among = BatchedScheduler([others[0].config, case.config, others[1].config], torch.device("cpu"))
    alone.submit([(0, each) for each in case.requests])
    among.submit([(1, each) for each in case.requests])
    among.submit([(0, each) for each in others[0].requests] + [(2, each) for each in others[1].requests])
    for number in range(60):
        alone.step()
        among.step()
        assert View(alone).events(0, number) == View(among).events(1, number)
        assert View(alone).state(0) == View(among).state(1)


def test_nothing_joins_if_one_of_several_requests_is_refused() -> None:
    scheduler = BatchedScheduler([EngineConfig(quantum=1, kv_tokens=5)], torch.device("cpu"))
    with pytest.raises(InputError, match="huge"):
        scheduler.submit([(0, request("fits", "A", (1,))), (0, request("huge", "A", (1,) * 6))])
    scheduler.step()
    assert View(scheduler).state(0).queue == ()
    assert View(scheduler).events(0, 1) == ()


@pytest.mark.parametrize("config", [{"quantum": 2**63}, {"quanta": {"A": 2**63}}, {"kv_tokens": 2**62}])
def test_parameters_beyond_int64_are_refused(config: dict[str, int]) -> None:
    with pytest.raises(InputError):
        BatchedScheduler([EngineConfig(**{"quantum": 1, **config})], torch.device("cpu"))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["tpu", "meta", "cuda" if not torch.cuda.is_available() else "nowhere"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="--device"):
        torch_device(name)
    with pytest.raises(InputError, match="--device"):
        BatchedEngine(name)
