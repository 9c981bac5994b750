"""What paragraphs of a Word document are numbered with: word processors store rules, and readers see numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from service.intake.parsing.markup.numerals import numeral
from service.intake.parsing.office.package import attribute, child, name_of

_NUMERALS: Final = {"lowerLetter": "a", "upperLetter": "A", "lowerRoman": "i", "upperRoman": "I"}
_LEVELS: Final = 9
_PLACE: Final = re.compile(r"%([1-9])")


@dataclass(frozen=True, slots=True)
class _Level:
    form: str = "decimal"
    text: str = ""
    start: int = 1


@dataclass(slots=True)
class Numbering:
    """The counters of all lists of a document, as far as it has been read."""

    _levels: dict[str, tuple[str, dict[int, _Level]]] = field(default_factory=dict)
    """For each list the rules that it shares with others, and its levels."""
    _starts: dict[tuple[str, int], int] = field(default_factory=dict)
    _counters: dict[str, dict[int, int]] = field(default_factory=dict)
    _begun: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, tree: Any, styles: Mapping[str, str]) -> Numbering:
        """The numbering part of a document; ``styles`` has the list of each style that names one."""
        numbering = cls()
        rules: dict[str, dict[int, _Level]] = {}
        links: dict[str, str] = {}
        for element in tree:
            if name_of(element) == "abstractNum":
                number = attribute(element, "abstractNumId")
                rules[number] = {
                    int(attribute(level, "ilvl", "0")): _level(level) for level in element if name_of(level) == "lvl"
                }
                link = child(element, "numStyleLink")
                if link is not None:
                    links[number] = attribute(link, "val")
        of_list: dict[str, str] = {}
        for element in tree:
            if name_of(element) == "num":
                number, abstract = attribute(element, "numId"), child(element, "abstractNumId")
                of_list[number] = "" if abstract is None else attribute(abstract, "val")
                numbering._override(number, element)
        for number, abstract in of_list.items():
            linked = of_list.get(styles.get(links.get(abstract, ""), ""), abstract)
            levels = dict(rules.get(linked, {}))
            levels.update(numbering._levels.get(number, ("", {}))[1])
            numbering._levels[number] = (linked, levels)
        return numbering

    def _override(self, number: str, element: Any) -> None:
        levels: dict[int, _Level] = {}
        for override in element:
            if name_of(override) == "lvlOverride":
                at = int(attribute(override, "ilvl", "0"))
                level, start = child(override, "lvl"), child(override, "startOverride")
                if level is not None:
                    levels[at] = _level(level)
                if start is not None:
                    self._starts[number, at] = int(attribute(start, "val", "1"))
        self._levels[number] = ("", levels)

    def label(self, number: str, at: int) -> str:
        """What the next paragraph of this list begins with at a level; "" where it has no number or bullet."""
        if number not in self._levels or not 0 <= at < _LEVELS:
            return ""
        rules, levels = self._levels[number]
        counters = self._counters.setdefault(rules, {})
        if number not in self._begun:
            self._begun.add(number)
            for (other, place), start in self._starts.items():
                if other == number:
                    counters[place] = start - 1
        level_of = [levels.get(depth, _Level()) for depth in range(_LEVELS)]
        for above in range(at):
            counters.setdefault(above, level_of[above].start)
        counters[at] = counters.get(at, level_of[at].start - 1) + 1
        for below in range(at + 1, _LEVELS):
            counters.pop(below, None)
        level = level_of[at]
        if level.form == "bullet":
            return "- "
        if level.form == "none":
            return ""

        def shown(place: re.Match[str]) -> str:
            other = int(place[1]) - 1
            return numeral(counters.get(other, level_of[other].start), _NUMERALS.get(level_of[other].form, "1"))

        label = _PLACE.sub(shown, level.text or f"%{at + 1}.")
        return f"{label} " if label.strip() else ""


def _level(element: Any) -> _Level:
    values = {name_of(part): attribute(part, "val") for part in element}
    start = values.get("start", "1")
    return _Level(values.get("numFmt", "decimal"), values.get("lvlText", ""), int(start) if start.isdecimal() else 1)
