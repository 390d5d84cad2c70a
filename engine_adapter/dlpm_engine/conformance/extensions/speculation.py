"""E5, several tokens a step: a forward step yields 1 to ``most_accepted`` tokens of each running request.

A request ends at its output, so its last step may accept more than it yields. If that ``surplus`` is ``free``, clients
pay for what they get, and the charges and the bounds are those of the plain algorithm. If it is ``charged``, the log
says how much was accepted, clients are served and pay for that, and the floor is a batch of surpluses lower.
"""

from __future__ import annotations

from collections.abc import Mapping

from dlpm.bounds import tight_unit
from dlpm.bounds_engine import most_running
from dlpm.bounds_extensions import speculative_unit
from dlpm.cost import CostModel
from dlpm.events import Header
from dlpm.fields import MAX_TOKENS, Fields
from dlpm_engine.conformance.batch import Batch
from dlpm_engine.conformance.discipline import Discipline
from dlpm_engine.conformance.extensions.mode import Extension, Mode, known_options, one_of
from dlpm_engine.conformance.forward import Forward
from dlpm_engine.conformance.lifecycle import Lifecycle
from dlpm_engine.conformance.parts import Parts
from dlpm_engine.conformance.promises import EXTENSION_BOUNDS, PlainPromises, Promises, ProvenUnit, Unproven
from dlpm_engine.conformance.rule import extension_rule
from dlpm_engine.conformance.state import RUNNING, ClientState, RequestState
from dlpm_engine.conformance.worker_state import WorkerState

FREE, CHARGED = "free", "charged"
ACCEPTED_LIMIT = extension_rule(
    "accepted-limit",
    "No forward step yields or accepts more tokens of a request than it can.",
    "docs/extensions.md, E5",
)
ACCEPTED_SURPLUS = extension_rule(
    "accepted-surplus",
    "Only the last step of a request accepts more tokens than it yields.",
    "docs/extensions.md, E5",
)


class SpeculativeForward(Forward):
    """Forward steps that yield several tokens of a request, and may accept more of one that ends."""

    def __init__(
        self, state: WorkerState, batch: Batch, discipline: Discipline, most_accepted: int, *, charged: bool
    ) -> None:
        """No forward step yet. ``charged``: clients pay for what is accepted, not for what they get."""
        super().__init__(state, batch, discipline)
        self._most_accepted = most_accepted
        self._charged = charged
        self._surplus: dict[ClientState, int] = {}
        self._ending: list[RequestState] = []

    def _begin(self, *, empty: bool) -> None:
        """As ever; and whoever accepted more than it got has finished since. O(those)."""
        late = next((request for request in self._ending if request.status == RUNNING), None)
        self._ending.clear()
        if late is not None:
            self._surplus_violation(late, f"{late.id!r} finished: it accepted more tokens than it got", "it still runs")
        super()._begin(empty=empty)

    def _accepts(self, accepted: Mapping[str, int], tokens: Mapping[str, int] | None) -> None:
        """What was accepted beyond what running requests got. O(requests named)."""
        super()._accepts(accepted, tokens)
        for name, count in accepted.items():
            request = self._state.running.get(name)
            delivered = tokens.get(name, 0) if tokens is not None else 1
            if request is None:
                self._surplus_violation(None, "accepted tokens of running requests only", f"{name!r}, not running")
            elif count <= delivered:
                expected = f"more than the {delivered} that {name!r} got, or nothing about it"
                self._surplus_violation(request, expected, f"{count}")
            else:
                self._check_limit(name, count)
                self._ending.append(request)
                if self._charged:
                    self._surplus[request.client] = self._surplus.get(request.client, 0) + count - delivered

    def _check_tokens(self, tokens: Mapping[str, int]) -> bool:
        """As ever, and nobody gets more than can be accepted. O(running requests)."""
        for name, count in tokens.items():
            if self._check_limit(name, count):
                break
        return super()._check_tokens(tokens)

    def _take_in(self, deficits: Mapping[str, int], served: Mapping[ClientState, int] | None, *, sound: bool) -> None:
        """As ever, clients being served what was accepted, where they pay for it. O(clients in the batch)."""
        if self._surplus:
            paid = dict(served) if served is not None else {client: client.running for client in self._state.active}
            for client, count in self._surplus.items():
                paid[client] = paid.get(client, 0) + count
            served = paid
            self._surplus = {}
        super()._take_in(deficits, served, sound=sound)

    def _check_limit(self, name: str, count: int) -> bool:
        """Report more tokens of one request than can be accepted in a step; whether there were."""
        if count <= self._most_accepted:
            return False
        request = self._state.running.get(name)
        self._state.violation(
            ACCEPTED_LIMIT.id,
            expected=f"at most {self._most_accepted} tokens of {name!r} in one step",
            found=f"{count}",
            client=request.client if request is not None else None,
            request=name,
        )
        return True

    def _surplus_violation(self, request: RequestState | None, expected: str, found: str) -> None:
        """Report a surplus that is none."""
        self._state.violation(
            ACCEPTED_SURPLUS.id,
            expected=expected,
            found=found,
            client=request.client if request is not None else None,
            request=request.id if request is not None else None,
        )


def speculation(options: Fields) -> tuple[int, bool]:
    """How many tokens of a request a step may accept, and whether clients pay for the surplus of its last step.

    Raises:
        InputError: ``most_accepted`` is not a whole number > 0, ``surplus`` is another word, or there are others.
    """
    known_options(options, "most_accepted", "surplus")
    charged = "surplus" in options.values and one_of(options, "surplus", FREE, CHARGED) == CHARGED
    return options.integer("most_accepted", 1, MAX_TOKENS), charged


class Speculation(Mode):
    """Logs of an engine that may accept several tokens a step."""

    def __init__(self, options: Fields, header: Header) -> None:
        """Read the options.

        Raises:
            InputError: see `speculation`.
        """
        super().__init__(header)
        self._most_accepted, self._charged = speculation(options)

    @property
    def rules(self) -> tuple[str, ...]:
        """The limit and the surplus; and a floor and a gap of its own where clients pay for that."""
        own = (ACCEPTED_LIMIT.id, ACCEPTED_SURPLUS.id)
        return (*own, *(rule.id for rule in EXTENSION_BOUNDS)) if self._charged or self._beyond_theorems() else own

    def _beyond_theorems(self) -> bool:
        """Several tokens a step are only proved not to matter where outputs are reserved."""
        return self._most_accepted > 1 and self.header.memory == "optimistic"

    def promises(self) -> Promises:
        """The plain bounds; or those with the surplus of a whole batch more in ``U*``, where clients pay for it."""
        header = self.header
        what = f"up to {self._most_accepted} tokens a step"
        if self._beyond_theorems():
            return Unproven(what, "no theorem is about several tokens a step under optimistic memory")
        if not self._charged:
            return PlainPromises(header)
        kv_tokens = header.limits.kv_tokens
        if kv_tokens is None:
            return Unproven(what, "the header states no limits.kv_tokens")
        if header.memory != "reserving":
            return Unproven(what, "the header does not say that memory is reserving")
        cost = CostModel(header.extend_weight, header.output_weight)
        running = most_running(kv_tokens, header.limits.max_running)

        def unit(max_input: int) -> int:
            tight = tight_unit(
                cost,
                max_input,
                kv_tokens,
                max_output=header.limits.max_output,
                max_running=header.limits.max_running,
            )
            return speculative_unit(cost, tight, self._most_accepted, running)

        return ProvenUnit(f"{what} and their surplus charged", unit)

    def parts(self, state: WorkerState) -> Parts:
        """Forward steps of several tokens."""
        discipline = self.discipline(state)
        batch = Batch(state, discipline)
        return Parts(
            discipline,
            Lifecycle(state, batch, discipline),
            SpeculativeForward(state, batch, discipline, self._most_accepted, charged=self._charged),
        )


EXTENSION = Extension("speculation", Speculation, (ACCEPTED_LIMIT, ACCEPTED_SURPLUS))
