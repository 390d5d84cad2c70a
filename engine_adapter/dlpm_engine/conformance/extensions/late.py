"""E8, late accounting: counters hear of what a forward step costs up to ``steps`` forward steps later.

The counters in such a log are those that the gate saw. Charges come in order, each forward step's all at once, at the
end of a forward step. An event is wrong if no number of unheard steps explains it (`unheard`). Floor and gap are about
the counters as they would be if nothing were late, and hold for those that the gate saw as well.
"""

from __future__ import annotations

from collections.abc import Mapping

from dlpm.engine_profile import MAX_STEPS
from dlpm.events import Header
from dlpm.fields import Fields
from dlpm_engine.conformance.dlpm_rules import DlpmRules
from dlpm_engine.conformance.extensions.composed import composed
from dlpm_engine.conformance.extensions.mode import Extension, Mode, known_options
from dlpm_engine.conformance.extensions.unheard import Unheard
from dlpm_engine.conformance.findings import names
from dlpm_engine.conformance.odd import OddLineError
from dlpm_engine.conformance.output_charges import OutputCharges
from dlpm_engine.conformance.promises import EXTENSION_BOUNDS, Promises
from dlpm_engine.conformance.state import ClientState, RequestState
from dlpm_engine.conformance.theorem_rules import TheoremRules
from dlpm_engine.conformance.worker_state import WorkerState

NAME = "late"


class LateCharges(OutputCharges):
    """Every client is charged for each output token, up to so many forward steps late."""

    def __init__(self, state: WorkerState, unheard: Unheard) -> None:
        """Nothing has been charged."""
        super().__init__(state, "charge-output", -1)
        self._unheard = unheard
        self._believed_until = -1

    def believe(self) -> None:
        """The latest forward step is not known: what it costs may come at any of the next forward steps."""
        self._believed_until = self._state.forwards + self._unheard.steps

    def apply(self, deficits: Mapping[str, int], served: Mapping[ClientState, int] | None) -> None:
        """Check and take over the counters that are seen after one forward step. O(clients in the latest steps)."""
        if any(type(found) is not int for found in deficits.values()):
            raise OddLineError
        state = self._state
        weight = state.cost.output_weight
        tokens = {client: client.running for client in state.active} if served is None else dict(served)
        for client, count in tokens.items():
            client.service += weight * count
        self.largest = max((weight * count for count in tokens.values()), default=0)
        unheard = self._unheard
        unheard.forward(tokens)
        if not state.blind and state.forwards > self._believed_until:
            unknown = [name for name in deficits if name not in state.clients]
            if unknown:
                state.violation("known-client", expected="counters of clients that have arrived", found=names(unknown))
            logged: dict[ClientState, int | None] = dict.fromkeys(tokens)
            logged.update((state.clients[name], found) for name, found in deficits.items() if name in state.clients)
            logged = {client: found for client, found in logged.items() if not client.doubtful}
            if not unheard.settle(lambda steps: all(unheard.seen(c, steps) == found for c, found in logged.items())):
                self._wrong(logged)
        for name, found in deficits.items():
            client_state = state.clients.get(name)
            if client_state is not None:
                client_state.deficit = found
                client_state.doubtful = False
        self.lowest = min((unheard.true(client) for client in tokens), default=0)

    def _wrong(self, logged: Mapping[ClientState, int | None]) -> None:
        """Report the first counter that the number of unheard steps does not explain which explains the most."""
        unheard = self._unheard

        def explained(steps: int) -> int:
            return sum(unheard.seen(client, steps) == found for client, found in logged.items())

        best = max(unheard.possible, key=explained)
        unheard.settle(lambda steps: steps == best)
        for client, found in logged.items():
            if client.deficit != found:
                self._state.violation(
                    self._rule,
                    expected=f"{client.deficit} for {client.id!r}: {unheard.true(client)}, did the latest {best} steps "
                    "not come late",
                    found="no counter" if found is None else f"{found}",
                    client=client,
                )
                return


class TrueCounters(TheoremRules):
    """Bounds on the counters as they would be if nothing were late."""

    def __init__(self, state: WorkerState, promises: Promises, unheard: Unheard) -> None:
        """No client yet."""
        self._unheard = unheard
        super().__init__(state, promises)

    def counter(self, client: ClientState) -> int:
        """The true counter. O(steps)."""
        return self._unheard.true(client)


class LateRules(DlpmRules):
    """Algorithm 1 on counters that run behind."""

    def __init__(self, state: WorkerState, promises: Promises, steps: int) -> None:
        """Nothing has happened, and nothing is unheard."""
        self._unheard = Unheard(steps, state.cost.output_weight)
        self._late = LateCharges(state, self._unheard)
        super().__init__(state, TrueCounters(state, promises, self._unheard), self._late)

    def has_credit(self, request: RequestState) -> bool:
        """The gate: however much is unheard, the counter that it sees is positive."""
        client = request.client
        return not client.doubtful and self._unheard.seen(client, self._unheard.possible[0]) > 0

    def refills(self, deficits: Mapping[str, int]) -> None:
        """As ever, on the counters that are seen. O(clients)."""
        if len(self._unheard.possible) > 1:
            self._unheard.settle(lambda steps: self._refill_is_right(deficits, steps))
        super().refills(deficits)

    def _refill_is_right(self, deficits: Mapping[str, int], steps: int) -> bool:
        """Whether so many unheard steps explain the refill: nobody queued has credit, and all who are poor are paid."""
        for client in self.state.clients.values():
            seen = self._unheard.seen(client, steps)
            after = deficits.get(client.id)
            if client.doubtful:
                continue
            if (after is None) == (seen <= 0) or (seen > 0 and client.queued):
                return False
            if after is not None and after != seen + client.quantum:
                return False
        return True

    def admits(self, request: RequestState, extend: int, deficit: int | None, free: int | None) -> None:
        """As ever, on the counter that is seen."""
        client = request.client
        if len(self._unheard.possible) > 1 and deficit is not None and not client.doubtful:
            before = deficit + self.admission_charge(request, extend)
            self._unheard.settle(lambda steps: self._unheard.seen(client, steps) == before > 0)
        super().admits(request, extend, deficit, free)

    def preempts(self, request: RequestState, deficit: int | None) -> None:
        """As ever, on the counter that is seen."""
        client = request.client
        if len(self._unheard.possible) > 1 and not client.doubtful:
            self._unheard.settle(lambda steps: self._unheard.seen(client, steps) == deficit)
        super().preempts(request, deficit)

    def forwards(self) -> None:
        """As ever: a queued client has credit, if any number of unheard steps says so."""
        if len(self._unheard.possible) > 1:
            queued = list(self.state.queued_clients)
            self._unheard.prefer(lambda steps: any(self._unheard.seen(client, steps) > 0 for client in queued))
        super().forwards()

    def adopts_outputs(self, deficits: Mapping[str, int]) -> None:
        """Counters are taken as they are, now and until this step has certainly been heard of."""
        self._unheard.forward({})
        super().adopts_outputs(deficits)
        self._late.believe()


def late_steps(options: Fields) -> int:
    """How many forward steps late charges may come.

    Raises:
        InputError: ``steps`` is not a whole number >= 0, or there are other options.
    """
    known_options(options, "steps")
    return options.integer("steps", 0, MAX_STEPS)


class Late(Mode):
    """Logs of an engine that hears of outputs late."""

    def __init__(self, options: Fields, header: Header) -> None:
        """Read the options.

        Raises:
            InputError: see `late_steps`.
        """
        super().__init__(header)
        self._steps = late_steps(options)

    @property
    def rules(self) -> tuple[str, ...]:
        """Floor and gap, which depend on how late."""
        return tuple(rule.id for rule in EXTENSION_BOUNDS)

    def promises(self) -> Promises:
        """The floor ``1 - U*`` with ``w_q B d`` more in ``U*``, and the gap that follows."""
        return composed(self.header, f"outputs charged up to {self._steps} steps late", late_steps=self._steps)

    def discipline(self, state: WorkerState) -> DlpmRules:
        """Algorithm 1 on counters that run behind."""
        return LateRules(state, self.promises(), self._steps)


EXTENSION = Extension(NAME, Late)
