"""`dlpm verify`: what is proved about the reference, and what is refuted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from dlpm.files import written_whole
from dlpm_engine.cli.common import check_writable, output_console, progress_bar, say, write_json
from dlpm_engine.report.sheet import Sheet, show

_EPILOG = """\b
Examples:
  dlpm verify
  dlpm verify --theorem T3 --smt2 obligations/
  dlpm verify --theorem T2 --witnesses witnesses/
  dlpm verify --params engine.toml
  dlpm verify --params engine.toml --witnesses worst/
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify", epilog=_EPILOG)(verify)


def verify(
    theorem: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="A theorem such as T3, or one case such as T3/reserving; may be repeated."),
    ] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write dlpm.verdicts/1; - is standard output.")
    ] = None,
    junit: Annotated[str | None, typer.Option(metavar="FILE", help="Write a JUnit report.")] = None,
    smt2: Annotated[
        str | None, typer.Option(metavar="DIR", help="Write every obligation as an SMT-LIB 2 file.")
    ] = None,
    witnesses: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Write the workload and the event log of every witness; with --params, of runs near the bounds.",
        ),
    ] = None,
    mutants: Annotated[bool, typer.Option(help="Also check that changed algorithms fail their theorems.")] = True,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Leave a theorem at its first failure.")] = False,
    params: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Instead: the bounds that hold for an engine's own numbers, and those that do not."
        ),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say each theorem in words.")] = False,
    jobs: Annotated[
        int | None, typer.Option(metavar="N", help="Processes. Without it: one a processor.", min=1)
    ] = None,
) -> None:
    """Prove or refute the fairness theorems, on the reference's own code, with two solvers.

    Every proof obligation goes to Z3 and to cvc5. Every counterexample, and every claim that a bound is reached, is a
    workload that the reference replays. Exits with 1 if a verdict is not the expected one.
    """
    # The solvers take a while to load, and no other command needs them.
    from dlpm_proofs import report
    from dlpm_proofs.run import Effort, chosen, decide_all, write_all_smt2, write_witnesses

    check_writable("--json", json_file)
    check_writable("--junit", junit)
    if params is not None:
        _print_guarantees(Path(params), json_file, witnesses)
        return
    theorems = chosen(theorem or ())
    console = output_console(json_file)
    if explain:
        for one in theorems:
            say(console, "\n".join(report.explain(one)) + "\n")
    results = []
    with progress_bar(len(theorems), "theorems") as advance:
        effort = Effort(with_mutants=mutants, fail_fast=fail_fast)
        for result in decide_all(theorems, jobs=jobs or os.cpu_count() or 1, effort=effort):
            results.append(result)
            advance(result.theorem.id, len(results))
    rows = tuple(report.row(result) for result in results)
    show(console, [Sheet("", report.HEADER, rows, words=report.WORDS)])
    for result in results:
        lines = report.story(result)
        if lines:
            say(console, "\n".join(lines) + "\n")
    if smt2 is not None:
        say(console, f"{write_all_smt2(results, Path(smt2))} obligations written to {smt2}")
    logs = write_witnesses(results, Path(witnesses)) if witnesses is not None else {}
    if json_file is not None:
        write_json(json_file, report.verdicts(results, logs))
    if junit is not None:
        with written_whole(Path(junit)) as stream:
            stream.write(report.junit(results))
    if any(result.problems() for result in results):
        raise typer.Exit(1)


def _print_guarantees(path: Path, json_file: str | None, witnesses: str | None) -> None:
    """The bounds for one engine's numbers, as a list, and as JSON where asked for; and runs that come near them."""
    from dlpm.engine_profile import read_profile
    from dlpm_proofs.engine_params import guarantees, to_json
    from dlpm_proofs.theorems.engine_runs import deepest, widest

    engine = read_profile(path)
    console = output_console(json_file)
    say(
        console,
        f"{engine.engine}: what its numbers promise (weighted tokens; `dlpm verify` proves the theorems named)\n",
    )
    for one in guarantees(engine):
        verdict = "holds" if one.holds else "DOES NOT HOLD"
        say(console, f"{verdict:14}{one.claim}\n{'':14}  {one.theorem}: {one.reason}")
    if witnesses is not None:
        folder = Path(witnesses)
        folder.mkdir(parents=True, exist_ok=True)
        say(console, "\nHow near a run of the reference comes, at this size:")
        for what, construct in (("floor", deepest), ("gap", widest)):
            reached = construct(engine)
            workload, log = reached.run.write(folder, what)
            share = 100 * reached.found // reached.bound
            say(console, f"{what:14}{reached.found} of {reached.bound}, {share} %: {workload}, {log}")
    if json_file is not None:
        write_json(json_file, to_json(engine))
