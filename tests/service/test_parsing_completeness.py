"""Nothing is lost between a file and its text: words are compared, and what was lost in real files is kept."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrag.wire.media_types import MediaType
from service.intake.parsing.completeness import missing_words
from service.intake.parsing.reading import Reading
from service.intake.parsing.worker import convert
from tests.service.files import MEBIBYTE, OFFICE, changed, docx, pdf, relationships
from tests.service.outcomes import Outcome
from tests.service.packages import SHEETS, odt, pptx, shape, xlsx

# -- the comparison ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "text", "missing"),
    [
        (["The mill was sold."], "The mill was sold.", {}),
        (["The mill", "was sold."], "sold was mill The", {}),
        (["mill mill wheel"], "mill", {"mill": 1, "wheel": 1}),
        (["H", "2", "O and x", "2"], "H2O and x^2", {}),
        (["Con", "fi", "den", "tial mill"], "Confidential", {"mill": 1}),
        (["exam-\nple"], "example", {}),
        (["example"], "an ex ample", {"example": 1}),
        (["one mill", "one m", "ill"], "one mill one mill", {}),
        (["wheel in wheel"], "inwheel", {"wheel": 1}),
        (["— · —"], "", {}),
    ],
)
def test_words_that_are_missing(texts: list[str], text: str, missing: dict[str, int]) -> None:
    assert missing_words(lambda: texts, [text]) == missing


@given(st.lists(st.text("ab ", max_size=8), max_size=8), st.integers(0, 7))
def test_a_text_lacks_just_what_was_taken_from_it(texts: list[str], taken: int) -> None:
    assert not missing_words(lambda: texts, texts)
    lost = " ".join(texts[:taken]).split()
    assert missing_words(lambda: [*texts[taken:], *(f"{word}c" for word in lost)], texts[taken:]) == Counter(
        f"{word}c" for word in lost
    )


def test_what_a_reader_loses_is_said(tmp_path: Path) -> None:
    def careless(_source: Path, reading: Reading) -> Iterator[str]:
        for part in (reading, reading.part()):
            part.compare(lambda: ["The mill was sold in May."], ["The mill in May."])
        yield "The mill in May."

    (tmp_path / "source").touch()
    reading = Reading()
    readers = {MediaType.HTML: careless}
    convert(
        tmp_path / "source",
        tmp_path / "target",
        MediaType.HTML,
        reading=reading,
        output_bytes=MEBIBYTE,
        readers=readers,
    )
    assert reading.warnings == ["4 words of the file could not be read: was, sold"]


HEAVY = {
    MediaType.HTML: b"<p>a<sup>2</sup> <b>bo</b>ld <q>said</q><p hidden>never<table>stray<tr><td>in<td>side</table>"
    b"<ruby>kan<rp>(</rp><rt>ji</rt></ruby><math><mi>x</mi><mo>+</mo><mn>1</mn></math><select><option>o1<option>o2"
    b"</select><textarea>typed</textarea><svg><text>drawn</text></svg>",
    MediaType.ODT: odt(
        "<text:p>one<text:span>two</text:span><text:s/>three<text:note><text:note-body><text:p>four</text:p>"
        "</text:note-body></text:note></text:p><text:p><draw:frame><draw:text-box><text:p>five</text:p></draw:text-box>"
        "</draw:frame></text:p>"
    ),
    MediaType.DOCX: docx(
        "<w:p><w:r><w:t>o</w:t></w:r><w:r><w:t>ne</w:t></w:r><w:r><w:tab/><w:t>two</w:t></w:r><w:r><w:rPr><w:vanish/></w:rPr>"
        "<w:t>never</w:t></w:r><w:del><w:r><w:t>gone</w:t></w:r></w:del></w:p>"
        "<w:p><w:r><w:fldChar w:fldCharType='begin'/><w:t>never</w:t><w:fldChar w:fldCharType='separate'/>"
        "<w:t>shown</w:t><w:fldChar w:fldCharType='end'/></w:r></w:p>"
    ),
    MediaType.PPTX: pptx([shape("one", "two") + shape("7", placeholder="sldNum") + shape("foot", placeholder="ftr")]),
}


@pytest.mark.parametrize("media_type", HEAVY)
def test_nothing_is_missed_that_is_there(tmp_path: Path, media_type: MediaType) -> None:
    found = Outcome(tmp_path, HEAVY[media_type], media_type)
    assert found.reading.warnings == []
    assert not re.search("never|gone", found.text)


# -- what was lost in real files --------------------------------------------------------------------------------------


def test_heads_of_columns_without_values_are_kept(tmp_path: Path) -> None:
    page = b"<table><tr><th>Item<th>Price<th>Signature<tr><td>bread<td>3<td></table>"
    assert Outcome(tmp_path, page, MediaType.HTML).paragraphs == ["Item: bread; Price: 3", "Signature"]
    found = Outcome(tmp_path, b"item,price,signature\nbread,3,\n", MediaType.CSV)
    assert found.paragraphs == ["item: bread; price: 3", "signature"]
    assert found.location_of("signature") == {"row": 1}
    found = Outcome(tmp_path, xlsx({"s": [["item", "price", "signature"], ["bread", 3]]}), MediaType.XLSX)
    assert found.paragraphs == ["s", "item: bread; price: 3", "signature"]


def test_json_numbers_stay_as_written_and_no_name_hides_another(tmp_path: Path) -> None:
    content = b'{"price": 1.10, "id": %s, "mill": 1, "mill": "two", "none": {}}' % (b"9" * 5000)
    found = Outcome(tmp_path, content, MediaType.JSON)
    assert found.text == f"price: 1.10\nid: {'9' * 5000}\nmill: 1, two\nnone: {{}}"


def test_reports_in_mail_are_read_and_unknown_charsets_guessed(tmp_path: Path) -> None:
    content = (
        b"Subject: Returned\nContent-Type: multipart/report; boundary=b\n\n--b\nContent-Type: text/plain; "
        b"charset=unheard-of\n\nNot delivered: caf\xe9.\n--b\nContent-Type: message/delivery-status\n\n"
        b"Reporting-MTA: dns; mill.example\n\nFinal-Recipient: rfc822; ida@mill.example\n--b\n"
        b"Content-Type: text/rfc822-headers\n\nX-Old: yes\n--b--\n"
    )
    found = Outcome(tmp_path, content, MediaType.MAIL)
    assert found.paragraphs == [
        "Subject: Returned",
        "Not delivered: café.",
        "Reporting-MTA: dns; mill.example",
        "Final-Recipient: rfc822; ida@mill.example",
        "X-Old: yes",
    ]
    assert [warning.split()[:3] for warning in found.reading.warnings] == [["Text", "whose", "encoding"]]


def test_a_message_that_is_no_text_says_so(tmp_path: Path) -> None:
    content = b"Subject: Scan\nContent-Type: image/png\nContent-Transfer-Encoding: base64\n\niVBORw0=\n"
    found = Outcome(tmp_path, content, MediaType.MAIL)
    assert found.text == "Subject: Scan"
    assert found.reading.warnings == ["The message is no text but image/png, which was left out."]


def worksheet(content: str, parts: Mapping[str, str] = {}) -> bytes:
    """A workbook whose only sheet has this content."""
    return changed(
        xlsx({"s": [["x"]]}),
        {"xl/worksheets/sheet1.xml": f'<worksheet xmlns="{SHEETS}">{content}</worksheet>', **parts},
    )


def test_cells_without_addresses_and_texts_in_the_cells_are_read(tmp_path: Path) -> None:
    rows = (
        '<row><c t="inlineStr"><is><r><t>ite</t></r><r><t>m</t></r><rPh><t>never</t></rPh></is></c>'
        '<c t="str"><v>price</v></c></row><row><c t="inlineStr"><is><t>bread</t></is></c><c><v>3.50</v></c></row>'
    )
    found = Outcome(tmp_path, worksheet(f"<sheetData>{rows}</sheetData>"), MediaType.XLSX)
    assert found.paragraphs == ["s", "item: bread; price: 3.5"]
    assert found.location_of("bread") == {"sheet": "s", "row": 2}


def test_merged_cells_stand_in_all_rows_and_columns_that_they_span(tmp_path: Path) -> None:
    def cell(place: str, text: str) -> str:
        return f'<c r="{place}" t="inlineStr"><is><t>{text}</t></is></c>'

    content = (
        f"<sheetData><row r='1'>{cell('A1', 'Town')}{cell('B1', 'Price')}</row>"
        f"<row r='2'>{cell('A2', 'Holm')}{cell('B2', 'low')}{cell('C2', '3')}</row>"
        f"<row r='3'>{cell('B3', 'high')}{cell('C3', '4')}</row><row r='4'>{cell('B4', 'none')}</row></sheetData>"
        '<mergeCells><mergeCell ref="B1:C1"/><mergeCell ref="A2:A3"/></mergeCells>'
    )
    found = Outcome(tmp_path, worksheet(content), MediaType.XLSX)
    assert found.paragraphs == [
        *("s", "Town: Holm; Price: low; Price: 3", "Town: Holm; Price: high; Price: 4", "Price: none")
    ]


def test_dates_and_shares_are_shown_and_formulas_without_results_named(tmp_path: Path) -> None:
    styles = (
        f'<styleSheet xmlns="{SHEETS}"><numFmts><numFmt numFmtId="164" formatCode="yyyy\\-mm\\-dd hh:mm"/></numFmts>'
        '<cellXfs><xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="164"/><xf numFmtId="9"/><xf numFmtId="20"/>'
        "</cellXfs></styleSheet>"
    )
    values = (("", 5), ("1", 43831), ("2", 43831.75), ("3", 0.25), ("4", 0.5))
    cells = "".join(f'<c s="{style}"><v>{value}</v></c>' for style, value in values)
    workbook = worksheet(
        f'<sheetData><row>{cells}<c t="b"><v>1</v></c><c><f>A1+1</f></c></row></sheetData>',
        {
            "xl/styles.xml": styles,
            "xl/_rels/workbook.xml.rels": relationships(
                ("r1", "worksheet", "worksheets/sheet1.xml"), ("r2", "styles", "styles.xml")
            ),
        },
    )
    found = Outcome(tmp_path, workbook, MediaType.XLSX)
    assert found.paragraphs[1] == "5; 2020-01-01; 2020-01-01 18:00:00; 25%; 12:00:00; TRUE"
    assert [warning[:41] for warning in found.reading.warnings] == ["Formulas without a stored result were lef"]


CHART = (
    '<c:chart xmlns:c="c" xmlns:a="a"><c:title><c:tx><a:p><a:r><a:t>Grain</a:t></a:r></a:p></c:tx></c:title>'
    "<c:ser><c:tx><c:v>Sold</c:v></c:tx><c:cat><c:lvl><c:pt idx='0'><c:v>May</c:v></c:pt><c:pt idx='1'><c:v>June</c:v>"
    "</c:pt></c:lvl><c:lvl><c:pt idx='0'><c:v>2030</c:v></c:pt></c:lvl></c:cat><c:val><c:pt idx='1'><c:v>9</c:v></c:pt>"
    "</c:val></c:ser><c:ser><c:xVal><c:pt idx='0'><c:v>1</c:v></c:pt></c:xVal><c:yVal><c:pt idx='0'><c:v>2</c:v></c:pt>"
    "</c:yVal><c:bubbleSize><c:pt idx='0'><c:v>3</c:v></c:pt></c:bubbleSize></c:ser></c:chart>"
)
CHART_LINES = ["Grain", "Sold; 2030 May; 2030 June: 9", "1: 2: 3"]


def test_charts_are_read_in_slides_documents_and_workbooks(tmp_path: Path) -> None:
    frame = '<p:graphicFrame><a:graphic><c:chart xmlns:c="c" r:id="c"/></a:graphic></p:graphicFrame>'
    slide = {"ppt/slides/_rels/slide1.xml.rels": relationships(("c", "chart", "/chart.xml")), "chart.xml": CHART}
    assert Outcome(tmp_path, pptx([frame], slide), MediaType.PPTX).paragraphs == CHART_LINES
    drawing = '<w:p><w:r><w:drawing><c:chart xmlns:c="c" r:id="c"/></w:drawing></w:r></w:p>'
    parts = {"word/_rels/document.xml.rels": relationships(("c", "chart", "/chart.xml")), "chart.xml": CHART}
    assert Outcome(tmp_path, docx(drawing, parts), MediaType.DOCX).text.split("\n") == CHART_LINES
    box = "<a:txBody><a:p><a:r><a:t>A box.</a:t></a:r></a:p></a:txBody>"
    workbook = worksheet(
        "",
        {
            "xl/worksheets/_rels/sheet1.xml.rels": relationships(("d", "drawing", "/drawing.xml")),
            "drawing.xml": f'<d xmlns:r="{OFFICE}" xmlns:a="a">{box}<c r:id="c"/></d>',
            "_rels/drawing.xml.rels": relationships(("c", "chart", "/chart.xml")),
            "chart.xml": CHART,
        },
    )
    found = Outcome(tmp_path, workbook, MediaType.XLSX)
    assert found.paragraphs == ["s", "A box.", *CHART_LINES]


def test_footers_of_slides_are_kept_once(tmp_path: Path) -> None:
    footer = shape("Mill Ltd", placeholder="ftr") + shape("3", placeholder="sldNum")
    found = Outcome(tmp_path, pptx([shape("one") + footer, shape("two") + footer]), MediaType.PPTX)
    assert found.paragraphs == ["one", "Mill Ltd", "two"]


def test_words_whose_letters_stand_apart_on_a_page_are_not_torn(tmp_path: Path) -> None:
    torn = b"BT /F 12 Tf 50 750 Td (m) Tj ET BT /F 12.4 Tf 61.5 750 Td (andatory) Tj ET"
    assert Outcome(tmp_path, pdf([torn]), MediaType.PDF).text == "mandatory"
