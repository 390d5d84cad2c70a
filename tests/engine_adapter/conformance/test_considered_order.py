"""Who certainly fits: what the header must state for it, and when a full batch is reason enough."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine_adapter.conformance.logs import Log, check
from tests.engine_adapter.conformance.mutations.order import a_request_that_fits_is_left_waiting
from tests.engine_adapter.conformance.samples import SEEDS, sample_log
from tests.engine_adapter.conformance.views import views


def with_one_left_waiting(memory: str = "reserving") -> list[tuple[Log, int]]:
    """Logs in which a request that certainly fits is left waiting, each with the line that is to blame."""
    logs = [sample_log("lpm", seed, memory=memory) for seed in SEEDS]
    found = [place for log in logs for place in list(a_request_that_fits_is_left_waiting(log))[:2]]
    assert len(found) > 4
    return found


def changed_header(log: Log, changes: dict[str, Any]) -> Log:
    """The log with fields of its header changed, or left out where the change is ``None``."""
    header = {name: value for name, value in {**log[0], **changes}.items() if value is not None}
    return [header, *log[1:]]


@pytest.mark.parametrize(
    ("memory", "changes", "reason"),
    [
        ("reserving", {"memory": None}, "the header does not say what memory is"),
        ("reserving", {"block_size": None}, "the header states no block_size"),
        ("optimistic", {"watermark": None}, "the header states no watermark"),
        ("reserving", {"level": None}, "the log has no order events and no free memory (level is not full)"),
    ],
)
def test_nobody_is_blamed_where_the_header_does_not_say_who_fits(
    memory: str, changes: dict[str, Any], reason: str
) -> None:
    for log, line in with_one_left_waiting(memory):
        assert [(v.rule, v.line) for v in check(log, every=False).violations] == [("fixpoint-fit", line)]
        report = check(changed_header(log, changes))
        assert not {violation.rule for violation in report.violations} & {"fixpoint-fit", "admit-in-order"}
        reasons = {rule: group.reason for group in report.not_checked for rule in group.rules}
        assert reasons["fixpoint-fit"] == reasons["admit-in-order"] == reason


def test_a_full_batch_is_reason_enough_to_wait_and_one_that_is_not_full_is_none() -> None:
    for log, line in with_one_left_waiting():
        running = len(views(log[:line])[-1].running)
        limits: Any = log[0]["limits"]
        roomy = changed_header(log, {"limits": {**limits, "max_running": 99}})
        assert [(v.rule, v.line) for v in check(roomy, every=False).violations] == [("fixpoint-fit", line)]
        if running:
            full: Log = changed_header(log, {"limits": {"kv_tokens": 10_000, "max_running": running}})
            assert (line, "fixpoint-fit") not in [(v.line, v.rule) for v in check(full).violations]
