"""What a word processor shows of a DOCX file is text, whatever it is stored as; what it hides is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from qrag.wire.media_types import MediaType
from service.errors import UnreadableDocument
from service.intake.parsing.reading import Reading
from service.intake.parsing.worker import convert
from tests.service.files import MEBIBYTE, OFFICE, WORD, Extract, docx, paragraph, relationships

MATH = "http://schemas.openxmlformats.org/officeDocument/2006/math"


def run(content: str, properties: str = "") -> str:
    return f"<w:r><w:rPr>{properties}</w:rPr>{content}</w:r>"


def words(text: str, properties: str = "") -> str:
    return run(f"<w:t xml:space='preserve'>{text}</w:t>", properties)


def field(result: str, begin: str = "") -> str:
    return (
        run(f"<w:fldChar w:fldCharType='begin'>{begin}</w:fldChar>")
        + run("<w:instrText> PAGEREF x </w:instrText>")
        + run("<w:fldChar w:fldCharType='separate'/>")
        + result
        + run("<w:fldChar w:fldCharType='end'/>")
    )


def table(*rows: str) -> str:
    return f"<w:tbl>{''.join(rows)}</w:tbl>"


def row(*cells: str, properties: str = "") -> str:
    return f"<w:tr><w:trPr>{properties}</w:trPr>{''.join(cells)}</w:tr>"


def cell(content: str, properties: str = "") -> str:
    return f"<w:tc><w:tcPr>{properties}</w:tcPr>{content}</w:tc>"


BOX = (
    "<w:drawing><a:graphic xmlns:a='a'><wps:wsp xmlns:wps='s'><wps:txbx><w:txbxContent>"
    f"{paragraph('Boxed.')}</w:txbxContent></wps:txbx></wps:wsp></a:graphic></w:drawing>"
)
OLD_BOX = f"<w:pict><v:textbox xmlns:v='v'><w:txbxContent>{paragraph('Boxed.')}</w:txbxContent></v:textbox></w:pict>"
EITHER_BOX = (
    "<mc:AlternateContent xmlns:mc='m'>"
    f"<mc:Choice>{BOX}</mc:Choice><mc:Fallback>{OLD_BOX}</mc:Fallback></mc:AlternateContent>"
)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (words("See ") + f"<w:fldSimple w:instr='REF a'>{words('Section 4')}</w:fldSimple>", "See Section 4"),
        (words("on page ") + field(words("17")) + words("."), "on page 17."),
        (words("a ") + field(words("b") + field(words("c"))) + words(" d"), "a bc d"),
        (f"<w:dir w:val='rtl'>{words('שלום')}</w:dir><w:bdo w:val='ltr'>{words(' abc')}</w:bdo>", "שלום abc"),
        (run(f"<w:ruby><w:rt>{words('kan')}</w:rt><w:rubyBase>{words('漢')}</w:rubyBase></w:ruby>"), "漢(kan)"),
        (run("<w:t>In</w:t><w:noBreakHyphen/><w:t>Transit</w:t>"), "In-Transit"),
        (run("<w:t>a</w:t><w:br/><w:t>b</w:t><w:cr/><w:t>c</w:t><w:tab/><w:t>d</w:t>"), "a\nb\nc d"),
        (words("x") + words("2", "<w:vertAlign w:val='superscript'/>") + words(" is"), "x^2 is"),
        (words("10") + words("1", "<w:vertAlign w:val='superscript'/>") * 2 + words("."), "10^11."),
        (words("H") + words("2", "<w:vertAlign w:val='subscript'/>") + words("O"), "H2O"),
        (words("1") + words("st", "<w:vertAlign w:val='superscript'/>") + words(" of May"), "1st of May"),
        (words("Hidden", "<w:vanish/>") + words("Shown", "<w:vanish w:val='false'/>"), "Shown"),
        (f"<w:ins>{words('new')}</w:ins><w:del><w:r><w:delText>old</w:delText></w:r></w:del>", "new"),
        (f"<w:moveFrom>{words('moved')}</w:moveFrom><w:moveTo>{words('moved')}</w:moveTo>", "moved"),
        (field("", "<w:ffData><w:checkBox><w:checked/></w:checkBox></w:ffData>") + words(" Smoker"), "☒ Smoker"),
        (field("", "<w:ffData><w:checkBox><w:default w:val='0'/></w:checkBox></w:ffData>") + words(" No"), "☐ No"),
        (
            field(
                "",
                "<w:ffData><w:ddList><w:result w:val='1'/><w:listEntry w:val='red'/><w:listEntry w:val='blue'/>"
                "</w:ddList></w:ffData>",
            ),
            "blue",
        ),
        (run("<w:sym w:font='Wingdings' w:char='F0FE'/>") + words(" Yes"), "☒ Yes"),
        (f"<w:sdt><w:sdtPr/><w:sdtContent>{words('controlled')}</w:sdtContent></w:sdt>", "controlled"),
        (words("Before.") + run(BOX) + words(" After."), "Before. After.\n\nBoxed."),
        (words("Before.") + run(OLD_BOX), "Before.\n\nBoxed."),
        (words("Before.") + run(EITHER_BOX), "Before.\n\nBoxed."),
        (run("<w:drawing><wp:docPr xmlns:wp='w' descr='A mill'/></w:drawing>"), "A mill"),
    ],
)
def test_what_is_shown_of_a_paragraph(convert_here: Extract, content: str, expected: str) -> None:
    assert convert_here(docx(f"<w:p>{content}</w:p>"), MediaType.DOCX) == expected


@pytest.mark.parametrize(
    ("equation", "expected"),
    [
        ("<m:f><m:num>{a + b}</m:num><m:den>{2}</m:den></m:f>", "(a + b)/2"),
        ("<m:sSup><m:e>{10}</m:e><m:sup>{6}</m:sup></m:sSup>", "10^6"),
        ("<m:sSubSup><m:e>{x}</m:e><m:sub>{1}</m:sub><m:sup>{2}</m:sup></m:sSubSup>", "x_1^2"),
        ("<m:rad><m:deg/><m:e>{x+1}</m:e></m:rad>", "√(x+1)"),
        ("<m:rad><m:deg>{3}</m:deg><m:e>{x}</m:e></m:rad>", "root(3, x)"),
        (
            "<m:nary><m:naryPr><m:chr m:val='∑'/></m:naryPr>"
            "<m:sub>{i=1}</m:sub><m:sup>{n}</m:sup><m:e>{i}</m:e></m:nary>",
            "∑_(i=1)^n i",
        ),
        ("<m:d><m:dPr><m:begChr m:val='['/><m:endChr m:val=']'/></m:dPr><m:e>{a}</m:e><m:e>{b}</m:e></m:d>", "[a, b]"),
        (
            "<m:m><m:mr><m:e>{1}</m:e><m:e>{2}</m:e></m:mr><m:mr><m:e>{3}</m:e><m:e>{4}</m:e></m:mr></m:m>",
            "[1, 2; 3, 4]",
        ),
    ],
)
def test_equations_are_lines(convert_here: Extract, equation: str, expected: str) -> None:
    content = equation.replace("{", "<m:r><m:t>").replace("}", "</m:t></m:r>")
    body = f"<w:p>{words('It is ')}<m:oMath xmlns:m='{MATH}'>{content}</m:oMath>{words(' here.')}</w:p>"
    assert convert_here(docx(body), MediaType.DOCX) == f"It is {expected} here."


def numbered(level: int, number: int = 1) -> str:
    return f"<w:numPr><w:ilvl w:val='{level}'/><w:numId w:val='{number}'/></w:numPr>"


def level(number: int, form: str, text: str) -> str:
    return f"<w:lvl w:ilvl='{number}'><w:numFmt w:val='{form}'/><w:lvlText w:val='{text}'/></w:lvl>"


NUMBERING = (
    f"<w:numbering xmlns:w='{WORD}'><w:abstractNum w:abstractNumId='0'>{level(0, 'decimal', '%1.')}"
    f"{level(1, 'lowerLetter', '(%2)')}{level(2, 'upperRoman', '%1.%2.%3')}</w:abstractNum>"
    f"<w:abstractNum w:abstractNumId='1'>{level(0, 'bullet', '')}</w:abstractNum>"
    "<w:num w:numId='1'><w:abstractNumId w:val='0'/></w:num><w:num w:numId='2'><w:abstractNumId w:val='1'/></w:num>"
    "<w:num w:numId='3'><w:abstractNumId w:val='0'/><w:lvlOverride w:ilvl='0'><w:startOverride w:val='7'/>"
    "</w:lvlOverride></w:num></w:numbering>"
)


def test_numbers_go_on_after_what_stands_between_and_start_where_a_list_says(convert_here: Extract) -> None:
    body = (
        paragraph("Pay.", numbered(0))
        + paragraph("A plain one.")
        + paragraph("Keep.", numbered(0))
        + paragraph("under it", numbered(1))
        + paragraph("and this", numbered(1))
        + paragraph("deep", numbered(2))
        + paragraph("a bullet", numbered(0, 2))
        + paragraph("Seven.", numbered(0, 3))
        + paragraph("no number", numbered(0, 0))
    )
    text = convert_here(docx(body, {"word/numbering.xml": NUMBERING}), MediaType.DOCX)
    assert [line for line in text.split("\n") if line] == [
        "1. Pay.",
        "A plain one.",
        "2. Keep.",
        "  (a) under it",
        "  (b) and this",
        "    2.b.I deep",
        "- a bullet",
        "7. Seven.",
        "no number",
    ]


STYLES = (
    f"<w:styles xmlns:w='{WORD}'>"
    f"<w:style w:styleId='H1'><w:name w:val='heading 1'/><w:pPr>{numbered(0)}</w:pPr></w:style>"
    "<w:style w:styleId='Mine'><w:basedOn w:val='H1'/></w:style>"
    "<w:style w:styleId='Secret'><w:rPr><w:vanish/></w:rPr></w:style></w:styles>"
)


def read(tmp_path: Path, content: bytes) -> tuple[str, Reading, list[tuple[int, dict[str, object]]]]:
    source, target, reading = tmp_path / "source", tmp_path / "target", Reading()
    source.write_bytes(content)
    places = convert(source, target, MediaType.DOCX, reading=reading, output_bytes=MEBIBYTE)
    return target.read_text(), reading, places


def test_styles_make_headings_numbers_and_hidden_words(tmp_path: Path) -> None:
    body = (
        paragraph("Scope", "<w:pStyle w:val='Mine'/>")
        + f"<w:p>{words('secret', '<w:rStyle w:val=' + repr('Secret') + '/>')}{words('Text.')}</w:p>"
        + paragraph("Terms", "<w:outlineLvl w:val='1'/>")
        + paragraph("More.")
    )
    content = docx(body, {"word/styles.xml": STYLES, "word/numbering.xml": NUMBERING})
    text, _, places = read(tmp_path, content)
    assert text == "1. Scope\n\nText.\n\nTerms\n\nMore."
    assert places == [
        (0, {"headings": ["1. Scope"]}),
        (text.index("Terms"), {"headings": ["1. Scope", "Terms"]}),
    ]


def test_headers_and_footers_come_once_and_notes_last(convert_here: Extract) -> None:
    def part(kind: str, text: str) -> str:
        return f"<w:{kind} xmlns:w='{WORD}'>{paragraph(text)}</w:{kind}>"

    body = f"<w:p>{words('Text')}{run(chr(60) + 'w:endnoteReference w:id=' + repr('4') + '/>')}{words('.')}</w:p>"
    parts = {
        "word/_rels/document.xml.rels": relationships(
            ("h1", "header", "header1.xml"), ("h2", "header", "header2.xml"), ("f1", "footer", "footer1.xml")
        ),
        "word/header1.xml": part("hdr", "Acme Ltd"),
        "word/header2.xml": part("hdr", "Acme Ltd"),
        "word/footer1.xml": part("ftr", "No. 4711"),
        "word/endnotes.xml": f"<w:endnotes xmlns:w='{WORD}'><w:endnote w:id='4'>{paragraph('A note.')}</w:endnote>"
        f"<w:endnote w:id='5'>{paragraph('Of nothing.')}</w:endnote></w:endnotes>",
    }
    text = convert_here(docx(body, parts), MediaType.DOCX)
    assert text.split("\n\n") == ["Acme Ltd", "Text[1].", "No. 4711", "1. A note."]


def test_tables_with_merged_cells_heads_and_tables_inside(convert_here: Extract) -> None:
    merged = "<w:vMerge w:val='restart'/>", "<w:vMerge/>"
    body = table(
        row(cell(paragraph("Region")), cell(paragraph("Q1")), cell(paragraph("Q2")), properties="<w:tblHeader/>"),
        row(cell(paragraph("North"), merged[0]), cell(paragraph("10")), cell(paragraph("20"))),
        row(cell(paragraph(""), merged[1]), cell(paragraph("30") + paragraph("more"), "<w:gridSpan w:val='2'/>")),
        row(cell(paragraph("South")), cell(table(row(cell(paragraph("a")), cell(paragraph("b")))) + paragraph(""))),
    )
    assert convert_here(docx(body), MediaType.DOCX).split("\n\n") == [
        "Region: North; Q1: 10; Q2: 20",
        "Region: North; Q1 Q2: 30, more",
        "Region: South; Q1: a; b",
    ]


def test_a_first_row_in_bold_is_a_head(convert_here: Extract) -> None:
    bold = [cell(f"<w:p>{words(text, '<w:b/>')}</w:p>") for text in ("Item", "Price")]
    body = table(row(*bold), row(cell(paragraph("Bread")), cell(paragraph("3"))))
    assert convert_here(docx(body), MediaType.DOCX) == "Item: Bread; Price: 3"


def test_embedded_pages_and_texts_are_read_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    names = ("page.html", "text.txt", "old.rtf")
    body = "".join(f"<w:altChunk xmlns:r='{OFFICE}' r:id='c{number}'/>" for number in range(3))
    targets = [(f"c{number}", "aFChunk", name) for number, name in enumerate(names)]
    picture = run("<w:drawing><pic:pic xmlns:pic='p'/></w:drawing>")
    parts = {
        "word/_rels/document.xml.rels": relationships(*targets),
        "word/page.html": "<p>A page &amp; more.</p>",
        "word/text.txt": "A text.",
        "word/old.rtf": "{\\rtf1 no}",
    }
    text, reading, _ = read(tmp_path, docx(f"<w:p>{picture}</w:p>{body}", parts))
    assert text == "A page & more.\n\nA text."
    assert len(reading.warnings) == 2
    assert any("Pictures" in warning for warning in reading.warnings)
    assert any(".rtf" in warning for warning in reading.warnings)


def test_a_document_of_pictures_alone_is_refused(convert_here: Extract) -> None:
    with pytest.raises(UnreadableDocument, match="OCR"):
        convert_here(docx(f"<w:p>{run('<w:drawing/>')}</w:p>"), MediaType.DOCX)


def test_core_properties_become_title_and_metadata(tmp_path: Path) -> None:
    core = (
        "<cp:coreProperties xmlns:cp='c' xmlns:dc='d'><dc:title>The  Mill</dc:title><dc:creator>Ida Holm</dc:creator>"
        "<dc:language>en-GB</dc:language><cp:keywords/></cp:coreProperties>"
    )
    parts = {
        "_rels/.rels": relationships(
            ("r1", "officeDocument", "word/document.xml"), ("r2", "core-properties", "docProps/core.xml")
        ),
        "docProps/core.xml": core,
    }
    _, reading, _ = read(tmp_path, docx(paragraph("Text."), parts))
    assert (reading.title, reading.metadata) == ("The Mill", {"author": "Ida Holm", "language": "en-GB"})


def test_numbered_paragraphs_without_text_count(convert_here: Extract) -> None:
    deleted = "<w:rPr><w:del w:id='1'/></w:rPr>"
    body = "".join(
        (
            paragraph("one", numbered(0)),
            f"<w:p><w:pPr>{numbered(0)}</w:pPr></w:p>",
            f"<w:p><w:pPr>{numbered(0)}{deleted}</w:pPr></w:p>",
            paragraph("three", numbered(0)),
        )
    )
    parts = {
        "word/_rels/document.xml.rels": relationships(("r1", "numbering", "numbering.xml")),
        "word/numbering.xml": NUMBERING,
    }
    assert convert_here(docx(body, parts), MediaType.DOCX) == "1. one\n3. three"
