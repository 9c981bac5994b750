"""Tables as lines of text, in which a cell stands with its row's key and its column's head.

``Key: beta; Meaning: short; Code: Y-23``: whoever reads one line, or finds it, knows what its values are. A row that is
longer than a chunk becomes several lines between cells, then between sentences, each with the key and the head.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final, NamedTuple

MOST_COLUMNS: Final = 1000
"""Columns that a cell may span, as in browsers."""

MOST_ROWS: Final = 65_534
"""Rows that a cell may span, as in browsers."""

_NUMBER: Final = re.compile(r"[-+(]?[$€£¥]?\s?[0-9][0-9.,:/ ()%-]*(?:[a-z%€]{0,2})")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?;。！？])\s+|\n")


class Cell(NamedTuple):
    """A cell as it stands in its row."""

    blocks: tuple[str, ...]
    """Its text: paragraphs, list items, rows of tables inside it."""
    is_head: bool = False
    columns: int = 1
    rows: int = 1
    has_rows: bool = False
    """Whether its blocks are the rows of a table inside it, which stay apart."""


class Row(NamedTuple):
    """A row of cells; which columns they stand in depends on the rows above."""

    cells: tuple[Cell, ...]
    in_head: bool = False
    """Whether the table says that it is part of its head."""


class _Placed(NamedTuple):
    """A row with a cell for each column that has one; a cell that spans several stands in the first of them."""

    cells: dict[int, Cell]
    spans: dict[int, int]
    """For each column that a cell covers, the column that it begins in."""
    is_head: bool


def spread(rows: Iterable[Row]) -> list[_Placed]:
    """The rows with their cells in columns; one that spans several rows stands in each of them."""
    placed: list[_Placed] = []
    hanging: dict[int, tuple[int, Cell, int]] = {}  # column -> rows left, cell, its first column
    for number, row in enumerate(rows):
        cells: dict[int, Cell] = {}
        spans: dict[int, int] = {}
        for column, (left, cell, first) in list(hanging.items()):
            cells[first], spans[column] = cell, first
            if left > 1:
                hanging[column] = (left - 1, cell, first)
            else:
                del hanging[column]
        column = 0
        for cell in row.cells:
            while column in spans:
                column += 1
            first = column
            cells[first] = cell
            below = min(cell.rows, MOST_ROWS) - 1 if cell.rows > 0 else MOST_ROWS
            for _ in range(max(1, min(cell.columns, MOST_COLUMNS))):
                if column in spans:
                    break
                spans[column] = first
                if below > 0:
                    hanging[column] = (below, cell, first)
                column += 1
        all_heads = len(row.cells) > 1 and all(cell.is_head for cell in row.cells)
        leading = number == len(placed) and all(above.is_head for above in placed)
        placed.append(_Placed(cells, spans, row.in_head or (all_heads and leading)))
    return placed


def rows_of(rows: Sequence[_Placed], characters: int) -> Iterator[str]:
    """The lines of the rows, none much longer than ``characters`` where it can be split.

    Rows of heads at the beginning give the columns their heads, and are lines only where nothing follows them. Heads of
    columns without values are the last line.
    """
    count = 0
    while count < len(rows) and rows[count].is_head:
        count += 1
    heads = _heads(rows[:count])
    if count == len(rows):
        count, heads = 0, {}
    used: set[int] = set()
    for row in rows[count:]:
        used |= {column for column, first in row.spans.items() if _flat(row.cells[first])}
        yield from _lines(row, heads, characters)
    yield from unused_heads(heads, used)


def unused_heads(heads: Mapping[int, str], used: Collection[int]) -> Iterator[str]:
    """The line of the heads that stand above no value; none where there are no such heads."""
    shown = {head for column, head in heads.items() if column in used}
    unused = dict.fromkeys(head for column, head in sorted(heads.items()) if column not in used and head not in shown)
    if unused:
        yield "; ".join(unused)


def record_lines(heads: Sequence[str], values: Sequence[str], characters: int) -> Iterator[str]:
    """The lines of a record, its values below ``heads``; either may be longer than the other."""
    cells = {column: Cell((value,)) for column, value in enumerate(values) if value.strip()}
    row = _Placed(cells, {column: column for column in cells}, False)
    yield from _lines(row, dict(enumerate(heads)), characters)


def are_heads(values: Sequence[str]) -> bool:
    """Whether the first record of a file looks like the names of its columns: words, no two of them alike."""
    texts = [value.strip() for value in values]
    while texts and not texts[-1]:
        texts.pop()
    return (
        bool(texts) and len(set(texts)) == len(texts) and not any(not text or _NUMBER.fullmatch(text) for text in texts)
    )


def _heads(rows: Sequence[_Placed]) -> dict[int, str]:
    """The head of each column; several rows of heads are read from above."""
    heads: dict[int, list[str]] = {}
    for row in rows:
        for column, first in row.spans.items():
            text = _flat(row.cells[first])
            if text and text not in heads.setdefault(column, []):
                heads[column].append(text)
    return {column: " ".join(parts).rstrip(":") for column, parts in heads.items()}


def _lines(row: _Placed, heads: dict[int, str], characters: int) -> Iterator[str]:
    above = _heads_above(row, heads)
    named = [(above.get(column, ""), cell) for column, cell in sorted(row.cells.items()) if _flat(cell)]
    if not named:
        return
    (key_head, key_cell), others = named[0], named[1:]
    key = _flat(key_cell)
    if not heads and key_cell.is_head and others:
        # A label before its value, as in a form.
        key_part, separator = key.rstrip(":"), ": "
    else:
        key_part, separator = _with_head(key_head, key), "; "
    whole = key_part + (separator + "; ".join(_with_head(head, _flat(cell)) for head, cell in others) if others else "")
    if len(whole) <= characters and not any(cell.has_rows for _, cell in others):
        yield whole
        return
    if len(key_part) > characters // 2:
        yield from _pieces(key_part, characters)
        key_part = f"{key[: characters // 4].rpartition(' ')[0] or key[: characters // 4]} …"
    room = max(characters - len(key_part) - len(separator), characters // 4)
    line = ""
    for head, cell in others:
        for piece in _cell_pieces(head, cell, room):
            if line and (cell.has_rows or len(line) + 2 + len(piece) > room):
                yield key_part + separator + line
                line = piece
            else:
                line = f"{line}; {piece}" if line else piece
    if line:
        yield key_part + separator + line


def _heads_above(row: _Placed, heads: Mapping[int, str]) -> dict[int, str]:
    """The heads above each cell, those of all columns that it spans."""
    covered: dict[int, list[str]] = {}
    for column, first in sorted(row.spans.items()):
        if column in heads:
            covered.setdefault(first, []).append(heads[column])
    return {first: " ".join(dict.fromkeys(above)) for first, above in covered.items()}


def _with_head(head: str, text: str) -> str:
    return f"{head}: {text}" if head and text else text or head


def _flat(cell: Cell) -> str:
    """The cell's text in one line."""
    text = ""
    for block in cell.blocks:
        for line in block.split("\n"):
            if line.strip():
                gap = "" if not text else " " if text[-1] in ".!?:;,。！？" else ", "
                text += gap + line.strip()
    return text


def _cell_pieces(head: str, cell: Cell, room: int) -> Iterator[str]:
    """A cell's text with its head, in pieces of at most so many characters where it can be split."""
    inner = max(room - len(head) - 2, room // 2)
    blocks = cell.blocks if cell.has_rows else (_flat(cell),)
    for block in blocks:
        for piece in _pieces(block, inner):
            yield _with_head(head, piece)


def _pieces(text: str, characters: int) -> Iterator[str]:
    """The text cut between sentences, then between words."""
    if len(text) <= characters:
        yield text
        return
    sentences = filter(None, _SENTENCE_END.split(text))
    parts = (
        (sentence,) if len(sentence) <= characters else _packed(sentence.split(), characters) for sentence in sentences
    )
    yield from _packed(chain.from_iterable(parts), characters)


def _packed(parts: Iterable[str], characters: int) -> Iterator[str]:
    """The parts joined by blanks to lines, of at most so many characters where no part is longer."""
    line = ""
    for part in parts:
        if line and len(line) + 1 + len(part) > characters:
            yield line
            line = part
        else:
            line = f"{line} {part}" if line else part
    if line:
        yield line
