"""A whole admission phase of VTC, run symbolically: the real `VTC.admit` over three requests and an open memory.

It takes turns as `vtc_transitions.py` proves them: each time it asks for the earliest request of a client with the
least counter, and charges the whole input of what goes in; and it stops only when that does not fit, or nothing waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dlpm.cost import CostModel
from dlpm.policies.base import Waiting
from dlpm.policies.vtc import VTC, VirtualCounters
from dlpm_proofs.passes import OWNERS, Call, OpenStep, Owners, extend_of
from dlpm_proofs.postcondition import postcondition
from dlpm_proofs.solve import Named, Obligation
from dlpm_proofs.symbolic import Exploration, SymInt
from dlpm_proofs.terms import FALSE, Formula, Poly, Products, all_of, at_least, at_most, equal, poly
from dlpm_proofs.transitions import CLIENTS, PARAMETERS, W_E, W_Q


def _input(request: str) -> Poly:
    """The input tokens of a request; its extend tokens may be fewer."""
    return Poly.unknown(f"input of {request}")


@dataclass(slots=True)
class WatchedStep(OpenStep):
    """An admission phase that notes, at each question, whether the right request was asked for."""

    counters: VirtualCounters = field(default_factory=lambda: VirtualCounters(CostModel()))
    rightly: list[Formula] = field(default_factory=list)
    refused: bool = False

    def try_admit(self, request: Waiting) -> int | None:
        """What memory says; nothing is asked after a refusal."""
        earliest = next(c for c in self.calls if c.client == request.client and c.id not in self.admissions)
        own = poly(self.counters.counters[request.client])
        least = (at_most(own, poly(self.counters.counters[other])) for other in self.queued_clients())
        self.rightly.append(FALSE if self.refused or request.id != earliest.id else all_of(*least))
        # Named, because a dataclass with slots is not the class that `super()` of its methods knows.
        extend = OpenStep.try_admit(self, request)
        self.refused = extend is None
        return extend


def _phase(owners: Owners, counters: type[VirtualCounters]) -> Iterator[Obligation]:
    """The phase over three requests of ``owners``."""
    names = [f"r{k}" for k in range(1, len(owners) + 1)]
    hypotheses: tuple[Named, ...] = (
        *PARAMETERS,
        (
            "an extend is a part of the input",
            all_of(*(all_of(at_least(extend_of(n), 1), at_most(extend_of(n), _input(n))) for n in names)),
        ),
    )
    exploration = Exploration([formula for _, formula in hypotheses])

    def symbol(value: Poly) -> SymInt:
        return SymInt(exploration, value)

    def body() -> Formula:
        calls = tuple(Call(n, c, k, symbol(_input(n))) for k, (n, c) in enumerate(zip(names, owners, strict=True)))
        policy = VTC(CostModel(symbol(W_E), symbol(W_Q)))
        policy.counters = counters(policy.counters.cost)
        policy.counters.counters.update({client: symbol(Poly.unknown(f"c_{client}")) for client in CLIENTS})
        step = WatchedStep(exploration, calls, counters=policy.counters)
        policy.admit(step)
        if not step.refused and len(step.admissions) < len(calls):
            return FALSE
        charged = []
        for client in CLIENTS:
            expected = Poly.unknown(f"c_{client}")
            for call in calls:
                if call.client == client and call.id in step.admissions:
                    expected += W_E * _input(call.id)
            charged.append(equal(poly(policy.counters.counters[client]), expected))
        return all_of(*step.rightly, *charged)

    name = f"a phase over requests of {', '.join(owners)} serves the least counter, and charges whole inputs"
    counts = frozenset(name for n in names for value in (_input(n), extend_of(n)) for name in value.names())
    yield from postcondition(name, hypotheses, exploration, body, Products((W_E, W_Q), counts))


def phases(counters: type[VirtualCounters] = VirtualCounters) -> Iterator[Obligation]:
    """Three requests of two or three clients."""
    for owners in OWNERS:
        yield from _phase(owners, counters)
