"""The list of rules: documented, and independent of what they check."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from dlpm_engine.conformance import RULES, rules_for

FORBIDDEN = ("worker", "policies", "ledger", "prefix_cache", "memory", "batch", "simulate", "cluster", "gap", "metrics")


def test_the_documentation_lists_every_rule_with_its_sentence_and_source(repository: Path) -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+?) \| (.+?) \|", (repository / "docs" / "rules.md").read_text(), re.M)
    assert rows == [(rule.id, rule.sentence, rule.source) for rule in RULES.values()]


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.id)
def test_a_rule_is_one_sentence(rule: object) -> None:
    sentence = RULES[getattr(rule, "id", "")].sentence
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert sentence.count(". ") == 0


def test_every_known_policy_has_rules_of_its_own() -> None:
    common = {rule.id for rule in rules_for("unknown")}
    for policy in ("dlpm", "vtc", "lpm", "fcfs"):
        assert common < {rule.id for rule in rules_for(policy)}


def imported(module: str, seen: set[str]) -> set[str]:
    """All modules of this project that a module imports, directly or not."""
    if module in seen:
        return seen
    seen.add(module)
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    for node in ast.walk(ast.parse(Path(spec.origin).read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("dlpm") and is_module(name):
                imported(name, seen)
    return seen


def is_module(name: str) -> bool:
    """Whether a dotted name is a module, not something in one."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_the_checker_imports_nothing_that_it_checks() -> None:
    modules = imported("dlpm_engine.conformance", set())
    assert {"dlpm.bounds", "dlpm.cost", "dlpm.event_codec"} <= modules
    for name in FORBIDDEN:
        assert not [module for module in modules if module == f"dlpm.{name}" or module.startswith(f"dlpm.{name}.")]


def test_every_rule_says_where_it_comes_from_and_whose_logs_it_is_for() -> None:
    for rule in RULES.values():
        assert rule.sentence.endswith("."), rule
        assert rule.source, rule
        assert isinstance(rule.policies, tuple), rule
