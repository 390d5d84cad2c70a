"""`dlpm verify`: what it writes, and that it is red when a verdict is not the expected one."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dlpm_engine.cli.main import execute
from dlpm_proofs import run as proofs_run
from dlpm_proofs.solve import claim
from dlpm_proofs.solvers import CVC5, Z3, Status
from dlpm_proofs.terms import Poly, at_least
from dlpm_proofs.theorem import Theorem, Verdict

FALSE_THEOREM = Theorem(
    id="T0",
    title="Everything is positive",
    source="nobody",
    statement="Every integer is positive.",
    hypotheses=(),
    expected=Verdict.PROVED,
    checked="Nothing.",
    argued="Nothing.",
    obligations=lambda: (claim("x is positive", (), at_least(Poly.unknown("x"), 1)),),
)


def test_verify_writes_verdicts_junit_obligations_and_witnesses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: tmp_path / name for name in ("out.json", "out.xml", "smt2", "witnesses")}
    options = ["--json", str(files["out.json"]), "--junit", str(files["out.xml"])]
    folders = ["--smt2", str(files["smt2"]), "--witnesses", str(files["witnesses"])]
    assert execute(["verify", "--theorem", "T2/optimistic", "--theorem", "t6/rejects", *options, *folders]) == 0
    out = capsys.readouterr().out
    assert "T2/optimistic" in out
    assert "the others use the memory that it frees" in out

    document = json.loads(files["out.json"].read_text())
    assert document["schema"] == "dlpm.verdicts/1"
    first, second = document["theorems"]
    assert (first["id"], first["verdict"], first["expected"], first["obligations"]) == (
        "T2/optimistic",
        "refuted",
        "refuted",
        3,
    )
    assert second["id"] == "T6/rejects"
    for entry in document["theorems"]:
        assert {
            "id",
            "title",
            "source",
            "verdict",
            "expected",
            "hypotheses",
            "solvers",
            "obligations",
            "witness",
        } <= set(entry)
        assert {name: solver["status"] for name, solver in entry["solvers"].items()} == {"z3": "ok", "cvc5": "ok"}
        assert Path(entry["witness"]).is_file()

    suite = ElementTree.parse(files["out.xml"]).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "0")
    obligations = sorted(files["smt2"].glob("*.smt2"))
    assert len(obligations) == 4
    for path in obligations:
        text = path.read_text()
        expected = Status.UNSAT if "; expected: unsat" in text else Status.SAT
        assert Z3().solve(text, 10).status is expected
        assert CVC5(check_proofs=True).solve(text, 10).status is expected


def test_a_verdict_that_is_not_the_expected_one_is_red_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proofs_run, "THEOREMS", (FALSE_THEOREM,))
    written, junit = tmp_path / "out.json", tmp_path / "out.xml"
    assert execute(["verify", "--json", str(written), "--junit", str(junit)]) == 1
    out = capsys.readouterr().out
    assert "unknown, expected proved" in out
    assert "x is positive: possible" in out
    (entry,) = json.loads(written.read_text())["theorems"]
    assert (entry["verdict"], entry["expected"]) == ("unknown", "proved")
    assert entry["problems"] == ["x is positive: possible"]
    failure = ElementTree.parse(junit).getroot().find("testcase/failure")
    assert failure is not None
    assert failure.text == "x is positive: possible"


def test_an_unknown_theorem_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["verify", "--theorem", "T99"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dlpm: theorem: expected one of M1, M2")
    assert error.rstrip().endswith("found 'T99'")
    assert error.count("\n") == 1


def test_explain_says_a_theorem_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["verify", "--theorem", "T6/rejects", "--explain"]) == 0
    out = capsys.readouterr().out
    assert "does not reject a request if it fits" in out
    assert "checked: A gated request waits beside free memory" in out


def test_the_bounds_of_an_engine_come_with_runs_that_are_near_them(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = repository / "examples" / "engines" / "reserving-batch-64.toml"
    assert execute(["verify", "--params", str(profile), "--witnesses", str(tmp_path / "worst")]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("floor "))
    found, bound = int(line.split()[1]), int(line.split()[3].rstrip(","))
    assert found <= bound <= 1.1 * found
    assert execute(["check", str(tmp_path / "worst" / "floor.events.jsonl")]) == 0
    assert execute(["check", str(tmp_path / "worst" / "gap.events.jsonl")]) == 0
