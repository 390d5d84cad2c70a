"""Pictures of a comparison as SVG: throughput over fairness [DLPM Fig. 1], and service gaps against their bounds.

The same results give the same bytes: no date, and ids from a fixed salt.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from dlpm.errors import InputError
from dlpm.files import written_whole
from dlpm_engine.run.result import RunResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SECOND_US = 1_000_000
_INCHES = (10.5, 4.2)
_BASELINES = {"fcfs": "#7f7f7f", "lpm": "#d62728", "vtc": "#1f77b4"}
_GREENS = ("#a6dba0", "#5aae61", "#1b7837", "#00441b", "#000000")


def check_available() -> None:
    """Refuse to draw where there is nothing to draw with.

    Raises:
        InputError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise InputError("expected matplotlib: install the extra `plot`, as in dlpm[plot]", field="--svg")


def draw(results: Sequence[RunResult], path: Path) -> None:
    """Draw both pictures side by side into one SVG file. O(runs * curve points).

    Raises:
        InputError: matplotlib is not installed, or the file cannot be written.
    """
    check_available()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    colours = _colours(results)
    with mpl.rc_context(
        {
            "svg.hashsalt": "dlpm",
            "svg.fonttype": "none",
            "font.family": "sans-serif",
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
        }
    ):
        figure = Figure(figsize=_INCHES, layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_trade_off(left, results, colours)
        _draw_gaps(right, results, colours)
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    with written_whole(path) as stream:
        stream.write(text.getvalue())


def _colours(results: Sequence[RunResult]) -> list[str]:
    """A colour for each run: fixed for the baselines, greens from light to dark for growing quanta."""
    quanta = sorted({result.choice.quantum for result in results if result.choice.quantum is not None})
    return [
        _BASELINES.get(result.choice.name, "#000000")
        if result.choice.quantum is None
        else _GREENS[min(quanta.index(result.choice.quantum), len(_GREENS) - 1)]
        for result in results
    ]


def _draw_trade_off(axes: Axes, results: Sequence[RunResult], colours: Sequence[str]) -> None:
    """Throughput over Jain index: up is faster, right is fairer [DLPM Fig. 1]."""
    line = []
    for result, colour in zip(results, colours, strict=True):
        jain, rate = result.summary.jain, result.summary.tokens_per_s
        if jain is None or rate is None:
            continue
        point = (float(jain), float(rate))
        axes.plot(*point, "o" if result.choice.quantum is None else "s", color=colour, markersize=7)
        if result.choice.quantum is None:
            axes.annotate(result.choice.label, point, textcoords="offset points", xytext=(6, 5))
        else:
            line.append(point)
    if len(line) > 1:
        axes.plot(*zip(*line, strict=True), "-", color=_GREENS[1], linewidth=1, zorder=1)
    axes.margins(0.18)
    axes.set_xlabel("service fairness (Jain index)")
    axes.set_ylabel("throughput (tokens/s)")
    axes.set_title("Throughput over fairness", loc="left")


def _draw_gaps(axes: Axes, results: Sequence[RunResult], colours: Sequence[str]) -> None:
    """The largest gap so far over simulated time, and each bound as a dashed line of the run's colour."""
    for result, colour in zip(results, colours, strict=True):
        times = [point.time_us / _SECOND_US for point in result.gap_curve]
        gaps = [max(point.amount, 1) for point in result.gap_curve]
        axes.plot(times, gaps, color=colour, linewidth=1.5, label=result.choice.label)
        if result.bound is not None:
            axes.axhline(result.bound, color=colour, linewidth=1, linestyle="--")
    axes.set_yscale("log")
    smallest = min((point.amount for result in results for point in result.gap_curve if point.amount), default=1)
    axes.set_ylim(bottom=smallest / 2)
    if any(result.bound is not None for result in results):
        axes.plot([], [], color="#000000", linewidth=1, linestyle="--", label="bound 2(U + Q)")
    axes.set_xlabel("simulated time (s)")
    axes.set_ylabel("weighted tokens")
    axes.set_title("Largest service gap of two backlogged clients so far", loc="left")
