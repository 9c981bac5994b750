"""Charts and diagrams of Office files as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.intake.parsing.cleaning import CLEANED
from service.intake.parsing.office.package import Package, attribute, child, name_of


def graphic_lines(package: Package, part: str, element: Any) -> list[str]:
    """What the charts and diagrams say that an element of a part refers to."""
    references = {value for inner in element.iter() for key, value in inner.attrib.items() if "relationships}" in key}
    lines: list[str] = []
    for identifier, (kind, target) in package.relationships(part).items() if references else ():
        if identifier in references and target in package and kind in _LINES:
            lines += (line.translate(CLEANED).strip() for line in _LINES[kind](package.tree(target)))
    return [line for line in lines if line]


def _diagram(tree: Any) -> Iterator[str]:
    """The words of each shape."""
    for text in tree.iter():
        if name_of(text) == "t" and child(text, "p") is not None:
            yield from map(_characters, text)


def _chart(tree: Any) -> Iterator[str]:
    """The titles, then a line for each series: its name and its values with theirs."""
    for element in tree.iter():
        if name_of(element) == "title":
            yield _characters(element)
    for series in tree.iter():
        if name_of(series) == "ser":
            labels, sizes = _labels(_first(series, "cat", "xVal")), _points(child(series, "bubbleSize"))
            values = _points(_first(series, "val", "yVal"))
            name = " ".join(_points(child(series, "tx")).values())
            pairs = [
                ": ".join(filter(None, (labels.get(place, ""), values.get(place, ""), sizes.get(place, ""))))
                for place in sorted({*labels, *values, *sizes})
            ]
            yield "; ".join(filter(None, [name, *pairs]))


_LINES = {"diagramData": _diagram, "chart": _chart}


def _characters(element: Any) -> str:
    return "".join(text.text or "" for text in element.iter() if name_of(text) == "t")


def _first(element: Any, *names: str) -> Any:
    return next((part for part in element if name_of(part) in names), None)


def _labels(element: Any) -> Mapping[int, str]:
    """The label of each point; those of several levels from the outermost in."""
    levels = [] if element is None else [part for part in element.iter() if name_of(part) == "lvl"]
    if not levels:
        return _points(element)
    labels = dict(_points(levels[0]))
    for level in map(_points, levels[1:]):
        starts = sorted(level)
        for place in labels:
            above = [start for start in starts if start <= place]
            labels[place] = f"{level[above[-1]]} {labels[place]}" if above else labels[place]
    return labels


def _points(element: Any) -> dict[int, str]:
    """The values of a sequence by their places."""
    points: dict[int, str] = {}
    for part in element.iter() if element is not None else ():
        if name_of(part) == "v" and part.text:
            place = attribute(part.getparent(), "idx")
            points[int(place) if place.isdecimal() else len(points)] = part.text
    return points
