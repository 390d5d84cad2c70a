"""The one-pass service gap against its definition: every interval, every pair of clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlpm_engine.conformance.gap import GapTracker, Lead
from dlpm_engine.conformance.state import ClientState

CLIENTS = ("A", "B", "C", "D")

Move = tuple[str, str, int] | tuple[str, Mapping[str, int]]
"""What happens: ``(kind, client, amount)``, or ``("uneven", tokens of each client)``."""


@dataclass
class Naive:
    """Service of every client at every moment, and since when each has been backlogged."""

    moments: list[dict[str, int]] = field(default_factory=lambda: [dict.fromkeys(CLIENTS, 0)])
    since: dict[str, int] = field(default_factory=dict)

    def serve(self, charges: Mapping[str, int]) -> None:
        now = self.moments[-1]
        self.moments.append({client: now[client] + charges.get(client, 0) for client in CLIENTS})

    def largest_lead(self, behind: str) -> int:
        """The largest lead of any client over ``behind``, in an interval of its backlog that ends now."""
        now = self.moments[-1]
        return max(
            (now[ahead] - before[ahead]) - (now[behind] - before[behind])
            for before in self.moments[self.since[behind] :]
            for ahead in CLIENTS
            if ahead != behind
        )


@dataclass
class Replay:
    """The tracker under test, fed as the rules of DLPM feed it, beside the naive one."""

    tracker: GapTracker
    naive: Naive = field(default_factory=Naive)
    clients: dict[str, ClientState] = field(default_factory=lambda: {name: ClientState(name, 1) for name in CLIENTS})
    line: int = 0

    def active(self) -> list[ClientState]:
        return [client for client in self.clients.values() if client.running]

    def play(self, move: Move) -> list[Lead]:
        """Do one move with both; the leads above the bound that the tracker finds."""
        self.line += 1
        if len(move) == 2:
            self.forward(move[1], even=False)
        else:
            self.one(*move)
        if self.tracker.total > self.tracker.alarm:
            return self.tracker.leads_above_bound(self.active(), self.line)
        return []

    def one(self, kind: str, name: str, amount: int) -> None:
        client = self.clients[name]
        if kind == "begin" and name not in self.naive.since:
            self.naive.since[name] = len(self.naive.moments) - 1
            self.tracker.begin(client, self.active(), self.line)
        elif kind == "end" and name in self.naive.since:
            del self.naive.since[name]
            self.tracker.end(client)
        elif kind == "admit":
            client.running += 1
            self.tracker.jump(client, amount, self.line)
            self.naive.serve({name: amount})
        elif kind == "leave" and client.running:
            client.running -= 1
            self.tracker.bend(client)
        elif kind == "forward":
            self.forward({other.id: other.running for other in self.active()}, even=True)

    def forward(self, tokens: Mapping[str, int], *, even: bool) -> None:
        served = [self.clients[name] for name in tokens]
        if not even:
            self.tracker.settle(served, self.line)
        self.tracker.before_forward(self.line)
        for client in served:
            client.service += 2 * tokens[client.id]
        self.tracker.after_forward(2 * max(tokens.values(), default=0))
        if not even:
            self.tracker.settle((), self.line)
        self.naive.serve({name: 2 * count for name, count in tokens.items()})


names = st.sampled_from(CLIENTS)
one_of_few = st.sampled_from(("A", "B"))
moves: st.SearchStrategy[Move] = st.one_of(
    st.tuples(st.sampled_from(("begin", "begin", "end", "leave")), one_of_few | names, st.just(0)),
    st.tuples(st.just("admit"), one_of_few | names, st.integers(1, 9)),
    st.tuples(st.just("forward"), st.just("A"), st.just(0)),
    st.tuples(st.just("forward"), st.just("A"), st.just(0)),
    st.tuples(st.just("uneven"), st.dictionaries(one_of_few | names, st.integers(0, 4), max_size=4)),
)


@st.composite
def plans(draw: st.DrawFn) -> list[Move]:
    """Some requests run and somebody is backlogged; then anything."""
    running: list[Move] = [("admit", name, 1) for name in draw(st.lists(one_of_few, max_size=6))]
    return [*running, ("begin", draw(one_of_few), 0), *draw(st.lists(moves, min_size=4, max_size=50))]


@settings(max_examples=200)
@given(plans(), st.integers(0, 40))
def test_a_lead_is_found_in_the_very_event_that_takes_it_above_the_bound(plan: Sequence[Move], bound: int) -> None:
    replay = Replay(GapTracker(bound))
    for move in plan:
        found = replay.play(move)
        leads = {name: replay.naive.largest_lead(name) for name in replay.naive.since}
        above = {name: lead for name, lead in leads.items() if lead > bound}
        assert {lead.behind.id: lead.amount for lead in found} == above
        if above:
            break


@settings(max_examples=200)
@given(plans(), st.integers(0, 20))
def test_after_a_report_the_intervals_of_that_client_begin_anew(plan: Sequence[Move], bound: int) -> None:
    replay = Replay(GapTracker(bound))
    for move in plan:
        found = replay.play(move)
        leads = {name: replay.naive.largest_lead(name) for name in replay.naive.since}
        assert {lead.behind.id: lead.amount for lead in found} == {n: lead for n, lead in leads.items() if lead > bound}
        for lead in found:
            replay.naive.since[lead.behind.id] = len(replay.naive.moments) - 1


@settings(max_examples=200)
@given(plans(), st.integers(0, 20))
def test_a_reported_lead_names_who_got_ahead_and_since_when(plan: Sequence[Move], bound: int) -> None:
    replay = Replay(GapTracker(bound))
    at_line = [replay.naive.moments[-1]]
    for move in plan:
        found = replay.play(move)
        at_line.append(replay.naive.moments[-1])
        for lead in found:
            # `since` is the first line of the interval: what was before it is what the line before left.
            before, now = at_line[lead.since - 1], at_line[-1]
            behind, ahead = lead.behind.id, lead.ahead.id
            assert (now[ahead] - before[ahead]) - (now[behind] - before[behind]) == lead.amount
            assert lead.since >= replay.clients[behind].backlog_line
        if found:
            break


def test_a_gap_is_found_that_no_interval_from_the_beginning_shows() -> None:
    """A gets 8, then B gets 11: B is 3 ahead since the beginning, and 11 ahead since A was served."""
    replay = Replay(GapTracker(10))
    plan: list[Move] = [("begin", "A", 0), ("begin", "B", 0), ("admit", "A", 8), ("admit", "B", 11)]
    found = [replay.play(move) for move in plan]
    assert [len(leads) for leads in found] == [0, 0, 0, 1]
    assert found[-1][0].amount == 11
    assert replay.clients["B"].service - replay.clients["A"].service == 3


B_GETS_AHEAD: list[Move] = [("forward", "A", 0)] * 6
"""B decodes two requests, and A none: 24 ahead in six steps."""


@pytest.mark.parametrize(
    "before",
    [
        # A is ahead at the end of its decoding, and the peak lies where its requests leave.
        [("admit", "A", 1)] * 3 + [("forward", "A", 0)] * 3 + [("leave", "A", 0)] * 3,
        # The peak lies after A's last admission, in the middle of B's decoding.
        [("forward", "A", 0), ("admit", "A", 9), ("leave", "A", 0)],
        # A decodes between two admissions of B: the second of them looks again.
        [
            ("admit", "B", 1),
            ("admit", "A", 5),
            ("forward", "A", 0),
            ("leave", "A", 0),
            ("admit", "B", 1),
            ("leave", "B", 0),
        ],
        # A forward step like no other.
        [("uneven", {"A": 4, "B": 1}), ("forward", "A", 0)],
        # A leaves the backlog, and comes back after B was served.
        [("end", "A", 0), ("admit", "B", 9), ("leave", "B", 0), ("begin", "A", 0)],
    ],
)
def test_the_lead_counts_from_where_the_one_behind_stood_best(before: list[Move]) -> None:
    plan: list[Move] = [("begin", "A", 0), ("admit", "B", 1), ("admit", "B", 1), *before, *B_GETS_AHEAD]
    largest = 0
    measured = Replay(GapTracker(10_000))
    for move in plan:
        measured.play(move)
        largest = max([largest, *(measured.naive.largest_lead(name) for name in measured.naive.since)])
    assert largest >= 24
    replay = Replay(GapTracker(largest - 1))
    found = [lead for move in plan for lead in replay.play(move)]
    assert [(lead.behind.id, lead.ahead.id, lead.amount) for lead in found] == [("A", "B", largest)]


def test_who_is_served_again_after_a_backlog_began_gets_ahead_from_there() -> None:
    """B was the last to be served before A's backlog began, and does not run when it begins."""
    replay = Replay(GapTracker(8))
    plan: list[Move] = [("admit", "B", 1), ("leave", "B", 0), ("begin", "A", 0), ("admit", "B", 9)]
    assert [lead.amount for move in plan for lead in replay.play(move)] == [9]


def test_who_is_not_backlogged_is_not_left_behind() -> None:
    replay = Replay(GapTracker(10))
    plan: list[Move] = [("begin", "A", 0), ("end", "A", 0), ("admit", "B", 9), ("admit", "C", 9), ("admit", "B", 9)]
    assert [lead for move in plan for lead in replay.play(move)] == []
