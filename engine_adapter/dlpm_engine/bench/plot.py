"""The cost of a step over the length of the queue, as a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlpm.errors import InputError
from dlpm_engine.bench.decision import DecisionTime


def draw_cost_curve(times: Sequence[DecisionTime], path: Path) -> None:
    """Draw median step times over queue lengths, one line for each engine and block size, both axes logarithmic.

    Raises:
        InputError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise InputError("drawing needs matplotlib: pip install 'dlpm[plot]'", field="--svg") from error
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for engine, block_size in sorted({(time.engine, time.block_size) for time in times}):
        points = sorted(
            (time.waiting, time.median_us / 1000)
            for time in times
            if (time.engine, time.block_size) == (engine, block_size)
        )
        axes.plot(*zip(*points, strict=True), marker="o", label=f"{engine}, blocks of {block_size}")
    axes.set(xscale="log", yscale="log", xlabel="waiting requests", ylabel="milliseconds a step (median)")
    axes.grid(True, which="major", linewidth=0.4)
    axes.legend(frameon=False)
    try:
        figure.savefig(path, format="svg", metadata={"Date": None})
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", source=str(path)) from error
