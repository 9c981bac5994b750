"""CSV and TSV: each record with the names of its columns."""

from __future__ import annotations

import csv
import io
from functools import partial
from pathlib import Path
from typing import Final

from service.intake.encodings import decoded
from service.intake.parsing.cleaning import CLEANED
from service.intake.parsing.markup.tables import are_heads, record_lines, unused_heads
from service.intake.parsing.reading import Location, Passages, Reading

_SNIFFED: Final = 65_536
_LONGEST_FIELD: Final = 256 << 20


def read(source: Path, reading: Reading, delimiter: str | None = None) -> Passages:
    """The records of a file, one a paragraph; without a ``delimiter`` it is found out."""
    text = decoded(source.read_bytes(), reading.charset)
    csv.field_size_limit(_LONGEST_FIELD)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter or _delimiter(text[:_SNIFFED]))
    heads: list[str] | None = None
    used: set[int] = set()
    gap = ""
    for number, record in enumerate(lines, start=1):
        values = [value.translate(CLEANED).strip() for value in record]
        if not any(values):
            continue
        if heads is None:
            heads = values if are_heads(values) else []
            first = number
            if heads:
                continue
        used.update(column for column, value in enumerate(values) if value)
        yield gap
        yield Location(row=number)
        gap = "\n\n"
        yield gap.join(record_lines(heads, values, reading.row_characters))
    for line in unused_heads(dict(enumerate(heads or [])), used):
        yield gap
        yield Location(row=first)
        yield line


read_tabs = partial(read, delimiter="\t")
"""The records of a file whose values are separated by tabs."""


def _delimiter(sample: str) -> str:
    """The likeliest delimiter: the one that stands in most lines, as often in each as in the first."""
    lines = [line for line in sample.splitlines() if line.strip()][:50]

    def regularity(delimiter: str) -> tuple[int, int]:
        counts = [len(next(csv.reader([line], delimiter=delimiter), [])) for line in lines]
        return (sum(count == counts[0] > 1 for count in counts) if counts else 0, -_DELIMITERS.index(delimiter))

    return max(_DELIMITERS, key=regularity)


_DELIMITERS: Final = ",;\t|"
