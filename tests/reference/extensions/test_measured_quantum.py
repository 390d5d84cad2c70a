"""A quantum that a controller picks: the meter beside a naive one, and the bounds, which hold whatever it picks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlpm import bounds, bounds_extensions
from dlpm import events as ev
from dlpm.batch import WorkerConfig
from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.extensions.changing_quantum import ChangingLedger, ListedQuanta, QuantumRange
from dlpm.extensions.measured_quantum import JainMeter, MeasuredLedger
from dlpm.extensions.quantum_controller import AdditiveQuantum, Aim, FixedQuantum, ImplicitFtrl, QuantumController
from dlpm.ledger import Ledger, Quanta
from dlpm.memory import Reserving
from dlpm.metrics import RunMetrics
from dlpm.policies.dlpm import DLPM
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from tests.reference.lockstep import CLIENTS, Shape, shapes

KV_TOKENS, LONGEST = 14, 13
COST = CostModel(1, 2)
RANGE = QuantumRange(2, 40)
TARGET = Fraction(9, 10)

Asked = frozenset[str]
Served = dict[str, int]


# -- the meter ---------------------------------------------------------------------------------------------------------


def naive_indices(happened: Sequence[Asked | Served], window: int) -> list[Fraction]:
    """Cut the history where a window is full, then look at each piece with all that came before it."""
    pieces: list[tuple[int, int]] = []
    start = 0
    for end, _ in enumerate(happened, start=1):
        served = [each for each in happened[start:end] if isinstance(each, dict)]
        if sum(sum(each.values()) for each in served) >= window:
            pieces.append((start, end))
            start = end
    found = []
    for start, end in pieces:
        inside = [each for each in happened[start:end] if not isinstance(each, dict)]
        before = [each for each in happened[:start] if not isinstance(each, dict)]
        if not inside or not before:
            continue
        backlogged = [client for client in CLIENTS if all(client in each for each in [before[-1], *inside])]
        shares = [
            sum(each.get(client, 0) for each in happened[start:end] if isinstance(each, dict)) for client in backlogged
        ]
        if len(shares) > 1:
            squares = sum(share * share for share in shares)
            found.append(Fraction(sum(shares) ** 2, len(shares) * squares) if squares else Fraction(1))
    return found


def happenings() -> st.SearchStrategy[list[Asked | Served]]:
    asked = st.frozensets(st.sampled_from(CLIENTS), min_size=1)
    served = st.dictionaries(st.sampled_from(CLIENTS), st.integers(1, 9), min_size=1)
    return st.lists(st.one_of(st.just(frozenset(CLIENTS)), asked, served), max_size=40)


@given(happened=happenings(), window=st.integers(1, 30), looks=st.sets(st.integers(0, 40)))
def test_the_meter_finds_what_a_naive_look_at_the_history_finds(
    happened: list[Asked | Served], window: int, looks: set[int]
) -> None:
    meter = JainMeter(window)
    told = 0
    for place, each in enumerate(happened):
        if isinstance(each, dict):
            meter.served(each)
        else:
            meter.asked(each)
        if place in looks:
            new = naive_indices(happened[: place + 1], window)[told:]
            told += len(new)
            assert meter.latest() == (sum(new) / Fraction(len(new)) if new else None)
    assert meter.measured == naive_indices(happened, window)


def test_a_client_that_asks_for_less_is_no_unfairness() -> None:
    meter = JainMeter(10)
    meter.served({"A": 10})  # Nobody was asked about before, so nothing is measured.
    for queued in (["A", "B", "C"], ["A", "B"]):
        meter.asked(queued)
        meter.served({"A": 5})
    meter.asked(["A", "B", "C"])
    meter.served({"A": 2, "B": 6, "C": 2})
    meter.asked(["C", "A", "B"])
    meter.served({"A": 3, "B": 3, "C": 4})
    # The first window began without anybody known to wait. In the second, C was away at the asking before it.
    assert meter.measured == [Fraction(64, 2 * 40), Fraction(100, 3 * 34)]


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="window"):
        JainMeter(0)


# -- runs --------------------------------------------------------------------------------------------------------------


class Arbitrary:
    """Answers what an adversary wrote down, and notes what it heard."""

    def __init__(self, answers: Sequence[int]) -> None:
        self._answers = ListedQuanta(answers)
        self.heard: list[Fraction | None] = []

    def next_quantum(self, jain: Fraction | None) -> int:
        self.heard.append(jain)
        return self._answers.next_quantum()


class Noted:
    """Passes on what a controller answers, and notes it."""

    def __init__(self, controller: QuantumController) -> None:
        self._controller = controller
        self.answered: list[int] = []

    def next_quantum(self, jain: Fraction | None) -> int:
        self.answered.append(self._controller.next_quantum(jain))
        return self.answered[-1]


def controllers() -> st.SearchStrategy[QuantumController]:
    return st.one_of(
        st.integers(RANGE.least, RANGE.most).map(FixedQuantum),
        st.integers(1, 40).map(lambda step: AdditiveQuantum(RANGE, TARGET, step)),
        st.builds(Aim, st.just(TARGET), st.integers(1, 40), st.integers(1, 2_000)).map(
            lambda aim: ImplicitFtrl(RANGE, aim)
        ),
        st.lists(st.sampled_from((RANGE.least, 7, RANGE.most)), min_size=1, max_size=12).map(Arbitrary),
    )


Run = list[tuple[Shape, int]]


def runs() -> st.SearchStrategy[Run]:
    """Requests, each with how many steps follow it: many and mostly none, so that clients wait for each other."""
    return st.lists(st.tuples(shapes(), st.sampled_from((0, 0, 0, 1, 3))), min_size=12, max_size=30)


def logged(ledger: Ledger, run: Run, listener: Callable[[ev.Event], None] | None = None) -> list[ev.Event]:
    """The log of a run."""
    log: list[ev.Event] = []

    def sink(event: ev.Event) -> None:
        log.append(event)
        if listener is not None:
            listener(event)

    worker = Worker(WorkerConfig(KV_TOKENS, Reserving()), DLPM(ledger), FixedStep(1), sink, full_log=True)
    for number, (shape, steps) in enumerate(run):
        request = shape.request(f"r{number}", worker.config.block_size)
        if request.input_tokens + request.max_output <= KV_TOKENS:
            worker.submit(request, worker.time_us)
        for _ in range(steps):
            worker.step()
    while not worker.idle():
        worker.step()
    return log


@given(run=runs(), controller=controllers(), window=st.integers(1, 25))
def test_quanta_stay_in_range_and_counters_and_gaps_in_their_bounds_whatever_the_controller_does(
    run: Run, controller: QuantumController, window: int
) -> None:
    noted = Noted(controller)
    ledger = MeasuredLedger(RANGE, COST, noted, window)
    metrics = RunMetrics(COST)
    floor = bounds.deficit_floor(bounds.tight_unit(COST, LONGEST, KV_TOKENS))

    def listen(event: ev.Event) -> None:
        metrics.on_event(event)
        assert all(floor <= deficit <= RANGE.most for deficit in ledger.deficits.values())

    log = logged(ledger, run, listen)
    assert all(RANGE.least <= quantum <= RANGE.most for quantum in noted.answered)
    assert len(noted.answered) == sum(1 for event in log if isinstance(event, ev.Refill))
    gaps = metrics.summary(curve_points=2).gaps_at_refills
    bound = bounds_extensions.changing_gap(RANGE.most, floor)
    for gap in () if gaps is None else (gaps.between_backlogged, gaps.over_backlogged):
        assert gap is None or gap.amount <= bound


@given(run=runs(), controller=controllers(), window=st.integers(1, 25))
def test_a_controlled_ledger_logs_what_the_proven_one_logs_that_is_handed_the_same_quanta(
    run: Run, controller: QuantumController, window: int
) -> None:
    """So that measuring changes nothing, and all that is proven of `ChangingLedger` holds."""
    noted = Noted(controller)
    log = logged(MeasuredLedger(RANGE, COST, noted, window), run)
    handed = ListedQuanta(noted.answered or [RANGE.most])
    assert log == logged(ChangingLedger(RANGE, COST, handed), run)


@given(run=runs(), quantum=st.integers(1, 9), window=st.integers(1, 25))
def test_a_fixed_quantum_logs_what_the_plain_ledger_logs(run: Run, quantum: int, window: int) -> None:
    measured = MeasuredLedger(QuantumRange(quantum, quantum), COST, FixedQuantum(quantum), window)
    assert logged(measured, run) == logged(Ledger(Quanta(quantum), COST), run)


@given(run=runs(), window=st.integers(1, 25))
def test_what_the_controller_hears_is_measured_from_the_events_of_the_run(run: Run, window: int) -> None:
    """Service by the log: extend tokens at admissions, outputs at forward steps."""
    controller = Arbitrary([5])
    happened: list[Asked | Served] = []
    clients: dict[str, str] = {}
    told = 0
    expected: list[Fraction | None] = []

    class Listening(MeasuredLedger):
        """Notes who was queued when check-refill was asked."""

        def check_refill(self, queued_clients: Iterable[str]) -> dict[str, int]:
            queued = tuple(queued_clients)
            happened.append(frozenset(queued))
            return super().check_refill(queued)

    def listen(event: ev.Event) -> None:
        nonlocal told
        if isinstance(event, ev.Arrive):
            clients[event.request] = event.client
        elif isinstance(event, ev.Admit):
            happened.append({clients[event.request]: event.extend})
        elif isinstance(event, ev.Output):
            served: Served = {}
            for request, tokens in event.tokens.items():
                served[clients[request]] = served.get(clients[request], 0) + 2 * tokens
            happened.append(served)
        elif isinstance(event, ev.Refill):
            new = naive_indices(happened, window)[told:]
            told += len(new)
            expected.append(sum(new) / Fraction(len(new)) if new else None)

    logged(Listening(RANGE, COST, controller, window), run, listen)
    assert controller.heard == expected
