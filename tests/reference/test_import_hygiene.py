"""The reference is plain Python, and its ledger is made of integers: both are read off the source text."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REFERENCE = Path(__file__).resolve().parent.parent.parent / "reference" / "dlpm"
SOURCES = sorted(REFERENCE.rglob("*.py"))
INTEGER_ONLY = ("ledger.py", "quanta.py", "bounds.py", "cost.py")


def imported_packages(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The top-level package of every import in a file, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # A relative import stays inside the package; its `module` may be None.
            yield node.lineno, "dlpm" if node.level else (node.module or "").partition(".")[0]


def traces_of_floats(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """What brings a float into a file: a literal, the name `float`, a true division, or `math` and `decimal`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
            yield node.lineno, f"literal {node.value!r}"
        elif isinstance(node, ast.Name) and node.id in {"float", "complex"}:
            yield node.lineno, f"name {node.id}"
        elif isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            yield node.lineno, "true division"
    yield from ((line, f"import {name}") for line, name in imported_packages(tree) if name in {"math", "decimal"})


def test_the_reference_has_sources_to_look_at() -> None:
    assert {"ledger.py", "cost.py"} <= {path.name for path in SOURCES}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REFERENCE)))
def test_the_reference_imports_the_standard_library_only(path: Path) -> None:
    allowed = sys.stdlib_module_names | {"dlpm"}
    foreign = [(line, name) for line, name in imported_packages(ast.parse(path.read_text())) if name not in allowed]
    assert not foreign


@pytest.mark.parametrize("name", INTEGER_ONLY)
def test_no_float_enters_a_ledger(name: str) -> None:
    assert list(traces_of_floats(ast.parse((REFERENCE / name).read_text()))) == []


@pytest.mark.parametrize(
    "source",
    ["x = 0.5", "def f(x: float) -> None: ...", "x = float('inf')", "x = a / b", "x /= 2", "from math import sqrt"],
)
def test_the_float_detector_sees_each_kind_of_float(source: str) -> None:
    assert list(traces_of_floats(ast.parse(source)))


@pytest.mark.parametrize(
    "source", ["import numpy", "import zstandard as z", "from torch.nn import Module", "def f():\n  import z3"]
)
def test_the_import_detector_sees_each_kind_of_foreign_import(source: str) -> None:
    names = {name for _, name in imported_packages(ast.parse(source))}
    assert not names <= sys.stdlib_module_names
