"""The process that reads one uploaded document: ``python -m service.intake.parsing.worker``.

It takes a :class:`service.intake.parsing.process.WorkerRequest` from standard input, limits itself, and writes the
text. Parsers are imported where they are used: a worker reads one document and needs one of them.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import resource
import sys
import traceback
from collections.abc import Iterator
from copy import copy
from io import BytesIO
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile, ZipFile

from qrag.wire.media_types import MediaType
from service.errors import (
    DocumentTooComplex,
    EncryptedDocument,
    InvalidEncoding,
    ServiceError,
    UnreadableDocument,
)
from service.intake.parsing.process import FILE_FAILED, REFUSED, WorkerRefusal, WorkerRequest

#: Control characters carry no text, and lxml refuses to store them.
_CLEANED: Final = {
    code: " " if chr(code).isspace() else None for code in (*range(0x20), 0x7F) if chr(code) not in "\t\n"
}

#: Inscriptis decodes character references that lxml has already decoded, once more for every table
#: around them. Without ampersands it finds none; this noncharacter stands in for them meanwhile.
_AMPERSAND: Final = "\ufdd0"
_LAID_OUT: Final = {**_CLEANED, ord("&"): _AMPERSAND, ord(_AMPERSAND): "\ufffd"}

#: Elements that start a line in every browser but not in Inscriptis, which glues their text together.
_MORE_BLOCKS: Final = (
    *("center", "dd", "details", "dialog", "dl", "dt", "fieldset", "form", "legend"),
    *("optgroup", "option", "search", "section", "summary"),
)

#: libxml2 itself stops at 2,048 nested elements, and Inscriptis recurses once for each.
_RECURSION_LIMIT: Final = 10_000

_BYTE_ORDER_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_META_SEARCHED_BYTES: Final = 1024
#: A declaration of UTF-16 that can be read as ASCII is false; browsers ignore it as well.
_META_CHARSET: Final = re.compile(rb"""(?i)<meta\s[^>]*\bcharset\s*=\s*["']?\s*(?!utf-?16)([a-z0-9_.:-]+)""")
#: Encodings that the WHATWG Encoding Standard reads as a superset which pages so labelled really use.
_USED_FOR: Final = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}

_COMPOUND_FILE_SIGNATURE: Final = bytes.fromhex("d0cf11e0a1b11ae1")
_OLD_WORD_STREAM: Final = "WordDocument".encode("utf-16-le")
_ZIP_ENTRY_ENCRYPTED: Final = 0x1
_MAX_ENTRIES: Final = 10_000
_MAX_UNPACKED_BYTES: Final = 512 << 20
#: XML shrinks to a tenth as a rule; small files may shrink far more without being a threat.
_MAX_UNPACKED_RATIO: Final = 100
_UNSUSPICIOUS_BYTES: Final = 64 << 20
_NOTE_BACK_LINK: Final = re.compile(r'<a href="#(?:foot|end)note-ref-[^"]*">↑</a>')

#: Where PDFium has joined a word that a hyphen split between two lines; elsewhere the same character
#: stands for a glyph without Unicode.
_LINE_END_HYPHEN: Final = re.compile(r"(?<=\w)\ufffe(?=(\w))")


def convert(
    source: Path,
    target: Path,
    media_type: MediaType,
    *,
    encoding: str | None,
    output_bytes: int,
) -> None:
    """Write the text of ``source`` to ``target`` in this process, limited in output only.

    Raises:
        ServiceError: as :func:`service.intake.parsing.process.extract_text` says.
        OSError: if a file cannot be read or written.
        ImportError: if a parser is not installed.
    """
    try:
        _write(_text(source, media_type, encoding), target, output_bytes)
    except (ServiceError, OSError, ImportError):
        raise
    except MemoryError:
        raise DocumentTooComplex(
            "Reading the document needs more memory than its parser may use; split it up."
        ) from None
    except RecursionError:
        raise _too_deep() from None
    except Exception as error:
        # Parsers signal damage by whatever they stumble over: KeyError, zlib.error, struct.error, ...
        raise UnreadableDocument(
            f"The document cannot be read as {media_type.value}: it is damaged, or of another type. "
            "Open it and save it anew in that type, then send it again."
        ) from error


def _write(pieces: Iterator[str], target: Path, output_bytes: int) -> None:
    written = 0
    with target.open("wb") as output:
        for piece in pieces:
            # "replace", since some decoders let lone surrogates through.
            encoded = piece.encode("utf-8", "replace")
            written += len(encoded)
            if written > output_bytes:
                raise DocumentTooComplex(
                    f"The document holds more text than the limit of {output_bytes:,} bytes; split it up."
                )
            output.write(encoded)


def _text(source: Path, media_type: MediaType, encoding: str | None) -> Iterator[str]:
    match media_type:
        case MediaType.PDF:
            yield from _pdf_text(source)
        case MediaType.DOCX:
            yield _html_text(_docx_html(source.read_bytes()))
        case MediaType.HTML:
            content = source.read_bytes()
            declared = encoding or _marked_encoding(content) or _meta_encoding(content)
            yield _html_text(_decoded(content, declared))
        case MediaType.MARKDOWN:
            content = source.read_bytes()
            declared = encoding or _marked_encoding(content)
            yield _html_text(_markdown_html(_decoded(content, declared)))
        case _:
            raise ValueError(f"no parser for {media_type.value}")


def _marked_encoding(content: bytes) -> str | None:
    return next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), None)


def _meta_encoding(content: bytes) -> str | None:
    declared = _META_CHARSET.search(content, 0, _META_SEARCHED_BYTES)
    return declared[1].decode("ascii") if declared else None


def _decoded(content: bytes, encoding: str | None) -> str:
    try:
        codec = codecs.lookup(encoding or "utf-8").name
        text = content.decode(_USED_FOR.get(codec, codec))
    except UnicodeDecodeError as error:
        raise InvalidEncoding(
            f"The text is not valid {error.encoding} at byte offset {error.start}. "
            "Convert it to UTF-8, or send the charset that it is in."
        ) from None
    except (LookupError, ValueError):
        raise InvalidEncoding(
            "The charset that the document is declared to be in is not known. Convert it to UTF-8."
        ) from None
    return text.removeprefix("\ufeff")


def _markdown_html(markdown: str) -> str:
    from markdown_it import MarkdownIt

    html: str = MarkdownIt("commonmark").enable("table").render(markdown)
    return html


def _html_text(html: str) -> str:
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
        raise _too_deep()
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
    return _trimmed(text.replace(_AMPERSAND, "&"))


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


def _docx_html(content: bytes) -> str:
    import mammoth

    _check_archive(content)
    try:
        result = mammoth.convert_to_html(
            BytesIO(content), convert_image=lambda _image: [], include_embedded_style_map=False
        )
    except OSError:
        raise UnreadableDocument(
            "The file is a ZIP archive without a Word document in it. "
            "Open it in a word processor, save it as .docx and send that."
        ) from None
    html: str = result.value
    return _NOTE_BACK_LINK.sub("", html)


def _check_archive(content: bytes) -> None:
    """Refuse what is no DOCX, is encrypted, or unpacks to a size meant to do harm."""
    if content.startswith(_COMPOUND_FILE_SIGNATURE):
        # Office wraps what it encrypts into the container of its old formats.
        if _OLD_WORD_STREAM in content:
            raise UnreadableDocument("The file is in the old .doc format; save it as .docx and send that.")
        raise _encrypted("DOCX")
    try:
        with ZipFile(BytesIO(content)) as archive:
            entries = archive.infolist()
    except BadZipFile:
        raise UnreadableDocument(
            "The file is not a DOCX file, or its end is missing. "
            "Open it in a word processor, save it as .docx and send that."
        ) from None
    if any(entry.flag_bits & _ZIP_ENTRY_ENCRYPTED for entry in entries):
        raise _encrypted("DOCX")
    # An entry that unpacks to more than it declares is cut off there by zipfile, which then reports it.
    unpacked = sum(entry.file_size for entry in entries)
    if (
        len(entries) > _MAX_ENTRIES
        or unpacked > _MAX_UNPACKED_BYTES
        or unpacked > max(_UNSUSPICIOUS_BYTES, _MAX_UNPACKED_RATIO * len(content))
    ):
        raise DocumentTooComplex(
            f"The DOCX file holds {len(entries):,} parts that unpack to {unpacked:,} bytes, more than is "
            "accepted from a file of its size. Remove embedded files, or split it up."
        )


def _pdf_text(source: Path) -> Iterator[str]:
    import pypdfium2

    source.stat()  # pypdfium2 also reports a missing file, but without its errno
    try:
        document = pypdfium2.PdfDocument(source)
    except pypdfium2.PdfiumError as error:
        if error.err_code in {pypdfium2.raw.FPDF_ERR_PASSWORD, pypdfium2.raw.FPDF_ERR_SECURITY}:
            raise _encrypted("PDF") from None
        raise
    found = False
    with document:
        for page in document:
            text_page = page.get_textpage()
            # Not get_text_bounded: it joins lines of rotated text without a space.
            text = _cleaned_page(text_page.get_text_range())
            text_page.close()
            page.close()
            if text:
                yield f"\n\n{text}" if found else text
                found = True
    if not found:
        raise UnreadableDocument(
            "The PDF file holds no text layer: it is a scan, or its letters are drawn as pictures. "
            "Run OCR (text recognition) on it first, then send the result."
        )


def _cleaned_page(text: str) -> str:
    # Before a small letter the hyphen split a word; otherwise it is part of one: Anglo-Saxon, F-16.
    text = _LINE_END_HYPHEN.sub(lambda hyphen: "" if hyphen[1].islower() else "-", text)
    text = text.replace("\ufffe", "").replace("\r\n", "\n").replace("\r", "\n").translate(_CLEANED)
    return _trimmed(text)


def _trimmed(text: str) -> str:
    """Drop what lines end in, such as the padding of table cells, and blank lines at both ends."""
    return "\n".join(line.rstrip() for line in text.split("\n")).strip("\n")


def _encrypted(kind: str) -> EncryptedDocument:
    return EncryptedDocument(f"The {kind} file needs a password; save it without one and send that.")


def _too_deep() -> DocumentTooComplex:
    return DocumentTooComplex(
        "The document's elements are nested too deeply to be read. Simplify it, for instance by "
        "opening it and saving it anew, then send it again."
    )


def _limit(kind: int, value: int, grace: int = 0) -> None:
    """Lower a resource limit of this process, never above what it already has."""
    _, ceiling = resource.getrlimit(kind)
    if ceiling == resource.RLIM_INFINITY:
        ceiling = value + grace
    resource.setrlimit(kind, (min(value, ceiling), min(value + grace, ceiling)))


def main() -> int:
    """Serve one request; return 0, or ``REFUSED`` or ``FILE_FAILED`` with the answer that goes with it."""
    request: WorkerRequest = json.load(sys.stdin)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, request["memory_bytes"])
    # At the lower limit the kernel sends SIGXCPU, by which the parent knows; at the upper, SIGKILL.
    _limit(resource.RLIMIT_CPU, request["processor_seconds"], grace=1)
    try:
        convert(
            Path(request["source"]),
            Path(request["target"]),
            MediaType(request["media_type"]),
            encoding=request["encoding"],
            output_bytes=request["output_bytes"],
        )
    except ServiceError as error:
        refusal: WorkerRefusal = {"error": type(error).__name__, "detail": error.detail}
        print(json.dumps(refusal))
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        return REFUSED
    except OSError as error:
        if error.errno is None:
            raise
        print(error.errno)
        return FILE_FAILED
    return 0


if __name__ == "__main__":
    try:
        status = main()
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # The text is complete: tearing down large trees, or a C++ library short of memory, adds nothing.
    os._exit(status)
