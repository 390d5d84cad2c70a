"""A starvation cycle as a picture: the states of the cycle in a ring, what is sent and served between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree import ElementTree

from dlpm_proofs.explore import Edge, StateGraph

SIZE = 720
RADIUS = 215
BOX = (190, 62)
INK, PALE, ALARM = "#1b1f24", "#f4f6f8", "#b42318"


def draw_cycle(graph: StateGraph, cycle: Sequence[Edge], title: str) -> str:
    """The cycle as SVG: each state with its queue and its batch, each edge with arrivals, admissions and finishes."""
    svg = ElementTree.Element(
        "svg",
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {SIZE} {SIZE}",
        width=str(SIZE),
        height=str(SIZE),
        role="img",
    )
    ElementTree.SubElement(svg, "title").text = title
    ElementTree.SubElement(svg, "rect", width="100%", height="100%", fill="white")
    _arrow_head(svg)
    _text(svg, SIZE / 2, 40, title, size=18, weight="bold")
    places = [_place(k, len(cycle)) for k in range(len(cycle))]
    for k, edge in enumerate(cycle):
        _arrow(svg, places[k], places[(k + 1) % len(cycle)], _words(graph, edge), alone=len(cycle) == 1)
    for (x, y), edge in zip(places, cycle, strict=True):
        _state(svg, x, y, graph, edge.source)
    ElementTree.indent(svg)
    return ElementTree.tostring(svg, encoding="unicode") + "\n"


def _place(number: int, of: int) -> tuple[float, float]:
    """Where a state of the ring stands; the first at the top."""
    angle = 2 * math.pi * number / of - math.pi / 2
    return SIZE / 2 + RADIUS * math.cos(angle), SIZE / 2 + 20 + RADIUS * math.sin(angle)


def _state(svg: ElementTree.Element, x: float, y: float, graph: StateGraph, state: int) -> None:
    """A box: who waits, who runs."""
    worker = graph.worker(state)
    width, height = BOX
    ElementTree.SubElement(
        svg,
        "rect",
        x=f"{x - width / 2:.1f}",
        y=f"{y - height / 2:.1f}",
        width=str(width),
        height=str(height),
        rx="8",
        fill=PALE,
        stroke=INK,
    )
    waiting = [queued.id.rpartition(".")[0] for queued in worker.waiting()]
    running = [run.queued.id.rpartition(".")[0] for run in worker.running]
    _text(svg, x, y - 8, f"waits: {', '.join(waiting) or 'nobody'}", colour=ALARM)
    _text(svg, x, y + 14, f"runs: {', '.join(running) or 'nothing'}")


def _words(graph: StateGraph, edge: Edge) -> list[str]:
    """What happens on an edge."""
    kinds = graph.instance.kinds
    parts = (("arrives", edge.sent), ("goes in", edge.admitted), ("ends", edge.finished))
    words = [f"{', '.join(kinds[number].name for number in numbers)} {verb}" for verb, numbers in parts if numbers]
    return words or ["decoding"]


def _arrow(
    svg: ElementTree.Element,
    source: tuple[float, float],
    target: tuple[float, float],
    words: Sequence[str],
    *,
    alone: bool,
) -> None:
    """A curved arrow outside the ring, with words beside it; to itself if the state is alone."""
    centre = (SIZE / 2, SIZE / 2 + 20)
    if alone:
        x, y = source
        bottom = y + BOX[1] / 2
        right, left = f"{x + 150:.1f} {bottom + 160:.1f}", f"{x - 150:.1f} {bottom + 160:.1f}"
        path = f"M {x + 60:.1f} {bottom:.1f} C {right} {left} {x - 60:.1f} {bottom:.1f}"
        label = (x, y + 175)
    else:
        middle = ((source[0] + target[0]) / 2, (source[1] + target[1]) / 2)
        out = (source[1] - target[1], target[0] - source[0])
        length = math.hypot(*out) or 1.0
        bend = (middle[0] - out[0] / length * 110, middle[1] - out[1] / length * 110)
        start, end = _towards(source, bend), _towards(target, bend)
        path = f"M {start[0]:.1f} {start[1]:.1f} Q {bend[0]:.1f} {bend[1]:.1f} {end[0]:.1f} {end[1]:.1f}"
        label = (bend[0] + (bend[0] - centre[0]) * 0.15, (middle[1] + bend[1]) / 2)
    ElementTree.SubElement(svg, "path", {"d": path, "fill": "none", "stroke": INK, "marker-end": "url(#head)"})
    for line, word in enumerate(words):
        _text(svg, label[0], label[1] + 17 * (line - (len(words) - 1) / 2), word)


def _towards(box: tuple[float, float], point: tuple[float, float]) -> tuple[float, float]:
    """The point on the border of a box on the way to ``point``."""
    dx, dy = point[0] - box[0], point[1] - box[1]
    scale = min(BOX[0] / 2 / abs(dx) if dx else math.inf, BOX[1] / 2 / abs(dy) if dy else math.inf)
    return box[0] + dx * scale, box[1] + dy * scale


def _arrow_head(svg: ElementTree.Element) -> None:
    """The marker at the end of arrows."""
    marker = ElementTree.SubElement(
        ElementTree.SubElement(svg, "defs"),
        "marker",
        id="head",
        viewBox="0 0 10 10",
        refX="9",
        refY="5",
        markerWidth="8",
        markerHeight="8",
        orient="auto-start-reverse",
    )
    ElementTree.SubElement(marker, "path", d="M 0 0 L 10 5 L 0 10 z", fill=INK)


def _text(
    svg: ElementTree.Element,
    x: float,
    y: float,
    words: str,
    *,
    size: int = 14,
    weight: str = "normal",
    colour: str = INK,
) -> None:
    """A line of text around a point."""
    ElementTree.SubElement(
        svg,
        "text",
        {
            "x": f"{x:.1f}",
            "y": f"{y:.1f}",
            "text-anchor": "middle",
            "font-family": "sans-serif",
            "font-size": str(size),
            "font-weight": weight,
            "fill": colour,
        },
    ).text = words
