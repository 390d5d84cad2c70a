"""Rows of experiments as tables and pictures: `python -m dlpm_engine.experiments.report DOCUMENT.md ROWS.jsonl...`.

Each table goes between ``<!-- name -->`` and ``<!-- end -->`` of the document, the pictures beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from dlpm.errors import InputError
from dlpm.files import written_whole
from dlpm_engine.experiments.systems import D2LPM, PREBLE, RR_LPM, RR_VTC

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ORDER = (D2LPM, PREBLE, RR_LPM, RR_VTC)
COLOURS = {
    D2LPM: "#1b7837",
    "DLPM": "#1b7837",
    PREBLE: "#e08214",
    RR_LPM: "#d62728",
    "LPM": "#d62728",
    RR_VTC: "#1f77b4",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One run: where it belongs, and its numbers (`dlpm_engine.experiments.measure.Measured`)."""

    figure: str
    group: str
    x: int
    system: str
    service_rate: float
    jain: float | None
    hit_rate: float
    p50_s: float
    p99_s: float
    seconds: float
    requests: int
    cpu_seconds: float


def read_rows(path: Path) -> list[Row]:
    """The rows of a file. O(rows)."""
    return [Row(**orjson.loads(line)) for line in path.read_bytes().splitlines() if line]


def figure_7_table(rows: Sequence[Row]) -> str:
    """Every scene at every number of workers."""
    header = ["workload", "workers", "system", "service rate", "Jain", "cache hits", "p50 s", "p99 s", "requests"]
    lines = [
        [
            row.group,
            str(row.x),
            row.system,
            f"{row.service_rate:,.0f}",
            _ratio(row.jain),
            f"{row.hit_rate:.0%}",
            _seconds(row.p50_s),
            _seconds(row.p99_s),
            f"{row.requests:,}",
        ]
        for row in sorted(
            (row for row in rows if row.figure == "7"), key=lambda row: (row.group, row.x, ORDER.index(row.system))
        )
    ]
    return table(header, lines)


def headline_table(rows: Sequence[Row]) -> str:
    """D2LPM against each other system at more than one worker: the largest and the mean ratio, beside the paper's."""
    paper = {RR_VTC: ("2.87", "7.96, mean 2.98"), PREBLE: ("-", "7.18, mean 2.90"), RR_LPM: ("2.22", "9.55, mean 4.06")}
    by_place = {(row.group, row.x, row.system): row for row in rows if row.figure == "7" and row.x > 1}
    places = sorted({(group, x) for group, x, system in by_place if system == D2LPM})
    lines = []
    for system in (RR_VTC, PREBLE, RR_LPM):
        pairs = [
            (by_place[(*place, D2LPM)], by_place[(*place, system)]) for place in places if (*place, system) in by_place
        ]
        lines.append(
            [
                system,
                _most([ours.service_rate / theirs.service_rate for ours, theirs in pairs]),
                paper[system][0],
                _most([theirs.p50_s / ours.p50_s for ours, theirs in pairs]),
                _most([theirs.p99_s / ours.p99_s for ours, theirs in pairs]),
                paper[system][1],
            ]
        )
    header = [
        "D2LPM against",
        "service rate: times theirs",
        "paper: up to",
        "p50 of the well-behaved: theirs is times ours",
        "p99: likewise",
        "paper: up to",
    ]
    return table(header, lines)


def sweep_table(rows: Sequence[Row], figure: str, what: str) -> str:
    """One line for each system and place on the x axis."""
    lines = [
        [
            "-" if row.x == 0 else f"{row.x:,}",
            row.system,
            f"{row.service_rate:,.0f}",
            _ratio(row.jain),
            f"{row.hit_rate:.0%}",
            _seconds(row.p50_s),
            _seconds(row.p99_s),
        ]
        for row in rows
        if row.figure == figure
    ]
    return table([what, "system", "service rate", "Jain", "cache hits", "p50 s", "p99 s"], lines)


def seeds_table(rows: Sequence[Row]) -> str:
    """Mean, least and most over the seeds of every scene and system (`dlpm_engine.experiments.seeds`)."""
    runs: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.figure == "7 seeds":
            runs.setdefault((row.group, row.system), []).append(row)
    lines = [
        [
            group,
            system,
            _spread([row.service_rate for row in same], ",.0f"),
            _spread([row.jain for row in same if row.jain is not None], ".3f"),
            _spread([row.p50_s for row in same], ".1f"),
            _spread([row.p99_s for row in same], ".1f"),
        ]
        for (group, system), same in sorted(runs.items(), key=lambda item: (item[0][0], ORDER.index(item[0][1])))
    ]
    return table(["workload", "system", "service rate", "Jain", "p50 s", "p99 s"], lines)


def fill(document: str, tables: dict[str, str]) -> str:
    """The document with every table put in its place.

    Raises:
        InputError: the document has no place for a table.
    """
    for name, table in tables.items():
        before, found, rest = document.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not found or not end:
            raise InputError(f"expected a place for the table {name!r}")
        document = f"{before}{found}{table}\n{end}{after}"
    return document


def draw_figure_7(rows: Sequence[Row], path: Path) -> None:
    """Service rate, Jain index and both latencies over the workers, a row a scene [DLPM Fig. 7]."""
    chosen = [row for row in rows if row.figure == "7"]
    groups = sorted({row.group for row in chosen})
    columns = (
        ("service_rate", "service (tokens/s)"),
        ("jain", "Jain index"),
        ("p50_s", "p50 latency (s)"),
        ("p99_s", "p99 latency (s)"),
    )

    def paint(figure: Figure) -> None:
        axes = figure.subplots(len(groups), len(columns), squeeze=False)
        for place, group in enumerate(groups):
            for column, (name, title) in enumerate(columns):
                _bars(axes[place][column], [row for row in chosen if row.group == group], name)
                axes[place][column].set_title(group if column == 0 else "", loc="left", fontsize=8)
                axes[place][column].set_ylabel(title)
        handles, labels = axes[-1][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)

    save_figure(path, (11, 1.9 * len(groups)), paint)


def draw_sweeps(rows: Sequence[Row], path: Path) -> None:
    """Throughput over the worker quantum, with both kinds of prefixes, and over the clients [DLPM Fig. 10, 11]."""

    def paint(figure: Figure) -> None:
        own, shared, clients = figure.subplots(1, 3)
        for axes, name, title in (
            (own, "10", "a prefix for each program"),
            (shared, "10 shared", "one for each client"),
        ):
            ours = [row for row in rows if row.figure == name and row.x]
            places = [row.x for row in ours]
            axes.plot(places, [row.service_rate for row in ours], "s-", color=COLOURS[D2LPM], label=D2LPM)
            for row in rows:
                if row.figure == name and not row.x:
                    axes.axhline(row.service_rate, color=COLOURS[row.system], linestyle="--", label=row.system)
            axes.set_xlabel("worker quantum (tokens)")
            axes.set_ylabel("service (tokens/s)")
            axes.set_ylim(bottom=0)
            axes.set_title(title, loc="left", fontsize=8)
        own.legend(frameon=False, fontsize=7)
        for system in ("DLPM", "LPM", "VTC"):
            line = [row for row in rows if row.figure == "11" and row.system == system]
            clients.plot(
                [row.x for row in line], [row.service_rate for row in line], "o-", color=COLOURS[system], label=system
            )
        clients.set_xlabel("clients")
        clients.set_ylabel("service (tokens/s)")
        clients.set_ylim(bottom=0)
        clients.legend(frameon=False, fontsize=7)

    save_figure(path, (11, 3.2), paint)


def _bars(axes: Axes, rows: Iterable[Row], name: str) -> None:
    """Systems side by side for each number of workers."""
    listed = list(rows)
    counts = sorted({row.x for row in listed})
    for place, system in enumerate(ORDER):
        mine = [row for row in listed if row.system == system]
        positions = [counts.index(row.x) + (place - 1.5) * 0.2 for row in mine]
        axes.bar(positions, [getattr(row, name) or 0 for row in mine], 0.2, color=COLOURS[system], label=system)
    axes.set_xticks(range(len(counts)), [str(count) for count in counts])


def save_figure(path: Path, size: tuple[float, float], paint: Callable[[Figure], None]) -> None:
    """Write one figure of ``size`` inches: the same rows give the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "dlpm", "svg.fonttype": "none", "font.size": 8, "axes.spines.top": False}):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    with written_whole(path) as stream:
        stream.write(text.getvalue())


def _most(ratios: Sequence[float]) -> str:
    """The largest, and the geometric mean."""
    product = 1.0
    for ratio in ratios:
        product *= ratio
    return f"{max(ratios):.2f}, mean {product ** (1 / len(ratios)):.2f}" if ratios else "-"


def _spread(values: Sequence[float], form: str) -> str:
    """The mean, then the least and the most."""
    if not values:
        return "-"
    return f"{sum(values) / len(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _seconds(value: float) -> str:
    return f"{value:.1f}"


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table. O(cells)."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: list[str]) -> None:
    """Fill the document and draw the pictures."""
    document = Path(arguments[0])
    rows = [row for path in arguments[1:] for row in read_rows(Path(path))]
    tables = {
        "headline": headline_table(rows),
        "figure 7": figure_7_table(rows),
        "seeds": seeds_table(rows),
        "figure 10": sweep_table(rows, "10", "worker quantum"),
        "figure 10 shared": sweep_table(rows, "10 shared", "worker quantum"),
        "figure 11": sweep_table(rows, "11", "clients"),
        "documents": sweep_table(rows, "documents", "worker quantum"),
    }
    text = fill(document.read_text(encoding="utf-8"), tables)
    with written_whole(document) as stream:
        stream.write(text)
    draw_figure_7(rows, document.parent / "figures" / "d2lpm-figure-7.svg")
    draw_sweeps(rows, document.parent / "figures" / "d2lpm-figures-10-11.svg")


if __name__ == "__main__":
    main(sys.argv[1:])
