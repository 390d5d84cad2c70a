"""A log beside its operator's profile: what the header leaves open is supplied, and what it contradicts is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given

from dlpm.cost import CostModel
from dlpm.engine_profile import EngineProfile
from dlpm.errors import InputError
from dlpm.extensions.late_accounting import LateLedger, stated
from dlpm.policies.dlpm import DLPM
from dlpm.quanta import Quanta
from dlpm.timing import FixedStep
from dlpm.worker import Worker
from dlpm_engine.cli.main import execute
from dlpm_engine.conformance import check_log
from tests.engine_adapter.conformance.extensions.variants import (
    config_of,
    quanta_and_cost,
    record_variant,
    rules_broken,
    stating,
)
from tests.engine_adapter.conformance.logs import Log, Plan, as_bytes, check, plans, record, run_rules
from tests.engine_adapter.conformance.samples import sample_plan, sample_rules
from tests.reference.naive_worker import Rules

LONGEST = 64
"""More tokens than any prompt or output of the plans."""


def profile_of(rules: Rules) -> EngineProfile:
    """The operator's view of an engine under ``rules``."""
    return EngineProfile(
        engine="under test",
        cost=CostModel(rules.extend_weight, rules.output_weight),
        quanta=Quanta(rules.quantum, rules.quanta),
        memory=rules.memory,
        kv_tokens=rules.kv_tokens,
        max_input=LONGEST,
        max_output=LONGEST,
        max_running=rules.max_running,
    )


def silent(log: Log) -> Log:
    """The same log, its header stating nothing that it need not."""
    needed = ("schema", "engine", "policy", "weights", "visibility", "block_size", "watermark", "level")
    return [{name: value for name, value in log[0].items() if name in needed}, *log[1:]]


@given(run_rules(["dlpm"], ["reserving", "optimistic"]), plans())
def test_a_silent_log_with_a_profile_is_checked_like_one_that_states_everything(rules: Rules, plan: Plan) -> None:
    log = record(rules, plan)
    assume(len(log) > 1)
    limits = {"max_input": LONGEST, "max_output": LONGEST, "kv_tokens": rules.kv_tokens}
    header: dict[str, Any] = {
        **log[0],
        "limits": limits | ({"max_running": rules.max_running} if rules.max_running else {}),
    }
    everything = check([header, *log[1:]])
    found = check_log(as_bytes(silent(log)), all_violations=True, profile=profile_of(rules))
    assert found.violations == everything.violations
    assert found.rules == everything.rules
    assert found.not_checked == everything.not_checked


def test_a_silent_log_breaks_the_bounds_of_a_profile_with_less_memory() -> None:
    """The run has its own memory; the operator believes in half of it."""
    rules = sample_rules("dlpm", 0)
    log = silent(record(rules, sample_plan(0)))
    assert not rules_broken(check_log(as_bytes(log), all_violations=True, profile=profile_of(rules)))
    less = replace(profile_of(rules), kv_tokens=rules.kv_tokens // 2)
    assert "memory-overbooked" in rules_broken(check_log(as_bytes(log), all_violations=True, profile=less))


def test_a_stricter_limit_of_the_log_is_kept() -> None:
    rules = sample_rules("dlpm", 0)
    log = record(rules, sample_plan(0))
    log[0] = {**log[0], "limits": {"kv_tokens": rules.kv_tokens, "max_input": 1}}
    found = check_log(as_bytes(log), all_violations=True, profile=profile_of(rules))
    assert "arrive-in-limits" in rules_broken(found)


def test_a_profile_can_say_that_outputs_are_charged_late() -> None:
    rules = sample_rules("dlpm", 1)

    def build(rules: Rules, sink: Any) -> Worker:
        return Worker(config_of(rules), DLPM(LateLedger(*quanta_and_cost(rules), lambda _: 2)), FixedStep(1), sink)

    log = record_variant(rules, sample_plan(1), build, stated(2))
    log[0] = {**log[0], "level": "decisions"}
    says_nothing = stating(log, {})
    late = replace(profile_of(rules), late_steps=2)
    assert rules_broken(check(says_nothing)) >= {"charge-output"}
    assert not rules_broken(check_log(as_bytes(says_nothing), all_violations=True, profile=late))
    assert not rules_broken(check_log(as_bytes(log), all_violations=True, profile=late))


@pytest.mark.parametrize(
    ("change", "field", "expected", "found"),
    [
        ({"cost": CostModel(2, 2)}, "weights.extend", "2", "1"),
        ({"cost": CostModel(1, 3)}, "weights.output", "3", "2"),
        ({"quanta": Quanta(999)}, "quantum.default", "999", None),
        ({"memory": "optimistic"}, "memory", "'optimistic'", "'reserving'"),
        ({"kv_tokens": 3}, "limits.kv_tokens", "at most 3", None),
        ({"late_steps": 1}, "extensions.late.steps", "1", "2"),
        ({"late_steps": 0}, "extensions.late", "no such extension", "it"),
    ],
)
def test_a_log_that_contradicts_the_profile_is_bad_input(
    change: dict[str, Any], field: str, expected: str, found: str | None
) -> None:
    rules = sample_rules("dlpm", 0)
    log = stating(record(rules, sample_plan(0)), stated(2))
    profile = replace(replace(profile_of(rules), late_steps=2), **change)
    with pytest.raises(InputError) as caught:
        check_log(as_bytes(log), source="log", profile=profile)
    assert (caught.value.source, caught.value.line, caught.value.field) == ("log", 1, field)
    assert f"expected {expected}, as the parameters say, found {found or ''}" in str(caught.value)


def test_a_client_with_another_quantum_than_in_the_profile_is_bad_input() -> None:
    rules = sample_rules("dlpm", 0)
    for here, there in (({"A": 77}, {}), ({}, {"A": 77}), ({"A": 77}, {"A": 78})):
        log = record(replace(rules, quanta=here), sample_plan(0))
        profile = replace(profile_of(rules), quanta=Quanta(rules.quantum, there))
        with pytest.raises(InputError, match=r"quantum\.clients\.A"):
            check_log(as_bytes(log), profile=profile)


def test_the_command_line_takes_a_file_of_parameters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = sample_rules("dlpm", 0)
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"".join(as_bytes(silent(record(rules, sample_plan(0))))))
    params = tmp_path / "engine.toml"
    text = (
        'memory = "reserving"\n[weights]\nextend = 1\noutput = 2\n'
        f"[quantum]\ndefault = {rules.quantum}\n[limits]\nmax_input = {LONGEST}\nkv_tokens = "
    )
    params.write_text(f"{text}{rules.kv_tokens}\n")
    assert execute(["check", str(log)]) == 2, "without a quantum"
    assert execute(["check", str(log), "--params", str(params)]) == 0
    params.write_text(f"{text}{rules.kv_tokens // 2}\n")
    assert execute(["check", str(log), "--params", str(params)]) == 1
    params.write_text(f"{text}none\n")
    capsys.readouterr()
    assert execute(["check", str(log), "--params", str(params)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
