"""E7, shared prefixes: the first client pays, or each as if alone, or those who hold a prefix split its cost.

Who holds what is not in a log. What is: for how many tokens each admission charges, and who gets how many back. Those
must add up, lie in what the rule allows, move the counters, and keep to what is proven of any cache. Services are what
clients are charged, less what they get back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from dlpm.bounds import deficit_floor
from dlpm.bounds_extensions import split_ceiling, split_gap
from dlpm.events import Header
from dlpm.fields import MAX_INTEGER, Fields
from dlpm_engine.conformance.batch import Batch
from dlpm_engine.conformance.dlpm_rules import DlpmRules
from dlpm_engine.conformance.extensions.mode import Extension, Mode, known_options, one_of
from dlpm_engine.conformance.findings import names
from dlpm_engine.conformance.forward import Forward
from dlpm_engine.conformance.gap import GapTracker
from dlpm_engine.conformance.lifecycle import Lifecycle
from dlpm_engine.conformance.line import Line
from dlpm_engine.conformance.odd import OddLineError
from dlpm_engine.conformance.parts import Parts
from dlpm_engine.conformance.promises import Gap, PlainPromises, Promises, plain_unit, smallest_credit
from dlpm_engine.conformance.rule import extension_rule
from dlpm_engine.conformance.state import ClientState, RequestState
from dlpm_engine.conformance.theorem_rules import TheoremRules
from dlpm_engine.conformance.worker_state import WorkerState

FIRST, ALONE, SPLIT = "first", "alone", "split"
PAGE = "docs/extensions/shared-prefixes.md"

BILL = extension_rule("shared-bill", "A client is charged for as many tokens as the stated payer allows.", PAGE)
CONSERVED = extension_rule(
    "refund-conserved", "What others get back is what a client is charged beyond its extend tokens.", PAGE
)
REFUND = extension_rule("charge-refund", "A refund raises a counter by the cost of its tokens, no more, no less.", PAGE)
PAID = extension_rule(
    "refund-paid", "Of n clients, none gets back more than n - 1 of n parts of what it was charged for.", PAGE
)
CEILING = extension_rule(
    "split-ceiling", "No deficit is above what a quantum and refunds for cached tokens make.", PAGE, theorem=True
)


@dataclass(frozen=True, slots=True)
class Bill:
    """What an `admit` event says beside its extend tokens; ``charged`` is ``None`` where it says nothing."""

    charged: int | None = None
    refunds: Mapping[str, int] = field(default_factory=dict)
    deficits: Mapping[str, int] = field(default_factory=dict)


class NetTracker(GapTracker):
    """Leads in service that may also be taken back."""

    def take_back(self, amounts: Mapping[ClientState, int], everybody: Collection[ClientState], line: int) -> None:
        """The event in ``line`` takes service back from clients: then anybody may get ahead of them, unserved.

        So the peaks of their rows are taken just before. O(backlogged clients + clients taken from * everybody).
        """
        for behind in amounts:
            if behind not in self._backlogged:
                continue
            for other in everybody:
                difference = behind.service - other.service
                if other is not behind and difference > behind.peaks.get(other, difference - 1):
                    behind.peaks[other] = difference
                    behind.peak_lines[other] = line
        for client, amount in amounts.items():
            client.service -= amount
            self.total += amount
        self._bent.update(self._backlogged)
        self._last_jump = None


class SplitPromises(PlainPromises):
    """The plain floors, and ceiling and gap for as many clients as have arrived."""

    def __init__(self, header: Header) -> None:
        """Nobody has arrived."""
        super().__init__(header)
        self.clients = 1

    def ceiling(self, quantum: int) -> int | None:
        """The largest counter; ``None`` if the header does not say how much memory there is. O(1)."""
        kv_tokens = self._header.limits.kv_tokens
        if kv_tokens is None:
            return None
        room = kv_tokens if self._header.memory == "reserving" else kv_tokens + 1
        return split_ceiling(self._cost, quantum, room, self.clients)

    def gap(self, max_input: int, quantum: int) -> Gap | None:
        """What follows from floor, ceiling, and books that balance."""
        ceiling, tight = self.ceiling(quantum), plain_unit(self._header, max_input)
        if ceiling is None or tight is None:
            return None
        bound = split_gap(ceiling, deficit_floor(tight, smallest_credit(self._header)))
        return Gap("extension-gap", "extension-gap", bound, "2(ceiling - floor)")

    def not_checked(self) -> Mapping[str, str]:
        """The printed gaps, and what needs to know the memory."""
        replaced = dict.fromkeys(("gap-backlogged", "gap-any"), "not a theorem with split prefixes: extension-gap is")
        missing = {**super().not_checked(), **replaced}
        if self._header.limits.kv_tokens is None:
            return missing | dict.fromkeys((CEILING.id, "extension-gap"), "the header states no limits.kv_tokens")
        if self._header.memory is None:
            return {**missing, "extension-gap": "the header does not say what memory is"}
        return missing


class NetTheorems(TheoremRules):
    """Bounds that grow with the number of clients, in service less refunds."""

    def __init__(self, state: WorkerState, promises: SplitPromises) -> None:
        """Nobody has arrived."""
        super().__init__(state, promises)
        self._split = promises

    def new_tracker(self, group: int) -> GapTracker | None:
        """One that can take service back."""
        gap = self._split.gap(self._max_input, group)
        return NetTracker(gap.bound) if gap is not None else None

    def more_clients(self, clients: int) -> None:
        """So many have arrived. O(1), and O(quanta) where they are more than before."""
        if clients > self._split.clients:
            self._split.clients = clients
            for group, tracker in self._trackers.items():
                self.widen(tracker, group)

    def take_back(self, amounts: Mapping[ClientState, int]) -> None:
        """Refunds, in weighted tokens. O(clients refunded * clients)."""
        for group, tracker in self._trackers.items():
            mine = {client: amount for client, amount in amounts.items() if self.group(client) == group}
            if isinstance(tracker, NetTracker) and mine:
                alike = [client for client in self._state.clients.values() if self.group(client) == group]
                tracker.take_back(mine, alike, self._state.findings.line)

    def check_split_ceiling(self, client: ClientState) -> None:
        """The ceiling of clients that split, after a refund. O(1)."""
        ceiling = self._split.ceiling(client.quantum)
        if ceiling is not None and client.deficit > ceiling:
            self._state.violation(
                CEILING.id,
                expected=f"a deficit of at most {ceiling}, for {self._split.clients} clients that split",
                found=f"{client.deficit}",
                client=client,
            )


class SharingRules(DlpmRules):
    """Algorithm 1 with a rule for who pays."""

    def __init__(self, state: WorkerState, bounds: TheoremRules, payer: str) -> None:
        """Nobody has paid."""
        super().__init__(state, bounds)
        self._payer = payer
        self._bill = Bill()
        self._charged = 0
        self._balance: dict[ClientState, tuple[int, int]] = {}

    def bill(self, bill: Bill) -> None:
        """What the line says of charges, before it is told as an admission."""
        self._bill = bill

    def arrives(self, request: RequestState) -> None:
        """As ever; the more clients, the more one may get back."""
        if isinstance(self._bounds, NetTheorems):
            self._bounds.more_clients(len(self.state.clients))
        super().arrives(request)

    def admission_service(self, request: RequestState) -> int:
        """What the client is charged for."""
        return self.state.cost.extend(self._charged)

    def admits(self, request: RequestState, extend: int, deficit: int | None, free: int | None) -> None:
        """The bill is what the rule allows; the client pays it, and others get back what it is charged beyond."""
        bill, self._bill = self._bill, Bill()
        self._charged = extend if bill.charged is None else bill.charged
        refunded = self._refunded(bill)
        if not self.state.blind:
            self._check_bill(request, extend, sum(bill.refunds.values()))
        super().admits(request, self._charged, deficit, free)
        self._pay_back(request, refunded, bill.deficits)

    def _refunded(self, bill: Bill) -> dict[ClientState, int]:
        """Who gets how many tokens back, as far as they have arrived; never the client itself."""
        clients = self.state.clients
        strangers = [name for name in {**bill.refunds, **bill.deficits} if name not in clients]
        if strangers:
            self.state.violation(
                "known-client",
                expected="counters of clients that have arrived",
                found=names(strangers),
            )
        return {clients[name]: tokens for name, tokens in bill.refunds.items() if name in clients}

    def _check_bill(self, request: RequestState, extend: int, back: int) -> None:
        """Charged is between what was computed and all that is resident, and what is beyond goes to others."""
        resident = request.input + request.generated
        most = extend if self._payer == FIRST else max(resident, extend)
        if not extend <= self._charged <= most:
            self.state.violation(
                BILL.id,
                expected=f"from {extend} to {most} tokens charged, where the payer is {self._payer}",
                found=f"{self._charged}",
                client=request.client,
                request=request.id,
            )
            return
        due = self._charged - extend if self._payer == SPLIT else 0
        if back != due:
            self.state.violation(
                CONSERVED.id,
                expected=f"{due} tokens given back for {self._charged} charged and {extend} computed",
                found=f"{back}",
                client=request.client,
                request=request.id,
            )

    def _pay_back(
        self, request: RequestState, refunded: Mapping[ClientState, int], deficits: Mapping[str, int]
    ) -> None:
        """Counters of those who get something back, and of nobody else, rise by its cost. O(clients refunded)."""
        state = self.state
        charged, back = self._balance.get(request.client, (0, 0))
        self._balance[request.client] = (charged + self._charged, back)
        others = [name for name in deficits if name not in {client.id for client in refunded}]
        if others and not state.blind:
            self._wrong_refund(request, request.client, "counters of those who get something back", names(others))
        if isinstance(self._bounds, NetTheorems) and refunded:
            amounts = {client: state.cost.extend(tokens) for client, tokens in refunded.items()}
            self._bounds.take_back(amounts)
        for client, tokens in refunded.items():
            gain = state.cost.extend(tokens)
            right = client.deficit + gain
            found = deficits.get(client.id)
            if found != right and not client.doubtful and not state.blind:
                expected = f"{client.deficit} + {gain} = {right} for {tokens} tokens back"
                self._wrong_refund(request, client, expected, "no counter" if found is None else f"{found}")
            client.deficit = right if found is None else found
            client.doubtful = False
            client.recent.append((state.findings.line, state.findings.raw))
            if isinstance(self._bounds, NetTheorems):
                self._check_paid(request, client, tokens)
                self._bounds.check_split_ceiling(client)

    def _wrong_refund(self, request: RequestState, client: ClientState, expected: str, found: str) -> None:
        self.state.violation(REFUND.id, expected=expected, found=found, client=client, request=request.id)

    def _check_paid(self, request: RequestState, client: ClientState, tokens: int) -> None:
        """Whoever else comes, an n-th of what a client was charged for is its own part [E7]. O(1)."""
        charged, back = self._balance.get(client, (0, 0))
        self._balance[client] = (charged, back + tokens)
        clients = len(self.state.clients)
        if (back + tokens) * clients > charged * (clients - 1):
            most = charged * (clients - 1) // clients
            self.state.violation(
                PAID.id,
                expected=f"at most {most} tokens back so far, for {charged} charged among {clients} clients",
                found=f"{back + tokens}",
                client=client,
                request=request.id,
            )


class BilledLifecycle(Lifecycle):
    """Admissions that may say for how much they charge, and who gets something back."""

    def __init__(self, state: WorkerState, batch: Batch, rules: SharingRules) -> None:
        """Tell ``rules`` the bill."""
        super().__init__(state, batch, rules)
        self._rules = rules

    def admit(self, event: Line) -> None:
        """As ever, after the bill."""
        charged = event.get("charged")
        if "charged" in event and not (type(charged) is int and 0 <= charged <= MAX_INTEGER):
            raise OddLineError
        refunds, deficits = _counts(event, "refunds"), _counts(event, "deficits")
        if any(tokens < 0 for tokens in refunds.values()):
            raise OddLineError
        self._rules.bill(Bill(charged, refunds, deficits))
        super().admit(event)


def _counts(event: Line, name: str) -> dict[str, int]:
    """Numbers by client; none if the event has no such field.

    Raises:
        OddLineError: it is no object, or has other values than whole numbers of 64 bits.
    """
    counts: object = event.get(name, {})
    if type(counts) is not dict or not all(type(n) is int and abs(n) <= MAX_INTEGER for n in counts.values()):
        raise OddLineError
    return counts


class SharedPrefixes(Mode):
    """Logs of an engine with a rule for who pays for shared prefixes."""

    def __init__(self, options: Fields, header: Header) -> None:
        """Read the options.

        Raises:
            InputError: the payer is none of its words, or there are other options.
        """
        super().__init__(header)
        known_options(options, "payer")
        self._payer = one_of(options, "payer", FIRST, ALONE, SPLIT)

    @property
    def rules(self) -> tuple[str, ...]:
        """Bills and refunds; and, where costs are split, what bounds them."""
        bounds = (PAID.id, CEILING.id, "extension-gap") if self._payer == SPLIT else ()
        return (BILL.id, CONSERVED.id, REFUND.id, *bounds)

    def promises(self) -> Promises:
        """The plain bounds, in what is charged; where costs are split the ceiling is another, and the gap with it."""
        return SplitPromises(self.header) if self._payer == SPLIT else PlainPromises(self.header)

    def parts(self, state: WorkerState) -> Parts:
        """Admissions may carry a bill."""
        promises = self.promises()
        bounds = NetTheorems(state, promises) if isinstance(promises, SplitPromises) else TheoremRules(state, promises)
        rules = SharingRules(state, bounds, self._payer)
        batch = Batch(state, rules)
        return Parts(rules, BilledLifecycle(state, batch, rules), Forward(state, batch, rules))


EXTENSION = Extension("shared_prefixes", SharedPrefixes, (BILL, CONSERVED, REFUND, PAID, CEILING))
