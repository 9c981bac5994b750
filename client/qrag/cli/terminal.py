"""Output for a shell: emphasis on terminals alone, tables, and no control characters from documents."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import TextIO

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNITS = ("B", "kB", "MB", "GB", "TB")


def write_any_text(stream: TextIO) -> None:
    """Let a stream take every character, whatever the locale: files and pipes get UTF-8, a terminal question marks."""
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")


def shown(text: str) -> str:
    """The text with replacement characters for control characters and for half of a surrogate pair."""
    clean = text.replace("\r\n", "\n").encode("utf-8", "replace").decode()
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", clean)


def bold(text: str) -> str:
    """The text in bold, on a terminal."""
    return _styled(text, "1")


def dim(text: str) -> str:
    """The text dimmed, on a terminal."""
    return _styled(text, "2")


def _styled(text: str, code: str) -> str:
    plain = os.environ.get("NO_COLOR") or not sys.stdout.isatty()
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"


def table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table with aligned columns: numbers to the right, a dash for None, and no line ends within a cell."""
    cells = [["-" if value is None else shown(str(value)).replace("\n", " ") for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    numeric = [all(isinstance(row[index], int | None) for row in rows) for index in range(len(names))]

    def line(values: Sequence[str]) -> str:
        padded = (
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(values, widths, numeric, strict=True)
        )
        return "  ".join(padded).rstrip()

    return "\n".join([bold(line(names)), *map(line, cells)])


def size(count: float) -> str:
    """A number of bytes in the largest unit that keeps it at least 1."""
    unit = 0
    while count >= 1000 and unit < len(_UNITS) - 1:
        count, unit = count / 1000, unit + 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"


def complain(message: str) -> None:
    """Print a message on standard error."""
    print(f"qrag: {shown(message)}", file=sys.stderr)
