"""E10, changing quantum: each refill pays one quantum from ``least`` to ``most``, the same to all whom it pays.

The log does not name the quantum: it is what counters rise by. What is proven holds for the largest one.
"""

from __future__ import annotations

from collections.abc import Mapping

from dlpm.events import Header
from dlpm.fields import MAX_TOKENS, Fields
from dlpm_engine.conformance.dlpm_rules import DlpmRules
from dlpm_engine.conformance.extensions.mode import Extension, Mode, known_options
from dlpm_engine.conformance.promises import Promises, ProvenUnit, Unproven, plain_unit
from dlpm_engine.conformance.rule import extension_rule
from dlpm_engine.conformance.state import ClientState
from dlpm_engine.conformance.theorem_rules import TheoremRules
from dlpm_engine.conformance.worker_state import WorkerState

REFILL_RANGE = extension_rule(
    "refill-range",
    "What a refill pays lies between the smallest and the largest quantum.",
    "docs/extensions/changing-quantum.md",
)
REFILL_ALIKE = extension_rule(
    "refill-alike",
    "One refill pays all clients at or below 0 the same.",
    "docs/extensions/changing-quantum.md",
)


class ChangingQuantumRules(DlpmRules):
    """Refills that pay what they like within a range."""

    def __init__(self, state: WorkerState, bounds: TheoremRules, least: int, most: int) -> None:
        """Nothing has happened."""
        super().__init__(state, bounds)
        self._least = least
        self._most = most

    def not_checked(self) -> Mapping[str, str]:
        """Amounts are no longer known beforehand."""
        replaced = dict.fromkeys(("refill-amount", "refill-twice"), "the quantum changes: refill-range and -alike are")
        return {**super().not_checked(), **replaced}

    def _check_amounts(self, paid: Mapping[ClientState, int]) -> None:
        """Each client at or below 0 gets the same, within the range. Each rule is reported once a refill.

        What the first one gets whose counter is known counts as the quantum. O(clients paid).
        """
        quantum: int | None = None
        broken: dict[str, tuple[ClientState, str, int]] = {}
        for client, after in paid.items():
            before = client.deficit
            if client.doubtful:
                continue
            if before > 0:
                broken.setdefault("refill-credit", (client, f"no refill at a deficit of {before}", after))
                continue
            if quantum is None:
                quantum = after - before
                if not self._least <= quantum <= self._most:
                    allowed = f"{before} + a quantum from {self._least} to {self._most}"
                    broken.setdefault(REFILL_RANGE.id, (client, allowed, after))
            elif after - before != quantum:
                alike = f"{before} + {quantum} = {before + quantum}, as the others get"
                broken.setdefault(REFILL_ALIKE.id, (client, alike, after))
        for rule, (client, expected, after) in broken.items():
            self.state.violation(rule, expected=expected, found=f"{after}", client=client)


class ChangingQuantum(Mode):
    """Logs of an engine whose quantum changes."""

    def __init__(self, options: Fields, header: Header) -> None:
        """Read the options.

        Raises:
            InputError: ``least`` and ``most`` are not whole numbers with 1 <= least <= most, or there are others; the
                header's quantum is not ``most``, or clients have quanta of their own.
        """
        super().__init__(header)
        known_options(options, "least", "most")
        self._least = options.integer("least", 1, MAX_TOKENS)
        self._most = options.integer("most", self._least, MAX_TOKENS)
        if header.default_quantum != self._most or header.quanta:
            raise options.wrong("most", "expected the quantum of the header, which is that of all clients")

    @property
    def rules(self) -> tuple[str, ...]:
        """What a refill pays, and the bounds."""
        return (REFILL_RANGE.id, REFILL_ALIKE.id, "extension-floor", "extension-gap")

    def promises(self) -> Promises:
        """The floor of unit 1, which no quantum moves, and the gap of the largest quantum [E10]."""
        if plain_unit(self.header, 1) is None:
            missing = "limits.kv_tokens" if self.header.limits.kv_tokens is None else "memory"
            return Unproven("a changing quantum", f"the header states no {missing}")
        return ProvenUnit("a changing quantum", lambda max_input: plain_unit(self.header, max_input) or 0)

    def discipline(self, state: WorkerState) -> DlpmRules:
        """Refills are held to the range."""
        return ChangingQuantumRules(state, TheoremRules(state, self.promises()), self._least, self._most)


EXTENSION = Extension("quantum_range", ChangingQuantum, (REFILL_RANGE, REFILL_ALIKE))
