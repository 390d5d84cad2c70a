"""Weighted tenants: the worker beside the naive model, and service in proportion over every interval."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from dlpm import bounds, bounds_extensions
from dlpm import events as ev
from dlpm.cost import CostModel
from dlpm.errors import InputError
from dlpm.extensions.weights import weighted_quanta
from tests.reference.lockstep import CLIENTS, Lockstep, Shape, shapes
from tests.reference.naive_worker import Rules

KV_TOKENS = 14
LONGEST = 13


class Weighted(RuleBasedStateMachine):
    """Submit and step: the naive model agrees, and every pair of clients keeps its weighted gap."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: dict[str, int] = {}
        self.pair = Lockstep(Rules())
        self.submitted = 0
        self.read = 0
        self.waiting: dict[str, int] = dict.fromkeys(CLIENTS, 0)
        self.served: dict[str, int] = dict.fromkeys(CLIENTS, 0)
        self.since: dict[tuple[str, str], list[Fraction]] = {}

    @initialize(
        base=st.integers(1, 5), weights=st.dictionaries(st.sampled_from(CLIENTS), st.sampled_from((1, 2, 7, 1000)))
    )
    def start(self, base: int, weights: dict[str, int]) -> None:
        quanta = weighted_quanta(base, weights)
        self.pair = Lockstep(Rules(kv_tokens=KV_TOKENS, quantum=quanta.default, quanta=quanta.clients))
        assert {client: quanta.of(client) for client in CLIENTS} == {
            client: base * weights.get(client, 1) for client in CLIENTS
        }

    @rule(several=st.lists(shapes(), min_size=1, max_size=6))
    def submit(self, several: list[Shape]) -> None:
        for shape in several:
            self.submitted += 1
            self.pair.submit(shape.request(f"r{self.submitted}", 1))

    @rule(times=st.integers(1, 8))
    def step(self, times: int) -> None:
        for _ in range(times):
            self.pair.step()

    @invariant()
    def service_is_in_proportion(self) -> None:
        """Compare rational service per quantum over every interval in which both are queued."""
        rules = self.pair.rules
        cost = CostModel(rules.extend_weight, rules.output_weight)
        floor = bounds.deficit_floor(bounds.tight_unit(cost, LONGEST, KV_TOKENS))
        clients = {e.request: e.client for e in self.pair.log if isinstance(e, ev.Arrive)}
        for event in self.pair.log[self.read :]:
            if isinstance(event, ev.Arrive):
                self.waiting[event.client] += 1
            elif isinstance(event, ev.Admit):
                self.waiting[clients[event.request]] -= 1
                self.served[clients[event.request]] += rules.extend_weight * event.extend
            elif isinstance(event, ev.Output):
                for request, tokens in event.tokens.items():
                    self.served[clients[request]] += rules.output_weight * tokens
            for f in CLIENTS:
                for g in CLIENTS:
                    if f != g:
                        self.check_pair(f, g, floor)
        self.read = len(self.pair.log)

    def check_pair(self, f: str, g: str, floor: int) -> None:
        own, other = self.pair.rules.quantum_of(f), self.pair.rules.quantum_of(g)
        difference = Fraction(self.served[f], own) - Fraction(self.served[g], other)
        leads = self.since.setdefault((f, g), [])
        leads.append(difference)
        bound = Fraction(bounds_extensions.weighted_gap(own, floor, other, floor), own * other)
        assert difference - min(leads) <= bound
        if not (self.waiting[f] and self.waiting[g]):
            self.since[(f, g)] = []


def test_weighted_clients_are_served_in_proportion_at_every_step() -> None:
    run_state_machine_as_test(Weighted, settings=settings(max_examples=60, stateful_step_count=25))


@pytest.mark.parametrize("weight", [0, -1])
def test_a_weight_must_be_positive(weight: int) -> None:
    with pytest.raises(InputError, match=r"weight\.A"):
        weighted_quanta(5, {"A": weight})


def test_the_bound_of_equal_quanta_is_the_plain_gap() -> None:
    assert bounds_extensions.weighted_gap(5, -14, 5, -14) == 5 * bounds.service_gap(5, -14)


def test_a_heavy_client_may_be_served_a_thousand_times_what_a_light_one_waits_for() -> None:
    # The light client may be at -14 with quantum 1: 15 quanta short of Q, and the heavy one has a range of 1014.
    assert bounds_extensions.service_of_a_heavier_client(1000, -14, 1, -14) == 15 * 1000 + 1014
