"""The cost of a step over the length of the queue, as a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlpm.errors import InputError
from dlpm_engine.bench.decision import DecisionTime, Subject


def draw_cost_curve(times: Sequence[DecisionTime], path: Path) -> None:
    """Draw median step times over queue lengths, one line for each engine with its parameters, both axes
    logarithmic.

    Raises:
        InputError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise InputError("drawing needs matplotlib: pip install 'dlpm[plot]'", field="--svg") from error
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    curves: dict[str, list[tuple[int, float]]] = {}
    for time in times:
        curves.setdefault(_label(time.subject), []).append((time.subject.waiting, time.median_us / 1000))
    for label, points in sorted(curves.items()):
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=label)
    axes.set(
        xscale="log", yscale="log", xlabel="waiting requests", ylabel="milliseconds of processor time a step (median)"
    )
    axes.grid(True, which="major", linewidth=0.4)
    axes.legend(frameon=False, fontsize="small")
    try:
        figure.savefig(path, format="svg", metadata={"Date": None})
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", source=str(path)) from error


def _label(subject: Subject) -> str:
    """What a line is called."""
    device = "" if subject.device == "cpu" else f" on {subject.device}"
    threads = "" if subject.threads == 1 else f", {subject.threads} threads"
    return f"{subject.engine}{device}, blocks of {subject.block_size}{threads}"
