"""Cases on which the tensor scheduler once parted from the reference: each is the smallest that was found."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from dlpm_engine.differential.case import read_case
from dlpm_engine.differential.hunt import Settings, run_case
from dlpm_engine.differential.report import report
from dlpm_engine.tensor.waiting import WaitingGroups

CASES = sorted((Path(__file__).parent / "cases").glob("*.jsonl"))


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_a_case_that_once_diverged_does_so_no_more(path: Path) -> None:
    case = read_case(path)
    outcome = run_case(case, Settings("tensor"))
    assert outcome.divergence is None, report(case, outcome.divergence, "tensor")


def test_it_diverges_if_who_joins_a_group_in_mid_pass_is_taken_for_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sound = WaitingGroups._note_members
    monkeypatch.setattr(WaitingGroups, "_note_members", lambda self, group, joined=0: sound(self, group))
    (path,) = (path for path in CASES if path.stem == "regrouped-in-mid-pass")
    assert run_case(read_case(path), Settings("tensor")).divergence is not None
