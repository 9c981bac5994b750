"""HTML, as lxml parses it."""

from __future__ import annotations

import re
import sys
from html.entities import html5
from pathlib import Path
from typing import Any, Final

from service.intake.encodings import decoded, html_encoding
from service.intake.parsing.cleaning import CLEANED, too_deep
from service.intake.parsing.markup.blocks import placed
from service.intake.parsing.markup.layout import blocks_of, shown_texts
from service.intake.parsing.reading import Passages, Reading

_XHTML: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*<\?xml\b")
_XML_DECLARATION: Final = re.compile(r"\A\ufeff?\s*<\?xml[^>]*\?>")
_ENTITY: Final = re.compile(r"&([A-Za-z][A-Za-z0-9]{1,31});")
_XML_ENTITIES: Final = frozenset({"amp", "lt", "gt", "quot", "apos"})

_NOTED: Final = {
    "author": "author",
    "description": "description",
    "date": "date",
    "article:published_time": "date",
    "dcterms.date": "date",
    "keywords": "keywords",
}
"""Names of ``<meta>``, and the fields of metadata that they become."""

_RECURSION_LIMIT: Final = 10_000
"""libxml2 itself stops at 2,048 nested elements, and the layout recurses a few times for each."""


def read(source: Path, reading: Reading) -> Passages:
    """The text of an HTML file; what declares no encoding and is no UTF-8 is windows-1252, as to browsers."""
    content = source.read_bytes()
    if _XHTML.match(content):
        yield from xhtml_passages(content, reading)
    else:
        yield from html_passages(decoded(content, reading.charset, html_encoding, "cp1252"), reading)


def xhtml_passages(content: bytes, reading: Reading) -> Passages:
    """The text of XHTML, in which any element may close itself; read as HTML where it is not well-formed."""
    from lxml import etree  # type: ignore[import-untyped, unused-ignore]

    text = decoded(content, reading.charset, html_encoding, "cp1252")
    # Names that only HTML's DTD defines.
    text = _ENTITY.sub(lambda name: name[0] if name[1] in _XML_ENTITIES else html5.get(f"{name[1]};", name[0]), text)
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True, huge_tree=True
    )
    try:
        tree = etree.fromstring(_XML_DECLARATION.sub("", text).encode("utf-8", "replace"), parser)
    except etree.XMLSyntaxError:
        return html_passages(text, reading)
    for element in tree.iter():
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition("}")[2]
    return _laid_out(tree, reading)


def html_text(html: str, reading: Reading) -> str:
    """The text of HTML alone; raises like :func:`html_passages`."""
    return "".join(piece for piece in html_passages(html, reading) if isinstance(piece, str))


def html_passages(html: str, reading: Reading) -> Passages:
    """The text of HTML, laid out in lines, below its headings; control characters are left out.

    Title, author, description, date and language are noted. Raises :class:`~service.errors.DocumentTooComplex` where
    it is nested too deeply, and :class:`MemoryError`.
    """
    from lxml import etree  # type: ignore[import-untyped, unused-ignore]

    parser = etree.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True)
    try:
        tree = etree.fromstring(html.encode("utf-8", "replace"), parser)
    except etree.XMLSyntaxError as error:
        # No HTML is wrong to libxml2; this is how lxml reports that it ran out of memory.
        raise MemoryError from error
    if parser.error_log.filter_from_fatals():
        # What libxml2 has read before it stopped would pass for the whole document.
        raise too_deep()
    if tree is None:
        return iter(())
    for behind in list(tree.itersiblings(tag=etree.Element)):
        tree.append(behind)  # what stands behind </html> makes a second tree, and is shown
    return _laid_out(tree, reading)


def _laid_out(tree: Any, reading: Reading) -> Passages:
    for element in tree.iter():
        if element.text:
            element.text = element.text.translate(CLEANED)
        if element.tail:
            element.tail = element.tail.translate(CLEANED)
    _note_head(tree, reading)
    recursion_limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(recursion_limit, _RECURSION_LIMIT))
    try:
        blocks = list(blocks_of(tree, reading.row_characters))
    finally:
        sys.setrecursionlimit(recursion_limit)
    reading.compare(lambda: shown_texts(tree), (block.text for block in blocks))
    return placed(blocks)


def _note_head(tree: Any, reading: Reading) -> None:
    title = tree.find(".//head/title")
    reading.name(None if title is None else title.text)
    reading.note("language", tree.get("lang"))
    for meta in tree.iterfind(".//head/meta"):
        name = (meta.get("name") or meta.get("property") or "").strip().lower()
        if name in _NOTED:
            reading.note(_NOTED[name], meta.get("content"))
        elif name == "og:title":
            reading.name(meta.get("content"))
