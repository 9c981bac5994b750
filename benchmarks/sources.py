"""What stands in a file, by a simple reading of its source that shares nothing with the service's.

Each function gives the file's characters in pieces that end between words: every text node, every cell, every value.
"""

from __future__ import annotations

import email
import email.policy
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from html.parser import HTMLParser
from typing import Any, Final
from xml.etree import ElementTree

Element = ElementTree.Element

_ENCODINGS: Final = ("utf-8-sig", "utf-16", "cp1252")


def text(content: bytes) -> Iterator[str]:
    """Plain text, source code and whatever else is text as it is."""
    yield _decoded(content)


def _decoded(content: bytes) -> str:
    for encoding in _ENCODINGS[:-1]:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return content.decode(_ENCODINGS[-1], "replace")


# -- markup -----------------------------------------------------------------------------------------------------------

_MARKDOWN_SYNTAX: Final = re.compile(
    r"""
    <!--.*?-->                                      # comments
    | (?<=\])\( \s* <?[^\s()<>]* (?:\([^\s()]*\)[^\s()<>]*)* >?  # where links lead to
    | (?<=\])\[[^\]]*\]                             # which definition they use
    | ^[ ]{0,3}\[[^\]^]+\]: .*?$                    # those definitions
    | </?[a-zA-Z][^<>]*>                            # tags
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_MARKDOWN_CODE: Final = re.compile(r"^[ ]*(`{3,}|~{3,})[^\n]*\n(.*?)^[ ]*\1", re.MULTILINE | re.DOTALL)


def markdown(content: bytes) -> Iterator[str]:
    """Markdown without addresses, tags and the languages of code."""
    source = re.sub(r"\A---\n.*?\n---\n", "", _decoded(content).replace("\r\n", "\n"), flags=re.DOTALL)
    pieces = _MARKDOWN_CODE.split(source)
    yield from (_MARKDOWN_SYNTAX.sub(" ", prose) for prose in pieces[::3])
    yield from pieces[2::3]


class _Shown(HTMLParser):
    """The text nodes of a page outside what is never shown."""

    _NEVER: Final = frozenset({"head", "script", "style", "template", "title", "annotation", "annotation-xml"})
    _INLINE: Final = frozenset("a abbr b big cite code em font i kbd mark s samp small span strong tt u".split())

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = [""]
        self._hidden: list[str] = []

    def handle_starttag(self, tag: str, _attributes: list[tuple[str, str | None]]) -> None:
        if tag in self._NEVER:
            self._hidden.append(tag)
        elif tag not in self._INLINE:
            self.texts.append("")

    def handle_startendtag(self, _tag: str, _attributes: list[tuple[str, str | None]]) -> None:
        self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        if self._hidden and tag == self._hidden[-1]:
            self._hidden.pop()
        elif tag not in self._INLINE:
            self.texts.append("")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.texts[-1] += data


def html(content: bytes) -> Iterator[str]:
    """The text nodes of a page."""
    parser = _Shown()
    parser.feed(_decoded(content))
    parser.close()
    yield from parser.texts


def epub(content: bytes) -> Iterator[str]:
    """The text nodes of all documents that the spine of a book names."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        main = next(name for name in archive.namelist() if name.endswith(".opf"))
        tree = ElementTree.fromstring(archive.read(main))
        items = {item.get("id"): item for item in tree.iter() if _name(item) == "item"}
        for reference in (items[part.get("idref")] for part in tree.iter() if _name(part) == "itemref"):
            if "nav" not in (reference.get("properties") or ""):
                folder = main.rpartition("/")[0]
                yield from html(archive.read(f"{folder}/{reference.get('href')}".lstrip("/")))


# -- office -----------------------------------------------------------------------------------------------------------


def _name(element: Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _value(element: Element | None, name: str) -> str:
    attributes = {} if element is None else element.attrib
    return next((value for key, value in attributes.items() if key.rpartition("}")[2] == name), "")


def _parts(content: bytes, pattern: str) -> Iterator[Element]:
    """The trees of the parts whose names match, in the order of their numbers."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if re.fullmatch(pattern, name)]
        for name in sorted(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)]):
            yield ElementTree.fromstring(archive.read(name))


_REPEATED: Final = frozenset({"Fallback", "del", "moveFrom"})


def _paragraphs(tree: Element) -> Iterator[str]:
    """All text elements of an Office part, those of a paragraph together."""
    line = ""
    if _name(tree) in _REPEATED:
        return
    for element in tree:
        if _name(element) == "t":
            line += element.text or ""
        else:
            between = _name(element) in {"p", "tab", "br", "tc", "oMath"} or _is_raised(element)
            pieces = list(_paragraphs(element))
            if between or len(pieces) != 1:
                yield line
                yield from pieces
                line = ""
            else:
                line += pieces[0]
    yield line


def _is_raised(run: Element) -> bool:
    return any(_name(part) == "vertAlign" or part.get("baseline", "0") != "0" for part in run.iter())


def docx(content: bytes) -> Iterator[str]:
    """All ``w:t`` of the body, the headers, the footers and the notes."""
    for tree in _parts(content, r"word/(?:document|header\d*|footer\d*|footnotes|endnotes)\.xml"):
        yield from _paragraphs(tree)


def pptx(content: bytes) -> Iterator[str]:
    """All ``a:t`` of slides and notes but numbers of slides, and all values of charts."""
    for tree in _parts(content, r"ppt/(?:slides/slide|notesSlides/notesSlide)\d+\.xml"):
        for shape in tree.iter():
            if _name(shape) in {"sp", "graphicFrame"} and not any(
                part.get("type") in {"sldNum", "dt"} for part in shape.iter() if _name(part) == "ph"
            ):
                yield from _paragraphs(shape)
    for tree in _parts(content, r"ppt/(?:charts/chart|diagrams/data)\d+\.xml"):
        yield from _paragraphs(tree)
        for element in tree.iter():
            if _name(element) in {"cat", "val", "xVal", "yVal", "tx", "bubbleSize"}:
                yield from (point.text or "" for point in element.iter() if _name(point) == "v")


def xlsx(content: bytes) -> Iterator[str]:
    """All cells of the sheets that are shown; of numbers those without a format of their own."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        trees = {name: ElementTree.fromstring(archive.read(name)) for name in archive.namelist() if _is_xml(name)}
    shared = [
        "".join(
            text.text or ""
            for run in entry
            for text in ([run, *run] if _name(run) in {"t", "r"} else [])
            if _name(text) == "t"
        )
        for tree in (trees[name] for name in trees if name.lower() == "xl/sharedstrings.xml")
        for entry in tree
    ]
    general = _general_styles(trees.get("xl/styles.xml"))
    targets = {relation.get("Id"): relation.get("Target", "") for relation in trees["xl/_rels/workbook.xml.rels"]}
    for sheet in trees["xl/workbook.xml"].iter():
        if _name(sheet) == "sheet" and sheet.get("state", "visible") == "visible":
            target = targets[_value_of_id(sheet)].lstrip("/")
            tree = trees.get(target, trees.get(f"xl/{target}"))
            for cell in tree.iter() if tree is not None else ():
                if _name(cell) == "c":
                    yield _cell(cell, shared, general)


def _is_xml(name: str) -> bool:
    return name.endswith((".xml", ".rels"))


def _value_of_id(sheet: Element) -> str:
    return next(value for key, value in sheet.attrib.items() if key.endswith("}id"))


def _general_styles(styles: Element | None) -> set[str]:
    """The numbers of the styles that show a number as it is."""
    formats: Iterable[Element] = (
        next((part for part in styles if _name(part) == "cellXfs"), []) if styles is not None else []
    )
    return {"0", "", *(str(number) for number, form in enumerate(formats) if form.get("numFmtId", "0") == "0")}


def _cell(cell: Element, shared: list[str], general: set[str]) -> str:
    value = next((part.text or "" for part in cell if _name(part) == "v"), "")
    match cell.get("t", "n"):
        case "s":
            return shared[int(value)]
        case "inlineStr":
            return "".join(text.text or "" for text in cell.iter() if _name(text) == "t")
        case "n":
            return f"{float(value):.15g}" if value and cell.get("s", "") in general else ""
    return "" if cell.get("t") == "b" else value


def odt(content: bytes) -> Iterator[str]:
    """All text nodes of the body and of headers and footers."""
    for part, name in (("content", "text"), ("styles", "master-styles")):
        for tree in _parts(content, rf"{part}\.xml"):
            for body in tree.iter():
                if _name(body) == name:
                    yield from _nodes(body)


_NO_TEXT: Final = frozenset(
    {"annotation", "tracked-changes", "note-citation", "table-of-content-source", "page-number"}
)
_INLINE: Final = frozenset({"span", "a", "s", "bookmark", "bookmark-start", "bookmark-end"})


def _nodes(element: Element) -> Iterator[str]:
    line = element.text or ""
    for part in element:
        pieces = [] if _name(part) in _NO_TEXT else list(_nodes(part))
        if _name(part) in _INLINE and len(pieces) == 1:
            line += pieces[0] + (" " if _name(part) == "s" else "")
        else:
            yield line
            yield from pieces
            line = ""
        line += part.tail or ""
    yield line


_RTF_TOKEN: Final = re.compile(rb"\\'([0-9a-f]{2})|\\([a-z]+)(-?\d+)? ?|\\(.)|([{}])|[\r\n]+|([^\\{}\r\n]+)", re.DOTALL)
_RTF_DESTINATIONS: Final = frozenset(
    b"fonttbl colortbl stylesheet info pict object themedata datastore listtable listoverridetable rsidtbl generator "
    b"latentstyles xmlnstbl fldinst bkmkstart bkmkend revtbl".split()
)

_RTF_BETWEEN: Final = frozenset(
    b"par tab cell row line sect page super nosupersub sub rquote lquote emdash endash".split()
)


def rtf(content: bytes) -> Iterator[str]:
    """The characters of an RTF file outside tables of fonts, styles and the like."""
    silent = [False]
    line = b""
    behind_unicode = False  # what stands there is for programs that do not know Unicode
    for token in _RTF_TOKEN.finditer(content):
        code, word, number, symbol, brace, characters = token.groups()
        if brace == b"{":
            silent.append(silent[-1])
        elif brace == b"}" and len(silent) > 1:
            silent.pop()
        elif symbol == b"*" or word in _RTF_DESTINATIONS:
            silent[-1] = True
        elif not silent[-1]:
            if word == b"u" and number:
                line += chr(int(number) % 65_536).encode("cp1252", "replace")
            elif code and not behind_unicode:
                line += bytes([int(code, 16)])
            elif word in _RTF_BETWEEN or symbol in {b"~", b"_"}:
                line += b" "
            elif characters or symbol in {b"{", b"}", b"\\"}:
                line += characters or symbol
        behind_unicode = word == b"u"
    yield line.decode("cp1252", "replace")


def pdf(content: bytes) -> Iterator[str]:
    """The characters of each page as PDFium gives them."""
    import pypdfium2

    with pypdfium2.PdfDocument(content) as document:
        document.init_forms()
        for page in document:
            pypdfium2.raw.FPDFPage_Flatten(page.raw, pypdfium2.raw.FLAT_PRINT)
        for number in range(len(document)):
            yield document[number].get_textpage().get_text_range()


# -- records ----------------------------------------------------------------------------------------------------------


def separated(content: bytes) -> Iterator[str]:
    """All cells, whatever of the usual characters stands between them."""
    for line in re.split(r"[\r\n]+", _decoded(content)):
        yield from re.split(r"[,;\t|]", line)


def json_values(content: bytes) -> Iterator[str]:
    """All names and values."""
    yield from _values(json.loads(_decoded(content)))


def json_lines(content: bytes) -> Iterator[str]:
    """The same of each line."""
    for line in _decoded(content).splitlines():
        if line.strip():
            yield from _values(json.loads(line))


def _values(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _values(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _values(inner)
    else:
        yield value if isinstance(value, str) else json.dumps(value)


def mail(content: bytes) -> Iterator[str]:
    """Subject, and the plain text of every part; HTML where a part has no plain text beside it."""
    message = email.message_from_bytes(content, policy=email.policy.default)
    yield str(message["subject"] or "")
    for part in message.walk():
        payload = part.get_payload(decode=True)
        if part.get_content_maintype() == "text" and isinstance(payload, bytes):
            if part.get_content_subtype() == "html":
                yield from html(payload)
            else:
                yield _decoded(payload)
        elif part.get_content_type() == "message/delivery-status":
            yield from (str(value) for inner in part.iter_parts() for value in inner.values())


SOURCES: Final[Mapping[str, Callable[[bytes], Iterator[str]]]] = {
    "md": markdown,
    "html": html,
    "xhtml": html,
    "epub": epub,
    "docx": docx,
    "docm": docx,
    "pptx": pptx,
    "xlsx": xlsx,
    "odt": odt,
    "rtf": rtf,
    "pdf": pdf,
    "csv": separated,
    "tsv": separated,
    "json": json_values,
    "jsonl": json_lines,
    "eml": mail,
}
"""For each extension what stands in such a file; files of any other are text."""
