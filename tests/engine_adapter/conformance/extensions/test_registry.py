"""Extensions in a header: which are taken, and how the others are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given

from dlpm.errors import InputError
from dlpm.jsonl import JsonValue
from dlpm_engine.conformance import check_log
from dlpm_engine.conformance.extensions.registry import COMBINATIONS, EXTENSIONS
from tests.engine_adapter.conformance.extensions.variants import stating
from tests.engine_adapter.conformance.logs import Log, as_bytes, check, recorded_logs
from tests.engine_adapter.conformance.samples import sample_log


def refusal(log: Log) -> InputError:
    with pytest.raises(InputError) as caught:
        check_log(as_bytes(log), source="log")
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("extensions", "field", "expected"),
    [
        ({"telepathy": {}}, "extensions.telepathy", "expected one of"),
        ({"speculation": {}}, "extensions.speculation.most_accepted", "expected a whole number"),
        ({"speculation": {"most_accepted": 0}}, "extensions.speculation.most_accepted", "expected a whole number"),
        (
            {"speculation": {"most_accepted": 2, "draft": 1}},
            "extensions.speculation.draft",
            "expected one of most_accepted",
        ),
    ],
)
def test_an_unknown_extension_or_option_is_bad_input(
    extensions: dict[str, dict[str, JsonValue]], field: str, expected: str
) -> None:
    error = refusal(stating(sample_log("dlpm", 0), extensions))
    assert (error.line, error.field) == (1, field)
    assert expected in str(error)


def test_the_line_of_a_header_behind_blank_lines_is_named() -> None:
    log = stating(sample_log("dlpm", 0), {"telepathy": {}})
    with pytest.raises(InputError) as caught:
        check_log([b"\n", b"\n", *as_bytes(log)], source="log")
    assert caught.value.line == 3


def test_an_extension_of_another_policy_is_bad_input() -> None:
    error = refusal(stating(sample_log("vtc", 0), {"speculation": {"most_accepted": 2}}))
    assert error.field == "extensions"
    assert "policy vtc" in str(error)


def test_extensions_without_rules_together_are_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever may be combined one day, a set that is not listed is refused."""
    monkeypatch.setattr("dlpm_engine.conformance.extensions.registry.COMBINATIONS", {})
    second = next((name for name in EXTENSIONS if name != "speculation"), None)
    if second is None:
        pytest.skip("there is one extension alone")
    error = refusal(stating(sample_log("dlpm", 0), {"speculation": {"most_accepted": 2}, second: {}}))
    assert error.field == "extensions"
    assert f"speculation and {second} together" in str(error)


def test_only_known_extensions_are_combined() -> None:
    for names in COMBINATIONS:
        assert len(names) >= 2
        assert names <= EXTENSIONS.keys()


@given(recorded_logs(["dlpm"]))
def test_a_header_without_extensions_and_one_with_none_are_the_same(log: Log) -> None:
    header = {**log[0], "extensions": {}}
    assert check([header, *log[1:]]) == check(log)


def test_every_extension_is_documented(repository: Path) -> None:
    options = (repository / "docs" / "formats" / "events.md").read_text()
    rules = (repository / "docs" / "rules.md").read_text()
    for name in EXTENSIONS:
        assert f"| `{name}` |" in options
        assert f"`{name}`" in rules
