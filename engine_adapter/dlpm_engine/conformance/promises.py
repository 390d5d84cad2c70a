"""What is proven of a run: its floors and its gap, as far as its header says what the theorems need.

`theorem_rules` holds a log to whatever these say. The plain algorithm's are here; an extension states its own with
`ProvenUnit`, where the theorem is the same and only ``U*`` is another, with `Unproven`, or with a class of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Protocol

from dlpm.bounds import (
    deficit_floor,
    deficit_floor_as_printed,
    longest_recomputation,
    optimistic_unit,
    outputs_after_admission,
    service_gap,
    service_gap_as_printed,
    tight_unit,
)
from dlpm.cost import CostModel
from dlpm.events import Header
from dlpm_engine.conformance.rule import extension_rule

EXTENSION_BOUNDS = (
    extension_rule(
        "extension-floor",
        "No deficit is below the floor proven for the stated extensions.",
        "docs/extensions.md",
        theorem=True,
    ),
    extension_rule(
        "extension-gap",
        "Over any interval, no client gets more ahead of a backlogged one than is proven for the stated extensions.",
        "docs/extensions.md",
        theorem=True,
    ),
)
"""The bounds of extensions: rules of their own, because the printed ones say other numbers."""

PLAIN_BOUNDS = ("deficit-floor", "deficit-floor-proven", "gap-backlogged", "gap-any")


@dataclass(frozen=True, slots=True)
class Floor:
    """The ``lowest`` deficit that a theorem allows; ``unmet`` says which of its hypotheses the run does not meet."""

    rule: str
    lowest: int
    expected: str
    unmet: str | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """The largest lead over a backlogged client that a theorem allows, in weighted tokens.

    ``backlogged`` is the rule that a lead of a client breaks which was backlogged as well, ``other`` that of any other
    client. ``formula`` is how messages call the bound.
    """

    backlogged: str
    other: str
    bound: int
    formula: str
    unmet: str | None = None


class Promises(Protocol):
    """Floors and gap for a longest input of so many tokens; ``max_input`` is 0 before there was any request."""

    def floors(self, max_input: int) -> Sequence[Floor]:
        """The floors that are enforced. O(sqrt(M)) under optimistic memory."""
        ...

    def gap(self, max_input: int, quantum: int) -> Gap | None:
        """The gap of clients with this ``quantum``; ``None`` if there is no bound, or the header states too little."""
        ...

    def not_checked(self) -> Mapping[str, str]:
        """The rules about bounds that are not enforced, each with the reason."""
        ...


class PlainPromises:
    """The bounds that [DLPM App. A.1] proves or prints for one worker's ledger, for the limits that its log states."""

    def __init__(self, header: Header) -> None:
        """For a log with this header."""
        self._header = header
        self._cost = CostModel(header.extend_weight, header.output_weight)

    def floors(self, max_input: int) -> Sequence[Floor]:
        """The printed floor, and the proven one as far as it is known what memory is."""
        kv_tokens = self._header.limits.kv_tokens
        if kv_tokens is None or not max_input:
            return ()
        printed = deficit_floor_as_printed(self._cost, max_input, kv_tokens)
        floors = [Floor("deficit-floor", printed + 1, f"a deficit above -U = {printed}", self._unmet())]
        tight = plain_unit(self._header, max_input)
        if tight is not None:
            proven = deficit_floor(tight, smallest_credit(self._header))
            expected = f"a deficit of at least {proven}, the floor under {self._header.memory} memory"
            floors.append(Floor("deficit-floor-proven", proven, expected))
        return floors

    def gap(self, max_input: int, quantum: int) -> Gap | None:
        """2(U+Q) [DLPM Thm 4.1, 4.2]."""
        kv_tokens = self._header.limits.kv_tokens
        if kv_tokens is None:
            return None
        bound = service_gap_as_printed(self._cost, max_input, kv_tokens, quantum)
        return Gap("gap-backlogged", "gap-any", bound, "2(U+Q)", self._unmet())

    def not_checked(self) -> Mapping[str, str]:
        """The bounds that need a limit that the header does not state."""
        if self._header.limits.kv_tokens is None:
            return dict.fromkeys(PLAIN_BOUNDS, "the header states no limits.kv_tokens")
        if self._header.memory is None:
            return {"deficit-floor-proven": "the header does not say what memory is"}
        return {}

    def _unmet(self) -> str | None:
        """Why the printed theorems do not speak of this run, if they do not."""
        memory = self._header.memory
        if memory == "reserving":
            return None
        if memory is None:
            return "the header does not say what memory is: hypothesis reserving admission of A.1 eq. 2 is not known"
        return f"its memory is {memory}: hypothesis reserving admission of A.1 eq. 2 is not met"


@dataclass(frozen=True, slots=True)
class ProvenUnit:
    """The floor ``1 - U*`` and the gap ``2 (Q - floor)``, where a theorem gives another ``U*`` for some extensions.

    Attributes:
        extensions: how messages call them.
        unit: ``U*`` in weighted tokens, for a longest input of so many tokens.
    """

    extensions: str
    unit: Callable[[int], int]

    def floors(self, max_input: int) -> Sequence[Floor]:
        """The proven floor."""
        if not max_input:
            return ()
        floor = deficit_floor(self.unit(max_input))
        return (Floor("extension-floor", floor, f"a deficit of at least {floor}, the floor with {self.extensions}"),)

    def gap(self, max_input: int, quantum: int) -> Gap | None:
        """What follows from floor, ceiling, and refills that pay every poor client its quantum at the same moment."""
        bound = service_gap(quantum, deficit_floor(self.unit(max_input)))
        return Gap("extension-gap", "extension-gap", bound, "2(Q - floor)")

    def not_checked(self) -> Mapping[str, str]:
        """The plain bounds: they say other numbers."""
        return dict.fromkeys(PLAIN_BOUNDS, f"not a theorem with {self.extensions}: extension-floor and -gap are")


@dataclass(frozen=True, slots=True)
class Unproven:
    """No floor and no gap: no theorem is about such a run, or its header states too little.

    Attributes:
        extensions: how messages call what the run does.
        reason: why there is no bound.
    """

    extensions: str
    reason: str

    def floors(self, max_input: int) -> Sequence[Floor]:
        """None."""
        return ()

    def gap(self, max_input: int, quantum: int) -> Gap | None:
        """None."""
        return None

    def not_checked(self) -> Mapping[str, str]:
        """All of them."""
        plain = dict.fromkeys(PLAIN_BOUNDS, f"not a theorem with {self.extensions}")
        return plain | dict.fromkeys((rule.id for rule in EXTENSION_BOUNDS), self.reason)


def smallest_credit(header: Header) -> int:
    """The least positive value of a counter: all are multiples of what divides weights and quanta. O(quanta)."""
    quanta = (header.default_quantum or 0, *header.quanta.values())
    return gcd(header.extend_weight, header.output_weight, *quanta)


def plain_unit(header: Header, max_input: int) -> int | None:
    """``U*`` of the plain algorithm with this memory and these limits [T2*]; ``None`` if the header does not say."""
    limits = header.limits
    cost = CostModel(header.extend_weight, header.output_weight)
    if limits.kv_tokens is None:
        return None
    if header.memory == "reserving":
        return tight_unit(
            cost, max_input, limits.kv_tokens, max_output=limits.max_output, max_running=limits.max_running
        )
    if header.memory == "optimistic":
        recomputation = longest_recomputation(max_input, limits.kv_tokens, limits.max_output)
        outputs = outputs_after_admission(limits.kv_tokens, limits.max_output, limits.max_running)
        return optimistic_unit(cost, recomputation, outputs)
    return None
