"""What the checker hands back: whether the log holds, and each violation with what is needed to understand it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dlpm.events import Header


@dataclass(frozen=True, slots=True)
class Violation:
    """One place where a log breaks a rule.

    Attributes:
        line: line of the log, from 1.
        rule: id in `RULES`.
        expected: what the rule allows here.
        found: what the log says.
        worker: the worker, in a cluster.
        step: the worker's step.
        time_us: the time of the event, where the log has time.
        client: whose ledger or request it is, where it is one client's.
        request: the request, where it is about one.
        ledger: the counters that the rule was held against (of at most `MAX_LEDGER` clients): before the event for a
            wrong charge, after it for a bound.
        clients: how many clients there were.
        recent: the last events of the client before this one: line number and what happened.
        unmet_hypothesis: for a bound that is a theorem, which of its hypotheses the run does not meet, and why;
            ``None`` if it meets them all.
    """

    line: int
    rule: str
    expected: str
    found: str
    worker: int | None = None
    step: int | None = None
    time_us: int | None = None
    client: str | None = None
    request: str | None = None
    ledger: Mapping[str, int] = field(default_factory=dict)
    clients: int = 0
    recent: tuple[tuple[int, str], ...] = ()
    unmet_hypothesis: str | None = None


@dataclass(frozen=True, slots=True)
class NotChecked:
    """Rules that could not be checked, because the log does not carry what they need."""

    rules: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """The result for one log.

    Attributes:
        source: what the log is called.
        header: its header.
        events: how many events were read (up to the first violation, unless all were asked for).
        rules: ids of the rules that were applied.
        not_checked: rules for this policy that could not be applied, and why.
        violations: in the order of the log; the first one alone unless all were asked for.
        omitted: violations found beyond the most that are kept.
    """

    source: str
    header: Header
    events: int
    rules: tuple[str, ...]
    not_checked: tuple[NotChecked, ...]
    violations: tuple[Violation, ...]
    omitted: int = 0

    @property
    def holds(self) -> bool:
        """Whether no rule was broken."""
        return not self.violations

    @property
    def exit_code(self) -> int:
        """What the command line exits with: 0 if the log holds, 1 if not. (2 is for input that is no log at all.)"""
        return 0 if self.holds else 1
