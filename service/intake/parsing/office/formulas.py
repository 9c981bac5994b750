"""Equations of Office files (OMML) as lines of text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from service.intake.parsing.markup.mathematics import grouped
from service.intake.parsing.office.package import attribute, child, name_of


def formula(element: Any) -> str:
    """The line that an ``oMath`` element stands for."""
    return re.sub(r"\s+", " ", _line(element)).strip()


def _line(element: Any) -> str:
    name = name_of(element)
    if name == "t":
        return element.text or ""
    if name.endswith("Pr"):
        return ""
    form = _FORMS.get(name)
    return form(element) if form is not None else "".join(map(_line, element))


def _part(element: Any, name: str) -> str:
    part = child(element, name)
    return "" if part is None else _line(part).strip()


def _property(element: Any, name: str, default: str) -> str:
    found = child(element, f"{name_of(element)}Pr", name)
    return default if found is None else attribute(found, "val", "")


def _raised(element: Any) -> str:
    lower, upper = _part(element, "sub"), _part(element, "sup")
    base = _part(element, "e")
    base = base if lower else grouped(base)
    return base + (f"_{grouped(lower)}" if lower else "") + (f"^{grouped(upper)}" if upper else "")


def _root(element: Any) -> str:
    degree = _part(element, "deg")
    radicand = _part(element, "e")
    return f"root({degree}, {radicand})" if degree else f"√{grouped(radicand)}"


def _sum(element: Any) -> str:
    sign = _property(element, "chr", "∫")
    lower, upper = _part(element, "sub"), _part(element, "sup")
    bounds = (f"_{grouped(lower)}" if lower else "") + (f"^{grouped(upper)}" if upper else "")
    return f"{sign}{bounds} {_part(element, 'e')}"


def _delimited(element: Any) -> str:
    parts = [_line(part).strip() for part in element if name_of(part) == "e"]
    return _property(element, "begChr", "(") + ", ".join(parts) + _property(element, "endChr", ")")


def _matrix(element: Any) -> str:
    rows = [
        ", ".join(_line(cell).strip() for cell in row if name_of(cell) == "e")
        for row in element
        if name_of(row) == "mr"
    ]
    return "[" + "; ".join(rows) + "]"


def _lines(element: Any) -> str:
    return "; ".join(_line(part).strip() for part in element if name_of(part) == "e")


_FORMS: Final[Mapping[str, Callable[[Any], str]]] = {
    "f": lambda element: f"{grouped(_part(element, 'num'))}/{grouped(_part(element, 'den'))}",
    "sSup": _raised,
    "sSub": _raised,
    "sSubSup": _raised,
    "sPre": _raised,
    "rad": _root,
    "nary": _sum,
    "d": _delimited,
    "m": _matrix,
    "eqArr": _lines,
    "func": lambda element: f"{_part(element, 'fName')} {_part(element, 'e')}",
    "limLow": lambda element: f"{_part(element, 'e')}_{grouped(_part(element, 'lim'))}",
    "limUpp": lambda element: f"{_part(element, 'e')}^{grouped(_part(element, 'lim'))}",
}
"""The line of each structure that is more than its parts one after the other."""
