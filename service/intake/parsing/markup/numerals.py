"""The numbers of list items, in the numerals of their list."""

from __future__ import annotations

import string
from typing import Final

_ROMAN: Final = (
    *((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc")),
    *((50, "l"), (40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i")),
)
_MOST_ROMAN: Final = 4000


def numeral(number: int, kind: str) -> str:
    """The number in letters (``kind`` a or A), in Roman numerals (i or I), else in digits."""
    if number < 1 or kind not in {"a", "A", "i", "I"} or (kind in {"i", "I"} and number >= _MOST_ROMAN):
        return str(number)
    digits = ""
    if kind in {"a", "A"}:
        while number:
            number, digit = divmod(number - 1, 26)
            digits = string.ascii_lowercase[digit] + digits
    else:
        for value, roman in _ROMAN:
            digits += roman * (number // value)
            number %= value
    return digits.upper() if kind.isupper() else digits
