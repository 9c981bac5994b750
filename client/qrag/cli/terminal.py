"""What a shell is shown: emphasis on terminals alone, tables, and nothing that a document could do to a terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNITS = ("B", "kB", "MB", "GB", "TB")


def shown(text: str) -> str:
    """The text without what would move the cursor, colour or rename the terminal, or cannot be encoded."""
    clean = text.replace("\r\n", "\n").encode("utf-8", "replace").decode()
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", clean)


def bold(text: str) -> str:
    """Emphasised."""
    return _styled(text, "1")


def dim(text: str) -> str:
    """Less important."""
    return _styled(text, "2")


def _styled(text: str, code: str) -> str:
    plain = os.environ.get("NO_COLOR") or not sys.stdout.isatty()
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"


def table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns of equal width; numbers to the right, and a dash for what is not known."""
    cells = [["-" if value is None else shown(str(value)) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    numeric = [all(isinstance(row[place], int | None) for row in rows) for place in range(len(names))]

    def line(values: Sequence[str]) -> str:
        padded = (
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(values, widths, numeric, strict=True)
        )
        return "  ".join(padded).rstrip()

    return "\n".join([bold(line(names)), *map(line, cells)])


def size(count: float) -> str:
    """A number of bytes in the largest unit of which it is at least one."""
    unit = 0
    while count >= 1000 and unit < len(_UNITS) - 1:
        count, unit = count / 1000, unit + 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"


def complain(message: str) -> None:
    """Say on standard error what went wrong."""
    print(f"qrag: {shown(message)}", file=sys.stderr)
