"""The metrics of a run against their definitions, spelled out naively over every moment of the run."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlpm.errors import InputError
from dlpm.events import Admit, Arrive, Event, Finish, Output, Preempt, Refill
from dlpm.metrics import RunMetrics
from dlpm.summary import jain_index, latency_of, quantiles, ttft_of
from tests.reference.naive_metrics import COST, Moment, after_forward, largest_gap, moments, runs


def collect(events: list[Event], gap_clients: int | None = None) -> RunMetrics:
    metrics = RunMetrics(COST, gap_clients=gap_clients)
    for event in events:
        metrics.on_event(event)
    return metrics


# -- properties ------------------------------------------------------------------------------------------------------


@given(events=runs())
def test_service_is_what_the_tokens_cost(events: list[Event]) -> None:
    summary, last = collect(events).summary(), moments(events)[-1]
    for name, client in summary.clients.items():
        assert client.service == last.actual[name]
        assert client.perceived_service == last.perceived[name]
        assert client.service == COST.service(client.extend_tokens, client.output_tokens)
        assert client.perceived_service == COST.service(client.input_tokens, client.output_tokens)
    assert summary.service == sum(last.actual.values())
    assert summary.perceived_service == sum(last.perceived.values())


@given(events=runs())
def test_tokens_and_counts_are_those_of_the_events(events: list[Event]) -> None:
    summary = collect(events).summary()
    admissions = [event for event in events if isinstance(event, Admit)]
    outputs = [event for event in events if isinstance(event, Output)]
    assert summary.requests == sum(isinstance(event, Arrive) for event in events)
    assert summary.finished == sum(isinstance(event, Finish) for event in events)
    assert summary.preemptions == sum(isinstance(event, Preempt) for event in events)
    assert summary.refills == sum(isinstance(event, Refill) for event in events)
    assert summary.forward_steps == len(outputs)
    assert summary.output_tokens == sum(sum(event.tokens.values()) for event in outputs)
    assert summary.matched_tokens == sum(event.matched for event in admissions)
    assert summary.extend_tokens == sum(event.extend for event in admissions)
    first = {event.request for event in admissions}
    arrivals = [event for event in events if isinstance(event, Arrive)]
    assert summary.input_tokens == sum(event.input for event in arrivals if event.request in first)
    if admissions:
        assert summary.hit_rate == Fraction(
            sum(event.matched for event in admissions), sum(event.matched + event.extend for event in admissions)
        )
    else:
        assert summary.hit_rate is None


@pytest.mark.parametrize("against_any", [False, True])
@pytest.mark.parametrize("at_refills", [False, True])
@given(events=runs(max_events=30))
def test_the_gap_is_the_largest_over_every_interval_of_backlog(
    events: list[Event], at_refills: bool, against_any: bool
) -> None:
    summary = collect(events).summary()
    gaps = summary.gaps_at_refills if at_refills else summary.gaps_in_queue
    if gaps is None:
        assert not summary.refills or not summary.requests
        return
    found = gaps.over_backlogged if against_any else gaps.between_backlogged
    expected = largest_gap(moments(events), at_refills=at_refills, against_any=against_any)
    assert (found.amount if found else 0) == expected


@given(events=runs())
def test_backlogged_at_refills_is_the_weaker_notion(events: list[Event]) -> None:
    """Whoever is in the queue throughout is there at every refill: the second notion has all intervals of the first."""
    summary = collect(events).summary()
    if summary.gaps_at_refills is None:
        return
    for strict, weak in (
        (summary.gaps_in_queue.between_backlogged, summary.gaps_at_refills.between_backlogged),
        (summary.gaps_in_queue.over_backlogged, summary.gaps_at_refills.over_backlogged),
    ):
        assert (weak.amount if weak else 0) >= (strict.amount if strict else 0)


@given(events=runs(), watched=st.integers(min_value=0, max_value=3))
def test_only_the_first_clients_to_arrive_are_watched_for_gaps(events: list[Event], watched: int) -> None:
    summary = collect(events, gap_clients=watched).summary()
    assert summary.watched_clients == min(watched, len(summary.clients))
    first = set(list(summary.clients)[:watched])
    seen = [event for event in moments(events) for _ in [event.queued]]
    only_first = [
        Moment(
            moment.forward_steps,
            {name: value if name in first else 0 for name, value in moment.actual.items()},
            moment.perceived,
            moment.queued & first,
            moment.registered & first,
            moment.refill,
        )
        for moment in seen
    ]
    found = summary.gaps_in_queue.between_backlogged
    assert (found.amount if found else 0) == largest_gap(only_first, at_refills=False, against_any=False)


@given(events=runs())
def test_latency_counts_from_sending_to_finish_and_ttft_to_the_first_token(events: list[Event]) -> None:
    sent: dict[str, int] = {}
    first: dict[str, int] = {}
    done: dict[str, int] = {}
    owner: dict[str, str] = {}
    for event in events:
        now = event.time_us or 0
        if isinstance(event, Arrive):
            owner[event.request] = event.client
            sent[event.request] = now if event.arrived_us is None else event.arrived_us
        elif isinstance(event, Output):
            for request, tokens in event.tokens.items():
                if tokens:
                    first.setdefault(request, now)
        elif isinstance(event, Finish):
            done[event.request] = now
    summary = collect(events).summary()
    for name, client in summary.clients.items():
        assert list(client.ttft_us) == sorted(first[r] - sent[r] for r in first if owner[r] == name)
        assert list(client.latency_us) == sorted(done[r] - sent[r] for r in done if owner[r] == name)
    assert summary.latency == quantiles([done[request] - sent[request] for request in done])
    assert summary.ttft == quantiles([first[request] - sent[request] for request in first])
    well_behaved = [name for name in summary.clients if name != "A"]
    assert latency_of(summary, well_behaved) == quantiles([done[r] - sent[r] for r in done if owner[r] != "A"])
    assert ttft_of(summary, well_behaved) == quantiles([first[r] - sent[r] for r in first if owner[r] != "A"])


@given(events=runs())
def test_the_jain_index_is_taken_while_all_clients_are_active(events: list[Event]) -> None:
    joined: dict[str, int] = {}
    left: dict[str, int] = {}
    open_requests: dict[str, set[str]] = {}
    owner: dict[str, str] = {}
    run = moments(events)
    for event, moment in zip(events, run[1:], strict=True):
        if isinstance(event, Arrive):
            owner[event.request] = event.client
            joined.setdefault(event.client, moment.forward_steps)
            open_requests.setdefault(event.client, set()).add(event.request)
        elif isinstance(event, Finish):
            open_requests[owner[event.request]].remove(event.request)
            left[owner[event.request]] = moment.forward_steps
    summary = collect(events).summary()
    start = max(joined.values(), default=0)
    end = min((run[-1].forward_steps if open_requests[c] else left[c] for c in joined), default=0)
    if start >= end:
        assert summary.all_active_steps is None
        assert summary.jain is None
        return
    assert summary.all_active_steps == (start, end)
    before, after = after_forward(run, start), after_forward(run, end)
    assert summary.jain == jain_index([after.perceived[c] - before.perceived[c] for c in joined])
    assert summary.jain_actual == jain_index([after.actual[c] - before.actual[c] for c in joined])


@given(events=runs(), points=st.integers(min_value=2, max_value=12))
def test_a_service_curve_is_exact_at_each_of_its_points(events: list[Event], points: int) -> None:
    summary, run = collect(events).summary(curve_points=points), moments(events)
    ends = [event.time_us for event in events if isinstance(event, Output) and event.time_us is not None]
    for name, client in summary.clients.items():
        assert len(client.curve) == points
        assert client.curve[0].time_us == summary.start_us
        assert client.curve[-1].time_us == summary.end_us
        for point in client.curve:
            assert point.time_us is not None
            assert point.step == sum(1 for end in ends if end <= point.time_us)
            moment = after_forward(run, point.step)
            assert point.service == moment.actual[name]
            assert point.perceived_service == moment.perceived[name]


@given(events=runs(timed=False))
def test_a_run_without_times_has_everything_but_times(events: list[Event]) -> None:
    summary, last = collect(events).summary(curve_points=2), moments(events)[-1]
    assert summary.service == sum(last.actual.values())
    assert summary.duration_us is None
    assert summary.ttft is None
    assert summary.latency is None
    assert summary.output_tokens_per_s is None
    for name, client in summary.clients.items():
        assert client.first_arrival_us is None
        assert client.curve[-1].time_us is None
        assert client.curve[-1].service == after_forward(moments(events), last.forward_steps).actual[name]


@given(events=runs())
def test_asking_for_a_summary_on_the_way_changes_nothing(events: list[Event]) -> None:
    asked = RunMetrics(COST)
    for event in events:
        asked.on_event(event)
        asked.summary(curve_points=2)
    ours, theirs = asked.summary(), collect(events).summary()
    assert ours.clients == theirs.clients
    assert (ours.jain, ours.ttft, ours.latency) == (theirs.jain, theirs.ttft, theirs.latency)
    amounts = [
        gap.amount if gap else 0
        for gaps in (ours.gaps_in_queue, theirs.gaps_in_queue)
        for gap in (gaps.between_backlogged, gaps.over_backlogged)
    ]
    assert amounts[:2] == amounts[2:]


# -- by hand ---------------------------------------------------------------------------------------------------------


def test_two_clients_by_hand() -> None:
    """A (8 input tokens, 6 of them cached) and B (4, none cached) run together for two forward steps.

    Weights 3 and 2. A: W = 3*2 + 2*2 = 10, perceived 3*8 + 2*2 = 28. B: W = 3*4 + 2*2 = 16, perceived the same.

    In the queue: A leaves it with its own admission, so there is no interval in which both are backlogged and one is
    served; B still waits when A gets its 3*2 = 6, which is the gap of A over a backlogged B.

    At refills: the only refill finds both in the queue, so both count as backlogged to the end. A leads by 6, then B
    gets 12 by its admission, which from that moment on is a gap of 12; decoding is even.
    """
    metrics = collect(
        [
            Arrive(step=1, time_us=100, request="a", client="A", input=8, max_output=2, arrived_us=90),
            Arrive(step=1, time_us=100, request="b", client="B", input=4, max_output=2),
            Refill(step=1, time_us=100, deficits={"A": 20, "B": 20}),
            Admit(step=1, time_us=100, request="a", matched=6, extend=2),
            Admit(step=1, time_us=100, request="b", matched=0, extend=4),
            Output(step=1, time_us=110, tokens={"a": 1, "b": 1}),
            Output(step=2, time_us=120, tokens={"a": 1, "b": 1}),
            Finish(step=2, time_us=120, request="a"),
            Finish(step=2, time_us=120, request="b"),
        ]
    )
    summary = metrics.summary()
    assert {name: client.service for name, client in summary.clients.items()} == {"A": 10, "B": 16}
    assert {name: client.perceived_service for name, client in summary.clients.items()} == {"A": 28, "B": 16}
    assert summary.hit_rate == Fraction(6, 12)
    assert summary.duration_us == 30
    assert summary.output_tokens_per_s == Fraction(4_000_000, 30)
    assert summary.tokens_per_s == Fraction(16_000_000, 30)
    assert summary.service_rate == Fraction(44_000_000, 30)
    assert summary.clients["A"].ttft_us == (20,)
    assert summary.clients["A"].latency_us == (30,)
    assert summary.clients["B"].latency_us == (20,)
    assert summary.all_active_steps == (0, 2)
    assert summary.jain == Fraction(44**2, 2 * (28**2 + 16**2))
    assert summary.jain_actual == Fraction(26**2, 2 * (10**2 + 16**2))
    assert summary.gaps_in_queue.between_backlogged is None
    over = summary.gaps_in_queue.over_backlogged
    assert over is not None
    assert (over.amount, over.ahead, over.behind) == (6, "A", "B")
    assert summary.gaps_at_refills is not None
    between = summary.gaps_at_refills.between_backlogged
    assert between is not None
    assert (between.amount, between.ahead, between.behind, between.start) == (12, "B", "A", 0)


def test_a_second_prefill_after_a_preemption_costs_service_but_is_perceived_once() -> None:
    summary = collect(
        [
            Arrive(step=1, request="a", client="A", input=5, max_output=9),
            Admit(step=1, request="a", matched=0, extend=5),
            Output(step=1, tokens={"a": 1}),
            Preempt(step=2, request="a", kind="recompute"),
            Admit(step=3, request="a", matched=2, extend=4),
            Output(step=3, tokens={"a": 1}),
            Finish(step=3, request="a"),
        ]
    ).summary()
    assert summary.service == 3 * (5 + 4) + 2 * 2
    assert summary.perceived_service == 3 * 5 + 2 * 2
    assert (summary.input_tokens, summary.matched_tokens, summary.extend_tokens) == (5, 2, 9)


def test_outputs_of_two_workers_are_not_mixed_up() -> None:
    """Each worker's forward step serves its own requests only, though both run all the time."""
    events: list[Event] = [
        Arrive(step=1, worker=0, request="a", client="A", input=1, max_output=9),
        Arrive(step=1, worker=1, request="b", client="B", input=1, max_output=9),
        Refill(step=1, worker=0, deficits={"A": 9}),
        Admit(step=1, worker=0, request="a", matched=0, extend=1),
        Admit(step=1, worker=1, request="b", matched=0, extend=1),
        Output(step=1, worker=0, tokens={"a": 1}),
        Output(step=2, worker=0, tokens={"a": 1}),
        Output(step=1, worker=1, tokens={"b": 1}),
    ]
    summary = collect(events).summary()
    assert summary.clients["A"].output_tokens == 2
    assert summary.clients["B"].output_tokens == 1
    assert summary.gaps_at_refills is None, "the refills of one worker say nothing about the other"


def test_an_event_of_an_unknown_request_is_refused() -> None:
    for event in (
        Admit(step=1, request="x", matched=0, extend=1),
        Output(step=1, tokens={"x": 1}),
        Finish(step=1, request="x"),
        Preempt(step=1, request="x", kind="recompute"),
    ):
        with pytest.raises(InputError, match="found 'x'"):
            collect([event])


def test_a_curve_needs_both_of_its_ends() -> None:
    metrics = collect([Arrive(step=1, request="a", client="A", input=1, max_output=1)])
    with pytest.raises(InputError, match="at least 2 points"):
        metrics.summary(curve_points=1)


def test_an_empty_run_has_an_empty_summary() -> None:
    summary = RunMetrics(COST).summary()
    assert (summary.requests, summary.service, dict(summary.clients)) == (0, 0, {})
    assert (summary.jain, summary.hit_rate, summary.duration_us, summary.ttft) == (None, None, None, None)
