"""The engine on the adapter page runs, and the tester finds what it lacks."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dlpm_engine.differential.corpus import corpus
from dlpm_engine.differential.declared import excused, read_declared
from dlpm_engine.differential.generate import generate
from dlpm_engine.differential.hunt import Settings, run_case, smallest

CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
NAME = "page_of_the_adapter:PlainEngine"


PROCESS = "page_of_the_adapter:ProcessEngine"

SCHEDULER = """
import json, sys
from dlpm.errors import InputError
from dlpm.event_codec import encode_event
from dlpm.request import Request
from dlpm_engine.adapter import EngineConfig
from dlpm_engine.differential.reference_engine import ReferenceEngine

engine = ReferenceEngine()
steps = 0
for line in sys.stdin:
    match json.loads(line):
        case {"call": "configure", "config": config}:
            engine.configure(EngineConfig(**config), full_log=False)
            answer = {}
        case {"call": "submit", "request": request}:
            lists = {name: tuple(value) for name, value in request.items() if isinstance(value, list)}
            try:
                engine.submit(Request(**{**request, **lists}))
                answer = {}
            except InputError as error:
                answer = {"refused": str(error)}
        case {"call": "step"}:
            steps += 1
            events = [encode_event(event) for event in engine.step()]
            answer = {"events": [{name: event[name] for name in event if name != "step"} for event in events]}
        case {"call": "snapshot"}:
            state = engine.snapshot()
            answer = {name: getattr(state, name) for name in ("deficits", "queue", "running", "free_tokens")}
            answer["cached_tokens"] = state.cached_tokens
    WHAT_GOES_WRONG
    print(json.dumps(answer), flush=True)
"""
"""The reference behind the pipe of the page."""


def code_of_the_page(repository: Path) -> list[str]:
    """The two engines."""
    return CODE.findall((repository / "docs" / "adapter.md").read_text(encoding="utf-8"))


def importable(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tester import code of the page."""
    module = ModuleType("page_of_the_adapter")
    exec(compile(code, "adapter.md", "exec"), vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def plain(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The engine of the page, importable."""
    code, _ = code_of_the_page(repository)
    assert len(re.findall(r"(?m)^ .*\S", code)) < 75
    importable(code, monkeypatch)
    return Settings(NAME, shrink_seconds=5)


def test_the_tester_finds_that_it_has_no_cache_and_shows_it_with_two_requests(plain: Settings) -> None:
    case = next(case for case in (generate(0, number) for number in range(50)) if run_case(case, plain).divergence)
    small, outcome = smallest(case, plain)
    assert outcome.divergence is not None
    assert len(small.requests) <= 2


def test_it_agrees_with_the_reference_where_no_cache_is_needed(plain: Settings) -> None:
    from dataclasses import replace

    agreed = 0
    for number in range(200):
        case = generate(1, number)
        config = replace(case.config, memory="reserving", watermark=0, max_running=None, quanta={}, kv_tokens=10_000)
        distinct = tuple(
            replace(
                each,
                prompt=tuple(range(1000 * place, 1000 * place + each.input_tokens)),
                blocks=(),
                reply=(),
                reply_blocks=(),
            )
            for place, each in enumerate(case.requests)
        )
        if max(config.extend_weight, config.output_weight) < 10:
            outcome = run_case(replace(case, config=config, requests=distinct), plain)
            assert outcome.divergence is None
            agreed += 1
    assert agreed > 100


@pytest.mark.parametrize(
    ("what_goes_wrong", "found"),
    [
        ("pass", None),
        ("if steps == 2: answer['free_tokens'] = 1000", "free tokens"),
        ("if steps == 2: sys.exit(1)", "exception"),
        ("if steps == 2: answer = {'out_of_range': 'a deficit'}", "range"),
    ],
)
def test_an_engine_in_another_process_is_compared_through_the_pipe_of_the_page(
    what_goes_wrong: str, found: str | None, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, code = code_of_the_page(repository)
    importable(code, monkeypatch)
    script = tmp_path / "scheduler.py"
    script.write_text(SCHEDULER.replace("WHAT_GOES_WRONG", what_goes_wrong))
    monkeypatch.setenv("ENGINE", f"{sys.executable} {script}")
    settings = Settings(PROCESS, case_seconds=120)
    outcome = run_case(corpus()["preemption of the youngest, again and again"], settings)
    assert (None if outcome.divergence is None else outcome.divergence.difference.subject) == found
    assert outcome.divergence is not None or outcome.tally.preemptions > 0
    refused = run_case(corpus()["a request that can never fit is refused"], settings)
    assert refused.divergence is None
    assert refused.tally.steps == 1


def test_the_declared_differences_of_the_differential_page_can_be_read(repository: Path, tmp_path: Path) -> None:
    page = (repository / "docs" / "differential.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    path = tmp_path / "declared.json"
    path.write_text(text)
    assert excused(read_declared(path), "plain:PlainEngine") == {"evict"}
