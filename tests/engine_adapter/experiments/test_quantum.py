"""The experiment on who picks the quantum measures what it says, on small workloads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dlpm_engine.experiments.quantum import (
    ADDITIVE,
    FIXED,
    FTRL,
    RANGE,
    SYNTHETIC,
    TARGET,
    Job,
    Row,
    gap_bound,
    jobs,
    mean_over_time,
    measure,
    mooncake,
)
from dlpm_engine.experiments.quantum_report import draw, read_rows, runs_table, summary_table
from dlpm_engine.run.compare import run_policy
from dlpm_engine.run.options import PolicyChoice

SMALL = replace(
    SYNTHETIC[0], source="synthetic:llm-as-a-judge:s1:programs=8:rate=20:clients=3:heavy_width=1", window=5_000
)


@pytest.mark.parametrize("quantum", [1_000, 8_000])
def test_a_fixed_quantum_gives_the_numbers_of_the_plain_policy(quantum: int) -> None:
    setup = SMALL.setup()
    row = measure(setup, Job(SMALL, FIXED, quantum))
    plain = run_policy(setup, PolicyChoice("dlpm", quantum))
    assert plain.summary.tokens_per_s is not None
    assert plain.summary.jain is not None
    assert plain.max_gap_at_refills is not None
    assert row.tokens_per_s == float(plain.summary.tokens_per_s)
    assert row.jain == float(plain.summary.jain)
    assert row.gap == plain.max_gap_at_refills.amount
    assert (row.refills, row.requests) == (plain.summary.refills, len(setup.workload.requests))
    assert (row.mean_quantum, row.last_quantum) == (quantum, quantum)
    # U* is that of one extend token, and outputs of weight 2 that fill the rest of the memory; the gap 2 (U* - 1 + Q).
    assert row.bound == 2 * (1 + 2 * (setup.config.kv_tokens - 1) - 1 + quantum)


@pytest.mark.parametrize("picker", [ADDITIVE, FTRL])
def test_a_controller_moves_its_quantum_within_the_range_and_keeps_the_bound(picker: str) -> None:
    setup = SMALL.setup()
    row = measure(setup, Job(SMALL, picker))
    quanta = [quantum for _, quantum in row.quanta]
    assert quanta[0] == RANGE.least
    assert len(set(quanta)) > 1
    assert all(RANGE.least <= quantum <= RANGE.most for quantum in quanta)
    assert row.windows > 0
    assert 0 < row.gap <= row.bound == gap_bound(setup, RANGE)
    assert row == measure(setup, Job(SMALL, picker)), "the same run gives the same row"


def test_the_mean_quantum_is_that_over_time() -> None:
    assert mean_over_time([(5, 10), (6, 30), (9, 50)], 11) == round((1 * 10 + 3 * 30 + 2 * 50) / 6)
    assert mean_over_time([(5, 10)], 5) == 10
    assert mean_over_time([], 5) == 0


def test_every_scene_has_its_fixed_quanta_and_both_controllers() -> None:
    wanted = list(jobs([*SYNTHETIC, mooncake("trace")]))
    assert len(wanted) == 4 * (4 + 2) + 6 + 2
    for job in wanted:
        assert job.range().least >= job.scene.range.least
        assert job.range().most <= job.scene.range.most


def row_of(picker: str, quantum: int | None, rate: float, index: float | None) -> Row:
    return Row(
        *("scene", picker, quantum, rate, 0.5, 0.6, 0.7, 9, index, 0.4, 2, 30, 400, 5, quantum or 77, 8),
        quanta=[[0.0, quantum or 1], [1.0, quantum or 9]],
        requests=3,
    )


def test_the_best_fixed_quantum_is_the_fastest_that_meets_the_target() -> None:
    rows = [
        row_of(FIXED, 1_000, 100.0, 0.99),
        row_of(FIXED, 2_000, 110.0, float(TARGET)),
        row_of(FIXED, 8_000, 120.0, 0.94),
        row_of(FIXED, 32_000, 90.0, None),
        row_of(ADDITIVE, None, 105.0, 0.96),
        row_of(FTRL, None, 107.0, 0.95),
    ]
    [line] = summary_table(rows).splitlines()[2:]
    assert line == ("| scene | 33.3% | 2,000: 110 tokens/s, 0.950 | 105 tokens/s, 0.960 | 107 tokens/s, 0.950 |")
    [last] = runs_table(rows[-1:]).splitlines()[2:]
    assert last == "| implicit FTRL | 77 | 107 | 50.0% | 0.950 | 0.400 | 2 of 9 | 0.700 | 30 | 400 | 7.5% |"
    assert "| none |" in summary_table([row_of(FIXED, 1_000, 1.0, 0.5), *rows[4:]])


def test_the_picture_is_the_same_for_the_same_rows(tmp_path: Path) -> None:
    rows = [row_of(FIXED, 1_000, 100.0, 0.99), row_of(ADDITIVE, None, 105.0, 0.96), row_of(FTRL, None, 107.0, None)]
    for name in ("a.svg", "b.svg"):
        draw(rows, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_rows_behind_the_documented_tables_are_those_of_the_experiment(repository: Path) -> None:
    rows = read_rows(repository / "docs" / "results" / "quantum.jsonl")
    assert [(row.workload, row.picker, row.quantum) for row in rows] == [
        (job.scene.title, job.picker, job.quantum) for job in jobs([*SYNTHETIC, mooncake("trace")])
    ]
    assert all(row.gap <= row.bound for row in rows)
    page = (repository / "docs" / "results-quantum.md").read_text(encoding="utf-8")
    assert summary_table(rows) in page
    for row in rows:
        assert runs_table([row]).splitlines()[2] in page


@pytest.mark.traces
def test_a_prefix_of_the_trace_runs(traces: Path) -> None:
    scene = replace(mooncake(str(traces / "mooncake" / "conversation_trace.sample2000.jsonl.gz")), limit=150)
    row = measure(scene.setup(), Job(scene, FTRL))
    assert row.requests == 150
    assert row.gap <= row.bound
