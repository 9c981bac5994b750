"""The smallest files of the formats that are archives of XML, built from their parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qrag.wire.media_types import MediaType
from tests.service.files import OFFICE, PACKAGE, packed, relationships

DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"
SLIDES = "http://schemas.openxmlformats.org/presentationml/2006/main"
SHEETS = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OPEN_DOCUMENT = "urn:oasis:names:tc:opendocument:xmlns"


def _types(main: str, content_type: str, others: Mapping[str, str] = {}) -> str:
    overrides = "".join(
        f'<Override PartName="/{part}" ContentType="{kind}"/>' for part, kind in {main: content_type, **others}.items()
    )
    return (
        f'<Types xmlns="{PACKAGE}/content-types"><Default Extension="xml" ContentType="application/xml"/>'
        f'<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f"{overrides}</Types>"
    )


def shape(*paragraphs: str, placeholder: str = "body") -> str:
    """A shape of a slide with these paragraphs, which are XML."""
    lines = "".join(f"<a:p><a:r><a:t>{text}</a:t></a:r></a:p>" for text in paragraphs)
    return (
        '<p:sp><p:nvSpPr><p:cNvPr id="2" name="s"/><p:cNvSpPr/>'
        f'<p:nvPr><p:ph type="{placeholder}"/></p:nvPr></p:nvSpPr>'
        f"<p:txBody>{lines}</p:txBody></p:sp>"
    )


def slide_table(*rows: Sequence[str]) -> str:
    """A table of a slide."""
    cells = "".join(
        "<a:tr>"
        + "".join(f"<a:tc><a:txBody><a:p><a:r><a:t>{text}</a:t></a:r></a:p></a:txBody></a:tc>" for text in row)
        + "</a:tr>"
        for row in rows
    )
    return (
        f"<p:graphicFrame><a:graphic><a:graphicData><a:tbl>{cells}</a:tbl></a:graphicData></a:graphic></p:graphicFrame>"
    )


def pptx(slides: Sequence[str], parts: Mapping[str, str] = {}, attributes: Mapping[int, str] = {}) -> bytes:
    """A presentation of slides with these shapes; ``attributes`` are those of some slides."""
    namespaces = f'xmlns:p="{SLIDES}" xmlns:a="{DRAWING}" xmlns:r="{OFFICE}"'
    numbers = range(1, len(slides) + 1)
    listed = "".join(f'<p:sldId id="{255 + number}" r:id="r{number}"/>' for number in numbers)
    return packed(
        {
            "[Content_Types].xml": _types("ppt/presentation.xml", f"{MediaType.PPTX}.main+xml"),
            "_rels/.rels": relationships(("r1", "officeDocument", "ppt/presentation.xml")),
            "ppt/presentation.xml": f"<p:presentation {namespaces}><p:sldIdLst>{listed}</p:sldIdLst></p:presentation>",
            "ppt/_rels/presentation.xml.rels": relationships(
                *((f"r{number}", "slide", f"slides/slide{number}.xml") for number in numbers)
            ),
            **{
                f"ppt/slides/slide{number}.xml": f"<p:sld {namespaces} {attributes.get(number, '')}><p:cSld><p:spTree>"
                f"{shapes}</p:spTree></p:cSld></p:sld>"
                for number, shapes in zip(numbers, slides, strict=True)
            },
            **parts,
        }
    )


def xlsx(sheets: Mapping[str, Sequence[Sequence[str | float]]], hidden: Sequence[str] = ()) -> bytes:
    """A workbook of sheets by name, each with its rows."""
    numbers = range(1, len(sheets) + 1)
    states = {name: ' state="hidden"' if name in hidden else "" for name in sheets}
    names = "".join(
        f'<sheet name="{name}" sheetId="{number}" r:id="r{number}"{states[name]}/>'
        for number, name in zip(numbers, sheets, strict=True)
    )

    def cell(column: int, row: int, value: str | float) -> str:
        place = f'r="{chr(65 + column)}{row}"'
        if isinstance(value, str):
            return f'<c {place} t="inlineStr"><is><t>{value}</t></is></c>' if value else ""
        return f"<c {place}><v>{value}</v></c>"

    def content(rows: Sequence[Sequence[str | float]]) -> str:
        lines = "".join(
            f'<row r="{number}">{"".join(cell(column, number, value) for column, value in enumerate(row))}</row>'
            for number, row in enumerate(rows, start=1)
        )
        return f'<worksheet xmlns="{SHEETS}"><sheetData>{lines}</sheetData></worksheet>'

    return packed(
        {
            "[Content_Types].xml": _types(
                "xl/workbook.xml",
                f"{MediaType.XLSX}.main+xml",
                {
                    f"xl/worksheets/sheet{number}.xml": "application/vnd.openxmlformats-officedocument."
                    "spreadsheetml.worksheet+xml"
                    for number in numbers
                },
            ),
            "_rels/.rels": relationships(("r1", "officeDocument", "xl/workbook.xml")),
            "xl/workbook.xml": f'<workbook xmlns="{SHEETS}" xmlns:r="{OFFICE}"><sheets>{names}</sheets></workbook>',
            "xl/_rels/workbook.xml.rels": relationships(
                *((f"r{number}", "worksheet", f"worksheets/sheet{number}.xml") for number in numbers)
            ),
            **{
                f"xl/worksheets/sheet{number}.xml": content(rows)
                for number, rows in zip(numbers, sheets.values(), strict=True)
            },
        }
    )


def odt(body: str, styles: str = "", parts: Mapping[str, str] = {}) -> bytes:
    """An OpenDocument text."""
    names = {"office": "office", "text": "text", "table": "table", "style": "style", "draw": "drawing"}
    namespaces = " ".join(f'xmlns:{short}="{OPEN_DOCUMENT}:{name}:1.0"' for short, name in names.items())
    return packed(
        {
            "mimetype": MediaType.ODT.value,
            "content.xml": f"<office:document-content {namespaces}><office:automatic-styles>{styles}"
            f"</office:automatic-styles><office:body><office:text>{body}</office:text></office:body>"
            "</office:document-content>",
            **parts,
        }
    )


def epub(chapters: Sequence[str], metadata: str = "") -> bytes:
    """A book of chapters, which are the content of XHTML bodies."""
    numbers = range(1, len(chapters) + 1)
    items = "".join(
        f'<item id="c{number}" href="text/c{number}.xhtml" media-type="application/xhtml+xml"/>' for number in numbers
    )
    spine = "".join(f'<itemref idref="c{number}"/>' for number in numbers)
    return packed(
        {
            "mimetype": MediaType.EPUB.value,  # first, and not packed
            "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>',
            "OEBPS/book.opf": '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">'
            f"<metadata>{metadata}</metadata><manifest>{items}"
            '<item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/></manifest>'
            f'<spine><itemref idref="nav"/>{spine}</spine></package>',
            "OEBPS/nav.xhtml": "<html><body><p>Contents</p></body></html>",
            **{
                f"OEBPS/text/c{number}.xhtml": '<?xml version="1.0" encoding="utf-8"?>'
                f'<html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head><body>{chapter}</body></html>'
                for number, chapter in zip(numbers, chapters, strict=True)
            },
        }
    )
