"""What a report says: the first fault with its circumstances, every fault once, as text and as JSON."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from dlpm_engine.conformance import RULES, check_log, render, rules_for, to_json
from dlpm_engine.conformance.findings import MAX_LEDGER, MAX_VIOLATIONS, names
from dlpm_engine.conformance.state import RECENT_EVENTS
from tests.engine_adapter.conformance.logs import Log, as_bytes, check
from tests.engine_adapter.conformance.mutations import MUTATIONS
from tests.engine_adapter.conformance.samples import SEEDS, kind, sample_log

MOST_REPORTS = 4
"""A fault that leaves a log out of step with itself may be reported under more than one rule, but not at every line."""

EVERYWHERE = {
    "the_batch_is_larger_than_its_limit",
    "a_request_arrives_at_another_worker_than_it_was_sent_to",
    "a_request_arrives_that_was_not_dispatched",
}
"""Faults that are made in many lines."""


@pytest.mark.parametrize(
    "mutation", [m for m in MUTATIONS if m.name not in EVERYWHERE], ids=lambda mutation: mutation.name
)
def test_one_fault_is_not_reported_at_every_line_after_it(mutation: Any) -> None:
    policy = mutation.policies[0]
    for seed in SEEDS:
        log = sample_log(policy, seed, memory=mutation.memory, full=mutation.full)
        for changed, _ in list(mutation.places(log))[:2]:
            laws = [v for v in check(changed).violations if not RULES[v.rule].theorem]
            assert 1 <= len(laws) <= MOST_REPORTS, [(v.line, v.rule) for v in laws]


def overcharged(log: Log) -> tuple[Log, int]:
    """The log with the last admission one token too dear, and the index of its line."""
    index = max(index for index, line in enumerate(log) if kind(line) == "admit")
    line: Any = log[index]
    return [*log[:index], {**line, "deficit": line["deficit"] - 1}, *log[index + 1 :]], index


def test_a_violation_carries_line_rule_expected_found_ledger_and_the_last_events_of_its_client() -> None:
    log, index = overcharged(sample_log("dlpm", 0))
    line: Any = log[index]
    violation = check(log, every=False).violations[0]
    assert (violation.line, violation.rule) == (index + 1, "charge-extend")
    assert (violation.step, violation.time_us) == (line["step"], line["time_us"])
    assert violation.request == line["request"]
    assert violation.found == str(line["deficit"])
    assert f"= {line['deficit'] + 1} for {line['extend']} extend tokens" in violation.expected
    counters: dict[str, int] = {}
    clients: dict[str, str] = {}
    for earlier in map(dict[str, Any], log[:index]):
        if kind(earlier) == "arrive":
            counters.setdefault(earlier["client"], 0)
            clients[earlier["request"]] = earlier["client"]
        counters.update(earlier.get("deficits", {}))
        if "deficit" in earlier:
            counters[clients[earlier["request"]]] = earlier["deficit"]
    assert violation.client == clients[line["request"]]
    assert dict(violation.ledger) == counters
    assert 0 < len(violation.recent) <= RECENT_EVENTS + 2
    for number, text in violation.recent:
        assert number <= index
        assert text == in_few_words(log[number - 1], str(violation.client))
        own = clients.get(str(log[number - 1].get("request", "")))
        assert own in (violation.client, None)


def in_few_words(line: Any, client: str) -> str:
    """An event as a report recalls it: numbers, request; of maps, how many requests, and the client's own."""
    rest = [name for name in sorted(line) if name not in ("event", "client", "step", "time_us", "request")]
    told = []
    for name in ("step", "time_us", "request", *rest):
        if name == "tokens":
            told.append(f"requests={len(line[name])}")
        elif name == "deficits":
            told += [f"deficit={line[name][client]}"] * (client in line[name])
        elif name in line and not isinstance(line[name], list):
            told.append(f"{name}={line[name]}")
    return f"{line['event']} {' '.join(told)}"


def test_a_few_of_many_names_are_shown() -> None:
    assert names("dcba") == "'a', 'b', 'c', 'd'"
    assert names("fedcba") == "'a', 'b', 'c', 'd' and 2 more"


def test_the_text_of_a_report_names_file_line_and_rule() -> None:
    log, index = overcharged(sample_log("dlpm", 0))
    report = check_log(as_bytes(log), source="run.jsonl")
    violation = report.violations[0]
    line: Any = log[index]
    ledger = ", ".join(f"{client} {counter}" for client, counter in violation.ledger.items())
    assert render(report).splitlines() == [
        f"run.jsonl: violated: 1 violation in {index} events of reference under test, policy dlpm",
        "",
        f"run.jsonl:{index + 1}: charge-extend: {RULES['charge-extend'].sentence} [DLPM Alg. 1 l. 23]",
        f"  at        step {line['step']}, time_us {line['time_us']}, client {violation.client}, "
        f"request {line['request']}",
        f"  expected  {violation.expected}",
        f"  found     {violation.found}",
        f"  ledger    {ledger}",
        f"  before    the last events of {violation.client}:",
        *(f"            line {number}: {event}" for number, event in violation.recent),
    ]
    again = replace(report, violations=(replace(violation, worker=7, clients=len(violation.ledger) + 2),) * 2)
    text = render(again)
    assert text.startswith("run.jsonl: violated: 2 violations in ")
    assert f"  at        worker 7, step {line['step']}," in text
    assert f"  ledger    {ledger}, and 2 more clients\n" in text


def test_the_text_of_a_sound_log_says_how_much_was_checked() -> None:
    log = sample_log("dlpm", 0)
    report = check_log(as_bytes(log), source="run.jsonl")
    assert report.exit_code == 0
    rules = len(rules_for("dlpm"))
    expected = f"run.jsonl: holds: {len(log) - 1} events of reference under test, policy dlpm, {rules} rules"
    assert render(report) == expected


def test_a_short_log_says_which_rules_it_is_too_short_for() -> None:
    text = render(check(sample_log("dlpm", 0, full=False)))
    assert "not checked: order-covers-queue, order-longest-first, admit-in-order, fixpoint-fit: the log has no" in text


def test_a_log_that_does_not_state_its_memory_is_not_held_to_bounds() -> None:
    log: Any = sample_log("dlpm", 0)
    del log[0]["limits"]["kv_tokens"]
    report = check(log)
    assert report.holds
    unchecked = {rule: group.reason for group in report.not_checked for rule in group.rules}
    assert unchecked["deficit-floor"] == unchecked["gap-any"] == "the header states no limits.kv_tokens"
    assert "deficit-floor" not in report.rules


def test_an_unknown_policy_is_held_to_the_rules_for_any_and_the_report_says_so() -> None:
    log = sample_log("dlpm", 0)
    log[0]["policy"] = "my-own"
    report = check(log)
    assert report.holds
    assert set(report.rules) == {rule.id for rule in RULES.values() if rule.policies == ("any",)}
    assert "policy my-own (no rules of its own: held to the rules for any policy)" in render(report)


def test_the_json_of_a_report_has_what_the_text_has() -> None:
    log, index = overcharged(sample_log("dlpm", 0, full=False))
    line: Any = log[index]
    report = check(log, every=False)
    violation = report.violations[0]
    rule = RULES["charge-extend"]
    assert orjson.loads(orjson.dumps(to_json(report))) == {
        "schema": "dlpm.check/1",
        "log": "log",
        "engine": "reference under test",
        "policy": "dlpm",
        "holds": False,
        "events": index,
        "rules": list(report.rules),
        "not_checked": [{"rules": list(group.rules), "reason": group.reason} for group in report.not_checked],
        "omitted": 0,
        "violations": [
            {
                "line": index + 1,
                "rule": rule.id,
                "sentence": rule.sentence,
                "source": rule.source,
                "step": line["step"],
                "time_us": line["time_us"],
                "client": violation.client,
                "request": line["request"],
                "expected": violation.expected,
                "found": violation.found,
                "unmet_hypothesis": None,
                "ledger": dict(violation.ledger),
                "clients": 3,
                "recent": [{"line": number, "event": event} for number, event in violation.recent],
            }
        ],
    }
    assert report.not_checked
    somewhere = to_json(replace(report, violations=(replace(violation, worker=0, time_us=None),)))["violations"]
    assert isinstance(somewhere, list)
    assert isinstance(somewhere[0], dict)
    assert somewhere[0]["worker"] == 0
    assert "time_us" not in somewhere[0]


def test_only_so_many_violations_and_clients_are_kept() -> None:
    """More clients than violations are kept for, each overcharged once."""
    clients = MAX_VIOLATIONS + 100
    header: Any = sample_log("vtc", 0, full=False)[0]
    log: list[Any] = [{**header, "limits": {}}]
    for number in range(clients):
        request = {"request": f"r{number}", "client": f"c{number}", "input": 1, "max_output": 9}
        log.append({"event": "arrive", "step": 1, **request})
    for number in range(clients):
        log.append({"event": "admit", "step": 1, "request": f"r{number}", "matched": 0, "extend": 1, "deficit": 2})
    report = check(log)
    assert {violation.rule for violation in report.violations} == {"vtc-charge-input"}
    assert len(report.violations) == MAX_VIOLATIONS
    assert report.omitted == 100
    assert len(report.violations[-1].ledger) <= MAX_LEDGER
    assert report.violations[-1].clients == clients
    text = render(report)
    assert "\n100 more violations are not shown" in text
    assert f"and {clients - len(report.violations[0].ledger)} more clients" in text


def long_log(requests: int) -> Iterator[bytes]:
    """A log of one client whose requests come and go, one after the other."""
    header: Any = sample_log("fcfs", 0, full=False)[0]
    yield orjson.dumps({**header, "limits": {"kv_tokens": 64}})
    for step in range(1, requests + 1):
        name = f"request-{step}"
        yield orjson.dumps(
            {"event": "arrive", "step": step, "request": name, "client": "A", "input": 9, "max_output": 9}
        )
        yield orjson.dumps({"event": "admit", "step": step, "request": name, "matched": 0, "extend": 9})
        yield orjson.dumps({"event": "output", "step": step, "tokens": {name: 1}})
        yield orjson.dumps({"event": "finish", "step": step, "request": name})


def peak_memory(requests: int) -> int:
    """The most memory that checking a log of so many requests takes, in bytes."""
    tracemalloc.start()
    try:
        assert check_log(long_log(requests)).holds
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_length_of_the_log() -> None:
    peak_memory(100)
    assert peak_memory(4000) < peak_memory(400) + 20_000
