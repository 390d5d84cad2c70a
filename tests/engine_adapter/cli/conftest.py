from __future__ import annotations

import pytest

from tests.engine_adapter.cli.command_line import CommandLine


@pytest.fixture
def dlpm(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """The command line."""
    return CommandLine(capsys)
