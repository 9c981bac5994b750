"""EPUB books: the documents of the spine, in order."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from service.errors import EncryptedDocument, UnreadableDocument
from service.intake.parsing.markup.html import xhtml_passages
from service.intake.parsing.office.package import Package, attribute, child, name_of
from service.intake.parsing.reading import Location, Passages, Reading

_CONTAINER = "META-INF/container.xml"
_TEXTS = {"application/xhtml+xml", "text/html", "application/x-dtbncx+xml", "text/x-oeb1-document"}


def read(source: Path, reading: Reading) -> Passages:
    """The text of a book; its table of contents is left out."""
    package = Package(source, "EPUB")
    if _CONTAINER not in package:
        raise UnreadableDocument("The file is a ZIP archive without a book in it. Send the .epub as it was published.")
    root = next((file for file in package.tree(_CONTAINER).iter() if name_of(file) == "rootfile"), None)
    part = "" if root is None else attribute(root, "full-path")
    if part not in package:
        raise UnreadableDocument("The book does not say what it consists of. Send the .epub as it was published.")
    tree = package.tree(part)
    _note(tree, reading)
    if "META-INF/rights.xml" in package or "META-INF/license.lcpl" in package:
        raise EncryptedDocument("The book is protected against copying; send one that is not.")
    gap = ""
    for document in dict.fromkeys(_spine(tree, part)):
        if document not in package:
            reading.warn(f"The part {document} of the book is missing.")
            continue
        passages = list(xhtml_passages(package.bytes_of(document), reading.part()))
        if passages:
            yield gap
            if isinstance(passages[0], str):
                yield Location()  # no longer below the headings before
            yield from passages
            gap = "\n\n"
    if not gap:
        raise UnreadableDocument("The book holds no text: its pages are pictures. Run OCR on them first.")


def _note(tree: object, reading: Reading) -> None:
    metadata = child(tree, "metadata")
    for element in metadata if metadata is not None else ():
        name = name_of(element)
        if name == "title":
            reading.name(element.text)
        elif name in {"creator", "language", "date", "publisher"}:
            reading.note("author" if name == "creator" else name, element.text)


def _spine(tree: object, part: str) -> Iterator[str]:
    manifest, spine = child(tree, "manifest"), child(tree, "spine")
    items = {attribute(item, "id"): item for item in manifest if name_of(item)} if manifest is not None else {}
    for reference in spine if spine is not None else ():
        item = items.get(attribute(reference, "idref") if name_of(reference) else "")
        if item is None or "nav" in attribute(item, "properties").split():
            continue
        if attribute(item, "media-type") in _TEXTS:
            yield posixpath.normpath(posixpath.join(posixpath.dirname(part), unquote(attribute(item, "href"))))
