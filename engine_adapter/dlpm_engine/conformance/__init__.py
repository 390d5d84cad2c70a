"""Conformance: the event log of any engine, held to its scheduler's rules and to the proven bounds (docs/rules.md)."""

from dlpm_engine.conformance.checker import check_log
from dlpm_engine.conformance.reading import check_path
from dlpm_engine.conformance.render import render, to_json
from dlpm_engine.conformance.report import NotChecked, Report, Violation
from dlpm_engine.conformance.rule import Rule
from dlpm_engine.conformance.rules import RULES, rules_for

__all__ = [
    "RULES",
    "NotChecked",
    "Report",
    "Rule",
    "Violation",
    "check_log",
    "check_path",
    "render",
    "rules_for",
    "to_json",
]
