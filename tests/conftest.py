"""What every test shares: Hypothesis profiles, and where the public traces are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

# `ci` is deterministic: the same commit passes or fails the same way twice. `default` draws new examples each time,
# which is what a developer wants. `deep` is for an evening. `mutation` stops at the first failing example, because a
# mutant is dead then, however large the example. No deadlines: a slow machine is not a failing test.
settings.register_profile("default", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.register_profile("deep", settings.get_profile("default"), max_examples=5000)
settings.register_profile(
    "mutation", settings.get_profile("ci"), phases=(Phase.explicit, Phase.generate), report_multiple_bugs=False
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--impl` runs the suite of scheduler rules on one implementation (tests/engine_adapter/conftest.py)."""
    parser.addoption(
        "--impl",
        metavar="NAME",
        help="reference, tensor-cpu, tensor-batched, tensor-kernel, tensor-cuda, tensor-batched-cuda; without it: all",
    )


def traces_folder() -> Path | None:
    """The folder of public traces: `DLPM_TRACES`, or `../shared/traces` beside the repository; `None` if absent."""
    named = os.environ.get("DLPM_TRACES")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "traces"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def traces() -> Path:
    """The folder of public traces; skips the test, with the reason, where it is absent."""
    folder = traces_folder()
    if folder is None:
        pytest.skip("public traces not found: set DLPM_TRACES (CONTRIBUTING.md, 'Traces')")
    return folder
