"""The reading order of a page: columns one after the other, rows of tables kept together.

PDFium gives the text of a page in the order of its lines, across columns. Its pieces have places, though: a region of
a page whose pieces leave a gutter free from top to bottom, with prose on both sides, is two columns; lines of pieces
that are set below each other are a table.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final, NamedTuple

from service.intake.parsing.markup.blocks import Block
from service.intake.parsing.markup.mathematics import raised
from service.intake.parsing.markup.tables import Cell, Row, are_heads, rows_of, spread

_WORD_GAP: Final = 0.15
"""The gap from which on there is a space, as a share of the height of the letters."""

_CELL_GAP: Final = 1.5
"""The gap from which on cells or columns part, as a multiple of the height of the letters."""

_COLUMN_LINES: Final = 3
"""Lines from which two runs of prose beside each other are columns."""

_COLUMN_WORDS: Final = 3.0
"""Words of a line on average, from which a column is prose."""

_ALIGNED: Final = 4.0
"""Points by which what is set below each other may be apart."""

_TABLE_ROWS: Final = 2
"""Rows from which lines of several pieces are a table."""


class Piece(NamedTuple):
    """Text that stands together on a page; the vertical axis points upwards, as in PDF."""

    text: str
    left: float
    bottom: float
    right: float
    top: float
    goes_on: bool = False
    """Whether it is part of a word that the piece before it in the file begins."""

    @property
    def height(self) -> float:
        """The height of its letters."""
        return max(self.top - self.bottom, 0.1)


Line = list[Piece]
"""Pieces beside each other, from left to right."""


def turned(piece: Piece, quarters: int) -> Piece:
    """The piece on a page that was turned clockwise so many times, so that its letters stand upright."""
    for _ in range(quarters % 4):
        piece = Piece(piece.text, piece.bottom, -piece.right, piece.top, -piece.left, piece.goes_on)
    return piece


def blocks_of(pieces: Sequence[Piece], row_characters: int) -> Iterator[Block]:
    """The blocks of a page in reading order."""
    for column in _columns(pieces):
        yield from _column_blocks(column, row_characters)


def _lines(pieces: Sequence[Piece]) -> list[Line]:
    """The lines of a region from top to bottom."""
    lines: list[Line] = []
    spans: list[tuple[float, float]] = []
    for piece in sorted(pieces, key=lambda piece: (-piece.top - piece.bottom, piece.left)):
        middle = (piece.top + piece.bottom) / 2
        for number in range(len(lines) - 1, max(len(lines) - 4, -1), -1):
            bottom, top = spans[number]
            if bottom < middle < top or piece.bottom < (bottom + top) / 2 < piece.top:
                lines[number].append(piece)
                if piece.height >= top - bottom:
                    spans[number] = (piece.bottom, piece.top)
                break
        else:
            lines.append([piece])
            spans.append((piece.bottom, piece.top))
    order = sorted(range(len(lines)), key=lambda number: -sum(spans[number]))
    return [sorted(lines[number], key=lambda piece: piece.left) for number in order]


def _runs(line: Line) -> list[Line]:
    """A line split where a gap is wide."""
    runs: list[Line] = []
    for piece in line:
        if runs and piece.left - max(before.right for before in runs[-1]) <= _CELL_GAP * _letters(runs[-1], piece):
            runs[-1].append(piece)
        else:
            runs.append([piece])
    return runs


def _letters(run: Line, piece: Piece) -> float:
    return max(max(before.height for before in run), piece.height)


# -- columns ----------------------------------------------------------------------------------------------------------


def _columns(pieces: Sequence[Piece]) -> list[list[Line]]:
    """The columns of a region, in reading order; what goes across stands before and after those beneath."""
    gutter = _gutter(pieces)
    if gutter is None:
        lines = _lines(pieces)
        return [lines] if lines else []
    x, bottom, top = gutter
    above = [piece for piece in pieces if piece.bottom >= top]
    below = [piece for piece in pieces if piece.top <= bottom]
    inside = [piece for piece in pieces if piece.bottom < top and piece.top > bottom]
    sides = [piece for piece in inside if piece.right <= x], [piece for piece in inside if piece.left >= x]
    return [column for part in (above, *sides, below) for column in _columns(part)]


def _gutter(pieces: Sequence[Piece]) -> tuple[float, float, float] | None:
    """Where prose stands on both sides of a free stretch: its place, its lower and its upper end."""
    starts = sorted(piece.left for piece in pieces)
    best: tuple[int, tuple[float, float, float]] | None = None
    for number, start in enumerate(starts[: 1 - _COLUMN_LINES]):
        # The left side of a column: several lines begin there, and the one before them further left.
        if starts[number + _COLUMN_LINES - 1] - start > _ALIGNED or (number and start - starts[number - 1] < _ALIGNED):
            continue
        x = start - _ALIGNED / 2
        ends = [(piece.bottom, piece.top) for piece in pieces if piece.left < x < piece.right]
        edges = sorted([(-math.inf, -math.inf), *ends, (math.inf, math.inf)])
        for (_, low), (high, _) in itertools.pairwise(edges):
            lines = _prose_lines([piece for piece in pieces if piece.bottom >= low and piece.top <= high], x)
            if lines and (best is None or lines > best[0]):
                best = lines, (x, low, high)
    return None if best is None else best[1]


def _prose_lines(pieces: Sequence[Piece], x: float) -> int:
    """The lines on the shorter side of a gutter; 0 where there is no prose on both."""
    left = [piece for piece in pieces if piece.right <= x]
    right = [piece for piece in pieces if piece.left >= x]
    if not left or not right:
        return 0
    counts = []
    for side in (left, right):
        lines = _lines(side)
        words = sum(len(_joined(line).split()) for line in lines)
        if len(lines) < _COLUMN_LINES or words < _COLUMN_WORDS * len(lines):
            return 0
        counts.append(len(lines))
    return min(counts)


# -- lines and rows ---------------------------------------------------------------------------------------------------


def _column_blocks(lines: list[Line], row_characters: int) -> Iterator[Block]:
    """Blocks of lines below each other: tables as rows, all else as it stands, a wider gap as a blank line."""
    pitches = [
        above[0].bottom - below[0].bottom
        for above, below in itertools.pairwise(lines)
        if above[0].bottom > below[0].bottom
    ]
    usual = median(pitches) if pitches else 0.0
    number = 0
    before: Piece | None = None
    while number < len(lines):
        table = _table(lines, number)
        if table > number + 1:
            rows = [[_joined(run) for run in _runs(line)] for line in lines[number:table]]
            yield from (Block(line) for line in _rows(lines[number:table], rows, row_characters))
            before = None
            number = table
            continue
        line = lines[number]
        gap = 0.0 if before is None else before.bottom - line[0].bottom
        yield Block(_joined(line, "  "), apart=before is None or gap > 1.5 * usual)
        before = line[0]
        number += 1


def _table(lines: list[Line], first: int) -> int:
    """Where a table that begins at this line ends; ``first`` where none does."""
    columns = _starts(lines[first])
    last = first
    while last < len(lines) and len(runs := _runs(lines[last])) > 1:
        if not any(_near(run, columns) for run in runs[1:]) and not _near(runs[0], columns):
            break
        columns += _starts(lines[last])
        last += 1
    return last if last - first >= _TABLE_ROWS else first


def _starts(line: Line) -> list[tuple[float, float]]:
    return [(run[0].left, max(piece.right for piece in run)) for run in _runs(line)]


def _near(run: Line, columns: Sequence[tuple[float, float]]) -> bool:
    """Whether a run is set below one of those above it: its left side, its right side or its middle."""
    left, right = run[0].left, max(piece.right for piece in run)
    slack = run[0].height
    return any(
        abs(left - start) < slack or abs(right - end) < slack or abs(left + right - start - end) < 2 * slack
        for start, end in columns
    )


def _rows(lines: list[Line], texts: list[list[str]], row_characters: int) -> Iterator[str]:
    """The rows of a table; the first gives the heads where it has words in as many columns as the others have."""
    has_heads = (
        len(lines) > _TABLE_ROWS
        and are_heads(texts[0])
        and all(len(row) == len(texts[0]) for row in texts)
        and not all(are_heads(row) for row in texts[1:])
    )
    rows = [
        Row(tuple(Cell((text,)) for text in row), in_head=has_heads and number == 0) for number, row in enumerate(texts)
    ]
    return rows_of(spread(rows), row_characters)


_SPACED: Final = re.compile(r"\s$")


def _joined(line: Line, between: str = " ") -> str:
    """The text of a line: raised numbers with a caret, gaps as blanks."""
    text = ""
    before: Piece | None = None
    for piece in line:
        words = piece.text.strip("\r\n")
        if before is None:
            text = words
        else:
            gap = piece.left - before.right
            letters = max(piece.height, before.height)
            small = piece.height < 0.8 * before.height and piece.bottom > before.bottom + 0.25 * before.height
            if small and gap < letters and not _SPACED.search(text):
                tail = words[len(words.rstrip()) :]
                text += raised(words, text[-1:]) + tail
            elif _SPACED.search(text) or words[:1].isspace() or piece.goes_on or -letters < gap <= _WORD_GAP * letters:
                text += words
            else:
                text += (between if gap > _CELL_GAP * letters else " ") + words
        is_small = before is not None and piece.height < 0.8 * before.height
        before = before._replace(right=piece.right) if before is not None and is_small else piece
    return text.strip()
