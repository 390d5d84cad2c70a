"""What stated extensions change in the rules for a log, and how their options are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from dlpm.events import Header
from dlpm.fields import Fields
from dlpm_engine.conformance.dlpm_rules import DlpmRules
from dlpm_engine.conformance.findings import Findings
from dlpm_engine.conformance.line import Line
from dlpm_engine.conformance.parts import Parts, plain_parts
from dlpm_engine.conformance.promises import PlainPromises, Promises
from dlpm_engine.conformance.rule import Rule
from dlpm_engine.conformance.theorem_rules import TheoremRules
from dlpm_engine.conformance.worker_state import WorkerState


class ClusterRules(Protocol):
    """Rules about all workers of a cluster together."""

    def dispatched(self, event: Line) -> bool:
        """The router has sent a request to a worker; whether this moved one that waits at another."""
        ...

    def not_checked(self) -> Mapping[str, str]:
        """Rules that are not checked, each with the reason."""
        ...


class Mode:
    """The rules for DLPM logs that state certain extensions. This one changes nothing: it is that of plain logs.

    A subclass overrides the one or two methods in which its extensions differ: `promises` for another floor and gap,
    `discipline` for other charges, refills or gates, `parts` where the life of requests is another or there are events
    of another kind.
    """

    def __init__(self, header: Header) -> None:
        """The mode of a log with this header."""
        self.header = header

    @property
    def rules(self) -> tuple[str, ...]:
        """Ids of the rules that such a log is held to beside those of its policy."""
        return ()

    def promises(self) -> Promises:
        """The floors and the gap that are enforced."""
        return PlainPromises(self.header)

    def discipline(self, state: WorkerState) -> DlpmRules:
        """The rules about gate, charges and refills at one worker."""
        return DlpmRules(state, TheoremRules(state, self.promises()))

    def cluster(self, findings: Findings) -> ClusterRules | None:
        """What is common to all workers; asked once, before any of them. ``None`` if nothing is."""
        return None

    def parts(self, state: WorkerState) -> Parts:
        """All rules for one worker."""
        return plain_parts(state, self.discipline(state))


@dataclass(frozen=True, slots=True)
class Extension:
    """One extension as a log's header can state it.

    Attributes:
        name: its key in the header's ``extensions``.
        read: its options to a mode; raises `InputError` (as `Fields` does) for options that are not what they must be.
        rules: the rules that it adds to the list of all rules.
    """

    name: str
    read: Callable[[Fields, Header], Mode]
    rules: tuple[Rule, ...] = ()


def known_options(options: Fields, *names: str) -> None:
    """Refuse an option that is none of ``names``: it could change the rules.

    Raises:
        InputError: there is one.
    """
    for option in options.values:
        if option not in names:
            raise options.wrong(option, f"expected one of {', '.join(names)}" if names else "expected no options")


def one_of(options: Fields, name: str, *words: str) -> str:
    """An option that is one of a few words.

    Raises:
        InputError: it is missing, or anything else.
    """
    value = options.values.get(name)
    if not isinstance(value, str) or value not in words:
        raise options.mismatch(name, f"one of {', '.join(words)}")
    return value
