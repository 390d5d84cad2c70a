"""One pass of DLPM over its queue, run symbolically: the real `DLPM.visit_each` beside a pass that visits everybody.

What memory answers is open: it may change with every admission, but the same request asked twice in the same batch
gets the same answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

from dlpm.cost import CostModel
from dlpm.ledger import Ledger, Quanta
from dlpm.policies.base import AdmissionStep, Waiting
from dlpm.policies.dlpm import DLPM, visit
from dlpm.request import ClientId, RequestId
from dlpm_proofs.solve import Named
from dlpm_proofs.symbolic import Exploration, SymInt
from dlpm_proofs.terms import FALSE, Flag, Formula, Not, Poly, all_of, any_of, at_least, equal, implies, poly
from dlpm_proofs.transitions import CLIENTS, PARAMETERS, QUANTUM, W_E, W_Q, F, G

Owners = tuple[ClientId, ...]
"""Whose the queued requests are, in the order in which they are considered."""

OWNERS: tuple[Owners, ...] = ((F, F, G), (F, G, F), CLIENTS)
"""Three requests of two or three clients."""


@dataclass(frozen=True, slots=True)
class Call:
    """A queued request: nothing about it but its client matters here."""

    id: RequestId
    client: ClientId
    rank: int
    resident: int = 1


@dataclass(slots=True)
class OpenStep:
    """The admission phase of one step, with open answers: what a policy sees of a worker."""

    exploration: Exploration
    calls: tuple[Call, ...]
    memory_refuses_nothing: bool = False
    open_matches: bool = False
    admissions: list[RequestId] = field(default_factory=list)
    refills: int = 0

    def waiting(self) -> Sequence[Waiting]:
        """The queue at the start."""
        return self.calls

    def queued_clients(self) -> Iterable[ClientId]:
        """Clients with a request that has not been admitted."""
        return dict.fromkeys(call.client for call in self.calls if call.id not in self.admissions)

    def matched(self, request: Waiting) -> int:
        """Cached tokens: open, or none at all where the order is given."""
        return SymInt(self.exploration, matched_of(request.id)) if self.open_matches else 0

    def may_fit(self, request: Waiting) -> bool:
        """False only if `try_admit` would refuse."""
        return self._open(f"{request.id} may fit") or self.fits(request)

    def fits(self, request: Waiting) -> bool:
        """What memory answers for ``request`` beside those admitted so far."""
        return self.memory_refuses_nothing or self._open(self.fits_name(request))

    def fits_name(self, request: Waiting) -> str:
        """The name of that answer."""
        return f"{request.id} fits after {', '.join(self.admissions)}"

    def try_admit(self, request: Waiting) -> int | None:
        """Its extend tokens, if memory says so."""
        if not self.fits(request):
            return None
        self.admissions.append(request.id)
        return SymInt(self.exploration, extend_of(request.id))

    def considered(self, order: Sequence[Waiting]) -> None:
        """Nobody reads the log."""

    def admitted(self, request: Waiting, deficit: int | None) -> None:
        """Nobody reads the log."""

    def refilled(self, deficits: Mapping[ClientId, int]) -> None:
        """Count refills."""
        self.refills += 1

    def _open(self, name: str) -> bool:
        return self.exploration.flag(name)


def extend_of(request: RequestId) -> Poly:
    """The extend tokens of a request."""
    return Poly.unknown(f"e of {request}")


def matched_of(request: RequestId) -> Poly:
    """The cached tokens of a request."""
    return Poly.unknown(f"matched of {request}")


class OpenPasses(DLPM):
    """The real `DLPM.admit` around passes of which only this is known: each leaves fewer requests, or did nothing."""

    LIMIT = 3
    """So many passes may do something."""

    def __init__(self, ledger: Ledger, exploration: Exploration) -> None:
        """No pass yet."""
        super().__init__(ledger)
        self._exploration = exploration
        self.given: list[tuple[Waiting, ...]] = []
        self.rested = False

    def _nothing_can_happen(self, step: AdmissionStep) -> bool:
        """Whether the phase is skipped is proved of itself."""
        return self._exploration.flag("nothing can happen")

    def visit_each(self, step: AdmissionStep, order: Sequence[Waiting]) -> tuple[list[Waiting], bool]:
        """One more pass."""
        self.given.append(tuple(order))
        number = len(self.given)
        happened = number <= self.LIMIT and self._exploration.flag(f"pass {number} does something")
        self.rested = not happened
        return list(order[1:] if happened else order), happened


def goes_on_until_rest(pair: TwoPasses, policy_type: type[OpenPasses]) -> Formula:
    """Passes follow each other, each over what the one before has left, until one does nothing; or none is made."""
    policy, step = policy_type(pair.ledger(), pair.exploration), pair.step()
    policy.admit(step)
    if not policy.given:
        return all_of() if pair.exploration.flag("nothing can happen") else FALSE
    first, *later = policy.given
    follow = all(after == before[1:] for before, after in pairwise(policy.given))
    return all_of() if first == pair.calls and policy.rested and follow and len(later) <= OpenPasses.LIMIT else FALSE


class TwoPasses:
    """The same pass twice: as `visit_each` does it, and by visiting every request."""

    def __init__(self, owners: Owners, policy: type[DLPM] = DLPM, *, memory_refuses_nothing: bool = False) -> None:
        """Three requests of ``owners``, in this order."""
        self.calls = tuple(Call(f"r{k}", client, k) for k, client in enumerate(owners, start=1))
        self.hypotheses: tuple[Named, ...] = (
            *PARAMETERS,
            ("every extend has a token", all_of(*(at_least(extend_of(call.id), 1) for call in self.calls))),
        )
        self.exploration = Exploration([formula for _, formula in self.hypotheses])
        self._policy = policy
        self._memory_refuses_nothing = memory_refuses_nothing

    def ledger(self) -> Ledger:
        """All counters open."""
        quanta = Quanta(self._symbol(QUANTUM["other"]), {client: self._symbol(QUANTUM[client]) for client in (F, G)})
        ledger = Ledger(quanta, CostModel(self._symbol(W_E), self._symbol(W_Q)))
        ledger.deficits.update({client: self._symbol(Poly.unknown(f"q_{client}")) for client in CLIENTS})
        return ledger

    def step(self) -> OpenStep:
        """The admission phase."""
        return OpenStep(self.exploration, self.calls, self._memory_refuses_nothing)

    def same_as_visiting_everybody(self) -> Formula:
        """Counters, admissions and what is left are those of a pass without shortcut.

        It says rightly whether anything happened; and if nothing did, nobody with credit has a request that fits.
        """
        policy, step = self._policy(self.ledger()), self.step()
        left, happened = policy.visit_each(step, self.calls)
        plain, plain_step = self.ledger(), self.step()
        for call in self.calls:
            visit(
                plain,
                call.client,
                plain_step.queued_clients(),
                partial(plain_step.try_admit, call),
                plain_step.refilled,
            )
        expected = [call for call in self.calls if call.id not in step.admissions]
        if step.admissions != plain_step.admissions or step.refills != plain_step.refills or left != expected:
            return FALSE
        if happened != bool(step.admissions or step.refills):
            return FALSE
        counters = {client: poly(value) for client, value in policy.ledger.deficits.items()}
        same = all_of(*(equal(counters[client], poly(plain.deficits[client])) for client in CLIENTS))
        return same if happened else all_of(same, self._at_rest(counters))

    def _at_rest(self, counters: Mapping[ClientId, Poly]) -> Formula:
        """No counter has changed, somebody has credit, and memory refuses every request of those who have."""
        unchanged = all_of(*(equal(counters[client], Poly.unknown(f"q_{client}")) for client in CLIENTS))
        somebody = any_of(*(at_least(counters[call.client], 1) for call in self.calls))
        refused = all_of(*(at_least(0, counters[call.client]) for call in self.calls if self.step().fits(call)))
        return all_of(unchanged, somebody, refused)

    def something_happens(self) -> Formula:
        """A pass over requests that all fit admits or refills."""
        _, happened = self._policy(self.ledger()).visit_each(self.step(), self.calls)
        return all_of() if happened else FALSE

    def skipping_is_idle(self) -> Formula:
        """Where the policy skips its admission phase, a pass would have done nothing."""
        policy, step = self._policy(self.ledger()), self.step()
        if not policy._nothing_can_happen(step):
            return all_of()
        policy.visit_each(step, self.calls)
        return FALSE if step.admissions or step.refills else all_of()

    def rested(self) -> Named:
        """The last admission phase came to rest: memory refused all who had credit then. Counters have not risen since.

        Nobody has come or finished since, so memory refuses them still.
        """
        fallen = all_of(*(at_least(_at_rest_then(client), Poly.unknown(f"q_{client}")) for client in CLIENTS))
        fits = {call: Flag(self.step().fits_name(call)) for call in self.calls}
        refused = all_of(*(implies(at_least(_at_rest_then(call.client), 1), Not(fits[call])) for call in self.calls))
        return ("the last admission phase came to rest, and counters have not risen", all_of(fallen, refused))

    def not_due_is_idle(self) -> Formula:
        """Where the policy says that no admission phase is due, a pass would do nothing."""
        policy, step = self._policy(self.ledger()), self.step()
        if policy.admission_due(step.queued_clients()):
            return all_of()
        policy.visit_each(step, self.calls)
        return FALSE if step.admissions or step.refills else all_of()

    def _symbol(self, value: Poly) -> SymInt:
        return SymInt(self.exploration, value)


def _at_rest_then(client: ClientId) -> Poly:
    """The counter of ``client`` when the last admission phase came to rest."""
    return Poly.unknown(f"q_{client} at rest")
