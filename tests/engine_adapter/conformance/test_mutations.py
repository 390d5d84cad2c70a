"""A log with one fault: the checker finds it where it is, and calls it by its name."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest

from dlpm_engine.conformance import RULES
from tests.engine_adapter.conformance.logs import Log, check
from tests.engine_adapter.conformance.mutations import MUTATIONS
from tests.engine_adapter.conformance.mutations.mutation import Mutation
from tests.engine_adapter.conformance.samples import SEEDS, sample_log
from tests.engine_adapter.conformance.wording import assert_well_described

PLACES_PER_LOG = 6
MOST_REPORTS = 3
"""One fault may need more than one line of the log to be taken in: never more than a few."""


def mutated(mutation: Mutation) -> Iterator[tuple[Log, int]]:
    """The places of a mutation in the sample logs."""
    for policy in mutation.policies:
        for seed in SEEDS:
            log = sample_log(policy, seed, memory=mutation.memory, full=mutation.full)
            yield from islice(mutation.places(log), PLACES_PER_LOG)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_exactly_the_right_rule_fires_first(mutation: Mutation) -> None:
    found = []
    for log, line in mutated(mutation):
        report = check(log, every=False)
        found.append([(violation.rule, violation.line) for violation in report.violations] == [(mutation.rule, line)])
        assert found[-1], f"expected {mutation.rule} at line {line}, found {report.violations}"
        assert_well_described(log, report.violations[0])
    assert found, "no sample log has a place for this mutation"


@pytest.mark.parametrize("policy", ["dlpm", "vtc", "lpm", "fcfs"])
@pytest.mark.parametrize("memory", ["reserving", "optimistic"])
@pytest.mark.parametrize("full", [True, False])
def test_the_samples_themselves_break_no_law(policy: str, memory: str, full: bool) -> None:
    for seed in SEEDS:
        report = check(sample_log(policy, seed, memory=memory, full=full))
        assert all(RULES[violation.rule].theorem for violation in report.violations)


def test_there_are_enough_mutations_and_each_has_a_rule() -> None:
    assert len(MUTATIONS) >= 40
    assert {mutation.rule for mutation in MUTATIONS} <= RULES.keys()
