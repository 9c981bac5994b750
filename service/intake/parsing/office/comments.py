"""Comments in Office files: who says what, and of which cell or slide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from service.intake.parsing.cleaning import CLEANED
from service.intake.parsing.office.package import Package, attribute, child, name_of

_COPY: Final = "tc="
"""What the author of a comment begins with that repeats a thread for programs which know no threads."""


class Comment(NamedTuple):
    """A comment on a cell or slide."""

    author: str
    text: str
    cell: str = ""
    """The reference of the cell, such as ``B3``."""

    @property
    def line(self) -> str:
        """The comment in one line."""
        return comment_mark(self.author, self.cell) + " ".join(self.text.split())


def comment_mark(author: str, cell: str = "") -> str:
    """What a comment's line begins with."""
    place = f" on {cell}" if cell else ""
    name = " ".join(author.translate(CLEANED).split())
    return f"Comment{place} by {name}: " if name else f"Comment{place}: "


def sheet_comments(package: Package, sheet: str) -> Iterator[Comment]:
    """The comments on the cells of a sheet, threads with their answers."""
    people = _names(package, "person", "displayName")
    threaded: set[str] = set()
    for tree in _trees(package, sheet, "threadedComment"):
        for element in tree.iter():
            if name_of(element) == "threadedComment":
                cell = attribute(element, "ref")
                threaded.add(cell)
                yield from _written(people.get(attribute(element, "personId"), ""), child(element, "text"), cell)
    for tree in _trees(package, sheet, "comments"):
        authors = [element.text or "" for element in tree.iter() if name_of(element) == "author"]
        for element in tree.iter():
            if name_of(element) == "comment":
                number, cell = attribute(element, "authorId"), attribute(element, "ref")
                author = authors[int(number)] if number.isdecimal() and int(number) < len(authors) else ""
                if cell not in threaded or not author.startswith(_COPY):
                    yield from _written(author, child(element, "text"), cell)


def slide_comments(package: Package, slide: str) -> Iterator[Comment]:
    """The comments on a slide, with their answers."""
    people = {**_names(package, "commentAuthors", "name"), **_names(package, "authors", "name")}
    for tree in _trees(package, slide, "comments"):
        for element in tree.iter():
            if name_of(element) in {"cm", "reply"}:
                texts = [part for part in element if name_of(part) in {"text", "txBody"}]
                yield from _written(people.get(attribute(element, "authorId"), ""), texts[0] if texts else None)


def _trees(package: Package, part: str, kind: str) -> Iterator[Any]:
    return (
        package.tree(target)
        for found, target in package.relationships(part).values()
        if found == kind and target in package
    )


def _names(package: Package, kind: str, name: str) -> Mapping[str, str]:
    """The names of those who comment, by their ids."""
    people = (element for tree in _trees(package, package.main, kind) for element in tree.iter())
    return {attribute(person, "id"): attribute(person, name) for person in people}


def _written(author: str, element: Any, cell: str = "") -> Iterator[Comment]:
    """A comment with this text, if there is any; programs begin it with the author's name."""
    if element is not None:
        lines = [""]
        for part in element.iter():
            if name_of(part) in {"p", "br"}:
                lines.append("")
            elif name_of(part) in {"t", "text"} and name_of(part.getparent()) != "rPh":
                lines[-1] += part.text or ""
        text = "\n".join(lines).translate(CLEANED).strip().removeprefix(f"{author}:").strip()
        if text:
            yield Comment(author, text, cell)
