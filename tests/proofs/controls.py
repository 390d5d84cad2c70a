"""What holds of every theorem that has been decided."""

from __future__ import annotations

from dlpm_proofs.solve import TIME_LIMIT_S, Expectation, Obligation, export
from dlpm_proofs.solvers import CVC5, Z3, Status
from dlpm_proofs.terms import TRUE
from dlpm_proofs.theorem import Result

SOLVERS = (Z3(), CVC5(check_proofs=False))


def assert_comes_out(result: Result) -> None:
    """The theorem has its verdict, and no claim holds because what it assumes cannot be. Both solvers say so.

    Products stand behind names here: that an assumption about *products* can be, the theorems show with numbers.
    """
    assert result.problems() == ()
    assert result.verdict is result.theorem.expected
    assert result.outcomes or result.demonstrations
    asked: set[str] = set()
    for outcome in result.outcomes:
        claim = outcome.obligation
        text = export(Obligation("", claim.assumptions, TRUE, Expectation.ONCE, claim.products))
        if claim.expect is Expectation.NEVER and text not in asked:
            asked.add(text)
            said = {solver.name: solver.solve(text, TIME_LIMIT_S).status for solver in SOLVERS}
            assert set(said.values()) == {Status.SAT}, f"{claim.name} assumes what cannot be: {said}"
