"""Plots as inline SVG; colours and fonts come from the page's style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from qrag.evaluation.report import Calibration

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 34, 12, 10, 34
"""The margins in which axes are labelled."""

TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def curves(title: str, series: Mapping[str, Sequence[float]], styles: Mapping[str, int]) -> str:
    """Lines of values between 0 and 1 over 1, 2, ...; ``styles`` has the number of each line's style."""
    count = max(map(len, series.values()))
    shapes = []
    for name, values in series.items():
        points = [(_across(place, count), _up(value)) for place, value in enumerate(values)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        marks = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points)
        label = escape(f"{name}: {', '.join(f'{value:.2f}' for value in values)}")
        shapes.append(f'<g class="line s{styles[name]}"><title>{label}</title><polyline points="{path}"/>{marks}</g>')
    step = max(1, count // 8)
    labels = [
        f'<text class="tick" x="{_across(place, count):.1f}" y="{HEIGHT - BOTTOM + 14}">{place + 1}</text>'
        for place in range(0, count, step)
    ]
    return _figure(title, [*labels, *shapes], "chunks")


def reliability(title: str, calibration: Calibration) -> str:
    """A circle for each bin, as large as its share of the questions, beside the diagonal where estimates are true."""
    total = sum(bin.questions for bin in calibration.bins)
    shapes = [
        f'<line class="diagonal" x1="{LEFT}" y1="{_up(0):.1f}" x2="{WIDTH - RIGHT}" y2="{_up(1):.1f}"/>',
        *(f'<text class="tick" x="{_along(tick):.1f}" y="{HEIGHT - BOTTOM + 14}">{tick:g}</text>' for tick in TICKS),
    ]
    for bin in calibration.bins:
        label = f"{bin.questions} questions: estimated {bin.estimated:.2f}, complete {bin.complete:.2f}"
        shapes.append(
            f'<circle class="bin" cx="{_along(bin.estimated):.1f}" cy="{_up(bin.complete):.1f}" '
            f'r="{3 + 12 * (bin.questions / total) ** 0.5:.1f}"><title>{label}</title></circle>'
        )
    return _figure(title, shapes, "estimated probability")


def _figure(title: str, shapes: Sequence[str], below: str) -> str:
    grid = [
        f'<line class="grid" x1="{LEFT}" y1="{_up(tick):.1f}" x2="{WIDTH - RIGHT}" y2="{_up(tick):.1f}"/>'
        f'<text class="tick left" x="{LEFT - 5}" y="{_up(tick) + 4:.1f}">{tick:g}</text>'
        for tick in TICKS
    ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'{"".join(grid)}{"".join(shapes)}<text class="tick" x="{middle:.1f}" y="{HEIGHT - 4}">{below}</text></svg>'
    )


def _across(place: int, count: int) -> float:
    """The place of a value among ``count``, which begin and end within the axes."""
    inner = WIDTH - LEFT - RIGHT - 20
    return LEFT + 10 + (inner / 2 if count == 1 else inner * place / (count - 1))


def _along(value: float) -> float:
    return LEFT + value * (WIDTH - LEFT - RIGHT)


def _up(value: float) -> float:
    return HEIGHT - BOTTOM - value * (HEIGHT - TOP - BOTTOM)
