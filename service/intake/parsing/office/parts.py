"""Finding things inside the elements of a Word document."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from service.intake.encodings import decoded, html_encoding
from service.intake.parsing.cleaning import CLEANED
from service.intake.parsing.markup.html import html_text
from service.intake.parsing.office.package import Package, attribute, child, name_of, text_of
from service.intake.parsing.office.styles import is_on, value_of
from service.intake.parsing.reading import Reading


def inside(element: Any, name: str) -> Iterator[Any]:
    """The rows of a table or the cells of a row, also inside content controls and tracked changes."""
    for part in element:
        if name_of(part) == name:
            yield part
        elif name_of(part) in {"sdt", "sdtContent", "ins", "customXml", "moveTo"}:
            yield from inside(part, name)


LEFT_OUT: Final = frozenset(
    "del moveFrom instrText delText delInstrText pPr rPr sdtPr sdtEndPr tblPr trPr tcPr".split()
)
"""Elements that are not shown: what was deleted, what fields are made of, and properties."""

_SYMBOLS: Final = {
    **dict.fromkeys(("F0FE", "F053", "F0FD", "F078"), "☒"),
    **dict.fromkeys(("F0A8", "F06F", "F071", "F0A3"), "☐"),
    **dict.fromkeys(("F0FC", "F050"), "✓"),
    **dict.fromkeys(("F0FB", "F04F"), "✗"),
    **dict.fromkeys(("F0E0", "F0AE"), "→"),
    **dict.fromkeys(("F0B7", "F0A7", "F06C", "F06E"), "•"),
}
"""What the characters mean that symbol fonts draw as ticks, boxes, arrows and bullets."""

_BETWEEN_WORDS: Final = frozenset("p tab ptab br cr oMath".split())


def is_deleted(row: Any) -> bool:
    """Whether a row of a table is a tracked deletion."""
    return child(row, "trPr", "del") is not None


def shown_texts(story: Any, is_hidden: Callable[[Any], bool]) -> Iterator[str]:
    """The characters of a story that are shown, paragraph by paragraph; ``is_hidden`` tells runs that are not."""
    from lxml import etree  # type: ignore[import-untyped, unused-ignore]

    line = ""
    fields: list[bool] = []  # for each that is open, whether its result has begun
    walk = etree.iterwalk(story, events=("start", "end"))
    for event, element in walk:
        name = name_of(element)
        script = child(element, "rPr", "vertAlign") is not None if name == "r" else False
        if name in _BETWEEN_WORDS or script:
            yield line
            line = ""
        if event == "end":
            continue
        if (
            name in LEFT_OUT
            or (name == "r" and is_hidden(element))
            or (name == "tr" and is_deleted(element))
            or (name in {"Choice", "Fallback"} and shown_form(element.getparent()) is not element)
        ):
            walk.skip_subtree()
        elif name == "fldChar":
            follow_field(fields, element)
        elif name == "t" and all(fields):
            line += text_of(element)
    yield line


def symbol_text(element: Any) -> str:
    """What a character of a symbol font means; "" for what is not known."""
    code = attribute(element, "char").upper()
    if code in _SYMBOLS:
        return _SYMBOLS[code]
    if re.fullmatch(r"[0-9A-F]{4}", code) and not code.startswith(("E", "F0", "D8", "D9", "DA", "DB", "DC")):
        return chr(int(code, 16)).translate(CLEANED)
    return ""


def form_field_text(element: Any) -> str:
    """The tick or the choice that the field of a form shows; "" for other fields."""
    box, choices = (child(element, "ffData", name) for name in ("checkBox", "ddList"))
    if box is not None:
        checked = child(box, "checked")
        return "☒" if is_on(child(box, "default") if checked is None else checked) else "☐"
    if choices is not None:
        entries = [attribute(entry, "val") for entry in choices if name_of(entry) == "listEntry"]
        chosen = value_of(child(choices, "result")) or "0"
        return entries[int(chosen)] if chosen.isdecimal() and int(chosen) < len(entries) else ""
    return ""


def chunk_text(package: Package, part: str, element: Any, reading: Reading) -> str:
    """The text of a file of another format that stands in a part; "" for one that cannot be read, which is said."""
    _, target = package.relationships(part).get(attribute(element, "id"), ("", ""))
    if not target or target not in package:
        return ""
    content, ending = package.bytes_of(target), target.rpartition(".")[2].lower()
    if ending in {"html", "htm", "xhtml"}:
        return html_text(decoded(content, None, html_encoding, "cp1252"), reading.part()).strip()
    if ending == "txt":
        return decoded(content, None).translate(CLEANED).strip()
    reading.warn(f"A part of the format .{ending} inside the document was left out.")
    return ""


def follow_field(fields: list[bool], element: Any) -> None:
    """Take note of the beginning, middle or end of a field."""
    match attribute(element, "fldCharType"):
        case "begin":
            fields.append(False)
        case "separate" if fields:
            fields[-1] = True
        case "end" if fields:
            fields.pop()


def shown_form(alternatives: Any) -> Any:
    """The one of several forms that is shown: the first that has something to show; None where there is none."""
    forms = [form for form in alternatives if name_of(form) in {"Choice", "Fallback"}]
    return next((form for form in forms if form is forms[-1] or shows_something(form)), None)


def boxes_of(element: Any) -> Iterator[Any]:
    """The outermost text boxes of a drawing; of a thing in several forms those of the first."""
    for part in element:
        name = name_of(part)
        if name == "txbxContent":
            yield part
        elif name == "AlternateContent":
            forms = [list(boxes_of(form)) for form in part]
            yield from next((boxes for boxes in forms if boxes), [])
        else:
            yield from boxes_of(part)


def shows_something(element: Any) -> bool:
    """Whether anything inside an element is shown."""
    return any(name_of(part) in {"t", "sym", "drawing", "pict", "oMath", "fldChar"} for part in element.iter())


def is_bold(row: Any) -> bool:
    """Whether all text of a row is bold."""
    runs = [run for run in row.iter() if name_of(run) == "r" and child(run, "t") is not None]
    return bool(runs) and all(is_on(child(run, "rPr", "b")) for run in runs)
