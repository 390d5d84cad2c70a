"""The metrics of a run against their definitions, spelled out naively over every moment of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.events import Admit, Arrive, Event, Evict, Finish, Output, Preempt, Refill
from dlpm.metrics import RunMetrics
from dlpm.summary import jain_index, latency_of, percentile, quantiles, ttft_of

COST = CostModel(extend_weight=3, output_weight=2)
CLIENTS = ("A", "B", "C")


# -- a random valid run ----------------------------------------------------------------------------------------------


@dataclass
class Made:
    """A request of a made-up run."""

    name: str
    client: str
    input: int
    generated: int = 0


@st.composite
def runs(draw: st.DrawFn, timed: bool = True, uneven: bool = True, max_events: int = 40) -> list[Event]:
    """Events that some engine could have written: every admission, output, finish and preemption has its request."""
    events: list[Event] = []
    queue: list[Made] = []
    running: list[Made] = []
    clock = step = 0
    for index in range(draw(st.integers(min_value=0, max_value=max_events))):
        kinds = ["arrive", "refill", "evict"] + ["admit"] * 2 * bool(queue)
        kinds += (["output"] * 3 + ["finish", "preempt"]) * bool(running)
        kind = draw(st.sampled_from(kinds))
        clock += draw(st.integers(min_value=0, max_value=3))
        time_us = clock if timed else None
        if kind == "arrive":
            client = draw(st.sampled_from(CLIENTS))
            made = Made(f"r{index}", client, draw(st.integers(min_value=1, max_value=9)))
            sent = draw(st.none() | st.integers(min_value=0, max_value=clock)) if timed else None
            queue.append(made)
            events.append(
                Arrive(
                    step=step,
                    time_us=time_us,
                    request=made.name,
                    client=client,
                    input=made.input,
                    max_output=9,
                    arrived_us=sent,
                )
            )
        elif kind == "admit":
            made = queue.pop(draw(st.integers(min_value=0, max_value=len(queue) - 1)))
            prompt = made.input + made.generated
            matched = draw(st.integers(min_value=0, max_value=prompt - 1))
            running.append(made)
            events.append(
                Admit(step=step, time_us=time_us, request=made.name, matched=matched, extend=prompt - matched)
            )
        elif kind == "output":
            counts = {made.name: draw(st.integers(0, 3)) if uneven and draw(st.booleans()) else 1 for made in running}
            if not draw(st.booleans()):
                counts = {name: count for name, count in counts.items() if count}
            if counts:
                for made in running:
                    made.generated += counts.get(made.name, 0)
                step += 1
                events.append(Output(step=step, time_us=time_us, tokens=counts))
        elif kind == "finish":
            made = running.pop(draw(st.integers(min_value=0, max_value=len(running) - 1)))
            events.append(Finish(step=step, time_us=time_us, request=made.name))
        elif kind == "preempt":
            made = running.pop(draw(st.integers(min_value=0, max_value=len(running) - 1)))
            queue.append(made)
            events.append(Preempt(step=step, time_us=time_us, request=made.name, kind="recompute"))
        elif kind == "refill":
            events.append(Refill(step=step, time_us=time_us, deficits={"A": 1}))
        else:
            events.append(Evict(step=step, time_us=time_us, tokens=1))
    return events


# -- the naive model -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """What is so between two events."""

    forward_steps: int
    actual: Mapping[str, int]
    perceived: Mapping[str, int]
    queued: frozenset[str]
    registered: frozenset[str]
    refill: bool


def moments(events: list[Event]) -> list[Moment]:
    """Replay the run, and remember everything after each event."""
    owner: dict[str, str] = {}
    prompt: dict[str, int] = {}
    queue: set[str] = set()
    actual, perceived = dict.fromkeys(CLIENTS, 0), dict.fromkeys(CLIENTS, 0)
    admitted: set[str] = set()
    forward_steps = 0
    found = [Moment(0, dict(actual), dict(perceived), frozenset(), frozenset(), False)]
    for event in events:
        if isinstance(event, Arrive):
            owner[event.request], prompt[event.request] = event.client, event.input
            queue.add(event.request)
        elif isinstance(event, Preempt):
            queue.add(event.request)
        elif isinstance(event, Admit):
            queue.remove(event.request)
            actual[owner[event.request]] += COST.extend(event.extend)
            if event.request not in admitted:
                perceived[owner[event.request]] += COST.extend(prompt[event.request])
            admitted.add(event.request)
        elif isinstance(event, Output):
            forward_steps += 1
            for request, tokens in event.tokens.items():
                actual[owner[request]] += COST.output(tokens)
                perceived[owner[request]] += COST.output(tokens)
        found.append(
            Moment(
                forward_steps,
                dict(actual),
                dict(perceived),
                frozenset(owner[request] for request in queue),
                frozenset(owner.values()),
                isinstance(event, Refill),
            )
        )
    return found


def largest_gap(run: list[Moment], *, at_refills: bool, against_any: bool) -> int:
    """By definition: every interval, every pair of which the one behind (or both) is backlogged throughout."""
    largest = 0
    for start, first in enumerate(run):
        backlogged = first.registered if at_refills else first.queued
        for moment in run[start:]:
            if not at_refills or (moment.refill and moment is not first):
                backlogged = backlogged & moment.queued
            for behind in backlogged:
                for ahead in CLIENTS if against_any else backlogged:
                    gained = moment.actual[ahead] - first.actual[ahead]
                    lost = moment.actual[behind] - first.actual[behind]
                    largest = max(largest, gained - lost)
    return largest


def after_forward(run: list[Moment], steps: int) -> Moment:
    """The moment right after so many forward steps."""
    return next(moment for moment in run if moment.forward_steps == steps)


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


# -- pure functions --------------------------------------------------------------------------------------------------


@given(shares=st.lists(st.integers(min_value=0, max_value=1000), min_size=1, max_size=20))
def test_the_jain_index_lies_between_one_nth_and_one(shares: list[int]) -> None:
    assert Fraction(1, len(shares)) <= jain_index(shares) <= 1


@given(share=st.integers(min_value=1, max_value=1000), clients=st.integers(min_value=1, max_value=20))
def test_equal_shares_have_index_one_and_a_monopoly_one_nth(share: int, clients: int) -> None:
    assert jain_index([share] * clients) == 1
    assert jain_index([share] + [0] * (clients - 1)) == Fraction(1, clients)


def test_the_jain_index_of_two_to_one_is_nine_tenths() -> None:
    """(2 + 1)^2 / (2 (4 + 1)) = 9 / 10."""
    assert jain_index([2, 1]) == Fraction(9, 10)


def test_nothing_for_everyone_is_equal_and_no_one_at_all_is_refused() -> None:
    assert jain_index([0, 0]) == 1
    with pytest.raises(ValueError, match="at least one"):
        jain_index([])


@given(
    values=st.lists(st.integers(min_value=0, max_value=50), min_size=1, max_size=60),
    percent=st.integers(min_value=1, max_value=100),
)
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(values: list[int], percent: int) -> None:
    found = percentile(sorted(values), percent)

    def covered(bound: int) -> bool:
        return 100 * sum(1 for value in values if value <= bound) >= percent * len(values)

    assert found == min(value for value in values if covered(value))


def test_percentiles_of_one_to_two_hundred() -> None:
    found = quantiles(range(1, 201))
    assert found is not None
    assert (found.count, found.p50, found.p90, found.p99, found.maximum) == (200, 100, 180, 198, 200)
    assert quantiles([]) is None


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
