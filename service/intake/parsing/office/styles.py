"""What the styles of a Word document say of paragraphs and characters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from service.intake.parsing.office.package import attribute, child, name_of

_OFF: Final = frozenset({"0", "false", "off", "none"})


@dataclass(frozen=True, slots=True)
class Style:
    """What a style says, those that it is based on included."""

    heading: int = 0
    numbering: tuple[str, int] | None = None
    hidden: bool = False


def read_styles(tree: Any) -> Mapping[str, Style]:
    """The styles of a document by their ids; none where it has no part for them."""
    if tree is None:
        return {}
    elements = {attribute(style, "styleId"): style for style in tree if name_of(style) == "style"}
    styles: dict[str, Style] = {}
    for name in elements:
        # From the style up to one that is known, without going round in circles; then down again.
        bases = [name]
        while bases[-1] in elements and bases[-1] not in styles and len(bases) <= len(elements):
            bases.append(value_of(child(elements[bases[-1]], "basedOn")))
        for above, below in pairwise(reversed(bases)):
            styles.setdefault(below, _style(elements[below], styles.get(above, Style())))
    return styles


def _style(element: Any, base: Style) -> Style:
    outline, own = child(element, "pPr", "outlineLvl"), child(element, "pPr", "numPr")
    vanish = child(element, "rPr", "vanish")
    return Style(
        _named_heading(element) or (base.heading if outline is None else outline_of(outline)),
        base.numbering if own is None else list_of(own, base.numbering),
        base.hidden if vanish is None else is_on(vanish),
    )


def _named_heading(style: Any) -> int:
    name = value_of(child(style, "name")).lower()
    if name == "title":
        return 1
    found = re.fullmatch(r"heading ([1-9])", name)
    return int(found[1]) if found else 0


def outline_of(element: Any) -> int:
    """The level of a heading, 1 for the highest; 0 for text."""
    level = attribute(element, "val")
    return int(level) + 1 if level in set("012345678") else 0


def list_of(element: Any, base: tuple[str, int] | None) -> tuple[str, int] | None:
    """The list and level that ``numPr`` names, ``base`` for what it leaves out; none for no list."""
    number, level = value_of(child(element, "numId")), value_of(child(element, "ilvl"))
    number = number or ("" if base is None else base[0])
    at = int(level) if level.isdecimal() else 0 if base is None else base[1]
    return None if number in {"", "0"} else (number, at)


def is_hidden(run: Any, styles: Mapping[str, Style]) -> bool:
    """Whether a run is hidden, by itself or by its style."""
    properties = child(run, "rPr")
    if properties is None:
        return False
    vanish = child(properties, "vanish")
    if vanish is not None:
        return is_on(vanish)
    return styles.get(value_of(child(properties, "rStyle")), Style()).hidden


def value_of(element: Any) -> str:
    """The ``val`` of an element; "" where there is none."""
    return "" if element is None else attribute(element, "val")


def is_on(element: Any) -> bool:
    """Whether a switch is there and on."""
    return element is not None and attribute(element, "val", "true").lower() not in _OFF
