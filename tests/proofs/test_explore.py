"""The exploration is of the real worker, and of all of it: equal snapshots have equal futures, and controls bite."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from dlpm.batch import WorkerConfig
from dlpm.memory import Reserving
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_proofs.drawing import draw_cycle
from dlpm_proofs.explore import (
    Instance,
    Kind,
    StateGraph,
    fruitless_cycle,
    idle_edges,
    lasso,
    longest_wait,
    request_starvation,
    starvation,
)
from dlpm_proofs.snapshot import snapshot
from dlpm_proofs.theorems.t7_starvation import HOT_AND_COLD, OWN_RIVAL, UNDER_LPM, longest_queued
from dlpm_proofs.witness import Setting, call

SMALL = Instance("small", Setting(4, quantum=3), HOT_AND_COLD)


@pytest.fixture(scope="module")
def dlpm_graph() -> StateGraph:
    """The small instance under DLPM."""
    return StateGraph(SMALL)


@pytest.fixture(scope="module")
def lpm_graph() -> StateGraph:
    """The same under LPM."""
    return StateGraph(UNDER_LPM)


@pytest.mark.parametrize("memory", ["reserving", "optimistic"])
@pytest.mark.parametrize("seed", range(4))
def test_workers_with_equal_snapshots_stay_equal_whatever_comes(memory: str, seed: int) -> None:
    kinds = (*OWN_RIVAL, Kind("again", "g", (5, 6, 7), 1, 1))
    setting = Setting(6, quantum=3, memory=memory)
    numbers = {kind.name: number for number, kind in enumerate(kinds)}
    draw = random.Random(seed)

    def fresh() -> Worker:
        return Worker(setting.config(), setting.build_policy(), FixedStep(1))

    def seen(worker: Worker) -> object:
        return snapshot(worker, lambda request: numbers[request.id.partition(".")[0]])

    def move(worker: Worker, sent: tuple[Kind, ...], serial: int) -> None:
        for place, kind in enumerate(sent):
            worker.submit(call(f"{kind.name}.{serial}.{place}", kind.client, kind.prompt, kind.output), 0)
        worker.step()

    # Two workers with different pasts: wherever their snapshots meet, the same moves must keep them equal.
    past: dict[object, list[tuple[Kind, ...]]] = {}
    met = 0
    for _ in range(30):
        worker = fresh()
        moves: list[tuple[Kind, ...]] = []
        for serial in range(12):
            sent = tuple(draw.sample(kinds, draw.choice([0, 0, 1, 1, 2])))
            move(worker, sent, serial)
            moves.append(sent)
            other_past = past.setdefault(seen(worker), list(moves))
            if other_past != moves:
                met += 1
                other = fresh()
                for number, earlier in enumerate(other_past):
                    move(other, earlier, number)
                assert seen(other) == seen(worker)
                follow = tuple(draw.sample(kinds, draw.choice([0, 1, 2])))
                move(other, follow, 100 + serial)
                move(worker, follow, 100 + serial)
                moves.append(follow)
                assert seen(other) == seen(worker)
    assert met > 10


def test_a_snapshot_tells_apart_what_differs() -> None:
    def worker(*prompts: tuple[int, ...]) -> object:
        found = Worker(WorkerConfig(8, Reserving()), Setting(8, 3).build_policy(), FixedStep(1))
        for number, prompt in enumerate(prompts):
            found.submit(call(f"k.{number}", "f", prompt, 1), 0)
            found.step()
        return snapshot(found, lambda request: 0)

    assert worker((1, 2), (3, 4)) != worker((3, 4), (1, 2))
    assert worker((1, 2)) != worker((1, 3))


def test_nobody_starves_under_dlpm_and_every_step_runs_something(dlpm_graph: StateGraph) -> None:
    assert idle_edges(dlpm_graph) == []
    assert fruitless_cycle(dlpm_graph) == []
    assert [starvation(dlpm_graph, client) for client in ("f", "g")] == [[], []]
    assert longest_wait(dlpm_graph, "f") >= 1


def test_the_same_instance_starves_under_lpm_and_the_replayed_cycle_shows_it(lpm_graph: StateGraph) -> None:
    cycle = starvation(lpm_graph, "f")
    assert cycle
    for rounds in (3, 9):
        assert longest_queued(lasso(lpm_graph, cycle, rounds, "cycle"), "f") >= rounds * len(cycle)


def test_a_cycle_is_a_closed_walk_in_which_the_client_waits_throughout(lpm_graph: StateGraph) -> None:
    cycle = starvation(lpm_graph, "f")
    assert all(edge.target == after.source for edge, after in zip(cycle, [*cycle[1:], cycle[0]], strict=True))
    assert all(0 in edge.waiting and 0 not in edge.admitted for edge in cycle)


def test_every_state_is_left_by_every_move_the_environment_has(dlpm_graph: StateGraph) -> None:
    sources = {edge.source for edge in dlpm_graph.edges}
    targets = {edge.target for edge in dlpm_graph.edges}
    assert sources == set(range(dlpm_graph.states))
    assert targets | {0} == set(range(dlpm_graph.states))
    # From the empty system: one of each kind, alone or with the other, in either order.
    assert {edge.sent for edge in dlpm_graph.edges if edge.source == 0} == {(0,), (1,), (0, 1), (1, 0)}


def test_a_request_that_its_own_client_overtakes_starves_under_dlpm() -> None:
    graph = StateGraph(Instance("own rival", Setting(5, quantum=3), OWN_RIVAL))
    assert request_starvation(graph, 0)
    assert not starvation(graph, "f")


def test_the_drawing_of_the_starvation_cycle_is_the_one_in_the_documentation(
    lpm_graph: StateGraph, repository: Path
) -> None:
    drawn = draw_cycle(lpm_graph, starvation(lpm_graph, "f"), "Longest prefix match: f waits for ever")
    assert (repository / "docs" / "figures" / "starvation-lpm.svg").read_text(encoding="utf-8") == drawn
