"""E6, churn: idle clients are forgotten, with their debt (``forget``) or only when that is paid (``keep-debt``).

A client is idle while nothing of it is queued, running, or in the latest forward step. Its credit is lost at once: a
counter of 0 or more is forgotten, gets no refill, and counts as 0 when the client comes back. Under ``keep-debt`` a
debt is kept and refilled as ever, and the bounds of the plain algorithm hold. Under ``forget`` no gap is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping

from dlpm.events import Header
from dlpm.fields import Fields
from dlpm_engine.conformance.dlpm_rules import DlpmRules
from dlpm_engine.conformance.extensions.mode import Extension, Mode, known_options, one_of
from dlpm_engine.conformance.findings import names
from dlpm_engine.conformance.promises import Gap, PlainPromises, Promises
from dlpm_engine.conformance.rule import extension_rule
from dlpm_engine.conformance.state import ClientState, RequestState
from dlpm_engine.conformance.theorem_rules import TheoremRules
from dlpm_engine.conformance.worker_state import WorkerState

KEEP_DEBT, FORGET = "keep-debt", "forget"
REFILL_IDLE = extension_rule(
    "refill-idle", "A refill pays no client that has been forgotten.", "docs/extensions.md, E6"
)


class ForgivingPromises(PlainPromises):
    """Ceiling and floors of the plain algorithm, and no gap: a debt that is forgotten is a gain without limit."""

    def gap(self, max_input: int, quantum: int) -> Gap | None:
        """None."""
        return None

    def not_checked(self) -> Mapping[str, str]:
        """The gaps as well."""
        reason = "no gap is bounded where debts are forgotten (docs/extensions.md, E6)"
        return {**super().not_checked(), **dict.fromkeys(("gap-backlogged", "gap-any"), reason)}


class ChurnRules(DlpmRules):
    """Algorithm 1 with clients that are forgotten while they are idle."""

    def __init__(self, state: WorkerState, promises: Promises, *, keeps_debt: bool) -> None:
        """Nobody is known."""
        super().__init__(state, TheoremRules(state, promises))
        self._keeps_debt = keeps_debt
        self._just_finished: set[ClientState] = set()

    def _is_forgotten(self, client: ClientState) -> bool:
        """Whether ``client`` is idle, and its counter kept by nobody. O(1)."""
        idle = not client.queued and not client.running and client not in self._just_finished
        return idle and (client.deficit >= 0 or not self._keeps_debt)

    def arrives(self, request: RequestState) -> None:
        """Who was forgotten starts at 0."""
        client = request.client
        if self._is_forgotten(client):
            client.deficit = 0
            client.doubtful = client.doubtful and self._keeps_debt
        super().arrives(request)

    def owed(self) -> list[ClientState]:
        """Whom a refill must pay: who is remembered. O(clients)."""
        return [client for client in super().owed() if not self._is_forgotten(client)]

    def refills(self, deficits: Mapping[str, int]) -> None:
        """As ever, and a forgotten client gets nothing. O(clients)."""
        clients = self.state.clients
        paid = [clients[name] for name in deficits if name in clients]
        forgotten = [client for client in paid if self._is_forgotten(client) and not client.doubtful]
        if forgotten:
            self.state.violation(
                REFILL_IDLE.id,
                expected=f"nothing for {names(client.id for client in forgotten)}: nothing of it is queued or running"
                + (", and it has no debt" if self._keeps_debt else ""),
                found="a quantum",
                client=forgotten[0],
            )
        for client in forgotten:
            client.doubtful = True
        super().refills(deficits)

    def finished(self, request: RequestState) -> None:
        """Its client is not idle before the next forward step."""
        self._just_finished.add(request.client)
        super().finished(request)

    def outputs(self, deficits: Mapping[str, int], served: Mapping[ClientState, int] | None) -> None:
        """As ever; who finished before this forward step has nothing in it."""
        self._just_finished.clear()
        super().outputs(deficits, served)

    def adopts_outputs(self, deficits: Mapping[str, int]) -> None:
        """The same."""
        self._just_finished.clear()
        super().adopts_outputs(deficits)


class Churn(Mode):
    """Logs of an engine that forgets idle clients."""

    def __init__(self, options: Fields, header: Header) -> None:
        """Read the options.

        Raises:
            InputError: ``rule`` is neither of the two, or there are others.
        """
        super().__init__(header)
        known_options(options, "rule")
        self._keeps_debt = one_of(options, "rule", KEEP_DEBT, FORGET) == KEEP_DEBT

    @property
    def rules(self) -> tuple[str, ...]:
        """Nothing for who is forgotten."""
        return (REFILL_IDLE.id,)

    def promises(self) -> Promises:
        """The plain bounds where debts are kept; no gap where they are not."""
        return PlainPromises(self.header) if self._keeps_debt else ForgivingPromises(self.header)

    def discipline(self, state: WorkerState) -> DlpmRules:
        """Algorithm 1 with clients that are forgotten."""
        return ChurnRules(state, self.promises(), keeps_debt=self._keeps_debt)


EXTENSION = Extension("churn", Churn, (REFILL_IDLE,))
