"""The rules of the algorithm, held by every implementation behind the adapter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings

from dlpm.errors import InputError
from dlpm.events import Admit, Finish, Order, Output, Preempt, Refill
from dlpm.request import Request
from dlpm_engine.adapter import OPTIMISTIC, RESERVING, EngineAdapter, EngineConfig
from dlpm_engine.differential.case import Case
from tests.engine_adapter.cases import cases, steps

Engines = Callable[[], EngineAdapter]

# The fixture makes a fresh engine for every example.
few = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def request(name: str, client: str, prompt: list[int], output: int = 1, limit: int | None = None) -> Request:
    """A request with a token prompt."""
    return Request(name, client, 0, len(prompt), output, output if limit is None else limit, prompt=tuple(prompt))


def started(engine: EngineAdapter, config: EngineConfig, *requests: Request) -> EngineAdapter:
    """An engine with requests in its queue."""
    engine.configure(config, full_log=True)
    for each in requests:
        engine.submit(each)
    return engine


def admitted(engine: EngineAdapter) -> list[Admit]:
    """The admissions of the next step."""
    return [event for event in engine.step() if isinstance(event, Admit)]


@few
@given(case=cases())
def test_a_gated_client_is_never_admitted_and_pays_for_what_it_computes(implementation: Engines, case: Case) -> None:
    """[DLPM Alg. 1 ll. 21, 23, 26]"""
    client = {each.id: each.client for each in case.requests}
    deficits = Counter[str]()
    for step in steps(case, implementation()):
        for event in step.events:
            if isinstance(event, Refill):
                for name, value in event.deficits.items():
                    assert deficits[name] <= 0
                    deficits[name] += case.config.quanta.get(name, case.config.quantum)
                    assert value == deficits[name]
            elif isinstance(event, Admit):
                assert deficits[client[event.request]] > 0
                deficits[client[event.request]] -= case.config.extend_weight * event.extend
                assert event.deficit == deficits[client[event.request]]
            elif isinstance(event, Output):
                for name, tokens in event.tokens.items():
                    deficits[client[name]] -= case.config.output_weight * tokens
                assert event.deficits == {name: deficits[name] for name in event.deficits}
        assert step.after.deficits == {name: deficits[name] for name in step.after.deficits}


@few
@given(case=cases())
def test_a_refill_fires_only_when_no_queued_client_has_credit(implementation: Engines, case: Case) -> None:
    """[DLPM Alg. 1 ll. 3-8]"""
    client = {each.id: each.client for each in case.requests}
    for step in steps(case, implementation()):
        deficits = dict(step.before.deficits)
        admissions = [event.request for event in step.events if isinstance(event, Admit)]
        preempted = {event.request for event in step.events if isinstance(event, Preempt)}
        queued = Counter(client[name] for name in (*admissions, *(set(step.after.queue) - preempted)))
        for event in step.events:
            if isinstance(event, Refill):
                assert all(deficits.get(name, 0) <= 0 for name, waiting in queued.items() if waiting)
                assert queued.total() > 0
                deficits.update(event.deficits)
            elif isinstance(event, Admit):
                queued[client[event.request]] -= 1
                assert event.deficit is not None
                deficits[client[event.request]] = event.deficit


@few
@given(case=cases())
def test_no_counter_ever_exceeds_its_quantum(implementation: Engines, case: Case) -> None:
    """[DLPM App. A.1 eq. 1]"""
    for step in steps(case, implementation()):
        for name, value in step.after.deficits.items():
            assert value <= case.config.quanta.get(name, case.config.quantum)


@few
@given(case=cases())
def test_the_order_is_by_match_and_then_by_arrival(implementation: Engines, case: Case) -> None:
    """[DLPM Alg. 1 l. 16]"""
    if implementation().name.startswith(("tensor-batched", "tensor-kernel")):
        pytest.skip("this implementation does not say in which order it considers the queue")
    for step in steps(case, implementation()):
        for event in step.events:
            if isinstance(event, Order):
                keys = zip((-matched for matched in event.matched), event.requests, strict=True)
                for (first, one), (second, other) in pairwise(keys):
                    assert first < second or (first == second and _comes_before(case, one, other))


def _comes_before(case: Case, one: str, other: str) -> bool:
    """Whether ``one`` may have been submitted before ``other``: with parents, the file does not say when."""
    requests = {each.id: each for each in case.requests}
    if requests[one].parents or requests[other].parents:
        return True
    names = list(requests)
    return (requests[one].arrival_us, names.index(one)) < (requests[other].arrival_us, names.index(other))


@few
@given(case=cases())
def test_memory_is_never_overdrawn_and_at_least_one_token_is_computed(implementation: Engines, case: Case) -> None:
    """[DLPM Alg. 1 l. 21], and §4.1: the last prompt token is always computed."""
    for step in steps(case, implementation()):
        assert 0 <= step.after.free_tokens <= case.config.kv_tokens
        assert step.after.cached_tokens is None or step.after.cached_tokens <= case.config.kv_tokens
        assert case.config.max_running is None or len(step.after.running) <= case.config.max_running
        assert all(event.extend >= 1 for event in step.events if isinstance(event, Admit))


@few
@given(case=cases())
def test_every_request_that_is_not_refused_gets_all_its_output(implementation: Engines, case: Case) -> None:
    """No starvation on finite workloads, and no token lost by a preemption."""
    tokens = Counter[str]()
    finished: list[str] = []
    for step in steps(case, implementation()):
        for event in step.events:
            if isinstance(event, Output):
                tokens.update(event.tokens)
            elif isinstance(event, Finish):
                finished.append(event.request)
    assert len(set(finished)) == len(finished)
    for each in case.requests:
        if each.id in finished:
            assert tokens[each.id] == each.output_tokens
    refused = {each.id for each in case.requests if each.input_tokens + each.max_output > case.config.kv_tokens}
    orphans = {each.id for each in case.requests if each.parents}
    assert {each.id for each in case.requests} - refused - orphans <= set(finished)


@few
@given(case=cases())
def test_reserving_memory_never_preempts(implementation: Engines, case: Case) -> None:
    """What is reserved is there when it is needed."""
    if case.config.memory == RESERVING:
        assert not any(isinstance(event, Preempt) for step in steps(case, implementation()) for event in step.events)


def test_the_longer_match_goes_first_and_a_tie_goes_to_the_earlier(implementation: Engines) -> None:
    """[DLPM Alg. 1 l. 16]"""
    config = EngineConfig(quantum=1000, max_running=1)
    engine = started(implementation(), config, request("warm", "A", [1, 2, 3, 4]))
    engine.step()
    for each in (request("cold", "B", [9]), request("two", "C", [1, 2, 8]), request("also", "D", [1, 2, 7])):
        engine.submit(each)
    assert [admitted(engine)[0].request for _ in range(3)] == ["two", "also", "cold"]


def test_what_does_not_fit_is_passed_over(implementation: Engines) -> None:
    """The fixpoint admits what stands behind a request that does not fit."""
    config = EngineConfig(quantum=1000, kv_tokens=10)
    engine = started(implementation(), config, request("first", "A", [1] * 5, 3))
    engine.step()
    engine.submit(request("large", "A", [2] * 4, 1))
    engine.submit(request("small", "A", [3], 1))
    assert [event.request for event in admitted(engine)] == ["small"]
    assert engine.snapshot().queue == ("large",)


def test_the_youngest_is_preempted_and_keeps_its_place_in_the_queue(implementation: Engines) -> None:
    """Optimistic memory: what was admitted last goes first."""
    config = EngineConfig(quantum=1000, kv_tokens=8, memory=OPTIMISTIC)
    engine = started(implementation(), config, request("old", "A", [1] * 3, 4), request("young", "A", [2] * 3, 4))
    engine.submit(request("later", "A", [3] * 4, 1))
    names = []
    for _ in range(20):
        names += [event.request for event in engine.step() if isinstance(event, Preempt)]
        if names:
            break
    assert names == ["young"]
    assert engine.snapshot().queue == ("young", "later")


def test_a_request_that_could_never_fit_is_refused(implementation: Engines) -> None:
    """Input and declared output together exceed the memory."""
    engine = started(implementation(), EngineConfig(quantum=1, kv_tokens=10))
    with pytest.raises(InputError, match="max_output"):
        engine.submit(request("huge", "A", [1] * 6, 1, limit=5))
    engine.submit(request("fits", "A", [1] * 6, 1, limit=4))
    assert engine.snapshot().queue == ("fits",)


def test_an_engine_must_be_configured_first(implementation: Engines) -> None:
    """There is nothing to step."""
    with pytest.raises(RuntimeError, match="configure"):
        implementation().step()
