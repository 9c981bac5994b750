"""Blocks of text, and the writer that inline text is collected with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final, NamedTuple

from service.intake.parsing.reading import Location, Passages

BREAK: Final = "\x01"
"""A forced line break within inline text. Extracted text has no control characters, so nothing else can be one."""

_BLANKS: Final = re.compile(r"[ \t\n\r\f]+")
_AROUND_BREAK: Final = re.compile(rf" ?{BREAK} ?")


class Block(NamedTuple):
    """One paragraph, heading, list item, row or preformatted passage."""

    text: str
    apart: bool = True
    """Whether a blank line stands before it."""
    heading: int = 0
    """The level of a heading, 1 for the highest; 0 for all other blocks."""


def collapsed(text: str) -> str:
    """Inline text with its blanks run together; only forced breaks end lines."""
    return _AROUND_BREAK.sub("\n", _BLANKS.sub(" ", text)).strip(" \n")


def joined(blocks: Iterable[Block]) -> Iterator[str]:
    """The text of blocks, piece by piece."""
    return (piece for piece in placed(blocks) if isinstance(piece, str))


def placed(blocks: Iterable[Block], base: Location | None = None) -> Passages:
    """The text of blocks, and below which headings it stands; ``base`` is what else is known of the place."""
    base = base or Location()
    above: list[tuple[int, str]] = []
    first = True
    for block in blocks:
        if not first:
            yield "\n\n" if block.apart else "\n"
        if block.heading:
            above = [(level, text) for level, text in above if level < block.heading]
            above.append((block.heading, " ".join(block.text.split())))
            yield replace(base, headings=base.headings + tuple(text for _, text in above))
        yield block.text
        first = False


class Writer:
    """Collects inline text until a block ends."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._inline: list[str] = []
        self._marker = ""
        self._apart = False

    def write(self, text: str) -> None:
        """Add inline text."""
        self._inline.append(text)

    @property
    def last(self) -> str:
        """The last character of the line so far, "" at its beginning."""
        return next((text[-1] for text in reversed(self._inline) if text), "")

    def take(self) -> str:
        """Take back the inline text of the line so far."""
        text = "".join(self._inline)
        self._inline.clear()
        return text

    def end_line(self, *, apart: bool = False, heading: int = 0) -> None:
        """End the block, if there is one; ``apart`` puts a blank line before the next."""
        text = collapsed(self.take())
        if text:
            self.add(text, heading=heading)
        self._apart = self._apart or apart

    def add(self, text: str, *, heading: int = 0) -> None:
        """Add a block whose blanks are kept. What is inline must have been ended."""
        self.blocks.append(Block(self._marker + text, self._apart, heading))
        self._marker, self._apart = "", False

    def mark(self, marker: str) -> None:
        """Begin the next block with this, such as the number of a list item."""
        self._marker = marker

    def end_item(self) -> None:
        """End a list item; one without text is its marker alone."""
        self.end_line()
        if self._marker:
            self.add("")
