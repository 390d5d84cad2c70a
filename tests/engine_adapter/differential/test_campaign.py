"""Campaigns: what they sum up, how they stop, and that a kill loses nothing that was finished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from dlpm.errors import InputError
from dlpm_engine.adapter import Snapshot
from dlpm_engine.differential.campaign import Plan, run_campaign
from dlpm_engine.differential.case import read_case
from dlpm_engine.differential.chunk import BATCHED_CASES, CASES, cases_of, chunk_from_json, chunk_size, run_chunk
from dlpm_engine.differential.corpus import corpus
from dlpm_engine.differential.engines import make_engine
from dlpm_engine.differential.hunt import Settings, run_case
from dlpm_engine.differential.kinds import KINDS
from dlpm_engine.differential.modes import MODES
from dlpm_engine.differential.pool import WorkerDiedError
from dlpm_engine.differential.reference_engine import ReferenceEngine
from dlpm_engine.differential.summary import lines

REFERENCE = Settings("reference")
FAULTY = Settings("tensor+refill-everyone", shrink_seconds=3)


def test_a_campaign_runs_the_corpus_and_the_cases_and_reaches_every_kind() -> None:
    summary = run_campaign(Plan(Settings("tensor"), cases=200, least_kinds=len(KINDS)))
    assert summary.sound(), summary.never_reached()
    assert summary.total.found is None
    assert summary.total.tally.cases == len(corpus()) + 200
    text = "\n".join(lines(summary))
    assert "divergences           0" in text
    assert f"{len(KINDS)} of {len(KINDS)} reached" in text


def test_a_campaign_that_reaches_too_few_kinds_is_not_sound() -> None:
    summary = run_campaign(Plan(REFERENCE, cases=CASES, least_kinds=len(KINDS)))
    assert summary.never_reached() == ["left int64"] or len(summary.never_reached()) > 1
    assert not summary.sound()
    assert any("never reached" in line for line in lines(summary))


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_runs_clean_on_equal_engines(mode: str) -> None:
    summary = run_campaign(Plan(Settings("tensor", mode), cases=CASES))
    assert summary.sound()


def test_a_divergence_ends_the_campaign_and_can_be_seen_again_from_its_file(tmp_path: Path) -> None:
    summary = run_campaign(Plan(FAULTY, cases=500, save=tmp_path))
    assert not summary.sound()
    (path,) = tmp_path.glob("*.jsonl")
    found = summary.total.found
    assert found is not None
    assert found["file"] == str(path)
    assert str(found["command"]).endswith(str(path))
    case = read_case(path)
    assert found["requests"] == len(case.requests)
    assert len(case.requests) <= 6
    assert run_case(case, FAULTY).divergence is not None
    assert run_case(case, Settings("tensor")).divergence is None
    report = str(found["report"])
    for part in ("why: refill", "before the step", "the step in the reference", "to see it again"):
        assert part in report


class _WrongOnce(ReferenceEngine):
    """The reference, but for the deficits that its first engine tells."""

    engines = 0

    def __init__(self) -> None:
        super().__init__()
        self._wrong = _WrongOnce.engines == 0
        _WrongOnce.engines += 1

    def snapshot(self) -> Snapshot:
        state = super().snapshot()
        return replace(state, free_tokens=state.free_tokens + 1) if self._wrong else state


def test_a_divergence_that_does_not_show_again_is_reported_as_it_was_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_WrongOnce, "engines", 0)
    engine = Settings(f"{__name__}:{_WrongOnce.__name__}")
    case = next(iter(corpus().values()))
    found = run_chunk([case], 0, engine, tmp_path).found
    assert found is not None
    assert (found["repeats"], found["command"]) == (False, None)
    assert found["requests"] == len(case.requests)
    assert "did not differ on this case again" in str(found["report"])
    assert read_case(Path(str(found["file"]))).requests == case.requests


def test_several_processes_find_what_one_finds(tmp_path: Path) -> None:
    alone = run_campaign(Plan(REFERENCE, cases=4 * CASES))
    together = run_campaign(Plan(REFERENCE, cases=4 * CASES, jobs=2))
    assert together.total.tally == alone.total.tally
    assert together.total.kinds == alone.total.kinds


def test_a_batched_engine_is_compared_on_groups_of_like_size_and_misses_no_case() -> None:
    batched, alone = (
        run_chunk(cases_of(1, 3, 60), 1, Settings(engine), None) for engine in ("tensor-batched", "tensor")
    )
    assert (batched.found, batched.out_of_range) == (None, alone.out_of_range)
    assert batched.tally.cases == 60
    # It does not say in which order it considers the queue, so that fewer other values are compared.
    assert replace(batched.tally, values=0) == replace(alone.tally, values=0)
    assert batched.kinds == alone.kinds
    assert chunk_size("tensor-batched") == chunk_size("tensor@cuda") == BATCHED_CASES > CASES == chunk_size("tensor")


def test_a_campaign_goes_on_where_its_journal_ends(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    first = run_campaign(Plan(REFERENCE, cases=CASES, journal=journal))
    with journal.open("a") as stream:
        stream.write('{"chunk": 2, "tal')
    second = run_campaign(Plan(REFERENCE, cases=3 * CASES, journal=journal))
    assert first.resumed == 0
    assert second.resumed == 2
    assert second.total.tally == run_campaign(Plan(REFERENCE, cases=3 * CASES)).total.tally
    chunks = [json.loads(line).get("chunk") for line in journal.read_text().splitlines()[1:]]
    assert chunks == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "other", [Plan(REFERENCE, seed=1), Plan(Settings("tensor")), Plan(Settings("reference", "ledger"))]
)
def test_the_journal_of_another_campaign_is_refused(tmp_path: Path, other: Plan) -> None:
    journal = tmp_path / "journal.jsonl"
    run_campaign(Plan(REFERENCE, cases=CASES, journal=journal))
    plan = Plan(other.settings, seed=other.seed, cases=CASES, journal=journal)
    with pytest.raises(InputError, match="another journal"):
        run_campaign(plan)


def test_a_damaged_journal_is_refused_by_line(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    run_campaign(Plan(REFERENCE, cases=CASES, journal=journal))
    text = journal.read_text().splitlines()
    journal.write_text("\n".join([text[0], '{"chunk": 0}', *text[2:]]) + "\n")
    with pytest.raises(InputError, match=r"journal\.jsonl:2: expected the result of a finished chunk"):
        run_campaign(Plan(REFERENCE, cases=CASES, journal=journal))


def test_a_killed_campaign_loses_no_finished_chunk(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    program = (
        "from pathlib import Path\n"
        "from dlpm_engine.differential.campaign import Plan, run_campaign\n"
        "from dlpm_engine.differential.hunt import Settings\n"
        f"run_campaign(Plan(Settings('reference'), cases=None, seconds=60, journal=Path({str(journal)!r})))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and (not journal.exists() or journal.read_bytes().count(b"\n") < 3):
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    whole = [line for line in journal.read_text().splitlines(keepends=True) if line.endswith("\n")][1:]
    finished = [chunk_from_json(json.loads(line)) for line in whole]
    assert len(finished) >= 2
    summary = run_campaign(Plan(REFERENCE, cases=CASES, journal=journal))
    assert summary.resumed == len(finished)
    assert summary.total.tally.cases >= sum(chunk.tally.cases for chunk in finished)


def test_a_process_that_dies_ends_the_campaign_and_leaves_its_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mortal.py").write_text(
        "import os\n"
        "from dlpm_engine.differential.reference_engine import ReferenceEngine\n"
        "class Mortal(ReferenceEngine):\n"
        "    name = 'mortal'\n"
        "    def submit(self, request):\n"
        "        if len(request.prompt) == 11:\n"
        "            os._exit(9)\n"
        "        super().submit(request)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    journal = tmp_path / "journal.jsonl"
    with pytest.raises(WorkerDiedError):
        run_campaign(Plan(Settings("mortal:Mortal"), cases=None, seconds=60, jobs=2, journal=journal))
    assert journal.read_text().startswith('{"schema":"dlpm.campaign/1"')


def test_a_campaign_of_no_time_still_says_that_nothing_was_compared() -> None:
    summary = run_campaign(Plan(REFERENCE, cases=None, seconds=-1.0))
    assert not summary.sound()
    assert any("nothing was compared" in line for line in lines(summary))


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("vllm", "expected reference"),
        ("reference+one-pass", "expected reference"),
        ("tensor+nonsense", "expected one of gate-open-at-zero"),
        ("no.such.module:Engine", "can be imported"),
        ("json:loads", "without arguments"),
        ("dlpm.request:Workload", "without arguments"),
        ("threading:Event", "EngineAdapter"),
        ("json:__doc__", "class or function"),
    ],
)
def test_an_engine_that_does_not_exist_is_refused(name: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        make_engine(name)


def test_an_engine_of_ones_own_is_named_by_module_and_class() -> None:
    engine = make_engine("dlpm_engine.differential.reference_engine:ReferenceEngine")
    assert engine.name == "reference"
    summary = run_campaign(Plan(Settings("dlpm_engine.differential.reference_engine:ReferenceEngine"), cases=CASES))
    assert summary.sound()


def test_ray_is_asked_for_by_name_where_it_is_missing() -> None:
    try:
        import ray  # type: ignore[import-not-found]  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(InputError, match="Ray is not installed"):
            run_campaign(Plan(REFERENCE, cases=CASES, ray=True))
    else:
        assert run_campaign(Plan(REFERENCE, cases=CASES, ray=True)).sound()
