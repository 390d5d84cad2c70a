"""Fields of events of extensions, and of plain events under them, at the edge of what they may say."""

from __future__ import annotations

import pytest

from tests.engine_adapter.conformance.extensions.test_odd_logs import LOGS
from tests.engine_adapter.conformance.test_boundaries import cut_after_each_kind, refused_alike


@pytest.mark.parametrize("name", LOGS)
def test_a_field_of_an_extension_is_refused_exactly_where_the_strict_reader_refuses(name: str) -> None:
    tried, refused = refused_alike(cut_after_each_kind(LOGS[name]()))
    assert tried > 500
    assert 0 < refused < tried
