"""What a forward step charges: the same for DLPM, whose counters fall, and for VTC, whose counters rise."""

from __future__ import annotations

from collections.abc import Mapping

from dlpm_engine.conformance.findings import names
from dlpm_engine.conformance.state import ClientState
from dlpm_engine.conformance.worker_state import WorkerState


class OutputCharges:
    """Every client is charged ``w_q`` for each output token of its requests: no more, no less, and nobody else.

    Attributes:
        largest: the largest service of one client in the latest forward step, in weighted tokens.
        lowest: the lowest counter that the latest forward step left, of those it charged.
    """

    def __init__(self, state: WorkerState, rule: str, sign: int) -> None:
        """``rule`` is what a wrong charge breaks; ``sign`` is -1 for counters that fall, 1 for those that rise."""
        self._state = state
        self._rule = rule
        self._sign = sign
        self.largest = 0
        self.lowest = 0

    def apply(self, deficits: Mapping[str, int], served: Mapping[ClientState, int] | None) -> None:
        """Check and take over the counters after one forward step, and count its service. O(clients in the batch).

        ``served`` are the tokens of each client, or ``None`` where each of its running requests got one.
        """
        if served is not None or len(deficits) != len(self._state.active):
            self._apply_slowly(deficits, served)
            return
        weight = self._state.cost.output_weight
        sign = self._sign
        largest = 0
        lowest = None
        done: list[ClientState] = []
        for client in self._state.active:
            charge = weight * client.running
            counter = client.deficit + sign * charge
            found = deficits.get(client.id)
            if found != counter or type(found) is not int:
                break
            client.deficit = counter
            client.service += charge
            done.append(client)
            if charge > largest:
                largest = charge
            if lowest is None or counter < lowest:
                lowest = counter
        else:
            self.largest = largest
            self.lowest = lowest or 0
            return
        for client in done:
            charge = weight * client.running
            client.deficit -= sign * charge
            client.service -= charge
        self._apply_slowly(deficits, None)

    def _apply_slowly(self, deficits: Mapping[str, int], served: Mapping[ClientState, int] | None) -> None:
        """As `apply`, where something is unusual or wrong. Reports the first client whose counter is wrong."""
        state = self._state
        weight = state.cost.output_weight
        tokens = {client: client.running for client in state.active} if served is None else served
        if not state.blind:
            self._report(deficits, tokens)
        self.largest = max((weight * count for count in tokens.values()), default=0)
        for client, count in tokens.items():
            client.service += weight * count
            client.deficit = deficits.get(client.id, client.deficit + self._sign * weight * count)
        for name, found in deficits.items():
            named = state.clients.get(name)
            if named is not None:
                named.deficit = found
                named.doubtful = False
        self.lowest = min((client.deficit for client in tokens), default=0)

    def _report(self, deficits: Mapping[str, int], tokens: Mapping[ClientState, int]) -> None:
        """Report clients that never arrived, and the first wrong counter."""
        state = self._state
        unknown = [name for name in deficits if name not in state.clients]
        if unknown:
            state.violation("known-client", expected="counters of clients that have arrived", found=names(unknown))
        named = {state.clients[name]: found for name, found in deficits.items() if name in state.clients}
        for client in {**tokens, **named}:
            count = tokens.get(client, 0)
            charge = state.cost.output(count)
            right = client.deficit + self._sign * charge
            found = named.get(client)
            if (found != right or type(found) is not int) and not client.doubtful:
                sign = "-" if self._sign < 0 else "+"
                state.violation(
                    self._rule,
                    expected=f"{client.deficit} {sign} {charge} = {right} for {count} output tokens of {client.id!r}",
                    found="no counter" if found is None else f"{found}",
                    client=client,
                )
                return
