"""What docs/tutorial.md shows is what a reader sees: its commands are run, and their output compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_VARYING = re.compile(r" +[0-9.]+$|[0-9]+ rules$")
"""A wall-clock time at the end of a row, and how many rules the checker has, which grows."""


def shown(text: str) -> list[str]:
    """Lines as they are compared: without what varies."""
    return [_VARYING.sub("", line.rstrip()) for line in text.splitlines()]


def run(command: str, folder: Path) -> str:
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    outcome = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.stderr == ""
    return outcome.stdout


def test_every_command_of_the_tutorial_prints_what_it_says(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(repository / "examples")
    blocks = _BLOCK.findall((repository / "docs" / "tutorial.md").read_text("utf-8"))
    commands = 0
    for block in blocks:
        for part in block.split("$ ")[1:]:
            command, _, expected = part.partition("\n")
            printed = shown(run(command, tmp_path))
            commands += 1
            place = 0
            for stretch in expected.split("...\n"):
                lines = shown(stretch)
                if not lines:
                    continue
                starts = [
                    at for at in range(place, len(printed) + 1 - len(lines)) if printed[at : at + len(lines)] == lines
                ]
                assert starts, f"{command} does not print:\n{stretch}\nbut:\n" + "\n".join(printed)
                place = starts[0] + len(lines)
    assert commands == 7


@pytest.mark.parametrize("page", ["tutorial.md", "results.md", "benchmarks.md", "formats/results.md"])
def test_links_in_the_pages_lead_somewhere(page: str, repository: Path) -> None:
    path = repository / "docs" / page
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target
