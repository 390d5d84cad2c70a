"""The experiments measure what they say, on small workloads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dlpm.errors import InputError
from dlpm.request import Workload
from dlpm.workload.synthetic import HEAVY, Spec, generate
from dlpm_engine.experiments import seeds
from dlpm_engine.experiments.figures import (
    documents_over_quantum,
    figure_7,
    figure_10,
    figure_10_with_system_prompts,
    figure_11,
    with_system_prompts,
)
from dlpm_engine.experiments.measure import COST, measure, program_latency
from dlpm_engine.experiments.report import Row, fill, read_rows, seeds_table
from dlpm_engine.experiments.systems import PREBLE, SYSTEMS, scenes
from dlpm_engine.run.options import EngineOptions


def small(scenario: str = "s1") -> Workload:
    return generate(Spec(name="tree-of-thoughts", scenario=scenario, clients=2, programs=2, heavy_width=None, seed=3))


def test_a_run_of_a_small_cluster_is_measured() -> None:
    workload = small("s2")
    for choice in SYSTEMS.values():
        measured = measure(workload, EngineOptions(gpu="a10g", cost=COST), choice, 2)
        assert measured.requests == len(workload.requests)
        assert 0 < measured.p50_s <= measured.p99_s <= measured.seconds
        assert 0 < measured.hit_rate < 1
        perceived = sum(COST.service(one.input_tokens, one.output_tokens) for one in workload.requests)
        assert measured.service_rate == pytest.approx(perceived / measured.seconds)


def test_the_latency_of_a_program_runs_from_its_first_call_to_its_last_finish() -> None:
    workload = small()
    finished = {one.id: one.arrival_us + 7 * (place + 1) for place, one in enumerate(workload.requests)}
    for client in (HEAVY, "well-0"):
        expected = []
        for number in range(2):
            calls = [one for one in workload.requests if one.id.startswith(f"{client}/{number}.")]
            expected.append(max(finished[one.id] for one in calls) - calls[0].arrival_us)
        assert program_latency(workload, finished, client) == [min(expected), max(expected)]


def test_a_system_prompt_lies_in_front_of_every_call_of_its_client_and_of_nobody_else() -> None:
    workload = small()
    longer = with_system_prompts(workload)
    first: dict[str, set[tuple[int, ...]]] = {}
    for before, after in zip(workload.requests, longer.requests, strict=True):
        added = (after.input_tokens - before.input_tokens) // workload.block_size
        assert after.blocks[added:] == before.blocks
        assert added == (340 if before.client == "well-0" else 34)
        first.setdefault(after.client, set()).add(after.blocks[:added])
    assert [len(prompts) for prompts in first.values()] == [1, 1]
    assert not set(*first["well-0"]) & set(*first[HEAVY])


def test_the_paper_has_seven_scenes_and_no_preble_on_one_gpu() -> None:
    assert len(scenes()) == 7
    jobs = list(figure_7())
    assert len(jobs) == 7 * (4 * 4 - 1)
    assert not any(job.system == PREBLE and job.workers == 1 for job in jobs)
    small_jobs = [*figure_10(), *figure_10_with_system_prompts(), *figure_11(), *documents_over_quantum()]
    places = [(job.figure, job.group, job.x, job.system) for job in jobs + small_jobs]
    assert len(places) == len(set(places))


def test_a_table_goes_to_its_place_and_nowhere_else() -> None:
    document = "a\n<!-- t -->\nold\n<!-- end -->\nb\n<!-- u -->\n<!-- end -->\n"
    filled = fill(document, {"t": "new"})
    assert filled == document.replace("old", "new")
    assert fill(filled, {"t": "new"}) == filled
    with pytest.raises(InputError, match="a place for the table 'v'"):
        fill(document, {"v": ""})


def test_what_seeds_change_is_shown_as_mean_least_and_most() -> None:
    def row(system: str, seed: int, rate: float, jain: float | None) -> Row:
        return Row("7 seeds", "scene", seed, system, rate, jain, 0.5, 10.0 * seed, 20.0, 1.0, 1, 0.1)

    rows = [row("VTC", 1, 9_000, None), row("VTC", 2, 11_000, None), row("D2LPM", 1, 5, 0.5), row("D2LPM", 2, 7, 0.7)]
    elsewhere = replace(rows[0], figure="7")
    assert seeds_table([*rows, elsewhere]).splitlines()[2:] == [
        "| scene | D2LPM | 6 (5 to 7) | 0.600 (0.500 to 0.700) | 15.0 (10.0 to 20.0) | 20.0 (20.0 to 20.0) |",
        "| scene | VTC | 10,000 (9,000 to 11,000) | - | 15.0 (10.0 to 20.0) | 20.0 (20.0 to 20.0) |",
    ]


def test_the_rows_of_other_seeds_are_those_of_four_workers_and_the_first_seed_is_that_of_the_figure(
    repository: Path,
) -> None:
    rows = read_rows(repository / "docs" / "results" / "d2lpm-seeds.jsonl")
    assert {(row.group, row.x, row.system) for row in rows} == {(job.group, job.x, job.system) for job in seeds.jobs()}
    figure = {
        (row.group, row.system): row.service_rate
        for row in read_rows(repository / "docs" / "results" / "d2lpm.jsonl")
        if (row.figure, row.x) == ("7", seeds.WORKERS)
    }
    assert {(row.group, row.system): row.service_rate for row in rows if row.x == 1} == figure


def test_the_rows_behind_the_documented_tables_are_those_of_the_experiments(repository: Path) -> None:
    rows = read_rows(repository / "docs" / "results" / "d2lpm.jsonl")
    jobs = [*figure_7(), *figure_10(), *figure_10_with_system_prompts(), *figure_11(), *documents_over_quantum()]
    assert {(row.figure, row.group, row.x, row.system) for row in rows} == {
        (job.figure, job.group, job.x, job.system) for job in jobs
    }
