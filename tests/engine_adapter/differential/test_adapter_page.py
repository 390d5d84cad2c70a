"""The engine on the adapter page runs, and the tester finds what it lacks."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dlpm_engine.differential.declared import excused, read_declared
from dlpm_engine.differential.generate import generate
from dlpm_engine.differential.hunt import Settings, run_case, smallest

CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
NAME = "page_of_the_adapter:PlainEngine"


@pytest.fixture
def plain(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The engine of the page, importable."""
    (code,) = CODE.findall((repository / "docs" / "adapter.md").read_text(encoding="utf-8"))
    assert len(re.findall(r"(?m)^ .*\S", code)) < 75
    module = ModuleType("page_of_the_adapter")
    exec(compile(code, "adapter.md", "exec"), vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
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


def test_the_declared_differences_of_the_differential_page_can_be_read(repository: Path, tmp_path: Path) -> None:
    page = (repository / "docs" / "differential.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    path = tmp_path / "declared.json"
    path.write_text(text)
    assert excused(read_declared(path), "plain:PlainEngine") == {"evict"}
