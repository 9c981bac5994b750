"""HTML, as lxml parses it and Inscriptis lays it out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any, Final

from service.intake.parsing.cleaning import CLEANED, too_deep, trimmed
from service.intake.parsing.encodings import decoded, marked_encoding, meta_encoding

_AMPERSAND: Final = "\ufdd0"
"""What stands in for ampersands during the layout.

Inscriptis decodes character references that lxml has already decoded, once more for every table around them. Without
ampersands it finds none.
"""

_LAID_OUT: Final = {**CLEANED, ord("&"): _AMPERSAND, ord(_AMPERSAND): "\ufffd"}

_MORE_BLOCKS: Final = (
    *("center", "dd", "details", "dialog", "dl", "dt", "fieldset", "form", "legend"),
    *("optgroup", "option", "search", "section", "summary"),
)
"""Elements that start a line in every browser but not in Inscriptis, which glues their text together."""

_RECURSION_LIMIT: Final = 10_000
"""libxml2 itself stops at 2,048 nested elements, and Inscriptis recurses once for each."""


def read(source: Path, encoding: str | None) -> Iterator[str]:
    """The text of an HTML file. A byte order mark, then its ``<meta>``, decides where no encoding is given."""
    content = source.read_bytes()
    yield html_text(decoded(content, encoding or marked_encoding(content) or meta_encoding(content)))


def html_text(html: str) -> str:
    """The text of HTML, laid out in lines; control characters are left out.

    Raises :class:`~service.errors.DocumentTooComplex` where it is nested too deeply, and :class:`MemoryError`.
    """
    from lxml import etree  # type: ignore[import-untyped, unused-ignore]

    # Without comments, since Inscriptis shows the text after one even where nothing is displayed.
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
        return ""
    for element in tree.iter():
        if element.text:
            element.text = element.text.translate(_LAID_OUT)
        if element.tail:
            element.tail = element.tail.translate(_LAID_OUT)
        if element.tag == "li" and not element.get("value", "0").isascii():
            # Inscriptis takes "²" for a number and fails.
            del element.attrib["value"]
    recursion_limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(recursion_limit, _RECURSION_LIMIT))
    try:
        text = _laid_out(tree)
    finally:
        sys.setrecursionlimit(recursion_limit)
    return trimmed(text.replace(_AMPERSAND, "&"))


def _laid_out(tree: Any) -> str:
    """Lay out an lxml tree as Inscriptis does, corrected where it would glue words or lines together."""
    from inscriptis.css_profiles import STRICT_CSS_PROFILE
    from inscriptis.html_engine import Inscriptis
    from inscriptis.html_properties import Display, WhiteSpace
    from inscriptis.model.config import ParserConfig
    from inscriptis.model.html_document_state import HtmlDocumentState
    from inscriptis.model.html_element import HtmlElement
    from inscriptis.model.tag import CustomHtmlTagHandlerMapping
    from inscriptis.model.tag.table_tag import table_start_handler

    styles = {
        **{element.tag: HtmlElement() for element in tree.iter()},
        **{tag: copy(style) for tag, style in STRICT_CSS_PROFILE.items()},
        **{tag: HtmlElement(display=Display.block) for tag in _MORE_BLOCKS},
        "template": HtmlElement(display=Display.none),
    }
    for tag, style in styles.items():
        if tag != "body" and style.whitespace is WhiteSpace.normal:
            # Inherit it, as CSS has it; else <code> within <pre> would lose its line breaks.
            style.whitespace = None

    def start_table(state: HtmlDocumentState, attributes: dict[str, str]) -> None:
        # A table starts a line, also after text that has no block element of its own.
        state.tags[-2].canvas.flush_inline()
        table_start_handler(state, attributes)

    handlers = CustomHtmlTagHandlerMapping(start_tag_mapping={"table": start_table}, end_tag_mapping={})
    config = ParserConfig(css=styles, custom_html_tag_handler_mapping=handlers)
    text: str = Inscriptis(tree, config).get_text()
    return text
