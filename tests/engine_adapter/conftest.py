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
    "tensor-kernel": "tensor-kernel",
    "tensor-cuda": "tensor@cuda",
    "tensor-batched-cuda": "tensor-batched@cuda",
}
"""Names on the command line, and the engines behind them. `tensor-cuda` is the kernel, `tensor-batched-cuda` is not."""
ON_CUDA = ("tensor-cuda", "tensor-batched-cuda")
INTERPRETED = "tensor-kernel"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that ask for `implementation` on the one named, or on all."""
    if "implementation" not in metafunc.fixturenames:
        return
    named = metafunc.config.getoption("--impl")
    if named is not None and named not in IMPLEMENTATIONS:
        raise pytest.UsageError(f"--impl: expected one of {', '.join(IMPLEMENTATIONS)}, found {named!r}")
    names = [named] if named is not None else list(IMPLEMENTATIONS)
    marks = dict.fromkeys(ON_CUDA, pytest.mark.gpu)
    metafunc.parametrize(
        "implementation", [pytest.param(name, marks=marks.get(name, ())) for name in names], indirect=True
    )


@pytest.fixture
def implementation(request: pytest.FixtureRequest) -> Callable[[], EngineAdapter]:
    """Makes engines of one implementation; skips the test where this machine cannot run it."""
    name: str = request.param
    if name in ON_CUDA:
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
    if name == INTERPRETED:
        dialect = pytest.importorskip("dlpm_engine.tensor.batched.kernel.dialect")
        if not dialect.interpreted():
            pytest.skip("kernels are compiled here, for CUDA devices")
        if "hypothesis" in request.keywords and request.config.getoption("--impl") is None:
            pytest.skip(f"many cases take a minute or more in an interpreter: run with --impl={INTERPRETED}")
    return lambda: make_engine(IMPLEMENTATIONS[name])
