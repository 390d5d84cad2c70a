"""Bounds are reached on the reference, counterexamples break them, and `dlpm check` points at the line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from dlpm import bounds
from dlpm.workload import files as workload_files
from dlpm_engine.conformance import check_path
from dlpm_proofs.deepest import CLIENT, Limits
from dlpm_proofs.run import chosen
from dlpm_proofs.scenario import AllTogether, OneByOne
from dlpm_proofs.theorem import Theorem
from dlpm_proofs.theorems.t2_optimistic import harmonic_run, printed_floor_broken
from dlpm_proofs.theorems.t3_t4_gap import gap_reached
from dlpm_proofs.theorems.t3_t4_optimistic import printed_gap_broken
from dlpm_proofs.theorems.t8_vtc import heavy_inputs, without_reservations
from dlpm_proofs.widest import gap, widest_run
from dlpm_proofs.witness import Demonstration, Replay, Setting, call, replay


@st.composite
def limits(draw: st.DrawFn, most: int = 12) -> Limits:
    """Weights, a quantum and limits, all small."""
    kv_tokens = draw(st.integers(2, most))
    return Limits(
        extend_weight=draw(st.integers(1, 4)),
        output_weight=draw(st.integers(1, 4)),
        quantum=draw(st.integers(1, 10)),
        max_input=draw(st.integers(1, kv_tokens)),
        max_output=draw(st.integers(1, kv_tokens)),
        kv_tokens=kv_tokens,
        max_running=draw(st.integers(1, 5)),
    )


@given(limits())
@example(Limits(4, 2, quantum=2, max_input=8, max_output=1, kv_tokens=12, max_running=4))
def test_the_tight_floor_is_reached_whatever_the_weights_the_quantum_and_the_limits(case: Limits) -> None:
    # Requests of one and the same size can only bring the counter to some of its values.
    assume(case.kv_tokens > 2 and (case.max_input > 1 or case.max_output > 1))
    run = case.deepest_run()
    assert run is not None
    assert min(run.counters(CLIENT)) == case.floor()


@given(limits(most=7))
@example(Limits(1, 2, quantum=7, max_input=4, max_output=8, kv_tokens=8, max_running=8))
def test_no_run_built_to_widen_the_gap_exceeds_it(case: Limits) -> None:
    free = Limits(
        case.extend_weight, case.output_weight, case.quantum, case.max_input, case.kv_tokens, case.kv_tokens, 9
    )
    run = widest_run(free)
    assume(run is not None)
    assert run is not None
    found = run.widest_gap("f", "g")
    assert found <= gap(free)
    # A visit refills once. While one refill lifts everybody, the order of arrival is the order of service.
    if free.quantum >= 1 - free.floor():
        assert found == gap(free)


@given(st.integers(2, 40).map(lambda k: 2 * k))
def test_the_harmonic_floor_is_reached_without_limits_on_outputs_and_batch(kv_tokens: int) -> None:
    run = harmonic_run(kv_tokens, kv_tokens if kv_tokens > 3 else 4)
    outputs = bounds.outputs_after_admission(kv_tokens)
    recomputation = bounds.longest_recomputation(kv_tokens - 1, kv_tokens)
    assert min(run.counters("a")) == 1 - bounds.optimistic_unit(run.setting.cost(), recomputation, outputs)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6)), min_size=1, max_size=8),
    st.integers(10, 16),
    st.integers(1, 9),
)
def test_no_optimistic_run_falls_below_the_harmonic_floor(
    sizes: list[tuple[int, int]], kv_tokens: int, quantum: int
) -> None:
    setting = Setting(kv_tokens, quantum, memory="optimistic")
    calls = [
        call(f"r{k}", "fg"[k % 2], range(10 * k, 10 * k + prompt), output) for k, (prompt, output) in enumerate(sizes)
    ]
    run = replay(setting, calls, "random")
    longest, most = max(prompt for prompt, _ in sizes), max(output for _, output in sizes)
    outputs = bounds.outputs_after_admission(kv_tokens, most)
    unit = bounds.optimistic_unit(setting.cost(), bounds.longest_recomputation(longest, kv_tokens, most), outputs)
    for client in {request.client for request in run.workload.requests}:
        assert min(run.counters(client)) >= 1 - unit


def test_a_solved_run_ends_where_the_solver_says() -> None:
    question = OneByOne(Setting(kv_tokens=10, quantum=6), max_input=5, max_output=9, rounds=2)
    for deficit in (-18, -17, 0, 3):
        run = question.solved(deficit)
        assert run is not None
        assert run.counters(CLIENT)[-1] == deficit
    assert question.solved(-19) is None


def test_a_solved_optimistic_run_sinks_at_least_as_deep_as_asked() -> None:
    run = AllTogether(Setting(kv_tokens=32, quantum=4, memory="optimistic"), requests=4).solved(-120)
    assert run is not None
    assert min(run.counters(CLIENT)) <= -120


def checked(run: Replay, folder: Path) -> tuple[int, list[tuple[str, int]]]:
    """Exit code and (rule, line) of what `dlpm check` finds in the log of a run."""
    _, log = run.write(folder, "witness")
    report = check_path(log, all_violations=True)
    return report.exit_code, [(violation.rule, violation.line) for violation in report.violations]


@pytest.mark.parametrize(
    ("shown", "rule"),
    [
        (printed_floor_broken()[0], "deficit-floor"),
        (printed_gap_broken()[0], "gap-backlogged"),
        (heavy_inputs()[0], "vtc-apart"),
        (without_reservations()[0], "vtc-apart"),
    ],
    ids=["T2/optimistic", "T3/optimistic", "T8/heavy-inputs", "T8/optimistic"],
)
def test_dlpm_check_points_at_the_line_that_breaks_a_refuted_bound(
    shown: Demonstration, rule: str, tmp_path: Path
) -> None:
    assert shown.replay is not None
    code, found = checked(shown.replay, tmp_path)
    assert code == 1
    assert rule in {name for name, _ in found}
    line = min(number for name, number in found if name == rule)
    events = (tmp_path / "witness.events.jsonl").read_text().splitlines()
    assert json.loads(events[line - 1])["event"] in ("admit", "output")


def test_dlpm_check_accepts_the_runs_that_reach_the_proven_bounds(tmp_path: Path) -> None:
    for shown in gap_reached():
        assert shown.replay is not None
        assert checked(shown.replay, tmp_path) == (0, [])


WITH_RUNS = ("T2*/reserving", "T2*/limits", "T2/optimistic", "T3/reserving", "T5/printed", "T6/rejects", "T7/lpm")


@pytest.mark.parametrize("theorem", chosen(WITH_RUNS), ids=WITH_RUNS)
def test_a_witness_file_reads_back_as_the_workload_that_was_replayed(theorem: Theorem, tmp_path: Path) -> None:
    for shown in theorem.demonstrations():
        assert shown.replay is not None
        workload, _ = shown.replay.write(tmp_path, "witness")
        again = workload_files.read(workload)
        assert again.requests == shown.replay.workload.requests
        assert replay(shown.replay.setting, again.requests, again.name).events == shown.replay.events
