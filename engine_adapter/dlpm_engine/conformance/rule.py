"""What a rule is, and for which logs there are rules."""

from __future__ import annotations

from dataclasses import dataclass

ANY = ("any",)
KNOWN = ("dlpm", "vtc", "lpm", "fcfs")
DLPM = ("dlpm",)
LPM = ("lpm",)
FCFS = ("fcfs",)
VTC = ("vtc",)
D2LPM = ("d2lpm", "d2lpm-moving")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    ``policies`` are the policies whose logs it is for, or ``any``; ``routers`` are the routers of clusters, likewise. A
    rule for logs of an extension has neither: the extension's mode names it (`extensions.mode`).
    ``theorem`` says that the rule is a proven bound with hypotheses, not a law of the algorithm: a run may break it
    without having made a wrong step.
    """

    id: str
    sentence: str
    source: str
    policies: tuple[str, ...] = ANY
    theorem: bool = False
    routers: tuple[str, ...] = ()


def extension_rule(rule_id: str, sentence: str, source: str, *, theorem: bool = False) -> Rule:
    """A rule that only logs of some extensions are held to."""
    return Rule(rule_id, sentence, source, policies=(), theorem=theorem)
