"""E3, preemption by recomputation: the stated rule picks the victim, and the stated payer pays for the readmission.

Services are what clients are charged: a recomputation that the system pays for is nobody's, one that the causer pays
for is the causer's. Where the causer pays, its floor deepens with every such charge since its own last admission, and
there is no gap to hold a log to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dlpm.bounds import deficit_floor, longest_recomputation, outputs_after_admission
from dlpm.bounds_recompute import causer_paid_unit, system_paid_unit
from dlpm.cost import CostModel
from dlpm.events import Header
from dlpm.fields import MAX_INTEGER, Fields
from dlpm_engine.conformance.batch import Batch
from dlpm_engine.conformance.dlpm_rules import DlpmRules
from dlpm_engine.conformance.extensions.mode import Extension, Mode, known_options, one_of
from dlpm_engine.conformance.forward import Forward
from dlpm_engine.conformance.lifecycle import Lifecycle
from dlpm_engine.conformance.line import Line
from dlpm_engine.conformance.odd import OddLineError
from dlpm_engine.conformance.parts import Parts
from dlpm_engine.conformance.promises import PlainPromises, Promises, ProvenUnit, Unproven
from dlpm_engine.conformance.rule import extension_rule
from dlpm_engine.conformance.state import ClientState, RequestState
from dlpm_engine.conformance.theorem_rules import TheoremRules
from dlpm_engine.conformance.worker_state import WorkerState

NAME = "recompute"
LAST, FEWEST_OUTPUTS, MOST_OUTPUT_LEFT = "last", "fewest_outputs", "most_output_left"
CLIENT, SYSTEM, CAUSER = "client", "system", "causer"
PAGE = "docs/extensions/recompute.md"

VICTIM = extension_rule("preempt-victim", "Who is preempted is whom the stated rule picks.", PAGE)
PAYER = extension_rule("recompute-payer", "A recomputation is charged to the stated payer, and to nobody else.", PAGE)
CHARGE = extension_rule("charge-recompute", "The causer pays for the extend tokens of the readmission.", PAGE)
CAUSED_FLOOR = extension_rule(
    "caused-floor",
    "No deficit is below the floor for the recomputations that its client was charged for as their causer.",
    PAGE,
    theorem=True,
)

Fate = Callable[[RequestState, int], tuple[int, ...]]
"""How much a request with so many outputs asks to be preempted; ties are decided by who joined last."""

FATES: Mapping[str, Fate] = {
    LAST: lambda request, generated: (),
    FEWEST_OUTPUTS: lambda request, generated: (-generated, request.input),
    MOST_OUTPUT_LEFT: lambda request, generated: (request.max_output - generated,),
}


class RecomputeRules(DlpmRules):
    """Algorithm 1 with a rule for victims and one for payers."""

    def __init__(self, state: WorkerState, promises: Promises, victim: str, payer: str) -> None:
        """Nobody has been preempted."""
        super().__init__(state, TheoremRules(state, promises))
        self.begin(victim, payer)

    def begin(self, victim: str, payer: str) -> None:
        """Nobody has been preempted. What a class that puts these rules beside others calls, instead of `__init__`."""
        self._victim = victim
        self._payer = payer
        self._joined: dict[str, int] = {}
        self._joins = 0
        self._causers: dict[str, ClientState] = {}
        self._caused: dict[ClientState, int] = {}
        self._longest = self.state.header.limits.max_input or 0
        self._logged: tuple[str, int] | None = None

    def paid_by(self, payer: str | None, deficit: int | None) -> None:
        """What the line says of another payer, before it is told as an admission."""
        self._logged = None if payer is None or deficit is None else (payer, deficit)

    def arrives(self, request: RequestState) -> None:
        """As ever; the longest input limits what is computed again."""
        self._longest = max(self._longest, request.input)
        super().arrives(request)

    # -- who is preempted ------------------------------------------------------------------------------------------

    def preempts(self, request: RequestState, deficit: int | None) -> None:
        """The victim is whom the rule picks; who has most running beside it has caused it. O(running requests)."""
        state = self.state
        mine = (*FATES[self._victim](request, request.generated), self._joined.get(request.id, 0))
        counts: dict[ClientState, int] = {}
        for other in state.running.values():
            counts[other.client] = counts.get(other.client, 0) + 1
            generated = other.generated + state.forwards - other.joined
            if (*FATES[self._victim](other, generated), self._joined.get(other.id, 0)) > mine and not state.blind:
                state.violation(
                    VICTIM.id,
                    expected=f"{other.id!r}, whom the rule {self._victim} picks before {request.id!r}",
                    found=f"{request.id!r}",
                    client=request.client,
                    request=request.id,
                )
                break
        self._causers[request.id] = max(counts, key=lambda client: counts[client]) if counts else request.client
        super().preempts(request, deficit)

    # -- who pays --------------------------------------------------------------------------------------------------

    def _pays(self, request: RequestState) -> ClientState | None:
        """Who pays for its admission; ``None``: nobody."""
        if request.preempted_in < 0 or self._payer == CLIENT:
            return request.client
        return self._causers.get(request.id, request.client) if self._payer == CAUSER else None

    def admission_charge(self, request: RequestState, extend: int) -> int:
        """Nothing, where somebody else pays or nobody does."""
        return super().admission_charge(request, extend) if self._pays(request) is request.client else 0

    def admission_service(self, request: RequestState) -> int:
        """What the client itself is charged."""
        return super().admission_service(request) if self._pays(request) is request.client else 0

    def admits(self, request: RequestState, extend: int, deficit: int | None, free: int | None) -> None:
        """As ever, and the causer, if it is to pay, pays what was computed."""
        logged, self._logged = self._logged, None
        again = request.preempted_in >= 0 and self._payer == CAUSER
        payer = self._pays(request) if again else None
        expected = payer.id if payer is not None else None
        found = logged[0] if logged is not None else None
        if found != expected and not self.state.blind:
            self._wrong_payer(request, expected, found)
        before = payer.deficit if payer is not None else 0
        doubtful = payer is not None and payer.doubtful
        super().admits(request, extend, deficit, free)
        self._caused[request.client] = 0
        if payer is not None and logged is not None and logged[0] == payer.id:
            self._charged_to(payer, request, before, logged[1], extend, doubtful=doubtful)

    def _charged_to(
        self, payer: ClientState, request: RequestState, before: int, found: int, extend: int, *, doubtful: bool
    ) -> None:
        """The causer's counter after it has paid for ``extend`` tokens."""
        charge = self.state.cost.extend(extend)
        if found != before - charge and not doubtful:
            self.state.violation(
                CHARGE.id,
                expected=f"{before} - {charge} = {before - charge} for {extend} extend tokens",
                found=f"{found}",
                client=payer,
                request=request.id,
            )
        payer.deficit = found
        payer.doubtful = False
        if payer is not request.client:
            self._caused[payer] = self._caused.get(payer, 0) + 1

    def _wrong_payer(self, request: RequestState, expected: str | None, found: str | None) -> None:
        """The line names a payer where there is none, none where there is one, or another."""
        self.state.violation(
            PAYER.id,
            expected="no other payer" if expected is None else f"{expected!r} pays: it had most requests running",
            found="none" if found is None else f"{found!r}",
            client=request.client,
            request=request.id,
        )

    def admitted(self, request: RequestState) -> None:
        """As ever; remember who joined last, and hold causers to their floor."""
        self._joins += 1
        self._joined[request.id] = self._joins
        payer = self._pays(request)
        super().admitted(request)
        self._causers.pop(request.id, None)
        if self._payer == CAUSER:
            for client in {request.client, payer or request.client}:
                self._check_caused_floor(client)

    def outputs(self, deficits: Mapping[str, int], served: Mapping[ClientState, int] | None) -> None:
        """As ever, with the floor of causers. O(clients in the batch)."""
        super().outputs(deficits, served)
        if self._payer == CAUSER:
            for client in self.state.active:
                self._check_caused_floor(client)

    def finished(self, request: RequestState) -> None:
        """It joins no more, unless it was preempted."""
        self._joined.pop(request.id, None)
        super().finished(request)

    def _check_caused_floor(self, client: ClientState) -> None:
        """The floor of a client that pays as a causer; reported once, until the client is above it again."""
        limits = self.state.header.limits
        if limits.kv_tokens is None:
            return
        again = longest_recomputation(self._longest, limits.kv_tokens, limits.max_output)
        outputs = outputs_after_admission(limits.kv_tokens, limits.max_output, limits.max_running)
        caused = self._caused.get(client, 0)
        floor = deficit_floor(causer_paid_unit(self.state.cost, again, outputs, caused))
        if client.deficit >= floor:
            client.broken_floors.discard(CAUSED_FLOOR.id)
        elif CAUSED_FLOOR.id not in client.broken_floors:
            client.broken_floors.add(CAUSED_FLOOR.id)
            self.state.violation(
                CAUSED_FLOOR.id,
                expected=f"a deficit of at least {floor}, with {caused} recomputations caused",
                found=f"{client.deficit}",
                client=client,
            )


class PayerLifecycle(Lifecycle):
    """Admissions that may name another payer."""

    def __init__(self, state: WorkerState, batch: Batch, rules: RecomputeRules) -> None:
        """Tell ``rules`` who pays."""
        super().__init__(state, batch, rules)
        self._rules = rules

    def admit(self, event: Line) -> None:
        """As ever, after the payer."""
        payer, deficit = event.get("payer"), event.get("payer_deficit")
        if (payer is None) != (deficit is None):
            raise OddLineError
        if payer is not None and not (type(payer) is str and type(deficit) is int and abs(deficit) <= MAX_INTEGER):
            raise OddLineError
        self._rules.paid_by(payer, deficit)
        super().admit(event)


def recomputation(options: Fields, header: Header) -> tuple[str, str]:
    """The rule for victims and the one for payers.

    Raises:
        InputError: an option is none of its words, there are others, or memory is not optimistic.
    """
    known_options(options, "victim", "payer")
    victim = one_of(options, "victim", *FATES)
    payer = one_of(options, "payer", CLIENT, SYSTEM, CAUSER)
    if header.memory != "optimistic":
        raise options.wrong("victim", f"expected memory optimistic beside it, found {header.memory!r}")
    return victim, payer


class Recomputation(Mode):
    """Logs of an engine with other victims or payers than the plain one."""

    def __init__(self, options: Fields, header: Header) -> None:
        """Read the options.

        Raises:
            InputError: see `recomputation`.
        """
        super().__init__(header)
        self._victim, self._payer = recomputation(options, header)

    @property
    def rules(self) -> tuple[str, ...]:
        """Victims, payers and their charges."""
        return (VICTIM.id, PAYER.id, CHARGE.id, CAUSED_FLOOR.id)

    def promises(self) -> Promises:
        """The plain bounds where clients pay; the bound without recomputations where nobody does."""
        limits = self.header.limits
        kv_tokens = limits.kv_tokens
        if self._payer == CLIENT:
            return PlainPromises(self.header)
        if self._payer == CAUSER:
            return Unproven("recompute", "what a causer pays for has no bound but in how often it does: caused-floor")
        if kv_tokens is None:
            return Unproven("recompute", "the header states no limits.kv_tokens")
        outputs = outputs_after_admission(kv_tokens, limits.max_output, limits.max_running)
        cost = CostModel(self.header.extend_weight, self.header.output_weight)
        return ProvenUnit("recompute", lambda longest: system_paid_unit(cost, longest, kv_tokens, outputs))

    def parts(self, state: WorkerState) -> Parts:
        """Admissions may name a payer."""
        rules = RecomputeRules(state, self.promises(), self._victim, self._payer)
        batch = Batch(state, rules)
        return Parts(rules, PayerLifecycle(state, batch, rules), Forward(state, batch, rules))


EXTENSION = Extension(NAME, Recomputation, (VICTIM, PAYER, CHARGE, CAUSED_FLOOR))
