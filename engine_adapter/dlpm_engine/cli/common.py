"""What all commands share: consoles, a progress bar, and results in files."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dlpm.errors import InputError
from dlpm.files import written_whole
from dlpm.jsonl import JsonValue
from dlpm_engine.files import compressor

STDOUT = "-"
"""The file name that stands for standard output."""

_PATIENCE_S = 2.0


def output_console(json_file: str | None = None) -> Console:
    """Where tables go: standard output, or standard error if ``json_file`` is standard output."""
    file = sys.stderr if json_file == STDOUT else sys.stdout
    # What is printed is data: `:100:` in it is a line number, and `[red]` may be somebody's name.
    return Console(file=file, markup=False, emoji=False, highlight=False)


def say(console: Console, text: str) -> None:
    """Print text as it is, with no line broken."""
    console.print(text, soft_wrap=True)


def check_writable(option: str, file: str | None) -> None:
    """Refuse a file whose folder is not there, before the work whose result it is to hold.

    Raises:
        InputError: there is no such folder, or the file is a folder.
    """
    if file is None or file == STDOUT:
        return
    path = Path(file)
    if not path.parent.is_dir():
        raise InputError(f"expected a folder that exists, found {str(path.parent)!r}", field=option)
    if path.is_dir():
        raise InputError(f"expected a file, found the folder {file!r}", field=option)


def write_json(file: str, value: JsonValue) -> None:
    """Write one JSON document, whole or not at all; ``-`` is standard output.

    Raises:
        InputError: the file cannot be written.
    """
    text = json.dumps(value, indent=2, allow_nan=False)
    if file == STDOUT:
        sys.stdout.write(f"{text}\n")
        return
    with written_whole(Path(file), compressor) as stream:
        stream.write(f"{text}\n")


@contextmanager
def progress_bar(total: int, unit: str) -> Iterator[Callable[[str, int], None]]:
    """A bar on standard error for work that takes more than two seconds; nothing where that is not a terminal.

    The block is given a function that takes a label and how much of ``total`` is done.
    """
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("", total=total)
    started = time.monotonic()
    visible = False

    def advance(label: str, done: int) -> None:
        nonlocal visible
        bar.update(task, description=label, completed=done)
        if not visible and time.monotonic() - started > _PATIENCE_S:
            visible = True
            bar.start()

    try:
        yield advance
    finally:
        bar.stop()
