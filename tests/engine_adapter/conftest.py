"""The implementations that the suite of scheduler rules runs on: `pytest --impl=NAME`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dlpm_engine.adapter import EngineAdapter
from dlpm_engine.differential.engines import make_engine

IMPLEMENTATIONS = {
    "reference": "reference",
    "tensor-cpu": "tensor",
    "tensor-batched": "tensor-batched",
    "tensor-cuda": "tensor@cuda",
}
"""Names on the command line, and the engines behind them. `tensor-cuda` is `tensor-batched` on a GPU."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that ask for `implementation` on the one named, or on all."""
    if "implementation" not in metafunc.fixturenames:
        return
    named = metafunc.config.getoption("--impl")
    if named is not None and named not in IMPLEMENTATIONS:
        raise pytest.UsageError(f"--impl: expected one of {', '.join(IMPLEMENTATIONS)}, found {named!r}")
    names = [named] if named is not None else list(IMPLEMENTATIONS)
    marks = {"tensor-cuda": pytest.mark.gpu}
    metafunc.parametrize(
        "implementation", [pytest.param(name, marks=marks.get(name, ())) for name in names], indirect=True
    )


@pytest.fixture
def implementation(request: pytest.FixtureRequest) -> Callable[[], EngineAdapter]:
    """Makes engines of one implementation; skips the test where this machine cannot run it."""
    name: str = request.param
    if name == "tensor-cuda":
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
    return lambda: make_engine(IMPLEMENTATIONS[name])
