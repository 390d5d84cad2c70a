"""Deficit Longest Prefix Match, told in examples: Algorithm 1 with its admission loop as a fixpoint.

Weights are 1 for an extend token and 2 for an output token, blocks are single tokens, and memory is ample and reserving
unless an example says otherwise. A request belongs to the client of its first letter.
"""

from __future__ import annotations

from collections.abc import Iterable

from dlpm.cost import CostModel
from dlpm.ledger import Ledger, Quanta
from dlpm.policies.dlpm import DLPM, Visit, visit
from tests.reference.naive_worker import Rules
from tests.reference.policies.counting_step import CountingStep, queue
from tests.reference.scene import Scene, request


def scene(kv_tokens: int = 1000, quantum: int = 10) -> Scene:
    """A worker under DLPM."""
    return Scene(Rules(policy="dlpm", kv_tokens=kv_tokens, quantum=quantum))


def test_a_newcomer_is_gated_until_a_refill_which_its_own_visit_asks_for() -> None:
    """From 0 it is refilled to 10, pays 3 extend tokens, then 2 for an output token. [DLPM Alg. 1 ll. 12, 20-26]"""
    stage = scene()
    stage.submit(request("A1", (1, 2, 3)))
    assert stage.step() == [
        ("refill", {"A": 10}),
        ("admit", "A1", 0, 3, 7, 1000 - 3 - 1),
        ("output", {"A1": 1}, {"A": 5}),
        ("finish", "A1"),
    ]


def test_cached_tokens_are_not_charged() -> None:
    """The second prompt shares two of its three tokens with the first. [DLPM §3, extend tokens; Alg. 1 l. 23]"""
    stage = scene()
    stage.submit(request("A1", (1, 2, 3)))
    stage.step()
    stage.submit(request("A2", (1, 2, 4)))
    assert stage.step()[0] == ("admit", "A2", 2, 1, 4, 1000 - 3 - 1)


def test_at_least_one_token_is_always_computed() -> None:
    """The whole prompt is cached, and still its last token is computed: it yields the first output token."""
    stage = scene()
    stage.submit(request("A1", (1, 2, 3)))
    stage.step()
    stage.submit(request("A2", (1, 2, 3)))
    assert stage.step()[0][:4] == ("admit", "A2", 2, 1)


def test_the_longest_cached_prefix_goes_first_and_arrival_breaks_ties() -> None:
    """[DLPM Alg. 1 l. 16]"""
    stage = scene(quantum=100)
    stage.submit(request("A1", (1, 2, 3)))
    stage.step()
    stage.submit(request("A2", (9,)), request("A3", (1, 8)), request("A4", (1, 2, 8)), request("A5", (7,)))
    stage.step()
    assert stage.admitted() == ["A1", "A4", "A3", "A2", "A5"]


def test_locality_wins_among_clients_with_credit() -> None:
    """B's request came first, and A's has the longer cached prefix: both have credit. [DLPM §4.1]"""
    stage = scene()
    stage.submit(request("A1", (1, 2, 3)))
    stage.step()
    stage.submit(request("B1", (5, 6)), request("A2", (1, 2, 4)))
    stage.step()
    assert stage.admitted() == ["A1", "A2", "B1"]


def test_a_gated_client_waits_however_long_its_cached_prefix_is() -> None:
    """A owes 11 and has its whole prompt cached; B, with 3 left, is served first. [DLPM Alg. 1 l. 21]"""
    stage = scene()
    stage.submit(request("B1", (25, 26, 27, 28, 29)), request("A1", tuple(range(19))))
    stage.step()
    assert stage.deficits() == {"B": 3, "A": -11}
    stage.submit(request("A2", tuple(range(19))), request("B2", (30, 31), output=2))
    assert stage.step() == [
        ("admit", "B2", 0, 2, 1, 1000 - 2 - 2),
        ("refill", {"A": -1}),
        ("refill", {"A": 9}),
        ("admit", "A2", 18, 1, 8, 1000 - 2 - 2 - 19 - 1),
        ("output", {"B2": 1, "A2": 1}, {"B": -1, "A": 6}),
        ("finish", "A2"),
    ]


def test_one_visit_refills_at_most_once_and_later_visits_refill_again() -> None:
    """A owes 11 and a quantum is 10: the first pass lifts it to -1, the second to 9. [DLPM Alg. 1 ll. 17-20]"""
    stage = scene()
    stage.submit(request("A1", tuple(range(19))))
    stage.step()
    stage.submit(request("A2", (50,)))
    assert [event[:2] for event in stage.step()[:3]] == [("refill", {"A": -1}), ("refill", {"A": 9}), ("admit", "A2")]


def test_a_gated_request_that_fits_waits_beside_one_with_credit_that_does_not() -> None:
    """B has credit and needs 22 of 16 free tokens; A needs 2 and is gated: nobody is admitted until memory is free.

    So the claim that DLPM rejects no request that fits does not hold as it is printed. [DLPM §4.2; Alg. 1 ll. 5, 20-21]
    """
    stage = scene(kv_tokens=30)
    stage.submit(request("A1", tuple(range(10)), output=4), request("B1", (50,)))
    stage.step()
    assert stage.deficits() == {"A": -2, "B": 7}
    stage.submit(request("B2", (61, 62, 63, 64), output=18), request("A2", (77,)))
    assert stage.worker.free_tokens() == 16
    assert stage.step() == [("output", {"A1": 1}, {"A": -4})]
    assert stage.step() == [("output", {"A1": 1}, {"A": -6})]
    assert stage.step() == [("output", {"A1": 1}, {"A": -8}), ("finish", "A1")]
    assert [event[:2] for event in stage.step()[:3]] == [("admit", "B2"), ("refill", {"A": 2}), ("admit", "A2")]


def test_a_request_that_does_not_fit_is_passed_over_and_keeps_its_place() -> None:
    """A's large request waits for memory; B's small one behind it does not. [DLPM Alg. 1 ll. 18, 21]"""
    stage = scene(kv_tokens=12, quantum=50)
    stage.submit(request("B1", (9,)), request("A1", (1, 2, 3, 4), output=4))
    stage.step()
    stage.submit(request("A2", (5, 6, 7), output=3), request("B2", (8,)))
    stage.step()
    assert stage.admitted() == ["B1", "A1", "B2"]
    stage.finish_all()
    assert stage.admitted() == ["B1", "A1", "B2", "A2"]


def test_an_admission_that_closes_the_gate_makes_the_client_s_next_request_wait() -> None:
    """A's first request costs its whole quantum, so B is served before A's second. [DLPM Alg. 1 ll. 20-23]"""
    stage = scene()
    stage.submit(request("A1", tuple(range(10))), request("A2", (50,)), request("B1", (60,)))
    events = stage.step()
    assert [event[1] for event in events if event[0] == "admit"] == ["A1", "B1", "A2"]
    assert [event for event in events if event[0] == "refill"] == [
        ("refill", {"A": 10, "B": 10}),
        ("refill", {"A": 10}),
    ]


def test_debt_is_kept_while_a_client_is_away_and_paid_off_by_the_refills_of_others() -> None:
    """A left owing 11. Nothing forgives it; B's visit refills A too. [DLPM Alg. 1 ll. 6-7, 12]"""
    stage = scene()
    stage.submit(request("A1", tuple(range(19))))
    stage.step()
    assert not stage.worker.step().ran
    stage.submit(request("B1", (50,)))
    assert stage.step()[0] == ("refill", {"A": -1, "B": 10})


# -- The visit, which the proofs are about.


class Attempt:
    """A stand-in for memory: gives ``extend`` tokens, or ``None``; counts how often it was asked."""

    def __init__(self, extend: int | None) -> None:
        self.extend = extend
        self.asked = 0

    def __call__(self) -> int | None:
        self.asked += 1
        return self.extend


def visited(deficits: dict[str, int], extend: int | None) -> tuple[Visit, dict[str, int], int, list[dict[str, int]]]:
    """A visit of a request of A beside whoever else is in ``deficits``, with everybody queued and quantum 10."""
    ledger = Ledger(Quanta(10), CostModel(1, 2))
    ledger.deficits.update(deficits)
    attempt = Attempt(extend)
    refills: list[dict[str, int]] = []
    outcome = visit(ledger, "A", list(deficits), attempt, lambda after: refills.append(dict(after)))
    return outcome, ledger.deficits, attempt.asked, refills


def test_a_visit_with_credit_asks_memory_and_charges_what_it_admitted() -> None:
    """[DLPM Alg. 1 ll. 21-24]"""
    assert visited({"A": 1, "B": 0}, 4) == (Visit(False, 4), {"A": -3, "B": 0}, 1, [])


def test_a_visit_with_credit_and_no_memory_changes_nothing() -> None:
    """[DLPM Alg. 1 l. 21]"""
    assert visited({"A": 1, "B": 0}, None) == (Visit(False, None), {"A": 1, "B": 0}, 1, [])


def test_a_gated_visit_beside_a_client_with_credit_does_not_even_ask_memory() -> None:
    """[DLPM Alg. 1 ll. 5, 20-21]"""
    assert visited({"A": 0, "B": 1}, 4) == (Visit(False, None), {"A": 0, "B": 1}, 0, [])


def test_a_gated_visit_refills_once_and_is_admitted_if_that_opens_the_gate() -> None:
    """[DLPM Alg. 1 ll. 20-24]"""
    expected = (Visit(True, 4), {"A": 6, "B": 1}, 1, [{"A": 10, "B": 1}])
    assert visited({"A": 0, "B": -9}, 4) == expected


def test_a_gated_visit_that_one_quantum_does_not_lift_only_refills() -> None:
    """[DLPM Alg. 1 ll. 7, 20-21]"""
    expected = (Visit(True, None), {"A": 0, "B": 10}, 0, [{"A": 0, "B": 10}])
    assert visited({"A": -10, "B": 0}, 4) == expected


# -- What it promises not to do.


class CountingLedger(Ledger):
    """A ledger that counts how often check-refill is asked."""

    asked = 0

    def check_refill(self, queued_clients: Iterable[str]) -> dict[str, int]:
        self.asked += 1
        return super().check_refill(queued_clients)


def policy_at(**deficits: int) -> tuple[DLPM, CountingLedger]:
    """DLPM with quantum 10 whose clients stand at ``deficits``."""
    ledger = CountingLedger(Quanta(10), CostModel(1, 2))
    ledger.deficits.update(deficits)
    return DLPM(ledger), ledger


def test_admission_is_due_when_no_queued_client_has_credit() -> None:
    policy, _ = policy_at(A=0, B=1)
    assert policy.admission_due(["A"])
    assert not policy.admission_due(["A", "B"])


def test_nothing_is_matched_while_no_request_of_a_client_with_credit_could_fit() -> None:
    """B is gated and A has credit, so no refill is due, and memory plainly holds neither."""
    policy, _ = policy_at(A=1, B=0)
    step = CountingStep(queue("A", "B", "A"))
    policy.admit(step)
    assert step.asked == {"may_fit": 2}


def test_everything_is_matched_once_when_a_refill_is_due_even_if_nothing_could_fit() -> None:
    policy, ledger = policy_at(A=0, B=0)
    step = CountingStep(queue("A", "B"))
    policy.admit(step)
    assert (step.asked["matched"], step.asked["considered"], step.asked["refilled"]) == (2, 1, 1)
    assert ledger.deficits == {"A": 10, "B": 10}


def test_check_refill_is_asked_once_for_many_gated_requests() -> None:
    """It refused because A has credit, and nothing has happened since. [DLPM Alg. 1 l. 20]"""
    policy, ledger = policy_at(A=1, B=0, C=-5)
    policy.admit(CountingStep(queue("B", "C", "B", "C", "A", "B"), plainly=False))
    assert ledger.asked == 1
