"""What the compiler makes of the kernel, executed on the CPU, decides what tensor operations decide.

How kernels are run is settled when Triton is imported, and this process interprets them. So the tests are in two files
that pytest runs in another process each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("torch")
pytest.importorskip("dlpm_engine.tensor.batched.kernel.dialect")


@pytest.mark.parametrize(("file", "tests"), [("compiled_operations.py", 40), ("compiled_decisions.py", 6)])
def test_where_kernels_are_compiled(repository: Path, tmp_path: Path, file: str, tests: int) -> None:
    report = tmp_path / "report.xml"
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"),
            Path(__file__).parent / file,
        ],
        cwd=repository,
        env={
            **settings,
            "TRITON_INTERPRET": "0",
            "TRITON_CACHE_DIR": str(tmp_path / "cache"),
            "TRITON_ALWAYS_COMPILE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (suite,) = ElementTree.parse(report).getroot()
    assert [int(suite.attrib[name]) for name in ("failures", "errors", "skipped")] == [0, 0, 0]
    assert int(suite.attrib["tests"]) >= tests
