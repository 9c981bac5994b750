"""What a reader is told about a file, and what it finds out besides the text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from service.intake.parsing.cleaning import plain
from service.intake.parsing.completeness import missing_words, warning_of

ROW_CHARACTERS: Final = 220
"""How long a row of a table gets before it is split: what a chunk of 64 tokens, the default, holds."""

MOST_WARNINGS: Final = 50
"""Warnings of a document that are kept; what is missing beyond them is of the same kinds."""

LONGEST_NAME: Final = 300
"""Characters that a location holds of a heading, a sheet's name or a page's label."""

MOST_HEADINGS: Final = 10
"""Levels of headings in a location."""

Value = str | int | float | bool | list[str]
"""A value of a file's own metadata."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where text stands in a file, as far as its format knows such a thing."""

    page: int | None = None
    """The number of the page or slide, from 1."""
    label: str | None = None
    """What the file calls that page, where it is not its number."""
    headings: tuple[str, ...] = ()
    """The headings above it, the highest first."""
    sheet: str | None = None
    row: int | None = None
    """The number of the row or record, from 1."""

    def fields(self) -> dict[str, Any]:
        """What is known, each name cut to so many characters: every place repeats those above it."""
        values = {
            "page": self.page,
            "label": self.label and self.label[:LONGEST_NAME],
            "headings": [heading[:LONGEST_NAME] for heading in self.headings[:MOST_HEADINGS]],
            "sheet": self.sheet and self.sheet[:LONGEST_NAME],
            "row": self.row,
        }
        return {name: value for name, value in values.items() if value}


Passages = Iterator[str | Location]
"""Text in pieces. A location says where what follows it stands, until the next."""


@dataclass(slots=True)
class Reading:
    """One file as it is read. A reader fills in what it finds."""

    charset: str | None = None
    """The charset that the sender declared."""
    row_characters: int = ROW_CHARACTERS
    title: str | None = None
    """The title that the file gives itself."""
    metadata: dict[str, Value] = field(default_factory=dict)
    """What else the file says of itself: author, date, language, front matter."""
    warnings: list[str] = field(default_factory=list)
    """What was left out of the text, in words for whoever sent the file."""
    missing: Counter[str] = field(default_factory=Counter)
    """Words that should be in the text and are not."""

    def part(self) -> Reading:
        """The reading of a file inside this one, whose title and metadata are its own."""
        return Reading(row_characters=self.row_characters, warnings=self.warnings, missing=self.missing)

    def name(self, title: str | None) -> None:
        """Take a title, unless there is one."""
        text = " ".join(plain(title or "").split())
        if text and self.title is None:
            self.title = text

    def note(self, field_name: str, value: str | None) -> None:
        """Take a field of metadata, unless it is empty or known."""
        text = " ".join(plain(value or "").split())
        if text:
            self.metadata.setdefault(field_name, text)

    def warn(self, warning: str) -> None:
        """Say what was left out, once."""
        if warning not in self.warnings and len(self.warnings) < MOST_WARNINGS:
            self.warnings.append(warning)

    def compare(self, texts: Callable[[], Iterable[str]], text: Iterable[str]) -> None:
        """Note the words of the file's ``texts`` that are missing from its text."""
        self.missing.update(missing_words(texts, text))

    def conclude(self) -> None:
        """Say which words are missing, once all is read."""
        if self.missing:
            self.warn(warning_of(self.missing))
