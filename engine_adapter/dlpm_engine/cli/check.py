"""`dlpm check`: the event log of any engine, held to the rules and the proven bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlpm.engine_profile import read_profile
from dlpm_engine.cli.common import check_writable, output_console, say, write_json
from dlpm_engine.conformance import check_path, render, to_json

_EPILOG = """\b
Examples:
  dlpm check run.jsonl.gz
  dlpm check run.jsonl.gz --all --json violations.json
  dlpm check run.jsonl.gz --params engine.toml
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check", epilog=_EPILOG)(check)


def check(
    log: Annotated[
        str, typer.Argument(metavar="LOG", help="An event log, dlpm.events/1: plain, .gz or .zst.", show_default=False)
    ],
    all_violations: Annotated[
        bool, typer.Option("--all", help="Report every violation; without it the check ends at the first.")
    ] = False,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write dlpm.check/1; - is standard output.")
    ] = None,
    params: Annotated[
        str | None,
        typer.Option("--params", metavar="FILE", help="An engine's parameters (TOML), for what the log leaves open."),
    ] = None,
) -> None:
    """Hold an event log to the scheduling rules of its policy and to the bounds proven for it.

    Shares no code with the schedulers: every counter is computed again from the tokens in the log. Exits with 0 if the
    log holds, with 1 if it breaks a rule, and with 2 if it is no event log, or not one of an engine with the parameters
    in --params.
    """
    check_writable("--json", json_file)
    profile = read_profile(Path(params)) if params is not None else None
    report = check_path(Path(log), all_violations=all_violations, profile=profile)
    say(output_console(json_file), render(report))
    if json_file is not None:
        write_json(json_file, to_json(report))
    raise typer.Exit(report.exit_code)
