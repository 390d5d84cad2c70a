"""The theorems about extensions come out as the table says, and their controls bite."""

from __future__ import annotations

import pytest

from dlpm_proofs.solve import default_solvers
from dlpm_proofs.theorem import Prover, Theorem
from dlpm_proofs.theorems.extensions import EXTENSIONS
from tests.proofs.controls import assert_comes_out

PROVER = Prover(default_solvers(check_proofs=False))


@pytest.mark.parametrize("theorem", EXTENSIONS, ids=[theorem.id for theorem in EXTENSIONS])
def test_a_theorem_about_an_extension_gets_its_verdict(theorem: Theorem) -> None:
    result = PROVER.decide(theorem)
    assert_comes_out(result)
