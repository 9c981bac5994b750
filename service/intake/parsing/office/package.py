"""Packages: archives whose parts are XML and refer to each other by relationships (ECMA-376 part 2)."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile, ZipFile

from service.errors import DocumentTooComplex, UnreadableDocument
from service.intake.parsing.cleaning import encrypted, too_deep
from service.intake.parsing.markup.tables import MOST_COLUMNS
from service.intake.parsing.reading import Reading

_COMPOUND_FILE_SIGNATURE: Final = bytes.fromhex("d0cf11e0a1b11ae1")
"""The first bytes of the container of Office's old formats."""

_OLD_STREAMS: Final = {"WordDocument": ".doc", "Workbook": ".xls", "PowerPoint Document": ".ppt"}
_ZIP_ENTRY_ENCRYPTED: Final = 0x1

_USUAL_MAIN: Final = {"DOCX": "word/document.xml", "PPTX": "ppt/presentation.xml", "XLSX": "xl/workbook.xml"}

_PROPERTIES: Final = {
    "creator": "author",
    "created": "date",
    "modified": "modified",
    "language": "language",
    "keywords": "keywords",
    "subject": "subject",
}
"""Core properties, and the fields of metadata that they become."""

_MOST_DIGITS: Final = 12

_MAX_ENTRIES: Final = 10_000
_MAX_UNPACKED_BYTES: Final = 512 << 20

_MAX_UNPACKED_RATIO: Final = 100
"""How many times its size a file may unpack to: XML shrinks to a tenth as a rule."""

_UNSUSPICIOUS_BYTES: Final = 64 << 20
"""What any file may unpack to: small ones may shrink far more without being a threat."""


def name_of(element: Any) -> str:
    """The name of an element without its namespace, "" for comments: Strict and Transitional files differ in these."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def attribute(element: Any, name: str, default: str = "") -> str:
    """An attribute by its name without namespace."""
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == name:
            text: str = value
            return text
    return default


def count_of(text: str, default: int = 1) -> int:
    """A number of rows or columns, no larger than any table; ``default`` for what is none."""
    return min(int(text), MOST_COLUMNS) if text.isdecimal() and len(text) < _MOST_DIGITS else default


def text_of(element: Any) -> str:
    """The characters right inside an element, around what is not resolved."""
    return (element.text or "") + "".join(part.tail or "" for part in element)


def child(element: Any, *names: str) -> Any:
    """The element that this path of names leads to, each time the first; None where there is none."""
    for name in names:
        element = next((inner for inner in element if name_of(inner) == name), None)
        if element is None:
            return None
    return element


def elements(content: bytes, name: str) -> Iterator[Any]:
    """The elements of a name in the XML of a part, one after the other: each is gone when the next is there."""
    from lxml import etree  # type: ignore[import-untyped, unused-ignore]

    with _explained():
        for _, element in etree.iterparse(BytesIO(content), tag=f"{{*}}{name}", **_PARSING):
            yield element
            element.clear()
            while element.getprevious() is not None:
                del element.getparent()[0]


_PARSING: Final[Mapping[str, bool]] = {
    "resolve_entities": False,
    "no_network": True,
    "load_dtd": False,
    "huge_tree": True,
}
"""How XML is parsed: nothing outside it is read."""


@contextmanager
def _explained() -> Iterator[None]:
    """Say what lxml means by some of its errors."""
    from lxml import etree  # type: ignore[import-untyped, unused-ignore]

    try:
        yield
    except etree.XMLSyntaxError as error:
        if "depth" in str(error):
            raise too_deep() from None
        if "unknown error" in str(error):
            raise MemoryError from error
        raise


class Package:
    """An opened package."""

    def __init__(self, source: Path, kind: str) -> None:
        """``kind`` is the format in capitals, as refusals name it.

        Raises :class:`~service.errors.ServiceError` for what is no archive, encrypted, or unpacks to a size meant to do
        harm, and :class:`OSError`.
        """
        self._kind = kind
        content = source.read_bytes()
        _check(content, kind)
        self._archive = ZipFile(BytesIO(content))
        self._names = {name.lower().lstrip("/"): name for name in reversed(self._archive.namelist())}

    @cached_property
    def main(self) -> str:
        """The part that the package is about.

        Raises :class:`~service.errors.UnreadableDocument` where there is none.
        """
        for kind, target in self.relationships("").values():
            if kind == "officeDocument" and target in self:
                return target
        if _USUAL_MAIN.get(self._kind, "") in self:
            return _USUAL_MAIN[self._kind]
        raise UnreadableDocument(
            f"The file is a ZIP archive without a {self._kind} document in it. "
            "Open it in the program that it was made with, save it anew and send that."
        )

    def __contains__(self, part: str) -> bool:
        return part.lower() in self._names

    def bytes_of(self, part: str) -> bytes:
        """The content of a part. Raises :class:`KeyError` where there is none."""
        return self._archive.read(self._names[part.lower()])

    def tree(self, part: str) -> Any:
        """The XML of a part. Entities are not resolved, and nothing outside the package is read."""
        from lxml import etree  # type: ignore[import-untyped, unused-ignore]

        with _explained():
            return etree.fromstring(self.bytes_of(part), etree.XMLParser(**_PARSING))

    def relationships(self, part: str) -> Mapping[str, tuple[str, str]]:
        """For each relationship of a part its kind and the part that it leads to; external ones are left out."""
        folder, name = posixpath.split(part)
        file = posixpath.join(folder, "_rels", f"{name}.rels")
        if file not in self:
            return {}
        return {
            attribute(relation, "Id"): (
                attribute(relation, "Type").rpartition("/")[2],
                posixpath.normpath(posixpath.join(folder, attribute(relation, "Target").split("#")[0])).lstrip("/")
                if not attribute(relation, "Target").startswith("/")
                else attribute(relation, "Target").lstrip("/"),
            )
            for relation in self.tree(file)
            if name_of(relation) == "Relationship" and attribute(relation, "TargetMode") != "External"
        }

    def note_properties(self, reading: Reading) -> None:
        """Note the title, author, dates and language that a document gives itself."""
        for part in self.related("", "core-properties"):
            values = {name_of(element): element.text for element in self.tree(part)}
            reading.name(values.get("title"))
            for name, noted in _PROPERTIES.items():
                reading.note(noted, values.get(name))

    def related(self, part: str, kind: str) -> Iterator[str]:
        """The parts of a kind that a part refers to; where it refers to none, the one with the kind's usual name."""
        targets = [target for found, target in self.relationships(part).values() if found == kind and target in self]
        usual = posixpath.join(posixpath.dirname(part), f"{kind}.xml")
        return iter(targets or ([usual] if part and usual in self else []))


def _check(content: bytes, kind: str) -> None:
    if content.startswith(_COMPOUND_FILE_SIGNATURE):
        # Office wraps what it encrypts into the container of its old formats.
        for stream, ending in _OLD_STREAMS.items():
            if stream.encode("utf-16-le") in content:
                raise UnreadableDocument(f"The file is in the old {ending} format; save it as {ending}x and send that.")
        raise encrypted(kind)
    try:
        with ZipFile(BytesIO(content)) as archive:
            entries = archive.infolist()
    except BadZipFile:
        raise UnreadableDocument(
            f"The file is not a {kind} file, or its end is missing. "
            f"Open it in the program that it was made with, save it as .{kind.lower()} and send that."
        ) from None
    if any(entry.flag_bits & _ZIP_ENTRY_ENCRYPTED for entry in entries):
        raise encrypted(kind)
    # An entry that unpacks to more than it declares is cut off there by zipfile, which then reports it.
    unpacked = sum(entry.file_size for entry in entries)
    if (
        len(entries) > _MAX_ENTRIES
        or unpacked > _MAX_UNPACKED_BYTES
        or unpacked > max(_UNSUSPICIOUS_BYTES, _MAX_UNPACKED_RATIO * len(content))
    ):
        raise DocumentTooComplex(
            f"The {kind} file holds {len(entries):,} parts that unpack to {unpacked:,} bytes, more than is "
            "accepted from a file of its size. Remove embedded files, or split it up."
        )
