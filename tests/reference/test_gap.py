"""The one-pass service gap against its definition: every pair of clients, every interval."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dlpm.gap import BackloggedGap, BothGaps, Gap

CLIENTS = ("A", "B", "C", "D")

Operation = tuple[str, str, int]


@dataclass
class Moment:
    """What is so between two operations."""

    step: int
    service: dict[str, int]
    backlogged: frozenset[str]


@dataclass
class Naive:
    """The definition: remember every moment, then look at every interval."""

    moments: list[Moment] = field(default_factory=lambda: [Moment(0, dict.fromkeys(CLIENTS, 0), frozenset())])
    rates: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CLIENTS, 0))

    def apply(self, operation: Operation) -> None:
        name, client, amount = operation
        last = self.moments[-1]
        step, service, backlogged = last.step, dict(last.service), last.backlogged
        if name == "backlogged":
            backlogged = backlogged | {client}
        elif name == "idle":
            backlogged = backlogged - {client}
        elif name == "serve":
            service[client] += amount
        elif name == "rate":
            self.rates[client] = amount
        else:
            step += 1
            service = {other: value + self.rates[other] for other, value in service.items()}
        self.moments.append(Moment(step, service, backlogged))

    def intervals(self, against_any: bool) -> list[Gap]:
        """How far every client got ahead of every other in every interval that counts."""
        found = []
        for start, first in enumerate(self.moments):
            backlogged = first.backlogged
            for last in self.moments[start:]:
                backlogged = backlogged & last.backlogged
                for behind in backlogged:
                    for ahead in CLIENTS if against_any else backlogged:
                        gained = last.service[ahead] - first.service[ahead]
                        lost = last.service[behind] - first.service[behind]
                        if ahead != behind and gained > lost:
                            found.append(Gap(gained - lost, ahead, behind, first.step, last.step))
        return found


def feed(watcher: BackloggedGap | BothGaps, operation: Operation) -> None:
    name, client, amount = operation
    if name == "backlogged":
        watcher.backlogged(client)
    elif name == "idle":
        watcher.idle(client)
    elif name == "serve":
        watcher.serve(client, amount)
    elif name == "rate":
        watcher.rate(client, amount)
    else:
        watcher.step()


operations = st.lists(
    st.tuples(
        st.sampled_from(["backlogged", "backlogged", "idle", "serve", "serve", "rate", "rate", "step", "step", "step"]),
        st.sampled_from(CLIENTS),
        st.integers(min_value=0, max_value=5),
    ),
    max_size=40,
)


@given(history=operations, against_any=st.booleans())
@example(
    # The largest gap opens on the way back from the highest lead, not from time 0.
    history=[("backlogged", "A", 0), ("backlogged", "B", 0), ("serve", "A", 9), ("serve", "B", 9), ("serve", "B", 7)],
    against_any=False,
)
def test_the_largest_gap_is_that_of_the_worst_pair_over_the_worst_interval(
    history: list[Operation], against_any: bool
) -> None:
    naive, watcher = Naive(), BackloggedGap(against_any=against_any)
    for operation in history:
        naive.apply(operation)
        feed(watcher, operation)
    intervals = naive.intervals(against_any)
    found = watcher.max_gap
    if not intervals:
        assert found is None
    else:
        assert found is not None
        assert found.amount == max(gap.amount for gap in intervals)
        assert found in intervals, "the pair and the interval named must be one that has this gap"


@given(history=operations, pauses=st.sets(st.integers(min_value=0, max_value=40)))
def test_asking_on_the_way_changes_nothing(history: list[Operation], pauses: set[int]) -> None:
    asked, left_alone = BackloggedGap(), BackloggedGap()
    for index, operation in enumerate(history):
        feed(asked, operation)
        feed(left_alone, operation)
        if index in pauses:
            assert asked.max_gap == asked.max_gap
    ours, theirs = asked.max_gap, left_alone.max_gap
    assert (ours.amount if ours else 0) == (theirs.amount if theirs else 0)


@given(history=operations)
def test_the_gap_over_a_backlogged_client_is_never_below_the_gap_between_backlogged_clients(
    history: list[Operation],
) -> None:
    both = BothGaps()
    for operation in history:
        feed(both, operation)
    gaps = both.gaps()
    if gaps.between_backlogged is not None:
        assert gaps.over_backlogged is not None
        assert gaps.over_backlogged.amount >= gaps.between_backlogged.amount


def test_the_gap_counts_from_the_turning_point_and_not_from_time_zero() -> None:
    """A leads by 9, which the first forward step does not change; then B overtakes it by 7: B got 16 more since."""
    watcher = BackloggedGap()
    watcher.backlogged("A")
    watcher.backlogged("B")
    watcher.serve("A", 9)
    watcher.step()
    assert watcher.max_gap == Gap(9, ahead="A", behind="B", start=0, end=0)
    watcher.serve("B", 16)
    watcher.step()
    assert watcher.max_gap == Gap(16, ahead="B", behind="A", start=0, end=1)


def test_tokens_of_one_forward_step_arrive_together() -> None:
    """Two clients with three running requests each, weight 2: nobody is ahead of anybody, in no order of accounting."""
    watcher = BackloggedGap()
    for client in ("A", "B"):
        watcher.backlogged(client)
        watcher.rate(client, 6)
    for _ in range(1000):
        watcher.step()
    assert watcher.max_gap is None


def test_a_steady_lead_grows_without_any_work_in_the_steps_between() -> None:
    watcher = BackloggedGap()
    watcher.backlogged("A")
    watcher.backlogged("B")
    watcher.rate("A", 6)
    watcher.rate("B", 2)
    for _ in range(10_000):
        watcher.step()
    watcher.rate("A", 0)
    watcher.step()
    assert watcher.max_gap == Gap(40_000, ahead="A", behind="B", start=0, end=10_000)


def test_a_lead_that_shrinks_step_by_step_is_lowest_right_before_it_grows() -> None:
    """B gains 2 in each of five steps, A then 30 at once: A's lead is lowest, at -10, after the fifth step."""
    watcher = BackloggedGap()
    watcher.backlogged("A")
    watcher.backlogged("B")
    watcher.rate("B", 2)
    for _ in range(5):
        watcher.step()
    watcher.serve("A", 30)
    assert watcher.max_gap == Gap(30, ahead="A", behind="B", start=5, end=5)


def test_service_while_one_of_two_is_idle_counts_only_against_any() -> None:
    """B has nothing in the queue and gets 50 all the same: [DLPM Thm 4.1] says nothing of it, Thm 4.2 does."""
    both = BothGaps()
    both.backlogged("A")
    both.serve("B", 50)
    gaps = both.gaps()
    assert gaps.between_backlogged is None
    assert gaps.over_backlogged == Gap(50, ahead="B", behind="A", start=0, end=0)


def test_a_new_period_forgets_the_gap_of_the_one_before() -> None:
    """B leads by 5 in each of two periods; in between it is idle for a moment, so the two do not add up to 10."""
    watcher = BackloggedGap()
    watcher.backlogged("A")
    for _ in range(2):
        watcher.backlogged("B")
        watcher.serve("B", 5)
        watcher.idle("B")
    found = watcher.max_gap
    assert found is not None
    assert found.amount == 5


@pytest.mark.parametrize("against_any", [False, True])
def test_one_client_alone_has_no_gap(against_any: bool) -> None:
    watcher = BackloggedGap(against_any=against_any)
    watcher.backlogged("A")
    watcher.serve("A", 100)
    assert watcher.max_gap is None
