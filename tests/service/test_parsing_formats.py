"""Books, slides, workbooks, records and mail: their text in order, with where it stands."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from qrag.wire.media_types import MediaType
from service.errors import EncryptedDocument, UnreadableDocument
from tests.service.files import Extract, changed, packed, relationships
from tests.service.outcomes import Outcome
from tests.service.packages import SHEETS, epub, odt, pptx, shape, slide_table, xlsx

# -- records ----------------------------------------------------------------------------------------------------------


def test_csv_is_read_record_by_record(tmp_path: Path) -> None:
    content = b'item;price;shop\nbread;3;corner\n\n"milk;\nwhole";4;market\nflour;9;mill;extra\n'
    found = Outcome(tmp_path, content, MediaType.CSV)
    assert found.paragraphs == [
        "item: bread; price: 3; shop: corner",
        "item: milk; whole; price: 4; shop: market",
        "item: flour; price: 9; shop: mill; extra",
    ]
    assert [found.location_of(words) for words in ("bread", "flour")] == [{"row": 2}, {"row": 5}]


@pytest.mark.parametrize("delimiter", list(",;\t|"))
def test_the_delimiter_of_a_csv_file_is_found_out(tmp_path: Path, delimiter: str) -> None:
    rows = [("name", "note"), ("Ida", '"a, b; c | d"'), ("Otto", "e")]
    content = "\n".join(delimiter.join(row) for row in rows).encode()
    found = Outcome(tmp_path, content, MediaType.CSV)
    assert found.paragraphs == ["name: Ida; note: a, b; c | d", "name: Otto; note: e"]


def test_records_without_heads_and_heads_without_records(tmp_path: Path) -> None:
    assert Outcome(tmp_path, b"1,2\n3,4\n", MediaType.CSV).paragraphs == ["1; 2", "3; 4"]
    assert Outcome(tmp_path, b"a,b\n", MediaType.CSV).text == "a; b"
    assert Outcome(tmp_path, b"a\tb\n1,5\t2\n", MediaType.TSV).text == "a: 1,5; b: 2"


def test_json_values_stand_beside_their_names(tmp_path: Path) -> None:
    content = (
        b'{"service": {"name": "mill", "port": 4711}, "owners": ["Ida", "Otto"], "runs": [{"at": 1}, {"at": null}]}'
    )
    found = Outcome(tmp_path, content, MediaType.JSON)
    assert found.text == "service name: mill\nservice port: 4711\nowners: Ida, Otto\n\nruns: at: 1\n\nruns: at: null"


def test_json_lines_are_records_and_other_lines_text(tmp_path: Path) -> None:
    content = b'{"speaker": "Ida", "said": "Sold, \\u00e0 propos"}\n\nno json\n{"a": {"b": [1, {"c": 2}]}}\n'
    found = Outcome(tmp_path, content, MediaType.JSON_LINES)
    assert found.paragraphs == ["speaker: Ida; said: Sold, à propos", "no json", "a b 1: 1; a b 2 c: 2"]
    assert found.location_of("no json") == {"row": 3}
    assert len(found.reading.warnings) == 1


def test_what_is_no_json_is_refused(convert_here: Extract) -> None:
    with pytest.raises(UnreadableDocument, match="text/plain"):
        convert_here(b"{no", MediaType.JSON)


def test_all_shown_sheets_of_a_workbook_are_read_row_by_row(tmp_path: Path) -> None:
    content = xlsx(
        {
            "Prices": [["Price list 2030"], [], ["item", "price"], ["bread", 3.5], ["flour", 12]],
            "Secret": [["x", "y"]],
            "Towns": [["name", "town"], ["Holm", "Rockport"]],
            "Only heads": [["a", "b"]],
            "Empty": [],
        },
        hidden=["Secret"],
    )
    found = Outcome(tmp_path, content, MediaType.XLSX)
    assert found.paragraphs == [
        *("Prices", "Price list 2030", "item: bread; price: 3.5", "item: flour; price: 12"),
        *("Towns", "name: Holm; town: Rockport", "Only heads", "a; b"),
    ]
    assert found.location_of("flour") == {"sheet": "Prices", "row": 5}
    assert found.reading.warnings == ["The hidden sheet Secret was left out."]


# -- slides, books, letters -------------------------------------------------------------------------------------------


def test_slides_come_in_order_with_titles_first_tables_and_notes(tmp_path: Path) -> None:
    notes = f'<p:notes xmlns:p="p" xmlns:a="a"><p:cSld><p:spTree>{shape("Say this.")}</p:spTree></p:cSld></p:notes>'
    content = pptx(
        [
            shape("Sold in May", "For nine hundred") + shape("The mill", placeholder="title"),
            shape("secret"),
            slide_table(["part", "cost"], ["wheel", "410"]) + shape("7", placeholder="sldNum"),
        ],
        {
            "ppt/slides/_rels/slide3.xml.rels": relationships(("n", "notesSlide", "../notesSlides/notes1.xml")),
            "ppt/notesSlides/notes1.xml": notes,
        },
        {2: 'show="0"'},
    )
    found = Outcome(tmp_path, content, MediaType.PPTX)
    assert found.paragraphs == [
        "The mill",
        "Sold in May\nFor nine hundred",
        "part: wheel; cost: 410",
        "Notes: Say this.",
    ]
    assert found.location_of("Sold") == {"page": 1, "headings": ["The mill"]}
    assert found.location_of("wheel") == {"page": 3}
    assert found.reading.warnings == ["Hidden slides were left out."]


def test_a_heading_ends_those_of_its_own_level_and_below(tmp_path: Path) -> None:
    chapter = "<h1>Mill</h1><h2>Wheel</h2><p>Oak.</p><h2>Stone</h2><p>Flint.</p><h1>Farm</h1><p>Bees.</p>"
    found = Outcome(tmp_path, epub([chapter], ""), MediaType.EPUB)
    assert found.location_of("Oak") == {"headings": ["Mill", "Wheel"]}
    assert found.location_of("Flint") == {"headings": ["Mill", "Stone"]}
    assert found.location_of("Bees") == {"headings": ["Farm"]}


def test_a_book_is_read_along_its_spine(tmp_path: Path) -> None:
    metadata = "<dc:title>The Mill</dc:title><dc:creator>Ida Holm</dc:creator><dc:language>en</dc:language>"
    chapters = [
        "<h1>Arrival</h1><p>She came&nbsp;in spring.</p><h2>Later</h2><p>It rained.<br/>A lot.</p>",
        "<p>Sold.</p>",
    ]
    found = Outcome(tmp_path, epub(chapters, metadata), MediaType.EPUB)
    assert found.paragraphs == ["Arrival", "She came\u00a0in spring.", "Later", "It rained.\nA lot.", "Sold."]
    assert found.location_of("rained") == {"headings": ["Arrival", "Later"]}
    assert found.location_of("Sold") == {}
    assert found.reading.title == "The Mill"
    assert found.reading.metadata == {"author": "Ida Holm", "language": "en"}


def test_books_that_are_protected_or_none_are_refused(convert_here: Extract) -> None:
    with pytest.raises(UnreadableDocument):
        convert_here(packed({"mimetype": "application/epub+zip"}), MediaType.EPUB)
    with pytest.raises(UnreadableDocument, match="no text"):
        convert_here(epub(["<img/>"]), MediaType.EPUB)
    container = '<container><rootfiles><rootfile full-path="b.opf"/></rootfiles></container>'
    protected = packed({"META-INF/container.xml": container, "b.opf": "<package/>", "META-INF/rights.xml": "<r/>"})
    with pytest.raises(EncryptedDocument):
        convert_here(protected, MediaType.EPUB)


def test_an_open_document_text_keeps_lists_tables_notes_and_exponents(tmp_path: Path) -> None:
    styles = (
        '<style:style style:name="up"><style:text-properties style:text-position="super 58%"/></style:style>'
        '<text:list-style style:name="L"><text:list-level-style-number text:level="1" style:num-format="a" '
        'style:num-suffix=")"/></text:list-style>'
    )
    cells = "<table:table-cell><text:p>{}</text:p></table:table-cell>" * 2
    body = (
        '<text:h text:outline-level="1">Scope</text:h>'
        '<text:p>x<text:span text:style-name="up">2</text:span><text:s/>is<text:tab/>here<text:note><text:note-body>'
        "<text:p>A note.</text:p></text:note-body></text:note>.<text:line-break/>Next.</text:p>"
        '<text:list text:style-name="L"><text:list-item><text:p>one</text:p></text:list-item>'
        "<text:list-item><text:p>two</text:p></text:list-item></text:list>"
        f"<table:table><table:table-header-rows><table:table-row>{cells.format('Item', 'Price')}</table:table-row>"
        f"</table:table-header-rows><table:table-row>{cells.format('Bread', '3')}</table:table-row></table:table>"
        "<text:p><draw:frame><draw:text-box><text:p>Boxed.</text:p></draw:text-box></draw:frame>Anchor.</text:p>"
    )
    found = Outcome(tmp_path, odt(body, styles), MediaType.ODT)
    assert found.paragraphs == [
        *(
            "Scope",
            "x^2 is here[1].\nNext.",
            "a) one\nb) two",
            "Item: Bread; Price: 3",
            "Anchor.",
            "Boxed.",
            "1. A note.",
        ),
    ]
    assert found.location_of("Bread") == {"headings": ["Scope"]}


def test_rtf_is_text(convert_here: Extract) -> None:
    content = rb"{\rtf1\ansi\ansicpg1252 {\b Bold} caf\'e9 costs 5 \u8364?.\par Next.}"
    assert convert_here(content, MediaType.RTF) == "Bold café costs 5 €.\nNext."


def test_a_mail_is_its_subject_its_text_and_what_it_forwards(tmp_path: Path) -> None:
    content = (
        b"From: Ida <ida@example.org>\r\nTo: Otto <otto@example.org>\r\nSubject: =?utf-8?Q?Caf=C3=A9_keys?=\r\n"
        b"Date: Fri, 14 Mar 2031 09:00:00 +0000\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        b"<p>Under the caf=E9.</p>\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: Old\r\n\r\nForwarded.\r\n"
        b'--b\r\nContent-Type: image/png\r\nContent-Disposition: attachment; filename="a.png"\r\n\r\nx\r\n--b--\r\n'
    )
    found = Outcome(tmp_path, content, MediaType.MAIL)
    assert found.reading.title == "Café keys"
    assert found.paragraphs[1:] == ["Under the café.", "Subject: Old", "Forwarded."]
    assert found.paragraphs[0].startswith("Subject: Café keys\nFrom: Ida <ida@example.org>\nTo: Otto")
    assert found.reading.warnings == ["The attachment a.png was left out."]


@pytest.mark.parametrize("inside", ["<div>Scope</div>", "<a href=x><div>Scope</div></a>", "<b>Scope</b>"])
def test_a_heading_is_one_whatever_it_is_wrapped_in(tmp_path: Path, inside: str) -> None:
    found = Outcome(tmp_path, f"<h2>{inside}</h2><p>Words.</p>".encode(), MediaType.HTML)
    assert found.paragraphs == ["Scope", "Words."]
    assert found.location_of("Words.") == {"headings": ["Scope"]}


def test_a_heading_that_is_not_closed_is_its_first_line(tmp_path: Path) -> None:
    found = Outcome(tmp_path, b"<h1>Scope<div>Words.</div><div>More.</div>", MediaType.HTML)
    assert found.location_of("More.") == {"headings": ["Scope"]}


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\x1c"])
def test_only_line_feeds_and_carriage_returns_end_lines_of_json(tmp_path: Path, end: str) -> None:
    lines = [f'{{"said": "one{end}two"}}', '{"said": "three"}']
    if end < " ":
        lines[0] = f"one{end}two"  # a control character stands in no string of JSON
    found = Outcome(tmp_path, "\r\n".join(lines).encode(), MediaType.JSON_LINES)
    assert found.location_of("three") == {"row": 2}
    assert found.reading.warnings == (["Lines that are not valid JSON were taken as text."] if end < " " else [])


def test_formats_and_escapes_of_cells_are_not_taken_for_what_they_look_like(tmp_path: Path) -> None:
    content = changed(
        xlsx({"S": [["name", "share"], ["a_x000D_&#10;b_x005F_c", 5]]}),
        {
            "xl/_rels/workbook.xml.rels": relationships(
                ("r1", "worksheet", "worksheets/sheet1.xml"), ("r2", "styles", "styles.xml")
            ),
            "xl/styles.xml": f'<styleSheet xmlns="{SHEETS}"><numFmts><numFmt numFmtId="164" '
            'formatCode="0.0&quot;%&quot;\\%"/></numFmts><cellXfs><xf numFmtId="164"/></cellXfs></styleSheet>',
        },
    )
    with zipfile.ZipFile(BytesIO(content)) as archive:
        sheet = archive.read("xl/worksheets/sheet1.xml").replace(b'r="B2"', b'r="B2" s="0"')
    found = Outcome(tmp_path, changed(content, {"xl/worksheets/sheet1.xml": sheet}), MediaType.XLSX)
    assert found.paragraphs[1] == "name: a, b_c; share: 5"


def test_boxes_headings_and_notes_of_an_open_document_stand_where_they_belong(tmp_path: Path) -> None:
    box = "<draw:frame><draw:text-box><text:p>{}</text:p></draw:text-box></draw:frame>"
    note = "<text:note><text:note-citation>1</text:note-citation><text:note-body><text:p>Why.</text:p></text:note-body>"
    content = odt(
        '<text:list><text:list-item><text:h text:outline-level="1">Scope</text:h></text:list-item></text:list>'
        f'<text:p>Word<text:span text:style-name="S">{note}</text:note></text:span> more.</text:p>'
        f"<text:list><text:list-item><text:p>Item.{box.format('In a list.')}</text:p></text:list-item></text:list>"
        + box.format("On a page."),
        '<style:style style:name="S"><style:text-properties style:text-position="super 58%"/></style:style>',
    )
    found = Outcome(tmp_path, content, MediaType.ODT)
    assert found.paragraphs == ["- Scope", "Word[1] more.", "- Item.", "In a list.", "On a page.", "1. Why."]
    assert found.location_of("more") == {"headings": ["- Scope"]}
    assert not found.reading.warnings
