"""Comments in Office files are text at the place that they belong to; where they are not read, a warning says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from qrag.wire.media_types import MediaType
from tests.service.files import WORD, changed, docx, paragraph, relationships
from tests.service.outcomes import Outcome
from tests.service.packages import odt, pptx, shape, xlsx

# -- documents --------------------------------------------------------------------------------------------------------


def mark(number: int) -> str:
    return f'<w:r><w:commentReference w:id="{number}"/></w:r>'


def commented(text: str, *numbers: int) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r>{''.join(map(mark, numbers))}</w:p>"


def comment(number: int, author: str, *paragraphs: str) -> str:
    return f'<w:comment w:id="{number}" w:author="{author}">{"".join(map(paragraph, paragraphs))}</w:comment>'


def document(body: str, *comments: str) -> bytes:
    part = f'<w:comments xmlns:w="{WORD}">{"".join(comments)}</w:comments>'
    parts = {
        "word/_rels/document.xml.rels": relationships(("c", "comments", "comments.xml")),
        "word/comments.xml": part,
    }
    return docx(body, parts)


def test_comments_on_a_document_stand_behind_their_paragraphs(tmp_path: Path) -> None:
    cells = f"<w:tbl><w:tr><w:tc>{paragraph('Bread')}</w:tc><w:tc>{commented('3', 3)}</w:tc></w:tr></w:tbl>"
    content = document(
        commented("The mill was sold.", 1, 2) + paragraph("In May.") + cells,
        comment(1, "Ida Holm", "For how much?", "Ask Otto."),
        comment(2, "Otto", "Nine hundred."),
        comment(3, "", "Too dear."),
    )
    found = Outcome(tmp_path, content, MediaType.DOCX)
    assert found.paragraphs == [
        "The mill was sold.\nComment by Ida Holm: For how much?\nAsk Otto.\nComment by Otto: Nine hundred.",
        "In May.",
        "Bread; 3, Comment: Too dear.",
    ]
    assert found.reading.warnings == []


def test_comments_on_what_is_not_shown_come_last(tmp_path: Path) -> None:
    body = paragraph("The mill.") + f"<w:p><w:del><w:r><w:delText>gone</w:delText></w:r>{mark(1)}</w:del></w:p>"
    content = document(body, comment(1, "Ida", "Why delete it?"), comment(2, "Otto", "On nothing."), comment(3, "Eva"))
    found = Outcome(tmp_path, content, MediaType.DOCX)
    assert found.paragraphs == ["The mill.", "Comment by Ida: Why delete it?", "Comment by Otto: On nothing."]
    assert found.reading.warnings == []


def test_a_comment_on_itself_ends(tmp_path: Path) -> None:
    itself = f'<w:comment w:id="1" w:author="Ida">{commented("Round.", 1, 2)}</w:comment>'
    content = document(commented("The mill.", 1, 1), itself, comment(2, "Otto", "And round."))
    found = Outcome(tmp_path, content, MediaType.DOCX)
    assert found.text == "The mill.\nComment by Ida: Round.\nComment by Otto: And round."
    assert found.reading.warnings == []


@pytest.mark.parametrize(
    ("media_type", "content"),
    [
        (MediaType.RTF, rb"{\rtf1 The mill.{\*\annotation Why?}}"),
        (MediaType.ODT, odt("<text:p>The mill.<office:annotation><text:p>Why?</text:p></office:annotation></text:p>")),
    ],
)
def test_comments_that_are_not_read_are_said(tmp_path: Path, media_type: MediaType, content: bytes) -> None:
    found = Outcome(tmp_path, content, media_type)
    assert found.text == "The mill."
    assert found.reading.warnings == ["Comments were left out."]


# -- workbooks --------------------------------------------------------------------------------------------------------

NOTES = (
    "<comments><authors><author>Ida</author><author>tc={1}</author></authors><commentList>"
    '<comment ref="B3" authorId="0"><text><r><t>Ida:</t></r><r><t>\nToo dear\nfor bread.</t></r></text></comment>'
    '<comment ref="A1" authorId="9"><text><t>Of the mill.</t></text></comment>'
    '<comment ref="B2" authorId="1"><text><t>[Threaded comment] Read this elsewhere.</t></text></comment>'
    '<comment ref="C7" authorId="0"><text><t>Nothing here.</t></text></comment></commentList></comments>'
)
THREADS = (
    '<ThreadedComments><threadedComment ref="B2" personId="{p}" id="{1}"><text>Is it?</text></threadedComment>'
    '<threadedComment ref="B2" personId="{q}" id="{2}" parentId="{1}"><text>It is.</text></threadedComment>'
    "</ThreadedComments>"
)
PEOPLE = '<personList><person displayName="Otto" id="{p}"/><person displayName="Eva" id="{q}"/></personList>'


def test_comments_on_cells_stand_behind_their_rows(tmp_path: Path) -> None:
    rows: list[list[str | float]] = [["item", "price"], ["salt", 1], ["bread", 3], ["flour", 9]]
    content = changed(
        xlsx({"Prices": rows}),
        {
            "xl/_rels/workbook.xml.rels": relationships(
                ("r1", "worksheet", "worksheets/sheet1.xml"), ("p", "person", "persons/person.xml")
            ),
            "xl/persons/person.xml": PEOPLE,
            "xl/worksheets/_rels/sheet1.xml.rels": relationships(
                ("c", "comments", "../comments1.xml"), ("t", "threadedComment", "../threadedComments/one.xml")
            ),
            "xl/comments1.xml": NOTES,
            "xl/threadedComments/one.xml": THREADS,
        },
    )
    found = Outcome(tmp_path, content, MediaType.XLSX)
    assert found.paragraphs == [
        "Prices",
        "Comment on A1: Of the mill.",
        "item: salt; price: 1",
        "Comment on B2 by Otto: Is it?",
        "Comment on B2 by Eva: It is.",
        "item: bread; price: 3",
        "Comment on B3 by Ida: Too dear for bread.",
        "item: flour; price: 9",
        "Comment on C7 by Ida: Nothing here.",
    ]
    assert found.location_of("Too dear") == {"sheet": "Prices", "row": 3}
    assert found.location_of("Nothing here") == {"sheet": "Prices", "row": 7}


# -- slides -----------------------------------------------------------------------------------------------------------

OLD_COMMENTS = '<p:cmLst xmlns:p="p"><p:cm authorId="0"><p:text>Which mill?</p:text></p:cm></p:cmLst>'
NEW_COMMENTS = (
    '<n:cmLst xmlns:n="n" xmlns:a="a"><n:cm authorId="{p}"><n:replyLst><n:reply authorId="{q}"><n:txBody><a:p><a:r>'
    "<a:t>The old one.</a:t></a:r></a:p></n:txBody></n:reply></n:replyLst><n:txBody><a:p><a:r><a:t>Which</a:t></a:r>"
    "</a:p><a:p><a:r><a:t>mill?</a:t></a:r></a:p></n:txBody></n:cm></n:cmLst>"
)
OLD_AUTHORS = '<p:cmAuthorLst xmlns:p="p"><p:cmAuthor id="0" name="Ida"/></p:cmAuthorLst>'
NEW_AUTHORS = '<n:authorLst xmlns:n="n"><n:author id="{p}" name="Ida"/><n:author id="{q}" name="Otto"/></n:authorLst>'


@pytest.mark.parametrize(
    ("kind", "authors", "comments", "lines"),
    [
        ("commentAuthors", OLD_AUTHORS, OLD_COMMENTS, ["Comment by Ida: Which mill?"]),
        ("authors", NEW_AUTHORS, NEW_COMMENTS, ["Comment by Ida: Which mill?", "Comment by Otto: The old one."]),
    ],
)
def test_comments_on_a_slide_are_its_last_lines(
    tmp_path: Path, kind: str, authors: str, comments: str, lines: list[str]
) -> None:
    content = pptx(
        [shape("The mill was sold."), shape("In May.")],
        {
            "ppt/_rels/presentation.xml.rels": relationships(
                ("r1", "slide", "slides/slide1.xml"), ("r2", "slide", "slides/slide2.xml"), ("a", kind, "authors.xml")
            ),
            "ppt/authors.xml": authors,
            "ppt/slides/_rels/slide1.xml.rels": relationships(("c", "comments", "../comments/one.xml")),
            "ppt/comments/one.xml": comments,
        },
    )
    found = Outcome(tmp_path, content, MediaType.PPTX)
    assert found.paragraphs == ["The mill was sold.", *lines, "In May."]
    assert found.location_of("Which mill") == {"page": 1}
    assert found.reading.warnings == []
