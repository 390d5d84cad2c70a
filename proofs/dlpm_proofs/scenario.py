"""Bounded runs from the beginning with sizes left open: a solver finds the sizes, the reference replays them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from dlpm.ledger import Quanta
from dlpm.policies.dlpm import DLPM
from dlpm.request import Request
from dlpm_proofs.solve import Named, Obligation, claim, discharge, possible
from dlpm_proofs.solvers import Z3
from dlpm_proofs.symbolic import Exploration, SymInt
from dlpm_proofs.terms import Formula, Not, Poly, all_of, any_of, at_most, between, equal, poly
from dlpm_proofs.transitions import REFERENCE, Algorithm
from dlpm_proofs.witness import Replay, Setting, call, replay

CLIENT = "f"


@dataclass(frozen=True, slots=True)
class OneByOne:
    """One client alone, its requests one after another: round ``k`` computes ``e_k`` tokens and yields ``o_k``."""

    setting: Setting
    max_input: int
    max_output: int
    rounds: int

    def sizes(self) -> tuple[Named, ...]:
        """What reserving memory and the limits allow."""
        return tuple(
            (
                f"request {k} keeps the limits",
                all_of(
                    between(1, _extend(k), self.max_input),
                    between(1, _output(k), self.max_output),
                    at_most(_extend(k) + _output(k), self.setting.kv_tokens),
                ),
            )
            for k in range(self.rounds)
        )

    def can_end_at(self, deficit: int, algorithm: Algorithm = REFERENCE) -> Obligation:
        """Some run ends with the counter at ``deficit``."""
        return possible(
            f"a run of {self.rounds} requests ends at {deficit}", self.sizes(), self._ends_at(deficit, algorithm)
        )

    def cannot_end_at(self, deficit: int, algorithm: Algorithm = REFERENCE) -> Obligation:
        """No run ends with the counter at ``deficit``."""
        name = f"no run of {self.rounds} requests ends at {deficit}"
        return claim(name, self.sizes(), Not(self._ends_at(deficit, algorithm)))

    def _ends_at(self, deficit: int, algorithm: Algorithm) -> Formula:
        """Run the algorithm's own functions with open sizes, and ask for ``deficit`` at the end."""
        exploration = Exploration([formula for _, formula in self.sizes()])

        def run() -> int:
            ledger = algorithm.ledger(Quanta(self.setting.quantum), self.setting.cost())
            policy = DLPM(ledger)
            policy.arrive(CLIENT, ())
            for k in range(self.rounds):
                extend = SymInt(exploration, _extend(k))
                while algorithm.visit(ledger, CLIENT, (CLIENT,), partial(_fits, extend), _unheard).extend is None:
                    pass
                policy.charge_outputs({CLIENT: SymInt(exploration, _output(k))})
            return ledger.deficits[CLIENT]

        paths = exploration.paths(run)
        return any_of(*(all_of(path.condition(), equal(poly(path.outcome()), deficit)) for path in paths))

    def solved(self, deficit: int) -> Replay | None:
        """A run that ends at ``deficit``, its sizes found by the solver, replayed on the real worker."""
        question = self.can_end_at(deficit)
        outcome = discharge(question, (Z3(),))
        return self.replayed(outcome.numbers, question.name) if outcome.as_expected else None

    def replayed(self, sizes: Mapping[str, int], name: str) -> Replay:
        """The run with these sizes on the real worker."""
        requests: list[Request] = []
        first = 0
        for k in range(self.rounds):
            extend = sizes[f"e_{k}"]
            after = (requests[-1].id,) if requests else ()
            requests.append(call(f"r{k + 1}", CLIENT, range(first, first + extend), sizes[f"o_{k}"], after=after))
            first += extend
        return replay(self.setting, requests, name)


@dataclass(frozen=True, slots=True)
class AllTogether:
    """One client alone, its one-token requests let in at once: request ``k`` yields ``o_k`` tokens, in rising order.

    The prompts have nothing in common, memory is optimistic, and all of it suffices without preemption.
    """

    setting: Setting
    requests: int

    def sizes(self) -> tuple[Named, ...]:
        """While the last of the first ``k`` requests runs, it and those after it fit, each with its prompt token."""
        lengths = [Poly.constant(0), *(_output(k) for k in range(self.requests))]
        return tuple(
            (
                f"request {k} ends after those before it, and memory holds what runs until then",
                all_of(
                    at_most(lengths[k], _output(k)),
                    at_most((_output(k) + Poly.constant(1)) * Poly.constant(self.requests - k), self.setting.kv_tokens),
                ),
            )
            for k in range(self.requests)
        )

    def phases(self) -> Iterator[Poly]:
        """The output tokens from one finish to the next: a token a step for each request that still runs."""
        ended = Poly.constant(0)
        for k in range(self.requests):
            yield (_output(k) - ended) * Poly.constant(self.requests - k)
            ended = _output(k)

    def can_sink_to(self, deficit: int, algorithm: Algorithm = REFERENCE) -> Obligation:
        """Some run ends with the counter at or below ``deficit``."""
        return possible(f"a run sinks to {deficit}", self.sizes(), self._sinks_to(deficit, algorithm))

    def cannot_sink_to(self, deficit: int, algorithm: Algorithm = REFERENCE) -> Obligation:
        """No run of this kind ends with the counter at or below ``deficit``."""
        name = f"no run of {self.requests} such requests sinks to {deficit}"
        return claim(name, self.sizes(), Not(self._sinks_to(deficit, algorithm)))

    def _sinks_to(self, deficit: int, algorithm: Algorithm) -> Formula:
        """Let all requests in, then charge the forward steps between one finish and the next."""
        exploration = Exploration([formula for _, formula in self.sizes()])

        def run() -> int:
            ledger = algorithm.ledger(Quanta(self.setting.quantum), self.setting.cost())
            policy = DLPM(ledger)
            policy.arrive(CLIENT, ())
            for _ in range(self.requests):
                while algorithm.visit(ledger, CLIENT, (CLIENT,), partial(_fits, 1), _unheard).extend is None:
                    pass
            for tokens in self.phases():
                policy.charge_outputs({CLIENT: SymInt(exploration, tokens)})
            return ledger.deficits[CLIENT]

        paths = exploration.paths(run)
        return any_of(*(all_of(path.condition(), at_most(poly(path.outcome()), deficit)) for path in paths))

    def solved(self, deficit: int) -> Replay | None:
        """A run that ends at or below ``deficit``, its outputs found by the solver, replayed on the real worker."""
        question = self.can_sink_to(deficit)
        outcome = discharge(question, (Z3(),))
        if not outcome.as_expected:
            return None
        lengths = [outcome.numbers[f"o_{k}"] for k in range(self.requests)]
        calls = [call(f"r{k + 1}", CLIENT, [k], length) for k, length in enumerate(lengths)]
        return replay(self.setting, calls, question.name)


def _extend(k: int) -> Poly:
    return Poly.unknown(f"e_{k}")


def _output(k: int) -> Poly:
    return Poly.unknown(f"o_{k}")


def _fits(extend: int) -> int:
    """Memory holds every request."""
    return extend


def _unheard(deficits: Mapping[str, int]) -> None:
    """Nobody listens."""
