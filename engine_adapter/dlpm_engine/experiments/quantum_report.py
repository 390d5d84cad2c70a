"""Rows of `quantum` as tables and a picture: `python -m dlpm_engine.experiments.quantum_report PAGE.md ROWS.jsonl`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from dlpm.files import written_whole
from dlpm_engine.experiments.quantum import ADDITIVE, FIXED, FTRL, TARGET, Row
from dlpm_engine.experiments.report import fill, save_figure, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {FIXED: "#666666", ADDITIVE: "#1f77b4", FTRL: "#1b7837"}
PICTURE = "quantum-controllers.svg"


def read_rows(path: Path) -> list[Row]:
    """The rows of a file. O(rows)."""
    return [Row(**orjson.loads(line)) for line in path.read_bytes().splitlines() if line]


def workloads(rows: Sequence[Row]) -> list[str]:
    """Their titles, in order. O(rows)."""
    return list(dict.fromkeys(row.workload for row in rows))


def runs_table(rows: Sequence[Row]) -> str:
    """The runs of one workload: speed, then fairness. O(rows)."""
    header = [
        *("quantum", "its mean", "tokens per s", "cache hits", "windows: mean Jain", "least", "below target"),
        *("Jain, whole run", "largest gap", "bound", "gap / bound"),
    ]
    return table(header, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    """One line of the table."""
    return [
        row.picker if row.quantum is None else f"{row.quantum:,}",
        f"{row.mean_quantum:,}",
        f"{row.tokens_per_s:,.0f}",
        f"{row.hit_rate:.1%}",
        _ratio(row.mean_index),
        _ratio(row.least_index),
        f"{row.below} of {row.windows}",
        _ratio(row.jain_actual),
        f"{row.gap:,}",
        f"{row.bound:,}",
        f"{row.gap / row.bound:.1%}",
    ]


def summary_table(rows: Sequence[Row]) -> str:
    """A line a workload: the fastest fixed quantum whose mean index meets the target, beside the two controllers."""
    lines = []
    for title in workloads(rows):
        here = [row for row in rows if row.workload == title]
        fixed = [row for row in here if row.picker == FIXED]
        fair = [row for row in fixed if row.mean_index is not None and row.mean_index >= float(TARGET)]
        best = max(fair, key=lambda row: row.tokens_per_s) if fair else None
        speeds = [row.tokens_per_s for row in fixed]
        lines.append(
            [
                title,
                f"{max(speeds) / min(speeds) - 1:.1%}",
                "none" if best is None else f"{best.quantum:,}: {_brief(best)}",
                *(_brief(row) for picker in (ADDITIVE, FTRL) for row in here if row.picker == picker),
            ]
        )
    header = [
        "workload",
        "fastest fixed over slowest",
        f"best fixed with mean Jain >= {float(TARGET)}",
        ADDITIVE,
        FTRL,
    ]
    return table(header, lines)


def _brief(row: Row) -> str:
    """Speed and fairness in few words."""
    return f"{row.tokens_per_s:,.0f} tokens/s, {_ratio(row.mean_index)}"


def draw(rows: Sequence[Row], path: Path) -> None:
    """A row of pictures a workload: throughput over the measured index, and the quanta over time."""
    titles = workloads(rows)

    def paint(figure: Figure) -> None:
        axes = figure.subplots(len(titles), 2, squeeze=False)
        for place, title in enumerate(titles):
            here = [row for row in rows if row.workload == title]
            _trade(axes[place][0], here)
            axes[place][0].set_title(title, loc="left", fontsize=8)
            _over_time(axes[place][1], here)
        for column, name in enumerate(("mean Jain index of windows", "simulated seconds")):
            axes[-1][column].set_xlabel(name)
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)

    save_figure(path, (9, 2.0 * len(titles)), paint)


def _trade(axes: Axes, rows: Sequence[Row]) -> None:
    """Throughput over the index: a line through the fixed quanta, and both controllers."""
    known = [(row, row.mean_index) for row in rows if row.mean_index is not None]
    fixed = [(row, index) for row, index in known if row.picker == FIXED]
    axes.plot(
        [index for _, index in fixed], [row.tokens_per_s for row, _ in fixed], "o-", color=COLOURS[FIXED], label=FIXED
    )
    for row, index in fixed:
        axes.annotate(f"{row.quantum:,}", (index, row.tokens_per_s), fontsize=6)
    for picker in (ADDITIVE, FTRL):
        places = [(index, row.tokens_per_s) for row, index in known if row.picker == picker]
        axes.plot([x for x, _ in places], [y for _, y in places], "s", color=COLOURS[picker], label=picker)
    axes.axvline(float(TARGET), color="#d62728", linestyle="--", linewidth=0.8, label="target")
    axes.set_ylabel("tokens per s")


def _over_time(axes: Axes, rows: Sequence[Row]) -> None:
    """What the controllers picked."""
    for row in rows:
        if row.picker != FIXED:
            axes.plot(
                [seconds for seconds, _ in row.quanta],
                [quantum for _, quantum in row.quanta],
                color=COLOURS[row.picker],
                drawstyle="steps-post",
                linewidth=1,
            )
    axes.set_ylabel("quantum")
    axes.set_ylim(bottom=0)


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def main(arguments: list[str]) -> None:
    """Fill the document and draw the picture."""
    document = Path(arguments[0])
    rows = read_rows(Path(arguments[1]))
    tables = {title: runs_table([row for row in rows if row.workload == title]) for title in workloads(rows)}
    text = fill(document.read_text(encoding="utf-8"), {"summary": summary_table(rows), **tables})
    with written_whole(document) as stream:
        stream.write(text)
    draw(rows, document.parent / "figures" / PICTURE)


if __name__ == "__main__":
    main(sys.argv[1:])
