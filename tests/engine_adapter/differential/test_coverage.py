"""Each kind of decision is seen where it happens, and the corpus and campaigns reach them."""

from __future__ import annotations

from collections import Counter

import pytest

from dlpm_engine.differential.case import Case
from dlpm_engine.differential.corpus import corpus
from dlpm_engine.differential.coverage import Coverage
from dlpm_engine.differential.generate import generate
from dlpm_engine.differential.kinds import KINDS
from dlpm_engine.differential.lockstep import Comparison
from dlpm_engine.differential.reference_engine import ReferenceEngine

# Hand-made cases, the kind each was made for, and kinds that it cannot reach.
MADE_FOR = {
    "equal matches of two clients go by arrival": ("tie on the match", "preemption"),
    "credit of exactly zero is no credit": ("gate at exactly zero", "preemption"),
    "a refill in the middle of a pass goes on from where it fired": ("refill in mid-pass", "admitted from cache"),
    "debt of many quanta takes many refills": ("refills in a row", "batch full"),
    "memory holds exactly one request, and then exactly two": ("memory exactly full", "preemption"),
    "what does not fit lets what stands behind it pass": ("skipped for memory", "preemption"),
    "a prompt that is evicted and comes back": ("eviction at an admission", "preemption"),
    "a prompt evicted by the admission before its own": ("match shrank in the step", "preemption"),
    "a client leaves in debt and returns": ("client returns in debt", "batch full"),
    "a client leaves with credit and returns": ("client returns with credit", "batch full"),
    "one-token prompts, one-token outputs": ("one-token prompt", "eviction for outputs"),
    "the same prompt over and over, all of it cached": ("admitted whole from cache", "preemption"),
    "preemption of the youngest, again and again": ("re-admission from cache", "request refused"),
    "preempted in the step of its admission, its blocks discarded": (
        "preemption before its first forward",
        "batch full",
    ),
    "families that share a prefix, visible at admission": ("match grew in the step", "preemption"),
    "families that share a prefix, visible after the forward": ("match grew while waiting", "match grew in the step"),
    "a reply that leaves a partial block of its prompt behind, hashed in blocks of 3, partial blocks too": (
        "eviction at a finish",
        "preemption",
    ),
    "a request that can never fit is refused": ("request refused", "preemption"),
    "cold requests are not starved by a stream of warm ones": ("batch full", "preemption"),
    "a thousand clients, one request each": ("batch full", "preemption"),
}


def reached(case: Case) -> set[str]:
    """The kinds of decision that a case reaches."""
    coverage = Coverage(case.config, case.requests)
    Comparison(case, ReferenceEngine(), ReferenceEngine(), observer=coverage).run()
    return coverage.reached


@pytest.mark.parametrize("name", MADE_FOR)
def test_a_hand_made_case_reaches_what_it_was_made_for(name: str) -> None:
    kind, beyond_it = MADE_FOR[name]
    kinds = reached(corpus()[name])
    assert kind in kinds
    assert beyond_it not in kinds


def test_all_kinds_that_are_named_can_be_reached_and_no_other_is_reported() -> None:
    counts = Counter[str]()
    for number in range(700):
        counts.update(reached(generate(0, number)))
    # Only an engine with limited integers leaves int64; the reference does not.
    assert KINDS.keys() - counts.keys() == {"left int64"}
    assert counts.keys() <= KINDS.keys()
