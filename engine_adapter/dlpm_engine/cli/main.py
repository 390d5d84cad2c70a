"""The entry point of `dlpm`: commands, exit codes, and how errors read.

Exit codes: 0 all is well; 1 something that was asked to hold does not; 2 the input or the command line is wrong;
130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import metadata
from types import FrameType
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from dlpm.errors import InputError
from dlpm_engine.cli import bench as bench_command
from dlpm_engine.cli import check as check_command
from dlpm_engine.cli import diff as diff_command
from dlpm_engine.cli import run as run_command
from dlpm_engine.cli import verify as verify_command

EXIT_INPUT = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT

app = typer.Typer(
    name="dlpm",
    help="Fair, locality-aware scheduling for LLM serving: run the DLPM reference, and hold engines to it.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        typer.echo(f"dlpm {metadata.version('dlpm')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    del version


run_command.register(app)
check_command.register(app)
verify_command.register(app)
diff_command.register(app)
bench_command.register(app)


def execute(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; what is wrong with the input is one line on standard error."""
    try:
        code = app(args=list(arguments) or ["--help"], prog_name="dlpm", standalone_mode=False)
        sys.stdout.flush()
    except InputError as error:
        return _complain(str(error), EXIT_INPUT)
    except TyperException as error:
        return _complain(error.format_message(), error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has stopped; Python must not complain about it again when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    if code == EXIT_INTERRUPTED:
        return _complain("interrupted", EXIT_INTERRUPTED)
    return code if isinstance(code, int) else 0


def run() -> NoReturn:
    """Run the command line of this process and exit."""
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(execute(sys.argv[1:]))


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """Leave as if by an exception, so that half-written files are removed."""
    del frame
    raise SystemExit(128 + number)


def _complain(message: str, code: int) -> int:
    """Print one line to standard error and return ``code``."""
    line = " ".join(part.strip() for part in message.splitlines() if part.strip())
    if line:
        print(f"dlpm: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    run()
