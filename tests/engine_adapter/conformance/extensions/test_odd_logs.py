"""Logs of extensions that are broken by hand or at random: one clear line, or a report, and never a crash."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from random import Random
from typing import Any

import pytest

from dlpm.errors import InputError
from dlpm.extensions import late_accounting
from dlpm_engine.conformance import check_log
from tests.engine_adapter.conformance.extensions import (
    shared_runs,
    test_chunked_prefill,
    test_churn,
    test_late,
    test_quantum_range,
    test_recompute,
    test_shared_prefixes,
    test_speculation,
    test_swap,
    test_together,
)
from tests.engine_adapter.conformance.extensions.variants import sample_logs
from tests.engine_adapter.conformance.logs import Log
from tests.engine_adapter.conformance.samples import sample_log


def late_chunks() -> Log:
    """Chunks, and outputs of which the gate hears a step late."""
    chunks = test_chunked_prefill.ONCE
    extensions = {**chunks.stated(), **late_accounting.stated(1)}
    return sample_logs(test_chunked_prefill.in_late_chunks(chunks, lambda _: 1), extensions)[0]


LOGS: dict[str, Callable[[], Log]] = {
    "plain": lambda: sample_log("dlpm", 0),
    "chunks": lambda: test_chunked_prefill.samples(test_chunked_prefill.ONCE)[0],
    "gated-chunks": lambda: test_chunked_prefill.samples(test_chunked_prefill.EACH)[0],
    "late-chunks": late_chunks,
    "churn": lambda: test_churn.samples("keep-debt")[0],
    "late": lambda: test_late.samples()[0],
    "quantum-range": lambda: test_quantum_range.samples()[0],
    "recompute": lambda: test_recompute.samples(test_recompute.ALL[2])[0],
    "shared-ledger": lambda: shared_runs.samples()[0],
    "shared-prefixes": lambda: test_shared_prefixes.samples("split")[0],
    "speculation": lambda: test_speculation.charged_samples()[0],
    "swap": lambda: test_swap.samples()[0],
    "late-speculation": lambda: test_together.speculative_samples()[0],
    "late-recompute": lambda: test_together.recomputing_samples()[0],
}
ODD: tuple[Any, ...] = (
    *(-1, 0, 2**31, 2**63 - 1, 2**63, -(2**63), 2**70, -(2**70), 1.5, 1e300, float("nan"), True, None),
    *("", "é", "\ud800", [], [1], ["a", "\ud800"], {}, {"A": None}, {"": 1}, {"A": 2**70}, {"A": True}, {"zzz": 5}),
)
CASES = 100


@cache
def lines_of(name: str) -> list[bytes]:
    """The lines of one sound log."""
    return [written(line) for line in LOGS[name]()]


def written(line: Any) -> bytes:
    """One line, as a careless writer has it: NaN and lone surrogates too."""
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a line has values."""
    if at:
        yield at
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*at, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*at, 0))


def broken(source: Random, lines: list[bytes]) -> list[bytes]:
    """The log with one to three things wrong with it."""
    changed = list(lines)
    for _ in range(source.randint(1, 3)):
        index = source.choice((0, source.randrange(len(changed))))
        how = source.randrange(5)
        if how < 2:
            line = json.loads(lines[min(index, len(lines) - 1)])
            *outer, last = source.choice(list(places(line)))
            inner = line
            for key in outer:
                inner = inner[key]
            if how:
                inner[last] = source.choice(ODD)
            else:
                del inner[last]
            changed[index] = written(line)
        elif how == 2:
            changed.insert(index + 1, changed[source.randrange(len(changed))])
        elif how == 3 and len(changed) > 2:
            del changed[max(index, 1)]
        else:
            cut = source.randrange(len(changed[index]))
            changed[index] = (
                changed[index][:cut] + source.choice((b"", b"\xff", b"}", b"7")) + changed[index][cut + 1 :]
            )
    return changed


@pytest.mark.parametrize("name", LOGS)
def test_a_broken_log_is_refused_in_one_line_or_checked(name: str) -> None:
    source = Random(name)
    refused = 0
    for _ in range(CASES):
        changed = broken(source, lines_of(name))
        for every in (False, True):
            try:
                check_log(changed, source="log", all_violations=every)
            except InputError as error:
                refused += 1
                assert error.line is not None
                assert str(error).startswith(f"log:{error.line}: ")
                assert "expected" in str(error)
                assert "\n" not in str(error)
    assert CASES // 4 < refused < 2 * CASES, "some are refused, and some are read"


@pytest.mark.parametrize(("left_out", "stays"), [("payer", "payer_deficit"), ("payer_deficit", "payer")])
def test_a_payer_without_its_counter_is_refused(left_out: str, stays: str) -> None:
    log = test_recompute.samples(test_recompute.ALL[2])
    lines, index = next(
        ([written(line) for line in one], index) for one in log for index, line in enumerate(one) if stays in line
    )
    line = json.loads(lines[index])
    del line[left_out]
    with pytest.raises(InputError) as caught:
        check_log([*lines[:index], written(line), *lines[index + 1 :]], source="log")
    assert (caught.value.line, caught.value.field) == (index + 1, left_out)


def test_a_name_in_an_order_that_is_no_unicode_is_refused() -> None:
    lines = lines_of("plain")
    index = next(index for index, line in enumerate(lines) if b'"event":"order"' in line)
    line = json.loads(lines[index])
    line["requests"][0] = "\ud800"
    with pytest.raises(InputError) as caught:
        check_log([*lines[:index], written(line), *lines[index + 1 :]], source="log")
    assert (caught.value.line, caught.value.field) == (index + 1, "requests[0]")


def test_a_request_that_moves_from_a_worker_that_is_not_there_is_a_violation() -> None:
    """The router does not know it, the queue of that worker does."""
    log = shared_runs.samples()[0]
    name = log[next(shared_runs.moves(log))]["request"]
    changed = list(log)
    for kind in ("dispatch", "arrive"):
        index = next(
            index for index, line in enumerate(log) if line.get("event") == kind and line.get("request") == name
        )
        changed[index] = {**log[index], "worker": 99}
    report = check_log([written(line) for line in changed], source="log", all_violations=True)
    assert "dispatch-known-worker" in {violation.rule for violation in report.violations}


@pytest.mark.parametrize("name", ["plain", "recompute", "late-recompute", "swap"])
def test_more_memory_than_bounds_can_be_computed_for_is_refused(name: str) -> None:
    """A sum of as many terms as the root of a 64-bit number would not end."""
    first, *others = lines_of(name)
    header = json.loads(first)
    header["limits"]["kv_tokens"] = 2**63 - 1
    with pytest.raises(InputError) as caught:
        check_log([written(header), *others], source="log")
    assert (caught.value.line, caught.value.field) == (1, "limits.kv_tokens")
    header["limits"]["kv_tokens"] = 2**31 - 1
    assert check_log([written(header), *others], source="log").events
