"""A report as text for people, and as JSON for programs."""

from __future__ import annotations

from dlpm.jsonl import JsonValue
from dlpm_engine.conformance.report import Report, Violation
from dlpm_engine.conformance.rules import RULES

SCHEMA = "dlpm.check/1"


def render(report: Report) -> str:
    """The report as plain text: the verdict, every violation with its circumstances, and what was not checked."""
    lines = [_verdict(report)]
    for violation in report.violations:
        lines += ["", *_violation(report, violation)]
    if report.omitted:
        lines += ["", f"{report.omitted} more violations are not shown"]
    if report.not_checked:
        lines.append("")
        lines += [f"not checked: {', '.join(group.rules)}: {group.reason}" for group in report.not_checked]
    return "\n".join(lines)


def _verdict(report: Report) -> str:
    """One line: whether the log holds."""
    policy = report.header.policy
    known = "" if _has_own_rules(policy) else " (no rules of its own: held to the rules for any policy)"
    checked = f"{report.events} events of {report.header.engine}, policy {policy}{known}"
    if report.holds:
        return f"{report.source}: holds: {checked}, {len(report.rules)} rules"
    count = len(report.violations) + report.omitted
    return f"{report.source}: violated: {count} violation{'s' if count > 1 else ''} in {checked}"


def _has_own_rules(policy: str) -> bool:
    """Whether there are rules for this policy in particular."""
    return any(policy in rule.policies for rule in RULES.values())


def _violation(report: Report, violation: Violation) -> list[str]:
    """One violation: where, which rule, expected, found, the ledger, and what came before."""
    rule = RULES[violation.rule]
    where = [f"{name} {value}" for name, value in _place(violation).items() if value is not None]
    lines = [
        f"{report.source}:{violation.line}: {rule.id}: {rule.sentence} [{rule.source}]",
        f"  at        {', '.join(where)}",
        f"  expected  {violation.expected}",
        f"  found     {violation.found}",
    ]
    if violation.unmet_hypothesis is not None:
        lines.append(f"  note      the run breaks the printed bound, but {violation.unmet_hypothesis}")
    if violation.ledger:
        shown = ", ".join(f"{client} {counter}" for client, counter in violation.ledger.items())
        more = violation.clients - len(violation.ledger)
        lines.append(f"  ledger    {shown}{f', and {more} more clients' if more > 0 else ''}")
    if violation.recent:
        lines.append(f"  before    the last events of {violation.client}:")
        lines += [f"            line {line}: {event}" for line, event in violation.recent]
    return lines


def _place(violation: Violation) -> dict[str, JsonValue]:
    """Worker, step, time, client and request, where they are known."""
    return {
        "worker": violation.worker,
        "step": violation.step,
        "time_us": violation.time_us,
        "client": violation.client,
        "request": violation.request,
    }


def to_json(report: Report) -> dict[str, JsonValue]:
    """The report as a JSON object (docs/rules.md, "The report as JSON")."""
    return {
        "schema": SCHEMA,
        "log": report.source,
        "engine": report.header.engine,
        "policy": report.header.policy,
        "holds": report.holds,
        "events": report.events,
        "rules": list(report.rules),
        "not_checked": [{"rules": list(group.rules), "reason": group.reason} for group in report.not_checked],
        "violations": [_violation_json(violation) for violation in report.violations],
        "omitted": report.omitted,
    }


def _violation_json(violation: Violation) -> dict[str, JsonValue]:
    """One violation as a JSON object."""
    rule = RULES[violation.rule]
    return {
        "line": violation.line,
        "rule": rule.id,
        "sentence": rule.sentence,
        "source": rule.source,
        **{name: value for name, value in _place(violation).items() if value is not None},
        "expected": violation.expected,
        "found": violation.found,
        "unmet_hypothesis": violation.unmet_hypothesis,
        "ledger": dict(violation.ledger),
        "clients": violation.clients,
        "recent": [{"line": line, "event": event} for line, event in violation.recent],
    }
