"""DOCX: what a word processor shows of a document, headers, notes, comments, boxes and numbers included."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final

from service.errors import UnreadableDocument
from service.intake.parsing.cleaning import CLEANED
from service.intake.parsing.markup.blocks import BREAK, Block, Writer, placed
from service.intake.parsing.markup.mathematics import lowered, raised
from service.intake.parsing.markup.tables import Cell, Row, rows_of, spread
from service.intake.parsing.office.comments import comment_mark
from service.intake.parsing.office.formulas import formula
from service.intake.parsing.office.graphics import graphic_lines
from service.intake.parsing.office.numbering import Numbering
from service.intake.parsing.office.package import Package, attribute, child, count_of, name_of, text_of
from service.intake.parsing.office.parts import (
    LEFT_OUT,
    boxes_of,
    chunk_text,
    follow_field,
    form_field_text,
    inside,
    is_bold,
    is_deleted,
    shown_form,
    shown_texts,
    shows_something,
    symbol_text,
)
from service.intake.parsing.office.styles import Style, is_hidden, is_on, list_of, outline_of, read_styles, value_of
from service.intake.parsing.reading import Passages, Reading

_RECURSION_LIMIT: Final = 10_000


def read(source: Path, reading: Reading) -> Passages:
    """The text of a DOCX file: headers, the body, footers, notes, then the comments on nothing that is shown."""
    recursion_limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(recursion_limit, _RECURSION_LIMIT))
    try:
        blocks = _Document(Package(source, "DOCX"), reading).blocks()
    finally:
        sys.setrecursionlimit(recursion_limit)
    if not blocks:
        raise UnreadableDocument(
            "The DOCX file holds no text: it is empty, or its pages are pictures. "
            "Run OCR (text recognition) on those first, then send the result."
        )
    yield from placed(blocks)


class _Document:
    """One document with its parts, and what has been met of it so far."""

    def __init__(self, package: Package, reading: Reading) -> None:
        self.package, self.reading = package, reading
        self.part = package.main
        package.note_properties(reading)
        tree = package.tree(self.part)
        body = child(tree, "body")
        if name_of(tree) != "document" or body is None:
            raise UnreadableDocument("The file is no DOCX document. Save it as .docx and send that.")
        self.body = body
        self.styles = read_styles(self._tree_of("styles"))
        self.is_hidden = partial(is_hidden, styles=self.styles)
        numbering = self._tree_of("numbering")
        lists = {name: style.numbering[0] for name, style in self.styles.items() if style.numbering is not None}
        self.numbering = Numbering() if numbering is None else Numbering.read(numbering, lists)
        self.notes: dict[tuple[str, str], int] = {}
        """The numbers of the notes that the text refers to, by their kind and id."""
        self.comments_part = next(package.related(self.part, "comments"), "")
        comments = self._tree_of("comments")
        self.comments = {} if comments is None else {attribute(comment, "id"): comment for comment in comments}
        """The comments that have not been told yet, by their ids."""

    def _tree_of(self, kind: str) -> Any:
        part = next(self.package.related(self.part, kind), None)
        return None if part is None else self.package.tree(part)

    def blocks(self) -> list[Block]:
        """Everything that is shown, each header and footer once."""
        heads, feet = [self._once(kind) for kind in ("header", "footer")]
        blocks = [*heads, *self._told(self.part, self.body), *feet]
        trees = {kind: self._tree_of(kind) for kind in ("footnotes", "endnotes")}
        parts = {kind: next(self.package.related(self.part, kind), "") for kind in trees}
        notes = {
            (kind, attribute(note, "id")): note
            for kind, tree in trees.items()
            for note in (() if tree is None else reversed(tree))
        }
        told = 0
        while told < len(self.notes):  # a note may refer to another
            for note, number in list(self.notes.items())[told:]:
                told = number
                if note in notes:
                    blocks += self._told(parts[note[0]], notes[note], f"{number}. ")
        for comment in list(self.comments.values()):
            blocks += self._told(self.comments_part, comment, comment_mark(attribute(comment, "author")))
        return blocks

    def _told(self, part: str, element: Any, marker: str = "") -> list[Block]:
        """The blocks of a story, compared with what stands in it."""
        story = _Story(self, part)
        story.writer.mark(marker)
        story.walk(element)
        blocks = story.finished()
        self.reading.compare(
            lambda: chain(*(shown_texts(told, self.is_hidden) for told in (element, *story.comments))),
            (block.text for block in blocks),
        )
        return blocks

    def _once(self, kind: str) -> list[Block]:
        blocks: list[Block] = []
        known: set[tuple[str, ...]] = set()
        for part in dict.fromkeys(self.package.related(self.part, kind)):
            lines = self._told(part, self.package.tree(part))
            text = tuple(block.text for block in lines)
            if text not in known:
                known.add(text)
                blocks += lines
        return blocks


class _Story:
    """One flow of paragraphs: the body, a header, a note, a cell, a text box."""

    def __init__(self, document: _Document, part: str) -> None:
        self.writer = Writer()
        self.comments: list[Any] = []
        """The comments that have been told in it."""
        self._document, self._part = document, part
        self._boxes: list[Any] = []
        self._waiting: list[Any] = []
        self._fields: list[bool] = []
        """For each field that is open, whether its result has begun."""
        self._script = ""
        self._raised: list[str] = []

    def finished(self) -> list[Block]:
        """The blocks, once all is walked."""
        self._end_script()
        self.writer.end_line()
        self._tell_comments()
        return self.writer.blocks

    def walk(self, element: Any) -> None:
        """Read what is inside an element."""
        for part in element:
            name = name_of(part)
            if name in LEFT_OUT:
                continue
            special = _ELEMENTS.get(name)
            if special is not None:
                special(self, part)
            else:
                self.walk(part)

    # -- paragraphs

    def paragraph(self, element: Any) -> None:
        """A paragraph, with its number, and the comments and boxes that are anchored in it behind it."""
        style = self._document.styles.get(value_of(child(element, "pPr", "pStyle")), Style())
        own = child(element, "pPr", "numPr")
        numbering = style.numbering if own is None else list_of(own, style.numbering)
        outline = child(element, "pPr", "outlineLvl")
        heading = style.heading if outline is None else outline_of(outline)
        if numbering is not None and child(element, "pPr", "rPr", "del") is None:
            label = self._document.numbering.label(*numbering)  # those of empty paragraphs count
            if shows_something(element):
                self.writer.mark(label if heading else "  " * numbering[1] + label)
        is_item = numbering is not None and not heading
        self.writer.end_line(apart=not is_item or not self._in_list)
        self._in_list = is_item
        self.walk(element)
        self._end_script()
        self.writer.end_line(heading=heading)
        self._tell_comments()
        boxes, self._boxes = self._boxes, []
        for box in boxes:
            self.writer.end_line(apart=True)
            self.walk(box)
            self.writer.end_line(apart=True)

    _in_list = False

    def run(self, element: Any) -> None:
        """Characters of one look."""
        if self._document.is_hidden(element):
            return
        align = value_of(child(element, "rPr", "vertAlign"))
        script = align if align in {"superscript", "subscript"} else ""
        if script != self._script:
            self._end_script()
            self._script = script
        self.walk(element)

    def text(self, element: Any) -> None:
        """Characters."""
        self._write(text_of(element).translate(CLEANED))

    def _write(self, text: str) -> None:
        if not all(self._fields):
            return
        if self._script:
            self._raised.append(text)
        else:
            self.writer.write(text)

    def _end_script(self) -> None:
        script, self._script = self._script, ""
        if self._raised:
            form = raised if script == "superscript" else lowered
            text = "".join(self._raised)
            self._raised.clear()
            self.writer.write(form(text, self.writer.last) + (" " if text[-1:].isspace() else ""))

    def line_break(self, _element: Any) -> None:
        """The end of a line, a column or a page."""
        self._write(BREAK)

    def tab(self, _element: Any) -> None:
        """A tab stop."""
        self._write(" ")

    def hyphen(self, _element: Any) -> None:
        """A hyphen that does not break."""
        self._write("-")

    def symbol(self, element: Any) -> None:
        """A character of a symbol font."""
        self._write(symbol_text(element))

    def ruby(self, element: Any) -> None:
        """Characters with how to read them."""
        for name, form in (("rubyBase", "{}"), ("rt", "({})")):
            part = child(element, name)
            if part is not None:
                before, after = form.split("{}")
                self._write(before)
                self.walk(part)
                self._write(after)

    def field(self, element: Any) -> None:
        """The beginning, middle or end of a field, of which the result is shown."""
        self._write(form_field_text(element))
        follow_field(self._fields, element)

    def note(self, element: Any) -> None:
        """The number of a note."""
        kind = "footnotes" if name_of(element) == "footnoteReference" else "endnotes"
        note = (kind, attribute(element, "id"))
        number = self._document.notes.setdefault(note, len(self._document.notes) + 1)
        self._end_script()
        self._write(f"[{number}]")

    def comment(self, element: Any) -> None:
        """The mark of a comment, which waits for the end of the paragraph."""
        comment = self._document.comments.pop(attribute(element, "id"), None)
        if comment is not None:
            self._waiting.append(comment)

    def _tell_comments(self) -> None:
        waiting, self._waiting = self._waiting, []
        for comment in waiting:
            story = _Story(self._document, self._document.comments_part)
            story.walk(comment)
            text = "\n".join(block.text for block in story.finished())
            if text:
                self.writer.add(comment_mark(attribute(comment, "author")) + text)
            self.comments += [comment, *story.comments]

    def equation(self, element: Any) -> None:
        """An equation."""
        self._end_script()
        self._write(formula(element).translate(CLEANED))

    def equations(self, element: Any) -> None:
        """Equations in lines of their own."""
        for equation in element:
            if name_of(equation) == "oMath":
                self._write(BREAK)
                self.equation(equation)
        self._write(BREAK)

    # -- pictures and boxes

    def drawing(self, element: Any) -> None:
        """A picture's alternative text; boxes wait for the end of the paragraph."""
        boxes = list(boxes_of(element))
        self._boxes += boxes
        lines = graphic_lines(self._document.package, self._part, element)
        if lines:
            self._write(BREAK + BREAK.join(lines) + BREAK)
        if not boxes and not lines:
            described = (attribute(part, "descr") or attribute(part, "alt") for part in element.iter())
            if alternative := next((text for text in described if text.strip()), ""):
                self._write(f" {alternative.strip().translate(CLEANED)} ")
            else:
                self._document.reading.warn("Pictures without an alternative text were left out.")

    def alternatives(self, element: Any) -> None:
        """One thing in several forms: the first that has something to show."""
        form = shown_form(element)
        if form is not None:
            self.walk(form)

    def chunk(self, element: Any) -> None:
        """A file of another format that stands in the document."""
        text = chunk_text(self._document.package, self._part, element, self._document.reading)
        if text:
            self.writer.end_line(apart=True)
            self.writer.add(text)
            self.writer.end_line(apart=True)

    # -- tables

    def table(self, element: Any) -> None:
        """A table, a line for each row."""
        self.writer.end_line(apart=True)
        for line in rows_of(spread(self._rows(element)), self._document.reading.row_characters):
            self.writer.add(line)
            self.writer.end_line(apart=True)

    def _rows(self, table: Any) -> Iterator[Row]:
        rows: list[tuple[list[Cell], bool]] = []
        open_cells: dict[int, tuple[int, int]] = {}  # column -> row and place of the cell that goes on below
        for element in inside(table, "tr"):
            if is_deleted(element):
                continue
            cells: list[Cell] = []
            column = count_of(value_of(child(element, "trPr", "gridBefore")), 0)
            cells += [Cell(())] * column
            for content in inside(element, "tc"):
                span = count_of(value_of(child(content, "tcPr", "gridSpan")))
                merge = child(content, "tcPr", "vMerge")
                above = open_cells.get(column)
                if merge is not None and attribute(merge, "val", "continue") == "continue" and above is not None:
                    row, place = above
                    cell = rows[row][0][place]
                    rows[row][0][place] = cell._replace(rows=len(rows) - row + 1)
                else:
                    open_cells.pop(column, None)
                    if merge is not None:
                        open_cells[column] = (len(rows), len(cells))
                    cells.append(self._cell(content, span))
                column += span
            head = child(element, "trPr", "tblHeader")
            rows.append((cells, head is not None and is_on(head)))
        bold = [is_bold(row) for row in list(inside(table, "tr"))[:2]]
        if rows and not any(is_head for _, is_head in rows) and bold == [True, False]:
            rows[0] = (rows[0][0], True)
        return (Row(tuple(cells), is_head) for cells, is_head in rows)

    def _cell(self, element: Any, columns: int) -> Cell:
        story = _Story(self._document, self._part)
        story.walk(element)
        blocks = story.finished()
        self._boxes += story._boxes
        self.comments += story.comments
        has_rows = next((True for part in element.iter() if name_of(part) == "tbl"), False)
        return Cell(tuple(block.text for block in blocks), columns=columns, has_rows=has_rows)


_ELEMENTS: Final = {
    "p": _Story.paragraph,
    "r": _Story.run,
    "t": _Story.text,
    "br": _Story.line_break,
    "cr": _Story.line_break,
    "tab": _Story.tab,
    "ptab": _Story.tab,
    "noBreakHyphen": _Story.hyphen,
    "sym": _Story.symbol,
    "ruby": _Story.ruby,
    "fldChar": _Story.field,
    "footnoteReference": _Story.note,
    "endnoteReference": _Story.note,
    "commentReference": _Story.comment,
    "oMath": _Story.equation,
    "oMathPara": _Story.equations,
    "drawing": _Story.drawing,
    "pict": _Story.drawing,
    "object": _Story.drawing,
    "AlternateContent": _Story.alternatives,
    "altChunk": _Story.chunk,
    "tbl": _Story.table,
}
"""The elements that are more than what is inside them."""
