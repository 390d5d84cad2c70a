"""Every implementation behind the adapter does what the naive model does, and writes logs that the checker accepts."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, assume, given, settings

from dlpm import events as ev
from dlpm.errors import InputError
from dlpm.event_codec import encode_event, encode_header
from dlpm_engine.adapter import EngineAdapter, EngineConfig
from tests.engine_adapter.conformance.logs import Line, Plan, check, header_of, plans, run_rules
from tests.reference.lockstep import MEMORIES, plain
from tests.reference.naive_worker import NaiveWorker, PlainEvent, Rules

Engines = Callable[[], EngineAdapter]

# The fixture makes a fresh engine for every example.
few = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def configured(engine: EngineAdapter, rules: Rules) -> EngineAdapter:
    """An engine under the rules of a naive worker, without the log's details."""
    config = EngineConfig(
        quantum=rules.quantum,
        quanta=rules.quanta,
        extend_weight=rules.extend_weight,
        output_weight=rules.output_weight,
        kv_tokens=rules.kv_tokens,
        block_size=rules.block_size,
        max_running=rules.max_running,
        memory=rules.memory,
        watermark=rules.watermark,
        visibility=rules.visibility,
    )
    engine.configure(config, full_log=False)
    return engine


def decisions(events: list[PlainEvent]) -> list[PlainEvent]:
    """What an adapter tells of them: who arrives is the tester's business, free memory is part of a full log."""
    return [event[:5] if event[0] == "admit" else event for event in events if event[0] != "arrive"]


@few
@given(rules=run_rules(["dlpm"], MEMORIES), plan=plans())
def test_it_does_what_the_naive_model_does_in_every_step(implementation: Engines, rules: Rules, plan: Plan) -> None:
    engine = configured(implementation(), rules)
    naive = NaiveWorker(rules)
    evicted = 0

    def step() -> None:
        nonlocal evicted
        if naive.begin_step():
            naive.end_step()
        events = engine.step()
        evicted += sum(event.tokens or 0 for event in events if isinstance(event, ev.Evict))
        assert evicted == naive.evicted
        plain_events = [plain(event) for event in events if not isinstance(event, ev.Evict | ev.Order)]
        assert decisions(plain_events) == decisions(naive.events)
        naive.events.clear()
        state = engine.snapshot()
        assert state.deficits == naive.counters
        assert state.queue == tuple(waiter.request.id for waiter in sorted(naive.queue, key=lambda each: each.rank))
        assert state.running == tuple(runner.waiter.request.id for runner in naive.running)
        assert (state.free_tokens, state.cached_tokens) == (naive.free_tokens(), naive.total_cached())

    for place, item in enumerate(plan):
        if isinstance(item, int):
            for _ in range(item):
                step()
            continue
        request = item.request(f"r{place}", rules.block_size)
        try:
            engine.submit(request)
            taken = True
        except InputError:
            taken = False
        assert taken == naive.submit(request)
    while naive.queue or naive.running:
        step()
    engine.close()


@few
@given(rules=run_rules(["dlpm"], ["reserving"]), plan=plans())
def test_the_log_of_a_run_holds(implementation: Engines, rules: Rules, plan: Plan) -> None:
    engine = configured(implementation(), rules)
    log: list[Line] = [encode_header(header_of(rules, full=False))]
    steps = 0

    def step() -> bool:
        nonlocal steps
        steps += 1
        log.extend(encode_event(event) for event in engine.step() if not isinstance(event, ev.Order))
        state = engine.snapshot()
        return bool(state.queue or state.running)

    for place, item in enumerate(plan):
        if isinstance(item, int):
            for _ in range(item):
                step()
            continue
        request = item.request(f"r{place}", rules.block_size)
        try:
            engine.submit(request)
        except InputError:
            continue
        arrival = ev.Arrive(
            step=steps + 1,
            request=request.id,
            client=request.client,
            input=request.input_tokens,
            max_output=request.max_output,
        )
        log.append(encode_event(arrival))
    while step():
        pass
    engine.close()
    assume(len(log) > 1)
    report = check(log)
    assert report.violations == ()
    assert report.events == len(log) - 1
